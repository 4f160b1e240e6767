"""polars: each biz prints tables and series with its own settings.

Compiled code reads the settings from variables of the environment of the process, and from variables of its own. Both
are set to the values of the running biz as long as the print lasts. Options for the running of queries
(``POLARS_VERBOSE``, the size of chunks) are read by compiled code at any time, and stay the process's; so does the
string cache.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.c_environment import shown_as_it_is, shown_to_c
from koupleless.adapters.containers import own_containers
from koupleless.adapters.variables import own_variables
from koupleless.context import current
from koupleless.ownership.kinds import Own
from koupleless.replacing import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

distribution: Final = "polars"

_OF_PRINTING: Final = ("POLARS_FMT_", "POLARS_TABLE_WIDTH")
_SET_IN_C: Final = ("float_fmt", "float_precision", "thousands_separator", "decimal_separator", "trim_decimal_zeros")


class _Printing:
    """How each biz prints."""

    def __init__(self, config: Any) -> None:
        self.names = [name for name in config._POLARS_CFG_ENV_VARS if name.startswith(_OF_PRINTING)]  # noqa: SLF001
        self.own: Own[dict[str, Any]] = Own(dict)
        """The settings of a biz that compiled code keeps."""
        self.of_process: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {}

    @contextlib.contextmanager
    def of_whoever_runs(self) -> Iterator[None]:
        if current() is None:
            with shown_as_it_is():
                yield
            return
        with shown_to_c({name: os.environ.get(name) for name in self.names}), contextlib.ExitStack() as undo:
            for name, value in (self.own.peek() or {}).items():
                get, put = self.of_process[name]
                undo.callback(put, get())
                put(value)
            yield


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``polars``."""
    config, compiled = module.config, module.config.plr
    printing = _Printing(config)
    getters: dict[Any, Any] = {}
    for name in _SET_IN_C:
        if hasattr(compiled, f"set_{name}"):  # some came with later versions
            get, put = getattr(compiled, f"get_{name}"), getattr(compiled, f"set_{name}")
            printing.of_process[name] = get, put
            getters[get] = _getter(printing, name)
            replace(undo, compiled, f"get_{name}", getters[get])
            replace(undo, compiled, f"set_{name}", _setter(printing, name))
    by_method = config._POLARS_CFG_DIRECT_VARS  # noqa: SLF001
    for method, get in list(by_method.items()):
        if get in getters:
            replace(undo, by_method, method, getters[get])
    for kind in (module.DataFrame, module.Series):
        for name in ("__str__", "_repr_html_"):
            replace(undo, kind, name, _printed(printing, vars(kind)[name]))
    for kind in (module.DataFrame, module.LazyFrame, module.Series, module.Expr):
        own_containers(undo, kind, "_accessors")


def _getter(printing: _Printing, name: str) -> Any:
    get, _ = printing.of_process[name]

    @functools.wraps(get)
    def get_own() -> Any:
        own = printing.own.peek()
        return own[name] if own is not None and name in own else get()

    return get_own


def _setter(printing: _Printing, name: str) -> Any:
    get, put = printing.of_process[name]

    @functools.wraps(put)
    def put_own(*args: Any, **kwargs: Any) -> None:
        own = printing.own.get()
        with shown_as_it_is():
            if own is None:
                put(*args, **kwargs)
                return
            before = get()
            put(*args, **kwargs)  # which refuses an impossible value
            own[name] = get()
            put(before)

    return put_own


def _printed(printing: _Printing, original: Any) -> Any:
    @functools.wraps(original)
    def printed(self: Any, *args: Any, **kwargs: Any) -> Any:
        with printing.of_whoever_runs():
            return original(self, *args, **kwargs)

    return printed


follow: Final = {
    "polars": _follow,
    "polars.io.cloud.credential_provider._builder": lambda undo, module: own_variables(
        undo, module, "DEFAULT_CREDENTIAL_PROVIDER"
    ),
}
