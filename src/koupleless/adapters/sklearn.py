"""scikit-learn: each biz has a configuration of its own, for all its threads.

The library keeps one configuration by thread, so settings of an import would be absent in requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import replace_function
from koupleless.ownership.kinds import Own

if TYPE_CHECKING:
    import contextlib

distribution: Final = "scikit-learn"


def _follow(undo: contextlib.ExitStack, module: Any) -> None:
    """``sklearn._config``."""
    original, of_process = module._get_threadlocal_config, module._global_config  # noqa: SLF001
    own: Own[dict[str, Any]] = Own(lambda: dict(of_process))

    def _get_threadlocal_config() -> Any:
        mine = own.get()
        return original() if mine is None else mine

    _get_threadlocal_config.__doc__ = original.__doc__
    replace_function(undo, module, "_get_threadlocal_config", _get_threadlocal_config)


follow: Final = {"sklearn._config": _follow}
