"""The protocol between the controller and a base, without the way of the words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from koupleless.controller.vnodes.node import Capacity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koupleless.controller.tunnels.answers import Answer
    from koupleless.controller.vnodes.base import AnnouncedBase
    from koupleless.controller.vpods.hooks import Visit
    from koupleless.controller.vpods.module import Module, ModuleKey


_MOST_MEBIBYTES: Final = float(1 << 40)


class NoAnswer(Exception):
    """A base gave no answer, or none that a base gives; the text says why. The command may have arrived."""


class Deaf(NoAnswer):
    """The controller itself hears nothing by the tunnel: the silence of a base says nothing about the base."""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a base in the words of the base."""

    is_active: bool | None
    """Whether the base itself is active; ``None`` where the base says nothing, which is no sign of life."""
    capacity: Capacity = field(default_factory=Capacity)


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds after which a call is given up."""

    connect_s: float = 3.0
    health_s: float = 5.0
    list_s: float = 10.0
    install_s: float = 300.0
    uninstall_s: float = 120.0


class Commands(Protocol):
    """A way of commands to bases. Used on one event loop; each call ends within the time limits of the tunnel.

    All calls raise `NoAnswer`. A call that is cancelled may have had its effect.
    """

    async def install(self, base: AnnouncedBase, module: Module, *, replaces: bool = False) -> Answer:
        """Install a module; returns when the module has started, or has failed to.

        ``replaces`` starts the module beside its present life, and any other version, which then leave. A base of the
        original answers that the module is there already.
        """

    async def uninstall(self, base: AnnouncedBase, key: ModuleKey, *, drain_s: float | None = None) -> Answer:
        """Uninstall a module; returns when the module has left.

        ``drain_s`` are the seconds for requests in flight, if the base is to take no longer; bases of the original take
        the time they take.
        """

    async def switch(self, base: AnnouncedBase, key: ModuleKey) -> Answer:
        """Let a version of a module answer, in the place of other versions."""

    async def modules(self, base: AnnouncedBase) -> tuple[Mapping[str, Any], ...]:
        """Return the whole list of modules, as the base writes each."""

    async def health(self, base: AnnouncedBase) -> Health:
        """Ask for the health of the base."""


class Tunnel(Commands, Protocol):
    """A way to bases, and to the modules there."""

    async def visit(self, base: AnnouncedBase, visit: Visit) -> None:
        """Send a GET to a module, as a kubelet does; any answer with a status below 400 is a success.

        The call has no time limit of its own.
        """


def install_body(module: Module, *, replaces: bool) -> dict[str, Any]:
    """Return the body of ``installBiz`` for a module; ``replaces`` starts a present module again."""
    body: dict[str, Any] = {"bizName": module.key.name, "bizVersion": module.key.version, "bizUrl": module.url}
    if replaces:
        body["installStrategy"] = "replace"
    if module.args:
        body["args"] = list(module.args)
    if module.envs:
        body["envs"] = dict(module.envs)
    return body


def uninstall_body(key: ModuleKey, drain_s: float | None) -> dict[str, Any]:
    """Return the body of ``uninstallBiz``; ``drain_s`` is the time for requests in flight, of the base unless given."""
    body: dict[str, Any] = {"bizName": key.name, "bizVersion": key.version}
    if drain_s is not None:
        body["drainSeconds"] = round(drain_s, 3)
    return body


def read_health(data: object) -> Health:
    """Read the ``data`` of a reply to ``health``; members of other types count as absent."""
    found = _mapping(_mapping(data).get("healthData"))
    master = _mapping(found.get("masterBizInfo")).get("bizState")
    is_active = master.upper() == "ACTIVATED" if isinstance(master, str) and master else None
    machine = _mapping(found.get("jvm"))
    most, used = _bytes(machine.get("java max metaspace")), _bytes(machine.get("java committed metaspace"))
    ours = _mapping(found.get("koupleless"))
    left = None if most is None or used is None else max(most - used, 0)
    if most is None:  # no limit of metaspace: the memory of the machine, which does not change with each answer
        most, left = _mebibytes(machine.get("max memory(M)")), None
    processors = _count(_mapping(found.get("cpu")).get("count"))
    return Health(is_active, Capacity(_count(ours.get("maxModuleCount")), most, left, processors))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _bytes(value: object) -> int | None:
    """Return a number of bytes; ``None`` for -1, by which a base says that it does not know."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _mebibytes(value: object) -> int | None:
    """Return the bytes of a number of mebibytes; ``None`` for other things, and for -1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MOST_MEBIBYTES:
        return None
    return int(value * (1 << 20))


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
