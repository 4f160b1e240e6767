"""matplotlib: parameters, the backend, figures that pyplot knows, and what is registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

mpl = pytest.importorskip("matplotlib")
mpl.use("agg")
plt: Any = pytest.importorskip("matplotlib.pyplot")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import decimal
import io

import matplotlib as mpl
mpl.use("{backend}")
import matplotlib.pyplot as plt
import matplotlib.colors
import matplotlib.scale
import matplotlib.style
import matplotlib.units

plt.rcParams["lines.linewidth"] = {width}
mpl.rc("font", size={width})
mpl.colormaps.register(mpl.colors.ListedColormap(["{colour}"], name="own"))
mpl.colors.get_named_colors_mapping()["mine"] = "{colour}"
mpl.style.library["own"] = {{"lines.linewidth": {width} + 1}}

class Scale(mpl.scale.LinearScale):
    name = "own"
    def __init__(self):
        pass

class Converter(mpl.units.ConversionInterface):
    pass

mpl.scale.register_scale(Scale)
mpl.units.registry[decimal.Decimal] = Converter()
plt.figure("{colour}")

def widths():
    line, = plt.plot([1, 2])
    return line.get_linewidth(), mpl.rcParams["font.size"], len(plt.gca().lines)

def figures():
    return plt.get_figlabels(), plt.gcf().get_label()

def colours():
    return mpl.colors.to_hex("mine"), mpl.colors.to_hex(mpl.colormaps["own"](0))

def inside():
    with plt.style.context("own"):
        within = plt.rcParams["lines.linewidth"]
    with mpl.rc_context({{"lines.linewidth": 9}}):
        return within, plt.rcParams["lines.linewidth"]

def backend():
    return mpl.get_backend(), type(plt.gcf().canvas).__name__

def registered():
    return "own" in mpl.scale.get_scale_names(), type(mpl.units.registry[decimal.Decimal]) is Converter

def drawn():
    stream = io.BytesIO()
    plt.savefig(stream, format="png")
    return len(stream.getvalue()) > 500

def defaults():
    mpl.rcParams.update({{key: value for key, value in mpl.rcParamsDefault.items() if key.startswith("lines")}})
    return plt.rcParams["lines.linewidth"]
"""


def test_parameters_figures_and_registries_are_each_module_s_own(fleet: Fleet) -> None:
    plt.close("all")
    before = dict(mpl.rcParams)
    one = fleet.start("one", MODULE.format(width=3.5, colour="#112233", backend="agg"))
    two = fleet.start("two", MODULE.format(width=5.5, colour="#445566", backend="svg"))
    assert [one.call("widths"), two.call("widths")] == [(3.5, 3.5, 1), (5.5, 5.5, 1)]
    assert [one.call("figures"), two.call("figures")] == [(["#112233"], "#112233"), (["#445566"], "#445566")]
    assert [one.call("colours"), two.call("colours")] == [("#112233",) * 2, ("#445566",) * 2]
    assert [one.call("inside"), two.call("inside")] == [(4.5, 9.0), (6.5, 9.0)]
    assert [one.call("backend"), two.call("backend")] == [("agg", "FigureCanvasAgg"), ("svg", "FigureCanvasSVG")]
    assert [one.call("registered"), two.call("registered"), one.call("drawn")] == [(True, True), (True, True), True]
    assert [dict(mpl.rcParams) == before, plt.get_fignums(), mpl.get_backend()] == [True, [], "agg"]
    assert not {"own"} & {*mpl.colormaps, *mpl.style.library, *mpl.scale.get_scale_names()}
    with pytest.raises(ValueError, match="mine"):
        mpl.colors.to_hex("mine")

    again = fleet.start("one", MODULE.format(width=1.5, colour="#778899", backend="agg"))
    assert [again.call("widths")[0], again.call("figures")[0], two.call("widths")[:2]] == [1.5, ["#778899"], (5.5, 5.5)]
    assert [again.call("defaults"), two.call("widths")[0]] == [1.5, 5.5]
    fleet.stop_all()
    assert [dict(mpl.rcParams) == before, type(mpl.rcParams), plt.get_fignums()] == [True, mpl.RcParams, []]


def test_parameters_of_the_base_are_what_modules_start_with(fleet: Fleet) -> None:
    plain = "import matplotlib as mpl\ndef width(): return mpl.rcParams['lines.linewidth']\n"
    with mpl.rc_context({"lines.linewidth": 7}):
        one = fleet.start("one", plain)
        assert one.call("width") == 7
    fleet.stop_all()
    assert mpl.rcParams["lines.linewidth"] == 1.5
