"""Loads the entry of a biz as a face for the base to serve or start; else, advises the author of the biz.

Runs as the biz, on a thread of the stage: importing a Python module runs the code of the Python module.
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
"""Number of names of a Python module that are told."""


def load_entry(namespace: Namespace, entry: str, *, biz: BizId) -> Face:
    """Import ``entry`` and return the face of the imported object.

    Raises ``StartFailed`` if the object does not exist, or can be neither served nor called, and any error of the biz's
    own code.
    """
    module_name, _, path = (part.strip() for part in entry.partition(":"))
    try:
        found = namespace.resolve(entry)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import in the Python module's code
        reason = f"has no module {error.name!r}, which its entry {entry!r} names; {_CORRECT}"
        raise StartFailed(biz, reason) from None
    except AttributeError:
        module = namespace.table.get(module_name)
        missing = None if module is None else _missing(module, path)
        if missing is None:
            raise  # in the code of the Python module, or of the factory
        reason = f"has no {missing}, which its entry {entry!r} names; {_CORRECT}. {_offer(module)}"
        raise StartFailed(biz, reason) from None
    if path and (found is None or not (callable(found) or inspect.ismodule(found))):
        said = f"has the entry {entry!r}, which is {type(found).__qualname__}: neither an application nor a function"
        if path.endswith("()"):
            said = f"has the entry {entry!r}, which returned {type(found).__qualname__}, no application"
        raise StartFailed(biz, f"{said}; {_CORRECT}. {_offer(namespace.table.get(module_name))}")
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
        raise StartFailed(biz, reason)


def _missing(module: ModuleType, path: str) -> str | None:
    """Name the first part of a dotted path that does not exist; ``None`` if all exist."""
    found: Any = module
    done = module.__name__
    for part in filter(None, path.removesuffix("()").split(".")):
        if not hasattr(found, part):
            return f"{part!r} in {done}"
        found = getattr(found, part)
        done = f"{done}.{part}"
    return None


def _offer(module: ModuleType | None) -> str:
    """Say which callables of a Python module could have been meant."""
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
    """Tell whether a value was made in the Python module: an instance, or a function that was not just imported."""
    return not inspect.isroutine(value) or getattr(value, "__module__", None) == module.__name__
