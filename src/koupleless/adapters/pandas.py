"""pandas: each biz has options of its own, and registers accessors, data types, backends and writers for itself.

A biz starts with the options of the base. Accessors of a biz are attributes of the classes for the biz alone.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.own import OwnAttribute, replace_function
from koupleless.adapters.variables import own_variables
from koupleless.context import current
from koupleless.frames import standing_for

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable
    from types import ModuleType

distribution: Final = "pandas"


def _follow(undo: contextlib.ExitStack, _module: ModuleType) -> None:
    """``pandas``, with all options registered once the import is complete."""
    config = importlib.import_module("pandas._config.config")
    own_containers(undo, config, "_global_config", "_registered_options")
    options = vars(config.options)
    before, options["d"] = options["d"], vars(config)["_global_config"]
    undo.callback(options.__setitem__, "d", before)
    own_variables(undo, importlib.import_module("pandas.core.nanops"), "_USE_BOTTLENECK")
    expressions = importlib.import_module("pandas.core.computation.expressions")
    own_variables(undo, expressions, "USE_NUMEXPR", "_evaluate", "_where")
    own_variables(undo, importlib.import_module("pandas.core.util.numba_"), "GLOBAL_USE_NUMBA")
    own_containers(undo, importlib.import_module("pandas.core.dtypes.base")._registry, "dtypes")  # noqa: SLF001
    accessor = importlib.import_module("pandas.core.accessor")
    replace_function(undo, accessor, "_register_accessor", _registering(undo, accessor))


def _registering(undo: contextlib.ExitStack, module: Any) -> Callable[..., Any]:
    original = module._register_accessor  # noqa: SLF001
    make = vars(module).get("Accessor") or module.CachedAccessor

    @standing_for(original)
    def _register_accessor(name: str, cls: Any) -> Callable[[Any], Any]:
        def decorator(accessor: Any) -> Any:
            there = vars(cls).get(name)
            if current() is None:
                original(name, cls)(accessor)
                if type(there) is OwnAttribute:
                    there.of_base = vars(cls)[name]
                    setattr(cls, name, there)
                return accessor
            if hasattr(cls, name):
                warnings.warn(
                    f"registration of accessor {accessor!r} under name {name!r} for type {cls!r} is overriding a "
                    "preexisting attribute with the same name.",
                    UserWarning,
                    stacklevel=2,
                )
            if type(there) is not OwnAttribute:
                there = OwnAttribute(cls, name)
                there.put_in(undo)
            there.put(make(name, accessor))
            return accessor

        return decorator

    return _register_accessor


def _follow_containers(*names: str) -> Callable[[contextlib.ExitStack, Any], None]:
    return lambda undo, module: own_containers(undo, module, *names)


follow: Final = {
    "pandas": _follow,
    "pandas.plotting._core": _follow_containers("_backends"),
    "pandas.io.excel._util": _follow_containers("_writers"),
    "pandas.tseries.holiday": _follow_containers("holiday_calendars"),
}
