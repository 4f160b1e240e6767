"""Import statements of one owner's code: the owner's ``__import__``, from the arguments of a statement to its result.

The steps between the statement and the import of one Python module are those of ``importlib._bootstrap.__import__``:
the absolute name, the names after ``import`` in ``from package import name``, and the top-level package of
``import a.b``. The linker imports; a statement of a loaded Python module is answered from memory (`answers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from koupleless.frames import making_seen_as, passed_over
from koupleless.isolation.interpreter import REAL, bootstrap, find_of_base, is_c_call, is_initialising, lend
from koupleless.isolation.linking.answers import borrow, is_disputed
from koupleless.isolation.linking.table import ABSENT
from koupleless.isolation.policy import is_of_process
from koupleless.tracebacks import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

    from koupleless.isolation.linking.answers import Answers
    from koupleless.isolation.linking.children import Children
    from koupleless.isolation.linking.table import Table

Import: TypeAlias = "Callable[..., ModuleType]"


class Importing(Protocol):
    """The linker of one owner, as import statements use it."""

    @property
    def table(self) -> Table:
        """The Python modules of the owner."""

    @property
    def answers(self) -> Answers:
        """The answers of finished imports."""

    @property
    def children(self) -> Children:
        """Python modules of the owner below packages of other owners."""

    def load(self, name: str) -> ModuleType:
        """Return the Python module of an absolute name, imported if need be."""

    def loaded(self, name: str) -> ModuleType:
        """Return the Python module of a name if known already, else ``ABSENT``."""

    def parent_of(self, name: str, import_: Import) -> ModuleType | None:
        """Return the package of a Python module, imported if need be."""

    def find_and_load(self, name: str, parent: ModuleType | None) -> ModuleType:
        """Look for a Python module not there yet, and load it."""

    def is_loading(self, name: str) -> bool:
        """Whether the code of a Python module is running."""


class _Statements:
    """The steps of an import statement, around the import itself."""

    def __init__(self, linker: Importing) -> None:
        self._linker = linker
        self._table = linker.table
        self._answers = linker.answers

    def remember(
        self, absolute: str, name: str, namespace: Mapping[str, Any] | None, level: int, module: ModuleType
    ) -> None:
        """Remember the Python module of ``from name import`` as the answer, if the answer cannot change by itself."""
        if self._is_settled(absolute, module):
            self._answers.remember(name, namespace, level, module)

    @passed_over
    def top_of(self, absolute: str, name: str, level: int, module: ModuleType) -> ModuleType:
        """Return the top-level Python module for ``import name``, after the import of the absolute name."""
        load = self._linker.load
        if level:
            cut_off = len(name) - len(name.partition(".")[0])
            return load(absolute[: len(absolute) - cut_off]) if cut_off else module
        top_name = name.partition(".")[0]
        top = load(top_name)
        self._bind(name, module)
        if self._is_settled(absolute, module) and self._is_settled(top_name, top):
            self._answers.plain[name] = top
        return top

    def _is_settled(self, name: str, module: ModuleType) -> bool:
        """Whether memory may answer a later import of the same name; notes a name of the base, to hear of changes."""
        if self._answers.is_closed or self._linker.is_loading(name):
            return False
        if name in self._table.modules:
            return True
        if is_initialising(module):
            return False
        if self._answers.is_shared and not self._is_undisputed(name):
            return False  # each user of the library may have another Python module there
        if find_of_base(name) is module:
            borrow(name)
            return True
        return self._table.is_lent(name, module)

    def _is_undisputed(self, name: str) -> bool:
        return (name.partition(".")[0] in self._table.claims or is_of_process(name)) and not is_disputed(name)

    def _bind(self, name: str, module: ModuleType | None) -> None:
        """Bind Python modules imported by ``import a.b.c as d`` at their parents; some parents may be new.

        The statement looks for a missing attribute in the interpreter's table, in vain.
        """
        parent_name, _, child = name.rpartition(".")
        while parent_name:
            parent = self._table.modules.get(parent_name)
            known = getattr(parent, "__dict__", {})
            if parent is not None and module is not None and child not in known and "__getattr__" not in known:
                self._linker.children.bind(parent, child, module, is_own=self._table.has(parent))
            name, module = parent_name, parent
            parent_name, _, child = name.rpartition(".")

    def bind_item(self, module: ModuleType, item: str, child: ModuleType) -> None:
        """Let ``from module import`` find a submodule just imported."""
        if not hasattr(module, item):  # the package failed, and is loaded again: C looks into the real table next
            self._linker.children.bind(module, item, child, is_own=self._table.has(module))

    def error_of_item(self, module: ModuleType, item: str, error: ModuleNotFoundError) -> ImportError | None:
        """Return the error of ``from module import`` for a submodule not found; ``None`` leaves the error to Python."""
        name = f"{module.__name__}.{item}"
        if error.name != name or self._table.modules.get(name, ABSENT) is None:
            return error
        if name in REAL and self._table.hides(name) and not hasattr(module, item):
            # The interpreter would now look into its own table, and find the Python module of the base.
            where = getattr(module, "__file__", None) or "unknown location"
            message = f"cannot import name {item!r} from {module.__name__!r} ({where})"
            return ImportError(message, name=module.__name__, path=getattr(module, "__file__", None))
        return None


@passed_over
def absolute_name(name: str, namespace: Mapping[str, Any] | None, level: int) -> str:
    """Return the absolute name of the Python module for arguments of ``__import__``. Raises errors as Python."""
    if not level:
        bootstrap._sanity_check(name, None, 0)  # noqa: SLF001
        return name
    package = bootstrap._calc___package__(namespace or {})  # noqa: SLF001
    bootstrap._sanity_check(name, package, level)  # noqa: SLF001
    return bootstrap._resolve_name(name, package, level)  # type: ignore[no-any-return]  # noqa: SLF001


@passed_over
def items_of(module: ModuleType, fromlist: Iterable[str], *, is_all: bool = False) -> list[str]:
    """Return the names that ``from package import ...`` has to find. Raises ``TypeError`` for an item but text."""
    found: list[str] = []
    for item in fromlist:
        if not isinstance(item, str):
            where = module.__name__ + ".__all__" if is_all else "``from list''"  # type: ignore[unreachable]
            raise TypeError(f"Item in {where} must be str, not {type(item).__name__}")
        if item != "*":
            found.append(item)
        elif not is_all and hasattr(module, "__all__"):
            found += items_of(module, module.__all__, is_all=True)
    return found


@making_seen_as(bootstrap._find_and_load)  # noqa: SLF001
def make_import(linker: Importing) -> Import:  # noqa: C901, PLR0915 - as below
    """Make the ``__import__`` of one owner's code: a closure, as fast as can be, for every import statement."""
    answers, load, statements = linker.answers, linker.load, _Statements(linker)
    plain, flat_get, packages_get, relative = answers.plain, answers.flat.get, answers.packages.get, answers.relative
    call: Callable[..., ModuleType] = bootstrap._call_with_frames_removed  # noqa: SLF001

    def __import__(  # noqa: A001, C901, N807, PLR0911, PLR0912 - one frame, and no call, for finished imports
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the signature of the built-in function
        locals: Mapping[str, Any] | None = None,  # noqa: A002, ARG001
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import a Python module, as code of this biz."""
        if level == 0:
            if fromlist is None:
                try:
                    return plain[name]
                except KeyError:
                    pass
            else:
                module = flat_get(name)
                if module is not None and fromlist:
                    return module
                module = packages_get(name)
                if module is not None and fromlist:
                    known = module.__dict__
                    for item in fromlist:
                        if item not in known:
                            break
                    else:
                        return module
        elif fromlist and globals is not None:
            try:
                module = relative[globals["__package__"], name, level]
            except KeyError:
                pass
            else:
                known = module.__dict__
                for item in fromlist:
                    if item not in known:
                        break
                else:
                    return module
        # From here on this frame stands for importlib's frame of the import, so all further steps are called here.
        try:
            absolute = absolute_name(name, globals, level)
            module = linker.loaded(absolute)
            if module is ABSENT:
                module = linker.find_and_load(absolute, linker.parent_of(absolute, load))
            if fromlist:
                if hasattr(module, "__path__"):
                    for item in items_of(module, fromlist):
                        if hasattr(module, item):
                            continue
                        try:
                            child = call(load, f"{module.__name__}.{item}")
                        except ModuleNotFoundError as error:
                            other = statements.error_of_item(module, item, error)
                            if other is error:
                                raise
                            if other is not None:
                                raise other from None
                        else:
                            statements.bind_item(module, item, child)
                statements.remember(absolute, name, globals, level, module)
                return module
            module = statements.top_of(absolute, name, level, module)
            if not is_c_call(fromlist):
                return module
            wanted = load(name)
        except BaseException as error:
            clean(error)
            raise
        lend(name, wanted, fromlist)
        return module

    return __import__
