"""Readers: functions of a Python module that read variables with the values assigned by the running biz.

A function reads the globals that it was made with, and the globals of a Python module are one dictionary for everybody.
So the functions that read a variable get other code, with the same parameters. The new code asks for the running biz,
and calls the former code, over the globals of the Python module or over a layer of them. The function itself stays the
same object, for holders of the function under another name, in a decorator or in a class.
"""

from __future__ import annotations

import dis
import functools
import inspect
import keyword
import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from koupleless.context import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from koupleless.context import Scope


class Layer(dict[str, Any]):
    """The variables of a Python module as assigned by one biz, over the values of the process.

    A dictionary of the assigned variables, and of the names which the interpreter looks up in the storage itself
    (``__builtins__``, ``__name__``). Any other name is answered with the present variable of the Python module.
    """

    __slots__ = ("_begin", "_plain", "bound")

    def __init__(self, variables: Mapping[str, Any], begin: Callable[[Layer], object] | None) -> None:
        super().__init__((name, value) for name, value in variables.items() if name.startswith("__"))
        self._plain = len(self)
        self._begin = begin
        self.bound: dict[types.FunctionType, types.FunctionType] = {}

    def __setitem__(self, name: str, value: Any) -> None:
        """Assign a variable from outside. Functions over the layer store past this, and not before the first."""
        super().__setitem__(name, value)
        begin, self._begin = self._begin, None
        if begin is not None:
            begin(self)

    @property
    def count(self) -> int:
        """The number of assigned variables."""
        return len(self) - self._plain

    def assigned(self) -> dict[str, Any]:
        """Copy the assigned variables into a dictionary."""
        return {name: value for name, value in self.copy().items() if not name.startswith("__")}

    def bind(self, function: types.FunctionType) -> types.FunctionType:
        """Return a function of the same code over these variables, to read and to assign."""
        bound = self.bound.get(function)
        if bound is None:
            bound = self.bound[function] = _function_over(self, function)
        return bound

    def drop(self) -> None:
        """Forget all assignments: functions that live on read the variables of the Python module."""
        for name in self.assigned():
            self.pop(name, None)
        self.bound.clear()


class Readers:
    """The functions of one Python module which read some of its variables.

    ``layer`` returns the layer of a running biz; ``None`` for a biz without an assignment. Lifetime: from the first
    `follow` to `close`. Used by one thread at a time; the functions may be called by any thread, meanwhile too.
    """

    def __init__(self, module: types.ModuleType, layer: Callable[[Scope], Layer | None]) -> None:
        self._variables: dict[str, Any] = _MODULE_TABLE(module)
        self._name: str = self._variables["__name__"]
        self._layer = layer
        self._followed: dict[types.FunctionType, tuple[types.CodeType, types.CodeType]] = {}
        """Function -> its own code, and the asking code."""
        self.assign = False
        """Whether one of the functions assigns a variable."""
        # A name without an entry in a layer is looked up without running Python code.
        self._kind: type[Layer] = type("Layer", (Layer,), {"__slots__": (), "__missing__": self._variables.__getitem__})

    def make_layer(self, begin: Callable[[Layer], object] | None = None) -> Layer:
        """Make a layer without assignments; ``begin`` is called with the layer at the first assignment."""
        return self._kind(self._variables, begin)

    def follow(self, names: Iterable[str], *, but: frozenset[str] = frozenset()) -> frozenset[str]:
        """Let the functions that read one of ``names`` ask for the running biz.

        Returns ``names`` and further names: a function assigns, by ``global``, a value made from a biz's variable, so
        the new value is the biz's, too. Functions stay unchanged which assign one of ``but``, take all variables by
        ``globals()``, or are followed already by other readers.
        """
        functions = _functions(self._name, self._variables)
        codes = {function: code for function in functions if not _asks(code := self._code(function))}
        named = {function: _names(code) for function, code in codes.items()}
        uses: dict[types.FunctionType, _Use] = {}
        concerned: list[types.FunctionType] = []
        wanted, known = frozenset(names), frozenset[str]()
        while wanted != known:
            known = wanted
            for function, code in codes.items():
                if function not in uses and not known.isdisjoint(named[function]):
                    uses[function] = _use(code)
            concerned = [function for function, use in uses.items() if use.concerns(known) and not use.stored & but]
            wanted = known.union(*(uses[function].stored for function in concerned))
        for function in concerned:
            self._follow(function)
            self.assign |= bool(uses[function].stored)
        return known

    def close(self) -> None:
        """Give the functions their own code back. Idempotent."""
        for function, (code, asking) in self._followed.items():
            if function.__code__ is asking:
                function.__code__ = code
        self._followed.clear()

    def _code(self, function: types.FunctionType) -> types.CodeType:
        known = self._followed.get(function)
        return function.__code__ if known is None or known[1] is not function.__code__ else known[0]

    def _follow(self, function: types.FunctionType) -> None:
        code = self._code(function)
        if code is not function.__code__:
            return
        asking = _code_that_asks(code, _function_over(self._variables, function), self._layer)
        if asking is not None:
            self._followed[function] = code, asking
            function.__code__ = asking


_MODULE_TABLE: Final[Any] = vars(types.ModuleType)["__dict__"].__get__


def _function_over(variables: dict[str, Any], function: types.FunctionType) -> types.FunctionType:
    made = types.FunctionType(
        function.__code__, variables, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    made.__qualname__ = function.__qualname__
    return made


# --- the variables read and assigned by a function -------------------------------------------------------------------


class _Use(NamedTuple):
    """The globals read and assigned by a function, and by the functions inside."""

    read: frozenset[str]
    stored: frozenset[str]

    def concerns(self, names: frozenset[str]) -> bool:
        """Whether the function uses one of ``names``, and not all variables there are."""
        return not names.isdisjoint(self.read | self.stored) and "globals" not in self.read


def _names(code: types.CodeType) -> set[str]:
    """All names in the code of a function: of attributes, too."""
    return set(code.co_names).union(*(_names(each) for each in code.co_consts if type(each) is types.CodeType))


def _use(code: types.CodeType) -> _Use:
    read, stored = set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            stored.add(instruction.argval)
    within = [_use(constant) for constant in code.co_consts if type(constant) is types.CodeType]
    return _Use(
        read=frozenset(read.union(*(use.read for use in within))),
        stored=frozenset(stored.union(*(use.stored for use in within))),
    )


def home_of_class(kind: type) -> str:
    """The name of the Python module of a class; empty for none. Runs no code of the metaclass."""
    try:
        home = _HOME(kind)
    except AttributeError:
        return ""
    return home if type(home) is str else ""


def _functions(module: str, variables: dict[str, Any]) -> Iterator[types.FunctionType]:
    """Yield functions of a Python module: in its table, in its classes, and wrapped there. Runs no code of them."""
    todo = [*variables.copy().values()]
    seen = {id(thing) for thing in todo}
    for thing in todo:  # grows
        if type(thing) is types.FunctionType and thing.__globals__ is variables:
            yield thing
        for part in _parts(module, thing):
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                todo.append(part)


def _parts(module: str, thing: Any) -> list[Any]:
    kind = type(thing)
    if kind is types.FunctionType:
        cells = [cell.cell_contents for cell in thing.__closure__ or () if not _is_empty(cell)]
        return [thing.__dict__.get("__wrapped__"), *(part for part in cells if type(part) is types.FunctionType)]
    if issubclass(kind, type):
        return list(_CLASS_TABLE(thing).values()) if home_of_class(thing) == module else []
    return [getattr(thing, name) for name in _INSIDE.get(kind, ())]


_INSIDE: Final[dict[type, tuple[str, ...]]] = {
    classmethod: ("__func__",),
    staticmethod: ("__func__",),
    property: ("fget", "fset", "fdel"),
    functools.partial: ("func",),
    functools.partialmethod: ("func",),
    functools.cached_property: ("func",),
    type(functools.lru_cache(lambda: None)): ("__wrapped__",),
}
"""The attributes of wrappers which lead to the wrapped functions."""
_HOME: Final = type.__dict__["__module__"].__get__
_CLASS_TABLE: Final = type.__dict__["__dict__"].__get__


def _is_empty(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


# --- code that asks ---------------------------------------------------------------------------------------------------

_RUNNING: Final = "koupleless_running"
_PLAIN: Final = "koupleless_plain"
_LAYER: Final = "koupleless_layer"
_SCOPE: Final = "koupleless_scope"
_OWN: Final = "koupleless_own"
_CALLED: Final = (
    f"({_PLAIN} if ({_SCOPE} := {_RUNNING}()) is None or ({_OWN} := {_LAYER}({_SCOPE})) is None"
    f" else {_OWN}.bound.get({_PLAIN}) or {_OWN}.bind({_PLAIN}))"
)
"""The function for the running biz, with no frame of ours in between."""
_SAME_FLAGS: Final = inspect.CO_ITERABLE_COROUTINE
_FUNCTION: Final = "    return {call}"
_GENERATOR: Final = "    return (yield from {call})"
_COROUTINE: Final = "    return await {call}"
_ASYNC_GENERATOR: Final = """
    inner = {call}
    try:
        value = await inner.__anext__()
        while True:
            try:
                sent = yield value
            except GeneratorExit:
                await inner.aclose()
                raise
            except BaseException as error:
                value = await inner.athrow(error)
            else:
                value = await inner.asend(sent)
    except StopAsyncIteration:
        return
"""


def _code_that_asks(
    code: types.CodeType, plain: types.FunctionType, layer: Callable[[Scope], Layer | None]
) -> types.CodeType | None:
    """Make code with the parameters of ``code``, to call ``plain``, or for a biz with a layer the function bound there.

    Returns ``None`` if the parameters cannot be written.
    """
    arguments = code.co_varnames[: _count(code)]
    if not all(name.isidentifier() and not keyword.iskeyword(name) for name in arguments):
        return None
    flags = code.co_flags
    begin, body = "def", _FUNCTION
    if flags & inspect.CO_GENERATOR:
        body = _GENERATOR
    elif flags & inspect.CO_COROUTINE:
        begin, body = "async def", _COROUTINE
    elif flags & inspect.CO_ASYNC_GENERATOR:
        begin, body = "async def", _ASYNC_GENERATOR
    parameters, call = _parameters(code)
    constants = {_RUNNING: current, _PLAIN: plain, _LAYER: layer}
    text = "\n".join(
        [
            f"{begin} asking({parameters}):",
            *(f"    {name} = {name!r}" for name in constants),  # places for the functions
            body.format(call=f"{_CALLED}({call})"),
        ]
    )
    outer = compile(text, code.co_filename, "exec", dont_inherit=True)
    made = next(constant for constant in outer.co_consts if type(constant) is types.CodeType)
    return made.replace(
        co_consts=tuple(
            constants.get(constant, constant) if type(constant) is str else constant for constant in made.co_consts
        ),
        co_flags=made.co_flags | (flags & _SAME_FLAGS),
        co_freevars=code.co_freevars,  # a function must have as many names here as cells
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_firstlineno=code.co_firstlineno,
    )


def _asks(code: types.CodeType) -> bool:
    return _LAYER in code.co_varnames


def _count(code: types.CodeType) -> int:
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_argcount + code.co_kwonlyargcount + stars


def _parameters(code: types.CodeType) -> tuple[str, str]:
    """Write the parameters of code without defaults, which belong to the function, and the arguments to hand on."""
    names = iter(code.co_varnames)
    positional = [next(names) for _ in range(code.co_argcount)]
    by_keyword = [next(names) for _ in range(code.co_kwonlyargcount)]
    written, handed_on = positional.copy(), positional.copy()
    if code.co_posonlyargcount:
        written.insert(code.co_posonlyargcount, "/")
    if code.co_flags & inspect.CO_VARARGS:
        rest = f"*{next(names)}"
        written.append(rest)
        handed_on.append(rest)
    elif by_keyword:
        written.append("*")
    written += by_keyword
    handed_on += [f"{name}={name}" for name in by_keyword]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        rest = f"**{next(names)}"
        written.append(rest)
        handed_on.append(rest)
    return ", ".join(written), ", ".join(handed_on)
