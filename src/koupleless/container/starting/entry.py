"""From the entry that a manifest names to what the base can serve or start; if it cannot, what its author must change.

Runs as the biz, on a thread of the stage: importing a module is running its code.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from koupleless.errors import StartFailed
from koupleless.router.face import Face, FaceKind, face_of, kind_of

if TYPE_CHECKING:
    from types import ModuleType

    from koupleless.biz import BizId
    from koupleless.isolation.namespace import Namespace

_CORRECT: Final = 'correct entry = "package.module:callable"'
_SHOWN: Final = 8
"""How many names of what a module offers are told."""


def load_entry(namespace: Namespace, entry: str, *, biz: BizId) -> Face:
    """Import ``entry`` and tell what it is.

    Raises ``StartFailed`` if there is no such thing, or nothing that can be served or called, and whatever the biz's
    own code raises.
    """
    module_name, _, path = (part.strip() for part in entry.partition(":"))
    try:
        found = namespace.resolve(entry)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import in the module's code
        reason = f"has no module {error.name!r}, which its entry {entry!r} names; {_CORRECT}"
        raise StartFailed(str(biz), reason) from None
    except AttributeError:
        module = namespace.table.get(module_name)
        missing = None if module is None else _missing(module, path)
        if missing is None:
            raise  # in the module's code, or in that of the factory
        reason = f"has no {missing}, which its entry {entry!r} names; {_CORRECT}. {_offer(module)}"
        raise StartFailed(str(biz), reason) from None
    if path and (found is None or not (callable(found) or inspect.ismodule(found))):
        said = f"has the entry {entry!r}, which is {type(found).__qualname__}: neither an application nor a function"
        if path.endswith("()"):
            said = f"has the entry {entry!r}, which returned {type(found).__qualname__}, no application"
        raise StartFailed(str(biz), f"{said}; {_CORRECT}. {_offer(namespace.table.get(module_name))}")
    return face_of(found, name=str(biz))


def refuse_application(result: object, *, entry: str, biz: BizId) -> None:
    """Raise ``StartFailed`` if a start function returned an application: it was meant as a factory."""
    if result is None or not callable(result):
        return
    try:
        kind = kind_of(result)
    except TypeError:
        return
    if kind in (FaceKind.ASGI, FaceKind.WSGI):
        reason = f"has the entry {entry!r}, a function that returned an application; to serve that, write '{entry}()'"
        raise StartFailed(str(biz), reason)


def _missing(module: ModuleType, path: str) -> str | None:
    """The first part of a dotted path that is not there; ``None`` if all are."""
    found: Any = module
    done = module.__name__
    for part in filter(None, path.removesuffix("()").split(".")):
        if not hasattr(found, part):
            return f"{part!r} in {done}"
        found = getattr(found, part)
        done = f"{done}.{part}"
    return None


def _offer(module: ModuleType | None) -> str:
    """What of a module could have been meant."""
    if module is None:
        return ""
    names = [
        name
        for name, value in vars(module).copy().items()
        if not name.startswith("_") and callable(value) and not inspect.isclass(value) and _is_of(value, module)
    ]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"{module.__name__} offers {', '.join(names[:_SHOWN])}{more}" if names else f"{module.__name__} offers nothing"
    )


def _is_of(value: object, module: ModuleType) -> bool:
    """Whether it was made there: an instance, or a function that was not just imported."""
    return not inspect.isroutine(value) or getattr(value, "__module__", None) == module.__name__
