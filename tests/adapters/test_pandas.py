"""pandas: options, accessors, data types, backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pd = pytest.importorskip("pandas")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import pandas as pd

pd.set_option("display.precision", {precision})
pd.options.display.max_rows = {precision}
pd.set_option("display.float_format", lambda value: "{name}") if {precision} == 1 else None

@pd.api.extensions.register_dataframe_accessor("shop")
class Shop:
    def __init__(self, frame):
        self.frame = frame
    def who(self):
        return "{name} %d" % len(self.frame)

@pd.api.extensions.register_extension_dtype
class Kind(pd.api.extensions.ExtensionDtype):
    name = "kind"
    type = str
    @classmethod
    def construct_array_type(cls):
        return pd.arrays.StringArray

def shown():
    return repr(pd.DataFrame({{"a": [1.23456789]}})).split()[-1]

def options():
    return pd.get_option("display.precision"), pd.options.display.max_rows, pd.options.display.max_columns

def inside():
    with pd.option_context("display.precision", 7):
        return pd.get_option("display.precision")

def reset():
    pd.reset_option("display.precision")
    return pd.get_option("display.precision")

def who():
    return pd.DataFrame({{"a": [1, 2]}}).shop.who()

def column():
    return list(pd.DataFrame({{"shop": [1]}})["shop"])

def kind():
    return pd.api.types.pandas_dtype("kind").__class__ is Kind
"""


def test_options_and_accessors_are_each_module_s_own(fleet: Fleet) -> None:
    before = pd.get_option("display.precision"), pd.options.display.max_rows
    one = fleet.start("one", MODULE.format(name="one", precision=1))
    two = fleet.start("two", MODULE.format(name="two", precision=3))
    assert [one.call("shown"), two.call("shown")] == ["one", "1.235"]
    assert [one.call("options")[:2], two.call("options")[:2]] == [(1, 1), (3, 3)]
    assert (pd.get_option("display.precision"), pd.options.display.max_rows) == before
    assert repr(pd.DataFrame({"a": [1.23456789]})).split()[-1] == "1.234568"
    assert [one.call("inside"), one.call("options")[0], two.call("reset")] == [7, 1, before[0]]
    assert [one.call("who"), two.call("who"), one.call("column")] == ["one 2", "two 2", [1]]
    assert [one.call("kind"), two.call("kind")] == [True, True]
    assert not hasattr(pd.DataFrame({"a": [1]}), "shop")
    assert list(pd.DataFrame({"shop": [5]}).shop) == [5]
    with pytest.raises(TypeError):
        pd.api.types.pandas_dtype("kind")

    again = fleet.start("one", MODULE.format(name="newer", precision=4))
    assert [again.call("shown"), again.call("who"), two.call("who")] == ["1.2346", "newer 2", "two 2"]
    fleet.stop_all()
    assert (pd.get_option("display.precision"), pd.options.display.max_rows) == before
    assert "shop" not in vars(pd.DataFrame)
    assert type(pd._config.config._global_config["display"]) is dict
    assert pd.options.d is pd._config.config._global_config


def test_options_and_accessors_of_the_base_are_what_modules_start_with(fleet: Fleet) -> None:
    with pd.option_context("display.max_columns", 77, "display.precision", 2):
        plain = fleet.start("plain", "import pandas as pd\ndef shown(): return pd.get_option('display.precision')\n")
        one = fleet.start("one", MODULE.format(name="one", precision=1))
        assert [plain.call("shown"), one.call("options")] == [2, (1, 1, 77)]
        pd.set_option("display.max_columns", 78)
        assert one.call("options") == (1, 1, 78)

        @pd.api.extensions.register_dataframe_accessor("based")
        class Based:
            def __init__(self, frame: object) -> None: ...

        assert type(pd.DataFrame().based) is Based
    fleet.stop_all()
    assert type(pd.DataFrame().based) is Based
    del pd.DataFrame.based
    pd.DataFrame._accessors.discard("based")
