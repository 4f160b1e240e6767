"""Names for the code of a biz: its identity, configuration and data directory, callbacks, and the errors it may meet.

All of them work in a module that runs alone, too.
"""

# Only names of koupleless.errors, koupleless.biz and koupleless.context may be taken in here: importing any part of the
# package runs this file, so a heavier import would cost the command line and every base. `config` and `data_dir` are
# found at their first use for that reason.

from typing import TYPE_CHECKING

from koupleless.biz import BizId, BizInfo, BizState
from koupleless.context import carry, current_biz, on_stop
from koupleless.errors import BizGone, KouplelessError, ModuleRefused, ServiceError

if TYPE_CHECKING:
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
    "on_stop",
]


def __getattr__(name: str) -> object:
    if name == "config":
        from koupleless.view.config import current_config  # noqa: PLC0415 - see above

        return current_config
    if name == "data_dir":
        from koupleless.view.data import current_data_dir  # noqa: PLC0415 - see above

        return current_data_dir
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
