"""Give each biz its own event loop policy: the kind of loop to be made, and the loop set for each thread.

``asyncio`` keeps one policy for the process, and the policy one loop for each thread. A biz with a choice of policy, or
with a loop set on a worker thread of the base, would decide for everybody afterwards. So such a biz has its own policy;
any other biz has the process's. C code asks the object in asyncio's variable, which answers by context.
"""

from __future__ import annotations

import functools
import sys
import warnings
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import as_base
from koupleless.frames import standing_for
from koupleless.replacing import replace
from koupleless.view.own import own_of

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

_VARIABLE: Final = "_event_loop_policy"
_GETTERS: Final = ("get_event_loop_policy", "_get_event_loop_policy")
_SETTERS: Final = ("set_event_loop_policy", "_set_event_loop_policy")
_FOR_THE_THREAD: Final = ("set_event_loop", "set_child_watcher")
"""Functions to change the policy."""


class ContextPolicy:
    """Object in asyncio's variable: answers as the running biz's policy, else as the process's."""

    def __init__(self, of_base: Any) -> None:
        self.of_base = of_base

    def meant(self) -> Any:
        """Return the policy meant now."""
        own = own_of("asyncio")
        return (own and own.get("policy")) or self.of_base

    def __getattr__(self, name: str) -> Any:
        return getattr(self.meant(), name)


def put_in(undo: contextlib.ExitStack, events: Any) -> None:
    """Replace asyncio's functions; the variable is replaced once a biz has its own policy."""
    holders = [module for module in (events, sys.modules.get("asyncio")) if module is not None]
    views = _Functions(undo, events)
    for holder in holders:
        for names, make in ((_GETTERS, views.getter), (_SETTERS, views.setter), (_FOR_THE_THREAD, views.changer)):
            for name in names:
                if name in vars(holder):
                    original = vars(events).get(f"_{name}")
                    function = make(vars(holder)[name]) if original is None else _deprecated(name, make(original))
                    replace(undo, holder, name, function)


def _deprecated(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a public function of ``asyncio`` warn as Python's own does from 3.14 on; asyncio itself calls a private one.

    Python's own function would name the line of the caller, which is a line of ours.
    """

    @functools.wraps(function)
    def warning(*arguments: Any) -> Any:
        message = f"'asyncio.{name}' is deprecated and slated for removal in Python 3.16"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return function(*arguments)

    warning.__name__ = warning.__qualname__ = name
    return warning


class _Functions:
    """The functions by context; made for one installation."""

    def __init__(self, undo: contextlib.ExitStack, events: Any) -> None:
        self._undo = undo
        self._events = events
        self._get: Callable[[], Any] = _present(events, "get_event_loop_policy")
        self._kind: type = _present(events, "AbstractEventLoopPolicy")

    @staticmethod
    def _default() -> Any:
        system = sys.modules.get("asyncio.unix_events") or sys.modules["asyncio.windows_events"]
        return _present(system, "DefaultEventLoopPolicy")()

    def _place(self) -> ContextPolicy:
        """Return the object answering by context, put into the variable if need be."""
        with as_base():
            present = self._get()
        if isinstance(present, ContextPolicy):
            return present
        policy = ContextPolicy(present)
        replace(self._undo, self._events, _VARIABLE, policy, back=lambda: policy.of_base)
        return policy

    def _own(self, own: dict[str, Any]) -> Any:
        """Return the policy of the running biz, made of the process's kind if there is none."""
        policy = own.get("policy")
        if policy is None:
            of_base = self._place().of_base
            try:
                policy = own["policy"] = type(of_base)()
            except TypeError:  # a class that takes arguments
                return of_base
        return policy

    def getter(self, original: Callable[[], Any]) -> Callable[[], Any]:
        @standing_for(original)
        def get_event_loop_policy() -> Any:
            own = own_of("asyncio")
            if own is not None:
                return self._own(own)
            present = original()
            return present.of_base if isinstance(present, ContextPolicy) else present

        return get_event_loop_policy

    def setter(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        @standing_for(original)
        def set_event_loop_policy(policy: Any) -> None:
            own = own_of("asyncio")
            present = getattr(self._events, _VARIABLE)
            if own is None and not isinstance(present, ContextPolicy):
                original(policy)
                return
            if policy is not None and not isinstance(policy, self._kind):
                wanted, given = self._kind.__name__.strip("_"), type(policy).__name__
                raise TypeError(f"policy must be an instance of {wanted} or None, not {given!r}")
            view = self._place()
            if own is None:
                view.of_base = self._default() if policy is None else policy
            elif policy is None:
                own.pop("policy", None)
            else:
                own["policy"] = policy

        return set_event_loop_policy

    def changer(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        @standing_for(original)
        def change(value: Any) -> None:
            own = own_of("asyncio")
            if own is not None:
                self._own(own)
            original(value)

        return change


def _present(module: Any, name: str) -> Any:
    """Return an object of asyncio, which has a private name from Python 3.14 on."""
    known = vars(module)
    return known.get(f"_{name}") or known[name]
