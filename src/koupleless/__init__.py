"""Names for the code of a biz: identity, configuration, data directory, callbacks, and errors.

All of them work in a module that runs alone, too.

PYTEST_DONT_REWRITE: the plugin for pytest is a part of this package, and tests inside a base find the package imported.
"""

# Only names of koupleless.errors and koupleless.biz may be imported here: importing any part of the package runs this
# file, so a heavier import would cost the command line and every base. For the same reason the names in _LATER are
# found at their first use.

from typing import TYPE_CHECKING

from koupleless.biz import BizId, BizState
from koupleless.errors import BizGone, KouplelessError, ModuleRefused, ServiceError

if TYPE_CHECKING:
    from koupleless.context import carry, current_biz, on_stop
    from koupleless.descriptions import BizInfo
    from koupleless.health.checks import health_check
    from koupleless.view.config import current_config as config
    from koupleless.view.data import current_data_dir as data_dir

__all__ = [
    "BizGone",
    "BizId",
    "BizInfo",
    "BizState",
    "KouplelessError",
    "ModuleRefused",
    "ServiceError",
    "carry",
    "config",
    "current_biz",
    "data_dir",
    "health_check",
    "on_stop",
]


_LATER = {
    "BizInfo": ("koupleless.descriptions", "BizInfo"),
    "carry": ("koupleless.context", "carry"),
    "config": ("koupleless.view.config", "current_config"),
    "current_biz": ("koupleless.context", "current_biz"),
    "data_dir": ("koupleless.view.data", "current_data_dir"),
    "health_check": ("koupleless.health.checks", "health_check"),
    "on_stop": ("koupleless.context", "on_stop"),
}
"""Public name -> Python module and name there."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - for these names alone

    module, inner = _LATER[name]
    return getattr(import_module(module), inner)
