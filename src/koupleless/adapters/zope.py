"""zope.interface: each biz has adapter hooks of its own, by which an interface that is called finds adapters.

Compiled code reads the hooks straight from a list. The list has one hook, which calls the hooks of the running biz.
Declarations of a biz for built-in classes (``classImplements(str, ...)``) are made for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.origin import is_of_base_alone
from koupleless.context import current
from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.linking.linker import linker_of

if TYPE_CHECKING:
    import contextlib

distribution: Final = "zope-interface"


def _function(hook: Any) -> Any:
    """The function itself, if it can be exchanged, as the hook of zope.component can, whatever the present one."""
    return getattr(hook, "original", hook)


def _is_of_application(hook: Any, _: Any) -> bool:
    function = _function(hook)
    return is_of_base_alone(function) and not base_index().owners(getattr(function, "__module__", None) or "")


def _is_superseded(hook: Any) -> bool:
    """Whether a hook belongs to the base's copy of a library of which the running biz has a copy."""
    function, linker = _function(hook), linker_of(current())
    own = None if linker is None else linker.table.modules.get(getattr(function, "__module__", None) or "")
    return own is not None and getattr(function, "__globals__", None) is not getattr(own, "__dict__", None)


def _follow_hooks(undo: contextlib.ExitStack, module: Any) -> None:
    """``zope.interface.interface``."""
    read_in_c = module.adapter_hooks
    # The way back restores the list for C code, too.
    own_containers(undo, module, "adapter_hooks", package="zope", hides=_is_of_application)
    hooks = module.adapter_hooks

    def hooks_of_whoever_runs(interface: Any, thing: Any) -> Any:
        for hook in hooks:
            adapter = None if _is_superseded(hook) else hook(interface, thing)
            if adapter is not None:
                return adapter
        return None

    read_in_c[:] = [hooks_of_whoever_runs]


follow: Final = {"zope.interface.interface": _follow_hooks}
