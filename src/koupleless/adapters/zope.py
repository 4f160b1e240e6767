"""zope.interface: each biz has adapter hooks of its own, by which an interface that is called finds adapters.

Compiled code reads them straight from a list. In it stands one hook, which calls those of whoever runs. What a biz
declares of built-in classes (``classImplements(str, ...)``) is declared for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.adapters.containers import own_containers
from koupleless.adapters.origin import is_of_base_alone

if TYPE_CHECKING:
    import contextlib

DISTRIBUTIONS: Final = ("zope-interface",)


def _is_hook_of_base(hook: Any, _: Any) -> bool:
    """Also of a function that can be exchanged, as zope.component's are, whatever is in its place now."""
    return is_of_base_alone(getattr(hook, "original", hook))


def _follow_hooks(undo: contextlib.ExitStack, module: Any) -> None:
    """``zope.interface.interface``."""
    read_in_c = module.adapter_hooks
    # The way back restores what is read in C, too.
    own_containers(undo, module, "adapter_hooks", package="zope", hides=_is_hook_of_base)
    hooks = module.adapter_hooks

    def hooks_of_whoever_runs(interface: Any, thing: Any) -> Any:
        for hook in hooks:
            adapter = hook(interface, thing)
            if adapter is not None:
                return adapter
        return None

    read_in_c[:] = [hooks_of_whoever_runs]


FOLLOWED: Final = {"zope.interface.interface": _follow_hooks}
