"""matplotlib: each biz has parameters and a backend of its own, and its own figures in ``pyplot``.

A biz starts with the ``rcParams`` of the base at the first use, and registers colours and their maps, units, fonts,
styles, scales, projections and writers for itself. ``rcParamsDefault`` and ``rcParamsOrig``, which are not meant to be
changed, are shared by all.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.own import OwnAttribute, own_cache, own_dict, own_object
from koupleless.adapters.variables import own_variables

if TYPE_CHECKING:
    import contextlib

distribution: Final = "matplotlib"


def _follow_parameters(undo: contextlib.ExitStack, module: Any) -> None:
    """``matplotlib``."""
    kind: Any = module.RcParams
    of_base = module.rcParams

    def __getitem__(self: Any, key: str) -> Any:  # noqa: N807 - a method
        if key == "backend" and self._get_backend_or_none() is None:
            pyplot = importlib.import_module("matplotlib.pyplot")
            pyplot.switch_backend(self._get(key))  # as the original does for the backend that it knows by name
        return kind.__getitem__(self, key)

    def make() -> Any:
        made = type(kind.__name__, (kind,), {"__getitem__": __getitem__, "__module__": kind.__module__})()
        dict.update(made, dict(dict.items(of_base)))
        return made

    own_object(undo, of_base, make)


def _follow_pyplot(undo: contextlib.ExitStack, module: Any) -> None:
    """``matplotlib.pyplot``."""
    own_variables(undo, module, "_backend_mod")


def _follow_figures(undo: contextlib.ExitStack, module: Any) -> None:
    """``matplotlib._pylab_helpers``."""
    OwnAttribute(module.Gcf, "figs", OrderedDict).put_in(undo)


def _follow_colours(undo: contextlib.ExitStack, module: Any) -> None:
    """``matplotlib.colors``."""
    own_dict(undo, module._colors_full_map)  # noqa: SLF001
    own_containers(undo, module._color_sequences, "_color_sequences")  # noqa: SLF001


def _follow_colour_maps(undo: contextlib.ExitStack, module: Any) -> None:
    """``matplotlib.cm``: a biz starts with the maps that come with the library, if the library tells these maps."""
    registry = module._colormaps  # noqa: SLF001
    builtin = getattr(registry, "_builtin_cmaps", None)
    own_containers(undo, registry, "_cmaps", hides=lambda name, _: builtin is not None and name not in builtin)


def _follow_fonts(undo: contextlib.ExitStack, module: Any) -> None:
    """``matplotlib.font_manager``."""
    own_containers(undo, module.fontManager, "ttflist", "afmlist")
    own_cache(undo, module.FontManager, "_findfont_cached")


follow: Final = {
    "matplotlib": _follow_parameters,
    "matplotlib.pyplot": _follow_pyplot,
    "matplotlib._pylab_helpers": _follow_figures,
    "matplotlib.colors": _follow_colours,
    "matplotlib.font_manager": _follow_fonts,
    "matplotlib.cm": _follow_colour_maps,
    "matplotlib.units": lambda undo, module: own_dict(undo, module.registry),
    "matplotlib.dates": lambda undo, module: own_variables(undo, module, "_epoch"),
    "matplotlib.style": lambda undo, module: own_containers(undo, module, "library", "available"),
    "matplotlib.style.core": lambda undo, module: own_containers(undo, module, "library", "available"),
    "matplotlib.scale": lambda undo, module: own_containers(undo, module, "_scale_mapping"),
    "matplotlib.hatch": lambda undo, module: own_containers(undo, module, "_hatch_types"),
    "matplotlib.projections": (
        lambda undo, module: own_containers(undo, module.projection_registry, "_all_projection_types")
    ),
    "matplotlib.animation": lambda undo, module: own_containers(undo, module.writers, "_registered"),
}
