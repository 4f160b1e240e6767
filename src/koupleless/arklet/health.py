"""The identity of a base, and the health of the base and of its bizs, as values.

Identifiers and keys are those of the field, made for a Java process; the values are those of this interpreter. Every
answer is built for one caller alone.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import platform
import secrets
import socket
import string
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from koupleless.biz import BizState
from koupleless.errors import KouplelessError
from koupleless.wire.envelope import InputInvalid
from koupleless.wire.replies import BizHealth, HealthData, Resident, Zombie
from koupleless.wire.requests import is_blank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from koupleless.container.container import Container
    from koupleless.wire.requests import HealthQuery

_MIB: Final = 1024 * 1024
_UNKNOWN_MIB: Final = -1 / _MIB
"""How the original writes a size of -1 bytes."""

_UNKNOWN_LETTERS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseMetadata:
    """The identity of a base; computed once, because a controller takes a new identity for a new base.

    Identity, environment and cluster become Kubernetes names and label values: lower-case letters, digits, ``-`` and
    ``.`` are safe.
    """

    identity: str
    """The local IPv4 address unless configured; the original controller calls the base by this text."""
    name: str = "base"
    version: str = "1.0.0"
    cluster: str = "default"
    environment: str = "dev"
    """Must equal the controller's, or the two never meet on MQTT."""
    local_ip: str = "127.0.0.1"
    host_name: str = "unknown"
    service_port: int = 0
    """The port of the application; 0 where the base cannot tell."""

    @classmethod
    def of_this_machine(
        cls,
        *,
        name: str = "base",
        version: str = "1.0.0",
        identity: str | None = None,
        cluster: str = "default",
        environment: str = "dev",
        local_ip: str | None = None,
        bound: str = "",
    ) -> Self:
        """Fill values in from the machine that are not configured; sends nothing and asks no name server.

        ``bound`` is the host on which the arklet listens: unless the arklet listens on all addresses, this is where a
        controller reaches the base.
        """
        address = _local_address()
        if identity is None:
            letters = string.ascii_lowercase + string.digits
            unknown = "unknown-" + "".join(secrets.choice(letters) for _ in range(_UNKNOWN_LETTERS))
            identity = address or unknown
        return cls(
            identity=identity,
            name=name,
            version=version,
            cluster=cluster,
            environment=environment,
            local_ip=local_ip or _address_of(bound) or address or "127.0.0.1",
            host_name=socket.gethostname() or "unknown",
        )


class HealthRefused(KouplelessError):
    """A query for something absent; the text is the message of the envelope."""

    source: ClassVar[str] = "Request"


class Health:
    """Answers health queries.

    Lifetime: as the operations. Threads: any number may ask at once; the only state is the processor times of the first
    moment, which are set once. An answer takes well below a millisecond after the first answer, which imports
    ``psutil``; `warm` imports ``psutil`` ahead.
    """

    def __init__(self, container: Container, *, module_memory_bytes: int | None = None) -> None:
        """``module_memory_bytes`` is the limit of all bizs together; ``None`` reports no limit."""
        self._container = container
        self._module_memory_bytes = module_memory_bytes
        self._indicators: Mapping[str, Callable[[], dict[str, Any]]] = {"cpu": self._cpu, "jvm": self._interpreter}

    def answer(self, query: HealthQuery) -> HealthData:
        """The answer. Raises ``HealthRefused`` for an absent biz or indicator, ``InputInvalid`` for an unknown type."""
        everything = is_blank(query.type)
        members: dict[str, Any] = {}
        if not everything and query.type not in ("system", "biz", "plugin"):
            raise InputInvalid(f"type: {query.type} can not be found")
        if everything:
            members["master_biz_info"] = self._base()
        if everything or query.type == "system":
            members |= self._system(query.metrics or [])
        # With a name and no type, the original asks for the biz, then for a plugin of this name, and answers the
        # latter.
        if query.type == "biz" or (everything and is_blank(query.biz_name)):
            members |= self._bizs(query.biz_name, query.biz_version)
        if everything or query.type == "plugin":
            if not is_blank(query.biz_name):
                raise HealthRefused("can not find plugin")
            members["plugin_list_info"] = []
        return HealthData(**members)

    def warm(self) -> None:
        """Import and measure now, ahead of the first answer; processor figures count from here."""
        self._start  # noqa: B018 - a cached property
        _processor_model()
        self._interpreter()

    # --- the base and its bizs -----------------------------------------------------------------------------------

    def _base(self) -> BizHealth:
        # A base that answers is serving; any other state makes a controller give the node up.
        base = self._container.base
        return BizHealth(
            biz_name=base.id.name,
            biz_version=base.id.version,
            biz_state=BizState.ACTIVATED,
            web_context_path=base.web_context_path,
        )

    def _bizs(self, name: str | None, version: str | None) -> dict[str, Any]:
        found = [BizHealth.of(biz) for biz in self._container.bizs() if not biz.is_base]
        found.append(self._base())
        zombies = self._zombies(name, version)
        if is_blank(name):
            if not is_blank(version):
                raise HealthRefused("Biz name must not be empty.")
            residents = [Resident.of(one) for one in self._container.residents()]
            return {"biz_list_info": found, **zombies, **({"residents": residents} if residents else {})}
        found = [biz for biz in found if biz.biz_name == name]
        if is_blank(version):
            if not found:
                raise HealthRefused(f"can not find biz: {name}")
            return {"biz_list_info": found, **zombies}
        for biz in found:
            if biz.biz_version == version:
                return {"biz_info": biz, **zombies}
        raise HealthRefused("can not find biz")

    # --- what should be gone -------------------------------------------------------------------------------------

    def _zombies(self, name: str | None, version: str | None) -> dict[str, list[Zombie]]:
        found = [
            Zombie(
                biz=str(zombie.biz),
                name=zombie.what,
                since=zombie.since_ms,
                holders=list(zombie.holders),
                size_bytes=zombie.size_bytes,
            )
            for zombie in self._container.zombies()
            if (is_blank(name) or zombie.biz.name == name) and (is_blank(version) or zombie.biz.version == version)
        ]
        return {"zombies": found} if found else {}

    # --- the process ---------------------------------------------------------------------------------------------

    def _system(self, metrics: list[str]) -> dict[str, Any]:
        for metric in metrics:
            if metric not in self._indicators:
                raise HealthRefused("indicator not registered")
        return {metric: read() for metric, read in self._indicators.items() if not metrics or metric in metrics}

    @functools.cached_property
    def _start(self) -> tuple[Any, int]:
        """Processor times and resident memory at the first moment."""
        return _psutil().cpu_times(), self._process.memory_info().rss

    @functools.cached_property
    def _process(self) -> Any:
        return _psutil().Process()

    def _cpu(self) -> dict[str, Any]:
        before, now = self._start[0], _psutil().cpu_times()
        spent = {name: getattr(now, name) - getattr(before, name) for name in now._fields}
        if sum(spent.values()) <= 0:  # no tick since the first moment: the times since boot are the next best
            spent = now._asdict()
        # Guests are counted in user time as well.
        whole = sum(seconds for name, seconds in spent.items() if not name.startswith("guest")) or 1.0
        user = (spent["user"] + spent.get("nice", 0.0)) / whole * 100
        system = (spent["system"] + spent.get("irq", 0.0) + spent.get("softirq", 0.0)) / whole * 100
        free = (spent["idle"] + spent.get("iowait", 0.0)) / whole * 100
        return {
            "count": os.cpu_count() or 1,
            "type": _processor_model(),
            "total used (%)": _percent(100 - free),
            "user used (%)": _percent(user),
            "system used (%)": _percent(system),
            "free (%)": _percent(free),
        }

    def _interpreter(self) -> dict[str, Any]:
        resident = self._process.memory_info().rss
        grown = max(0, resident - self._start[1])
        memory = _psutil().virtual_memory()
        limit = -1 if self._module_memory_bytes is None else self._module_memory_bytes
        modules = len(sys.modules)
        return {
            "java version": platform.python_version(),
            "java home": sys.prefix,
            "total memory(M)": resident / _MIB,
            "max memory(M)": memory.total / _MIB,
            "free memory(M)": memory.available / _MIB,
            "run time(s)": max(0.0, time.time() - self._process.create_time()),
            "init heap memory(M)": self._start[1] / _MIB,
            "used heap memory(M)": resident / _MIB,
            "committed heap memory(M)": resident / _MIB,
            "max heap memory(M)": memory.total / _MIB,
            "init non heap memory(M)": 0.0,
            "used non heap memory(M)": 0.0,
            "committed non heap memory(M)": 0.0,
            "max non heap memory(M)": _UNKNOWN_MIB,
            "loaded class count": modules,
            "unload class count": 0,
            "total class count": modules,
            "java used metaspace": grown,
            "java committed metaspace": grown,
            "java max metaspace": limit,
        }


@functools.cache
def _psutil() -> Any:
    # The import takes 15 ms, which the start of a base need not wait for.
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    return psutil


def _percent(value: float) -> float:
    return round(min(100.0, max(0.0, value)), 2)


@functools.cache
def _processor_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _address_of(host: str) -> str | None:
    """The address that a host is, without a look-up; ``None`` for a name, and for the host that means all addresses."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return None if ipaddress.ip_address(host).is_unspecified else host
    except ValueError:
        return None


def _local_address() -> str | None:
    """The IPv4 address from which traffic to other machines would leave; ``None`` without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation; connecting a datagram socket sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith(("127.", "0.")) else address
