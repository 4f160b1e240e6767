"""Processes beside a controller under measurement: an API server in memory, and bases by the thousand.

``python bench/simulated.py api PORT BASES MODULES`` serves a cluster with that many Nodes and Pods, all ready.
``python bench/simulated.py bases PORT BASES MODULES CONTROLLER...`` serves the arklets of the bases, each on an address
of its own in 127.1.0.0/16, and tells the controllers (``host:port``) of them in turns, as behind a Service.
Both obey JSON on further paths (`/stats`, `/control`), and end with their parent.
"""

# ruff: noqa: PLC0415 - each process loads its own part alone

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from koupleless.controller import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.kube.memory.store import Store

ENV: Final = "bench"
NAMESPACE: Final = "default"
_BEAT_S: Final = 12.0
_CREATED: Final = "2026-01-01T00:00:00Z"
_CREATED_S: Final = 1_767_225_600
_ENDS_WITH_PARENT: Final = 1


def address(number: int) -> str:
    """The address of a base."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def identity(number: int) -> str:
    """The identity of a base."""
    return f"base-{number:04}"


def pod_name(base: int, module: int) -> str:
    """The name of the Pod of a module on a base, as a ReplicaSet gives names."""
    return f"module-{module:02}-7d4b9c6f8d-{base:05}"


# --- the API server --------------------------------------------------------------------------------------------------


def fill(store: Store, bases: int, modules: int) -> None:
    """Put all Nodes and Pods into a store, as a controller has left them that ran before."""
    from tests.kube.memory.kinds import KINDS

    from koupleless.controller.vnodes.base import AnnouncedBase, BaseState
    from koupleless.controller.vnodes.liveness import Life
    from koupleless.controller.vnodes.node import Capacity, node_of, node_status
    from koupleless.controller.vpods.actual import Actual, State
    from koupleless.controller.vpods.attempts import Attempts
    from koupleless.controller.vpods.module import modules_of
    from koupleless.controller.vpods.plan import Claims, Read
    from koupleless.controller.vpods.pod import VPod
    from koupleless.controller.vpods.status import Facts, status_of
    from koupleless.controller.vpods.variables import Surroundings

    nodes, pods = KINDS["", "nodes"], KINDS["", "pods"]
    templates = [_template(module) for module in range(modules)]
    for base in range(bases):
        announced = AnnouncedBase(
            identity(base), "shop", "1.0.0", "default", address(base), identity(base), 1238, BaseState.ACTIVATED
        )
        node = node_of(announced, ENV)
        node["status"] = node_status(announced, Life.ALIVE, Capacity(), {}, now=time.time())
        node["metadata"] |= {
            "uid": f"5e0d{base:04x}-0000-4000-8000-{0:012x}",
            "creationTimestamp": _CREATED,
            "generation": 1,
        }
        store.put(nodes, "", node)
        name = node["metadata"]["name"]
        actual = {key: Actual(key, State.ACTIVATED, _CREATED_S) for key in map(_key, range(modules))}
        for module, template in enumerate(templates):
            pod: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **template["metadata"],
                    "name": pod_name(base, module),
                    "namespace": NAMESPACE,
                    "uid": f"6f1a{base:04x}-0000-4000-8000-{module:012x}",
                    "creationTimestamp": _CREATED,
                    "generation": 1,
                },
                "spec": {**template["spec"], "nodeName": name},
            }
            read = VPod.of(pod)
            wanted = modules_of(read, None, Surroundings(name, address(base)))  # type: ignore[arg-type] # has none
            one = Read(read, wanted)
            facts = Facts(address(base), actual, Claims.of([one]), Attempts())
            pod["status"] = {**status_of(one, facts, now=_CREATED_S), "qosClass": "BestEffort"}
            pod["status"]["conditions"] = [
                *({name: value for name, value in told.items() if value} for told in pod["status"]["conditions"]),
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": _CREATED},
            ]
            store.put(pods, NAMESPACE, pod)


def _key(module: int) -> Any:
    from koupleless.controller.vpods.module import ModuleKey

    return ModuleKey(f"module-{module:02}", "1.0.0")


def _template(module: int) -> dict[str, Any]:
    """A Pod of a Deployment, with the members that a real API server and its admission add."""
    name = f"module-{module:02}"
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": f"{name}-7d4b9c6f8d",
        "uid": "0f6bb7b2-9b8c-4a52-9c0e-0d6a1f3a5b11",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    fields: dict[str, Any] = {f"f:member-{number}": {".": {}, "f:value": {}} for number in range(30)}
    token = {"name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/token", "readOnly": True}
    container = {
        "name": name,
        "image": f"oci://registry.example/shop/{name}:1.0.0",
        "env": [{"name": "BIZ_VERSION", "value": "1.0.0"}, {"name": "REGION", "value": "north"}],
        "resources": {"requests": {"memory": "16Mi"}},
        "volumeMounts": [token],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    return {
        "metadata": {
            "generateName": f"{name}-7d4b9c6f8d-",
            "labels": {"app": name, "pod-template-hash": "7d4b9c6f8d", names.COMPONENT: names.MODULE},
            "ownerReferences": [owner],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": fields}],
        },
        "spec": {
            "containers": [container],
            "tolerations": [{"key": names.TAINT_VIRTUAL, "operator": "Exists", "effect": "NoExecute"}],
            "volumes": [{"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": []}}],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "schedulerName": "default-scheduler",
            "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority",
        },
    }


def serve_api(port: int, bases: int, modules: int) -> None:
    """Serve the cluster."""
    import uvicorn
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from tests.kube.memory.app import MemoryServer
    from tests.kube.memory.kinds import KINDS

    memory = MemoryServer()
    fill(memory.store, bases, modules)
    memory.store.compact()
    counts: Counter[str] = Counter()

    async def stats(_: Any) -> JSONResponse:
        seen, memory.seen = memory.seen, []
        counts.update(f"{one.verb} {one.plural}" for one in seen)
        leases = memory.store.all_of(KINDS["coordination.k8s.io", "leases"], "")
        holders = Counter(
            lease["spec"].get("holderIdentity", "")
            for lease in leases
            if lease["metadata"]["labels"][names.COMPONENT] == names.VNODE_LEASE
        )
        return JSONResponse({"counts": counts, "holders": holders, "at": time.monotonic()})

    memory.app.router.routes.append(Route("/stats", stats))
    config = uvicorn.Config(memory.app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    uvicorn.Server(config).run()


# --- bases -----------------------------------------------------------------------------------------------------------


class SimulatedBase:
    """One base, with the modules of all Pods of its Node."""

    def __init__(self, number: int, modules: int) -> None:
        self.number = number
        self.start = f"start-{number}"
        self.revision = 0
        self.states = {f"module-{module:02}": "ACTIVATED" for module in range(modules)}
        self.installs = self.uninstalls = 0
        self._list = b""

    def answer(self, command: str, body: Mapping[str, Any]) -> bytes:
        """Do a command of the arklet."""
        if command == "queryAllBiz":
            self._list = self._list or _reply([_listed(name, state) for name, state in self.states.items()])
            return self._list
        if command == "health":
            return _HEALTH
        if command == "switchBiz":
            return _REFUSED  # else a module that makes way would answer again before anybody has looked
        self._list = b""
        self.revision += 1
        if command == "installBiz":
            self.installs += 1
            self.states[body["bizName"]] = "ACTIVATED"
        elif command == "uninstallBiz":
            self.uninstalls += 1
            self.states.pop(body["bizName"], None)
        return _DONE

    def change(self, module: str, state: str) -> None:
        """Change a module without a command."""
        self.states[module] = state
        self.revision += 1
        self._list = b""

    def heartbeat(self) -> dict[str, Any]:
        """The heartbeat of now."""
        name = identity(self.number)
        metadata = {"identity": name, "name": "shop", "version": "1.0.0", "clusterName": "default"}
        return {
            "baseMetadata": metadata,
            "localIP": address(self.number),
            "localHostName": name,
            "port": 1238,
            "state": "ACTIVATED",
            "startId": self.start,
            "modules": str(self.revision),
        }


def _listed(name: str, state: str) -> dict[str, Any]:
    records = [{"changeTime": _CREATED_S * 1_000, "state": state, "reason": "Started", "message": ""}]
    return {
        "bizName": name,
        "bizVersion": "1.0.0",
        "bizState": state,
        "mainClass": "app:app",
        "webContextPath": f"/{name}",
        "classLoader": "biz",
        "bizStateRecords": records,
    }


def _reply(data: Any) -> bytes:
    return _http(json.dumps({"code": "SUCCESS", "data": data, "message": ""}).encode())


def _http(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_DONE: Final = _reply({"code": "SUCCESS", "message": "done", "elapsedSpace": 0, "bizInfos": []})
_REFUSED: Final = _http(b'{"code": "FAILED", "message": "the module stays as it is"}')
_HEALTH: Final = _reply({"healthData": {"masterBizInfo": {"bizState": "ACTIVATED"}}})


class Arklet(asyncio.Protocol):
    """One connection to an arklet, or to the control of all bases: requests one after the other."""

    def __init__(self, answer: Callable[[str, Any], bytes]) -> None:
        self._answer = answer
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].decode().lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            command = self._received.split(b" ", 2)[1].decode().strip("/")
            self._received = self._received[end + 4 + length :]
            assert self._transport is not None
            self._transport.write(self._answer(command, json.loads(body or b"{}")))


class Bases:
    """All bases of the process."""

    def __init__(self, bases: int, modules: int, controllers: list[str]) -> None:
        self._controllers = controllers
        self._bases = [SimulatedBase(number, modules) for number in range(bases)]
        self._beating: set[asyncio.Task[None]] = set()

    async def run(self, port: int) -> None:
        """Serve until the process ends."""
        loop = asyncio.get_running_loop()
        for base in self._bases:
            await loop.create_server(lambda base=base: Arklet(base.answer), address(base.number), 1238)  # type: ignore[misc]
            self._start(self._beat_again(base))
        await loop.create_server(lambda: Arklet(self._obey), "127.0.0.1", port)
        await asyncio.Event().wait()

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._beating.add(task)
        task.add_done_callback(self._beating.discard)

    async def _beat_again(self, base: SimulatedBase) -> None:
        await asyncio.sleep(random.uniform(0, _BEAT_S))
        while True:
            await self._beat(base)
            await asyncio.sleep(_BEAT_S)

    async def _beat(self, base: SimulatedBase) -> None:
        body = json.dumps(base.heartbeat()).encode()
        place = random.choice(self._controllers)
        head = f"POST /heartbeat HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        host, _, port = place.rpartition(":")
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(head.encode() + body)
                await reader.read()
            finally:
                writer.close()

    def _obey(self, path: str, body: Any) -> bytes:
        if path == "change":
            base = self._bases[body["base"]]
            base.change(body["module"], body["state"])
            self._start(self._beat(base))
        elif path == "controllers":
            self._controllers[:] = body
        return _reply(
            {
                "installs": sum(base.installs for base in self._bases),
                "uninstalls": sum(base.uninstalls for base in self._bases),
            }
        )


def main() -> None:
    """Be one of the two processes."""
    ctypes.CDLL(None).prctl(_ENDS_WITH_PARENT, signal.SIGKILL)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    what, port, bases, modules, *controllers = sys.argv[1:]
    if what == "api":
        serve_api(int(port), int(bases), int(modules))
    else:
        asyncio.run(Bases(int(bases), int(modules), controllers).run(int(port)))


if __name__ == "__main__":
    main()
