"""Python consoles inside modules: code of a caller runs as the module, on a thread of its own, until the module leaves.

A console has the Python modules, the context and the rights of the module, so a caller owns the base, as somebody who
installs does. Each console and each input is told in the log of the base. ``print`` and values go to the caller;
everything else that code of the module writes goes where the module writes.
"""

from __future__ import annotations

import ast
import builtins
import codeop
import ctypes
import logging
import queue
import secrets
import threading
import traceback
from typing import TYPE_CHECKING, Any, Final, Literal

from koupleless.arklet.ours.refusal import NothingDone
from koupleless.context import as_base, call_as
from koupleless.isolation.namespace import Namespace
from koupleless.wire.replies import ConsoleData

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.context import Scope

_log: Final = logging.getLogger("koupleless.console")

_MOST: Final = 8
"""Consoles of a base at once."""
_IDLE_S: Final = 1800.0
"""Seconds without a request after which a console ends."""
_WAITING: Final = 256 << 10
"""Characters of output that wait for the caller; further output waits for room."""
_UNREAD_S: Final = 60.0
"""Seconds for which output waits for room, until the console ends."""
_ANSWER_S: Final = 1.0
"""Seconds for which a request waits for output, or for the end of the input."""
_LONGEST: Final = 4_000
"""Characters of an input that are told in the log."""
_FILE: Final = "<console>"

State = Literal["ready", "more", "running", "ended"]


class _Ended(BaseException):
    """The console has ended while its code runs."""


class Console:
    """One console. The thread of the console runs the code; requests come from any thread."""

    def __init__(self, scope: Scope) -> None:
        self.identity = secrets.token_hex(16)
        self.biz = scope.biz
        self._scope = scope
        self._inputs: queue.SimpleQueue[tuple[str, bool] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._texts: dict[str, list[str]] = {"output": [], "errors": []}
        self._waiting = 0
        self._state: State = "ready"
        self._status = 0
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._run, name=f"console {scope.biz}", daemon=True)

    def start(self) -> None:
        """Begin to wait for inputs."""
        with as_base():  # the thread is the base's, and its code the module's
            self._thread.start()

    @property
    def is_ended(self) -> bool:
        """Whether the console takes no more inputs."""
        return self._state == "ended"

    # --- for requests ------------------------------------------------------------------------------------------------

    def give(self, code: str, *, is_script: bool) -> None:
        """Give an input: a line, or a whole script. Raises `NothingDone` while another input runs."""
        with self._changed:
            if self._state == "running":
                raise NothingDone(f"the console of {self.biz} is busy with the input before")
            if self._state != "ended":
                self._state = "running"
        self._inputs.put((code, is_script))

    def interrupt(self) -> None:
        """Raise ``KeyboardInterrupt`` in the running code, and drop a statement that is not whole."""
        with self._changed:
            self._lines.clear()
            if self._state == "running":
                self._raise(KeyboardInterrupt)
            elif self._state == "more":
                self._state = "ready"

    def end(self) -> None:
        """Take no more inputs, and end the running code. Idempotent."""
        with self._changed:
            if self._state == "running":
                self._raise(_Ended)
            self._state = "ended"
            self._changed.notify_all()
        self._inputs.put(None)

    def answer(self) -> ConsoleData:
        """Take the output; waits a moment for some, while code runs."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._state != "running", _ANSWER_S)
            output, errors = ("".join(self._texts[kind]) for kind in ("output", "errors"))
            for texts in self._texts.values():
                texts.clear()
            self._waiting = 0
            self._changed.notify_all()
            return ConsoleData(
                session=self.identity, output=output, errors=errors, state=self._state, status=self._status
            )

    def _raise(self, kind: type[BaseException]) -> None:
        """Raise an exception in the thread at the next instruction of Python code."""
        identity = self._thread.ident
        if identity is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(identity), ctypes.py_object(kind))

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            call_as(self._scope, self._serve)
        except BaseException as error:  # noqa: BLE001 - an interrupt that came late
            _log.debug("console %s has ended: %r", self.identity, error)
        finally:
            with self._changed:
                self._state = "ended"
                self._changed.notify_all()
            del self._scope  # so that nothing here holds the module

    def _serve(self) -> None:
        namespace = self._scope.facet(Namespace)
        names: dict[str, Any] = {
            "__name__": "__console__",
            "__doc__": None,
            "__builtins__": namespace.builtins,
            "print": self._print,
        }
        try:
            while not self.is_ended:
                try:
                    given = self._inputs.get(timeout=_IDLE_S)
                except queue.Empty:
                    return
                if given is None:
                    return
                code, is_script = given
                try:
                    state = self._execute(code, names) if is_script else self._take_line(code, names)
                except KeyboardInterrupt:
                    self._write("errors", "KeyboardInterrupt\n")
                    state = "ready"
                with self._changed:
                    if self._state == "running":
                        self._state = state
                        self._changed.notify_all()
        finally:
            names.clear()

    def _take_line(self, line: str, names: dict[str, Any]) -> State:
        self._lines.append(line)
        source = "\n".join(self._lines)
        try:
            if codeop.compile_command(source, _FILE, "single") is None:
                return "more"
        except (SyntaxError, ValueError, OverflowError):
            pass  # told below, by the compilation of the whole
        self._lines.clear()
        return self._execute(source, names, shows=True)

    def _execute(self, source: str, names: dict[str, Any], *, shows: bool = False) -> State:
        """Run code as the module. The value of a last expression is shown for ``shows``."""
        try:
            tree = ast.parse(source, _FILE)
            last = tree.body.pop() if shows and tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, _FILE, "exec"), names)  # noqa: S102 - the purpose of a console
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), _FILE, "eval"), names)  # noqa: S307 - the same
                if value is not None:
                    names["_"] = value
                    self._write("output", f"{value!r}\n")
        except SystemExit as end:
            self._leave(end)
            return "ended"
        except (KeyboardInterrupt, _Ended):
            raise
        except BaseException as error:  # noqa: BLE001 - of the code of the caller
            self._status = 1
            frames = error.__traceback__ and error.__traceback__.tb_next
            self._write("errors", "".join(traceback.format_exception(type(error), error, frames)))
            return "ready" if shows else "ended"
        return "ready" if shows else "ended"

    def _leave(self, end: SystemExit) -> None:
        if end.code is not None and not isinstance(end.code, int):
            self._write("errors", f"{end.code}\n")
        self._status = end.code if isinstance(end.code, int) else int(end.code is not None)

    def _print(self, *values: object, file: Any = None, **options: Any) -> None:
        builtins.print(*values, file=_Sink(self._write) if file is None else file, **options)

    def _write(self, kind: str, text: str) -> None:
        begin = 0
        while begin < len(text):
            part = text[begin : begin + _WAITING]
            begin += len(part)
            with self._changed:
                has_room = self._changed.wait_for(lambda: self._waiting < _WAITING or self.is_ended, _UNREAD_S)
                if not has_room or self.is_ended:
                    self._state = "ended"
                    raise _Ended
                self._texts[kind].append(part)
                self._waiting += len(part)
                self._changed.notify_all()


class _Sink:
    """The output of ``print`` in a console, as a file."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write

    def write(self, text: str) -> int:
        self._write("output", text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: output goes on at once."""


class _OfLife:
    """The consoles of one life of a module: a facet of the scope."""

    def __init__(self) -> None:
        self.consoles: list[Console] = []
        self.has_hook = False

    def end(self) -> None:
        for console in self.consoles:
            console.end()
        self.consoles.clear()


class Consoles:
    """The consoles of a base. Thread-safe; lives as long as the operations."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._lock = threading.Lock()
        self._consoles: dict[str, Console] = {}

    def check(self) -> None:
        """Raise `NothingDone` if consoles are off."""
        if not self._is_on:
            raise NothingDone("consoles are off in this base: arklet.exec lets callers with the token open some")

    def open(self, scope: Scope, caller: str) -> Console:
        """Open a console in a life of a module. Raises `NothingDone` for too many."""
        console = Console(scope)
        with self._lock:
            self._consoles = {identity: one for identity, one in self._consoles.items() if not one.is_ended}
            if len(self._consoles) >= _MOST:
                raise NothingDone(f"there are {_MOST} consoles in this base already")
            life = scope.attach_once(_OfLife())
            if not life.has_hook:
                try:
                    scope.add_stop_hook(life.end)
                except RuntimeError as error:
                    raise NothingDone(str(error)) from None
                life.has_hook = True
            life.consoles = [one for one in life.consoles if not one.is_ended]
            life.consoles.append(console)
            self._consoles[console.identity] = console
        _log.info("console %s in %s is opened by %s", console.identity[:8], scope.biz, _shown(caller))
        console.start()
        return console

    def find(self, identity: str) -> Console:
        """Return an open console. Raises `NothingDone`."""
        with self._lock:
            console = self._consoles.get(identity)
        if console is None:
            raise NothingDone("there is no such console, or it has ended")
        return console

    def close(self, console: Console) -> None:
        """End a console, and forget the console. Idempotent."""
        console.end()
        with self._lock:
            if self._consoles.pop(console.identity, None) is not None:
                _log.info("console %s in %s is closed", console.identity[:8], console.biz)

    def note(self, console: Console, code: str) -> None:
        """Tell an input in the log of the base."""
        _log.info("console %s in %s runs: %s", console.identity[:8], console.biz, _shown(code))


def _shown(text: str) -> str:
    """Write a text of a caller on one line, so that no text looks like another entry."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
    return repr(cut)
