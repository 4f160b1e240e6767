"""protobuf: each biz has a default pool of descriptors, so that two may know different messages under one name.

The Python modules generated for the messages that come with protobuf are executed anew for each biz
(`isolation.known`), in the pool of the biz. ``descriptor_pb2`` is the exception: compiled code looks for
``descriptor_pb2``, and for options, in the pool of the base.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.ownership.kinds import Own
from koupleless.replacing import replace

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "protobuf"


def _follow_pools(undo: contextlib.ExitStack, module: Any) -> None:
    """``google.protobuf.descriptor_pool``."""
    replace(undo, module, "Default", _by_biz(module.Default, lambda: _make_pool(module)))


def _make_pool(module: Any) -> Any:
    from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]  # noqa: PLC0415 - the base has it

    pool = module.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    return pool


def _follow_symbols(undo: contextlib.ExitStack, module: Any) -> None:
    """``google.protobuf.symbol_database``."""
    replace(undo, module, "Default", _by_biz(module.Default, lambda: _make_symbols(module)))


def _make_symbols(module: Any) -> Any:
    symbols = module.SymbolDatabase(pool=module.descriptor_pool.Default())
    symbols._classes = {}  # noqa: SLF001 - one dictionary of the class serves all databases
    return symbols


def _by_biz(original: Callable[[], Any], make: Callable[[], Any]) -> Callable[[], Any]:
    own = Own(make)

    def Default() -> Any:  # noqa: N802 - the name it stands for
        mine = own.get()
        return original() if mine is None else mine

    Default.__doc__ = original.__doc__
    return Default


follow: Final = {
    "google.protobuf.descriptor_pool": _follow_pools,
    "google.protobuf.symbol_database": _follow_symbols,
}
