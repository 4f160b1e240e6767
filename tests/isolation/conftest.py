"""Little modules written to disk, and namespaces over them that are gone when the test is."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import textwrap
import weakref
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope
from koupleless.isolation.interpreter import REAL, apart
from koupleless.isolation.libraries.holding import Speakers
from koupleless.isolation.namespace import Namespace
from koupleless.isolation.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


def dead_references(namespace: Namespace) -> list[tuple[str, weakref.ref[ModuleType]]]:
    """Python modules that must be dead once the biz has left: taken before `drop`, looked at after collecting."""
    references: list[tuple[str, weakref.ref[ModuleType]]] = []
    for name, module in namespace.table.items():
        with contextlib.suppress(TypeError):  # an object without weak references, put into sys.modules by the biz
            references.append((name, weakref.ref(module)))
    return references


@pytest.fixture(autouse=True)
def nothing_apart() -> Iterator[None]:
    """What is kept apart for the life of a process ends with the test here."""
    yield
    apart.clear()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """``write({"app/main.py": "..."})`` is a fresh directory with those files."""
    numbers = itertools.count()

    def put(files: Mapping[str, str]) -> Path:
        root = tmp_path / f"files{next(numbers)}"
        root.mkdir()
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return root

    return put


@pytest.fixture
def biz(write: Callable[[Mapping[str, str]], Path]) -> Iterator[Callable[..., Namespace]]:
    """``biz(files)`` is the namespace of a biz with those files; more directories may follow."""
    alive: list[Namespace] = []
    numbers = itertools.count(1)

    def make(
        files: Mapping[str, str],
        *more: Path,
        identity: str | None = None,
        policy: Policy | None = None,
        speakers: Speakers | None = None,
        **more_of_it: Any,
    ) -> Namespace:
        scope = Scope(BizId.parse(identity or f"biz{next(numbers)}:1.0"))
        paths = [str(write(files)), *map(str, more)]
        made = Namespace(scope, paths, policy or Policy(), speakers or Speakers(), **more_of_it)
        alive.append(made)
        return made

    yield make
    for namespace in alive:
        namespace.drop()
        namespace.scope.close()


@pytest.fixture
def base(write: Callable[[Mapping[str, str]], Path]) -> Iterator[Callable[[Mapping[str, str]], Path]]:
    """``base(files)`` puts modules on the base's path; they are forgotten afterwards."""
    before = set(REAL)
    added: list[str] = []

    def put(files: Mapping[str, str]) -> Path:
        root = write(files)
        sys.path.insert(0, str(root))
        added.append(str(root))
        return root

    yield put
    for root in added:
        sys.path.remove(root)
        sys.path_importer_cache.pop(root, None)
    for name in set(REAL) - before:
        if str(getattr(REAL[name], "__file__", "")).startswith(tuple(added)) or name.startswith("based"):
            del sys.modules[name]


@pytest.fixture
def shared() -> Iterator[Any]:
    """A module of the base by which a test and the code of its bizs hand each other things."""
    module = sys.modules["shared_by_the_test"] = ModuleType("shared_by_the_test")
    yield module
    del sys.modules["shared_by_the_test"]


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Warnings about garbage of the tests of a file come with its last test: to collect takes longer than a test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def real_table_stays_clean() -> Iterator[None]:
    """Whatever a test does, the interpreter's own table holds no module of a biz afterwards, and the hooks are out."""
    yield
    for name, module in REAL.items():
        code_of = getattr(module, "__dict__", {}).get("__builtins__")
        of_biz = isinstance(code_of, dict) and code_of.get("__import__") is not __import__
        assert not of_biz, f"{name} of a biz was left in the interpreter's table"
