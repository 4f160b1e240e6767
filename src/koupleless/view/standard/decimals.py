"""Give each biz a copy of the three contexts of ``decimal`` that programs change in place.

C code makes the context of a thread from the process's ``DefaultContext``. A biz may look at its own ``DefaultContext``
during the import. Such a biz works with this object, until the biz asks for the context of the thread or sets one; then
the biz has a copy, as each thread has alone.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any, Final

from koupleless.context import current
from koupleless.contextual import assign_by_context
from koupleless.frames import standing_for
from koupleless.replacing import replace
from koupleless.variables import Variables
from koupleless.view.own import own_of

if TYPE_CHECKING:
    import contextlib

_NAMES: Final = ("DefaultContext", "BasicContext", "ExtendedContext")


def put_in(undo: contextlib.ExitStack, decimal: Any) -> None:
    """Let the three variables answer by context, and let ``getcontext`` and ``setcontext`` copy their values."""
    of_process: dict[str, Any] = {name: vars(decimal)[name] for name in _NAMES}
    get, set_ = decimal.getcontext, decimal.setcontext

    def here() -> dict[str, Any] | None:
        own = own_of("decimal")
        if own is not None and not own:
            own.update((name, template.copy()) for name, template in of_process.items())
            if _is_starting() and not any(variable.name == _VARIABLE for variable in contextvars.copy_context()):
                set_(own["DefaultContext"])
        return own

    @standing_for(set_)
    def setcontext(context: Any, /) -> None:
        own = own_of("decimal")
        if own and any(context is template for template in own.values()):
            context = context.copy()
            context.clear_flags()
        set_(context)

    @standing_for(get)
    def getcontext() -> Any:
        own = None if current() is None else own_of("decimal")
        if own and get() is own.get("DefaultContext"):
            setcontext(get())
        return get()

    replace(undo, decimal, "getcontext", getcontext)
    replace(undo, decimal, "setcontext", setcontext)
    for name in _NAMES:
        assign_by_context(undo, decimal, name, here)


def _is_starting() -> bool:
    """Tell whether a context set now is set in the life's own context, not in the context of a caller of the biz."""
    scope = current()
    variables = None if scope is None else scope.find_facet(Variables)
    return variables is None or not variables.is_settled


_VARIABLE: Final = "decimal_context"
"""Name of the context variable for the context of ``decimal``."""
