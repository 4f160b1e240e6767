"""Bytecode that stays valid at any time of the files: made for one source text, or for a tree of files."""

from __future__ import annotations

import hashlib
import importlib.util
import marshal
import struct
import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

TAG: Final = sys.implementation.cache_tag or "python"
_UNCHECKED_HASH: Final = 0b01


def bytecode_path(path: str, *, optimize: int = 0) -> str:
    """The place where the running Python looks for the bytecode of the source file ``path``."""
    parent, _, name = path.rpartition("/")
    suffix = f".opt-{optimize}" if optimize else ""
    return f"{parent}/__pycache__/{name.removesuffix('.py')}.{TAG}{suffix}.pyc".lstrip("/")


def compile_source(source: bytes, name: str, *, optimize: int = 0, reproducible: bool = False) -> bytes | None:
    """The content of a ``.pyc`` that stays valid at any time of the files (PEP 552, unchecked hash).

    ``None`` for a file that cannot be compiled: packages also hold templates and code for other Pythons, and the
    error belongs to the import of such a file. ``reproducible`` gives equal bytes in every process, but interns all
    texts of the code, on some Pythons for the rest of the process: meant for builds, not for a base.
    """
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=optimize)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return None
    header = importlib.util.MAGIC_NUMBER + struct.pack("<I", _UNCHECKED_HASH) + importlib.util.source_hash(source)
    return header + marshal.dumps(_interned(code) if reproducible else code)


def _interned(constant: Any) -> Any:
    """A copy of the constant with all texts interned.

    The bytes marshal writes for a text depend on whether the text is interned, and so on the process's history.
    """
    match constant:
        case str():
            return sys.intern(constant)
        case tuple():
            return tuple(map(_interned, constant))
        case frozenset():
            return frozenset(map(_interned, constant))
        case CodeType():
            return constant.replace(
                co_consts=tuple(map(_interned, constant.co_consts)),
                co_filename=sys.intern(constant.co_filename),
                co_name=sys.intern(constant.co_name),
                co_qualname=sys.intern(constant.co_qualname),
            )
        case _:
            return constant


def compile_tree(tree: Path, digests: dict[str, str], final: Path) -> None:
    """Compile source files without bytecode for this Python. ``final`` is the place of the files at run time.

    ``digests`` holds the digests of the unpacked files; the digests of the bytecode are added.
    """
    optimize = sys.flags.optimize
    for name in list(digests):
        if not name.endswith(".py"):
            continue
        place = bytecode_path(name, optimize=optimize)
        target = tree / place
        if place in digests and _is_good_bytecode(target):
            continue
        compiled = compile_source((tree / name).read_bytes(), str(final / name), optimize=optimize)
        if compiled is None:
            target.unlink(missing_ok=True)
            digests.pop(place, None)
        else:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(compiled)
            digests[place] = hashlib.sha256(compiled).hexdigest()


def _is_good_bytecode(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        header = file.read(8)
    return header[:4] == importlib.util.MAGIC_NUMBER and header[4:] == struct.pack("<I", _UNCHECKED_HASH)
