"""SciPy: each biz has its own actions for errors of special functions, and its own backends of ``scipy.fft``.

Compiled code keeps one action for each kind of error, by thread. Where two bizs want different actions, compiled code
warns, and the warning becomes the action of the running biz: compiled code takes the class of the warning from
``scipy.special`` each time. One backend in the place of all asks for the backends of the running biz; the flags of a
set backend are not looked at.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.own import call_on_loop, replace_function
from koupleless.contextual import assign_by_context
from koupleless.ownership.kinds import Own

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

distribution: Final = "scipy"


# --- errors of special functions -------------------------------------------------------------------------------------

_CLASS: Final = "SpecialFunctionWarning"
_SAID: Final = {
    "singular": "singularity",
    "underflow": "underflow",
    "overflow": "overflow",
    "slow": "too slow convergence",
    "loss": "loss of precision",
    "no_result": "no result obtained",
    "domain": "domain error",
    "arg": "invalid input argument",
    "other": "other error",
    "memory": "memory allocation failed",
}
"""The kinds of errors, by function name and by message."""
_FILTERS: Final = {"raise": "error", "ignore": "ignore"}


class _OfThread(threading.local):
    """The actions of the base on one thread: they are kept by thread, since SciPy 1.15 or so."""

    def __init__(self, get: Callable[[], dict[str, str]]) -> None:
        self.actions = get()


class _Actions:
    """The action for each kind of error, of the running biz."""

    def __init__(self, module: Any) -> None:
        self._set, self._get = module.seterr, module.geterr
        self._of_base = _OfThread(self._get)
        self._own: Own[dict[str, str]] = Own(dict)
        bases = (module.SpecialFunctionError, module.SpecialFunctionWarning)
        self._kind = type("SpecialFunctionError", bases, {"__module__": bases[0].__module__})
        """A stand-in for the class of the warning: caught as a warning or as an error, according to the message."""

    def get(self) -> dict[str, str]:
        return {**self._of_base.actions, **(self._own.peek() or {})}

    def set(self, **actions: str) -> dict[str, str]:
        before, in_c = self.get(), self._get()
        self._set(**actions)  # which refuses an unknown kind
        self._set(**in_c)
        if "all" in actions:
            actions = {**dict.fromkeys(before, actions["all"]), **actions}
            del actions["all"]
        own = self._own.get()
        (self._of_base.actions if own is None else own).update(actions)
        self._apply()
        if own is not None:  # alone, the import runs on the thread of the loop
            call_on_loop(self._apply)
        return before

    def _apply(self) -> None:
        """Let compiled code warn, on this thread, where two want different things."""
        self._set(**{name: self._in_c(name, action) for name, action in self._of_base.actions.items()})

    def _in_c(self, name: str, of_base: str) -> str:
        wanted = {of_base, *(own.get(name, of_base) for own in self._own.of_everybody())}
        return wanted.pop() if len(wanted) == 1 else "warn"

    def class_to_warn_with(self) -> dict[str, Any]:
        """The class, for compiled code that looks it up at an error; Python code names the class."""
        if _CLASS in sys._getframe(2).f_code.co_names:  # noqa: SLF001 - past the descriptor
            return {}
        actions = self.get()
        in_c = self._get()
        if not any(actions[name] != action for name, action in in_c.items()):
            return {}
        wanted = [
            (_FILTERS[actions[name]], _pattern(name), self._kind, None, 0)
            for name, action in in_c.items()
            if action == "warn" and actions[name] != "warn"
        ]
        filters = [*wanted, *(each for each in warnings.filters if each[2] is not self._kind)]
        if warnings.filters != filters:
            warnings.filters = filters
        return {_CLASS: self._kind}

    def restore(self) -> None:
        self._set(**self._of_base.actions)


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"scipy\.special/[^:]*: \(?{_SAID.get(name, name)}\b")


def _follow_special(undo: contextlib.ExitStack, module: Any) -> None:
    """``scipy.special``."""

    @functools.wraps(module.seterr)
    def seterr(**kwargs: str) -> dict[str, str]:
        return actions.set(**kwargs)

    @functools.wraps(module.geterr)
    def geterr() -> dict[str, str]:
        return actions.get()

    actions = _Actions(module)
    undo.callback(actions.restore)

    replace_function(undo, module, "seterr", seterr)
    replace_function(undo, module, "geterr", geterr)
    assign_by_context(undo, module, _CLASS, actions.class_to_warn_with)


# --- backends of fft -------------------------------------------------------------------------------------------------


class _Backends:
    """The backend in the place of all, and the backends of each biz, set and registered."""

    __ua_domain__ = "numpy.scipy.fft"

    def __init__(self, module: Any) -> None:
        self._module = module
        self.set_for_all, self.register_for_all = module.set_global_backend, module.register_backend
        (backend, coerce, only), _, try_last = module.ua.get_state()._pickle()[0][self.__ua_domain__]  # noqa: SLF001
        self._of_base: tuple[Any, dict[str, bool]] = backend, {"coerce": coerce, "only": only, "try_last": try_last}
        self._own: Own[list[Any]] = Own(list)
        """The registered backends of a biz, after the set ones."""
        self._is_standing = False

    def set(self, backend: Any, **flags: bool) -> None:
        own = self._own.get()
        if own is None:
            self._of_base = backend, flags
            self.set_for_all(self if self._is_standing else backend, **flags)
            return
        own[:] = [self._module._backend_from_arg(backend), *own[1:]]  # noqa: SLF001 - it has no public name
        self._stand()

    def register(self, backend: Any) -> None:
        own = self._own.get()
        if own is None:
            self.register_for_all(backend)
            return
        if not own:
            own.append(self._backend_of_base())
        own.append(self._module._backend_from_arg(backend))  # noqa: SLF001 - as above
        self._stand()

    def _stand(self) -> None:
        if not self._is_standing:
            self._is_standing = True
            self.set_for_all(self, **self._of_base[1])

    def restore(self) -> None:
        backend, flags = self._of_base
        if self._is_standing:
            self.set_for_all(backend, **flags)

    def _backend_of_base(self) -> Any:
        return self._module._backend_from_arg(self._of_base[0])  # noqa: SLF001 - as above

    def _meant(self) -> list[Any]:
        return self._own.peek() or [self._backend_of_base()]

    def __ua_function__(self, method: Any, args: Any, kwargs: Any) -> Any:
        """Called by SciPy: the first backend with an answer."""
        for backend in self._meant():
            answer = backend.__ua_function__(method, args, kwargs)
            if answer is not NotImplemented:
                return answer
        return NotImplemented

    def __ua_convert__(self, dispatchables: Any, coerce: bool) -> Any:
        """Called by SciPy with the arguments that a backend may convert."""
        convert = getattr(self._meant()[0], "__ua_convert__", None)
        return [each.value for each in dispatchables] if convert is None else convert(dispatchables, coerce)


def _follow_fft(undo: contextlib.ExitStack, module: Any) -> None:
    """``scipy.fft._backend``."""
    backends = _Backends(module)
    undo.callback(backends.restore)

    @functools.wraps(module.set_global_backend)
    def set_global_backend(backend: Any, coerce: bool = False, only: bool = False, try_last: bool = False) -> None:
        backends.set(backend, coerce=coerce, only=only, try_last=try_last)

    @functools.wraps(module.register_backend)
    def register_backend(backend: Any) -> None:
        backends.register(backend)

    replace_function(undo, module, "set_global_backend", set_global_backend)
    replace_function(undo, module, "register_backend", register_backend)


follow: Final = {
    "scipy.special": _follow_special,
    "scipy.fft": lambda undo, module: _follow_fft(undo, module._backend),  # noqa: SLF001 - the module it comes from
}
