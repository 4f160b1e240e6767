"""Functions that replace parts of the standard library, or of the event loop, for everybody in the process.

A biz must not call such a function: the base and other bizs run on the replaced parts, and a half-made replacement can
hardly be taken back. The functions are known by name, here. So a call can be found in a project before anything runs,
and refused where it is made before anything is patched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from koupleless.errors import PatchRefused

if TYPE_CHECKING:
    from koupleless.biz import BizId

_GREEN: Final = "it replaces sockets, threads and locks of the standard library"
_LOOP: Final = "it replaces the tasks and the event loop of asyncio"

FUNCTIONS: Final[dict[str, tuple[str, ...]]] = {
    "gevent.monkey": ("patch_*",),
    "eventlet": ("monkey_patch",),
    "eventlet.patcher": ("monkey_patch",),
    "curio.monkey": ("patch_*",),
    "nest_asyncio": ("apply",),
    "nest_asyncio2": ("apply",),
    "psycogreen.gevent": ("patch_psycopg",),
    "psycogreen.eventlet": ("patch_psycopg",),
    "grpc.experimental.gevent": ("init_gevent",),
    "_time_machine": ("patch*",),
}
"""Python module -> its functions; ``*`` at the end stands for every function with such a beginning."""

_EFFECTS: Final = {
    "_time_machine": "it replaces the clocks in the C code of time and datetime",
    "grpc": "it decides how gRPC waits",
    "nest_asyncio": _LOOP,
    "nest_asyncio2": _LOOP,
    "psycogreen": "it decides how psycopg2 waits",
}
"""Reason by top-level package, where not `_GREEN`."""
_CLOCK: Final = "bring time-machine 3.3 or a later version, with which each module travels for itself"
_INSTEAD: Final = {
    "_time_machine": _CLOCK,
    "nest_asyncio": "await instead of running a loop within a running one",
    "nest_asyncio2": "await instead of running a loop within a running one",
}
_OWN_BASE: Final = (
    "if the module cannot do without, give it a base of its own whose application makes the call before anything else"
)


def is_one(module: str, name: str) -> bool:
    """Whether a function of a Python module is such a function."""
    return any(
        name.startswith(known[:-1]) if known.endswith("*") else name == known for known in FUNCTIONS.get(module, ())
    )


def explain(module: str) -> str:
    """Explain the refusal of such functions of a Python module, with advice: the rest of a sentence about a call."""
    top = module.partition(".")[0]
    remedies = ["remove the call", *filter(None, [_INSTEAD.get(top)]), f"or {_OWN_BASE}"]
    return (
        f"{_EFFECTS.get(top, _GREEN)} for the whole process, the base and other modules included; {', '.join(remedies)}"
    )


def refusal(biz: BizId, module: str, name: str) -> PatchRefused:
    """Make the error for a call by a biz."""
    return PatchRefused(biz, f"{module}.{name}()", explain(module))
