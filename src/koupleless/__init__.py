"""What the code of a biz may import to ask who it is; it works the same when the module runs alone.

Only names of `koupleless.errors`, `koupleless.biz` and `koupleless.context` may be taken in here: importing any part of
the package runs this file, so a heavier import would cost the command line and every base.
"""

from koupleless.biz import BizId, BizInfo, BizState
from koupleless.context import carry, current_biz, on_stop
from koupleless.errors import BizGone, KouplelessError, ModuleRefused, ServiceError

__all__ = [
    "BizGone",
    "BizId",
    "BizInfo",
    "BizState",
    "KouplelessError",
    "ModuleRefused",
    "ServiceError",
    "carry",
    "current_biz",
    "on_stop",
]
