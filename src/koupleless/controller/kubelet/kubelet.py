"""The routes of the kubelet's API: each request is judged first, and only then is something looked for.

Source: Kubernetes, ``pkg/kubelet/server``: paths, parameters, and the rights for each path.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from koupleless.controller.cluster.api import ApiError, Unreachable
from koupleless.controller.kubelet import console as consoles
from koupleless.controller.kubelet import forwarding
from koupleless.controller.kubelet.callers import Act, Refusal
from koupleless.controller.kubelet.console import Command, Console
from koupleless.controller.kubelet.figures import Figures
from koupleless.controller.kubelet.forwarding import Forwarding
from koupleless.controller.kubelet.logs import Logs, Senseless, Wish
from koupleless.controller.kubelet.places import Located, NotFound
from koupleless.controller.tunnels.tunnel import NoAnswer
from koupleless.controller.vpods.module import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from koupleless.controller.kubelet.callers import Callers
    from koupleless.controller.kubelet.places import Bases, Places
    from koupleless.controller.kubelet.transport.server import Exchange, Request
    from koupleless.controller.vpods.pod import VPod

_JSON: Final = "application/json"
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
_PROXY: Final = ("proxy",)
_SPDY: Final = "spdy/3.1"
_READ: Final = frozenset({"GET", "HEAD"})


class _Asked(NamedTuple):
    """A request of a caller with the right to it."""

    request: Request
    pod: VPod | None
    container: str
    caller: str


class _Task(NamedTuple):
    """The right for a request, and the function that answers once the caller has the right."""

    verb: str
    answer: Callable[[_Asked, Exchange], Awaitable[None]]
    namespace: str | None = None
    pod: str = ""
    container: str = ""


class Kubelet:
    """The API for all Nodes of one controller. Lifetime: as the server; all on one event loop."""

    def __init__(
        self, places: Places, bases: Bases, callers: Callers, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._places = places
        self._callers = callers
        self._wall = wall
        self._bases = bases
        self._logs = Logs(bases, wall=wall)
        self._figures = Figures(places, bases, wall=wall)

    async def handle(self, request: Request, exchange: Exchange) -> None:
        """Answer one request."""
        try:
            await self._route(request, exchange)
        except NotFound as error:
            await exchange.answer(error.status, str(error))
        except Senseless as error:
            await exchange.answer(400, str(error))
        except NoAnswer as error:
            await exchange.answer(500, str(error))
        except (ApiError, Unreachable) as error:
            await exchange.answer(500, str(error))

    async def _route(self, request: Request, exchange: Exchange) -> None:
        head, *rest = request.path
        match head, rest:
            case "containerLogs", [namespace, pod, container]:
                await self._guarded(request, exchange, _Task("get", self._log, namespace, pod, container))
            case "portForward", [namespace, pod] | [namespace, pod, _]:
                await self._guarded(request, exchange, _Task("create", self._forward, namespace, pod))
            case "exec", [namespace, pod, container] | [namespace, pod, _, container]:
                await self._guarded(request, exchange, _Task("create", self._console, namespace, pod, container))
            case "attach", [namespace, pod, *_]:
                await self._guarded(request, exchange, _Task("create", _attach, namespace, pod))
            case "pods" | "healthz" | "metrics" | "stats", _:
                await self._page(request, exchange, "/".join(request.path))
            case _:
                await self._guarded(request, exchange, _Task("get", _nothing))

    # --- callers -----------------------------------------------------------------------------------------------------

    async def _judge(self, request: Request, exchange: Exchange, act: Act) -> str | None:
        """Return the name of a caller with the right to an act; a refusal is answered here."""
        found = await self._callers.judge(request, act)
        if isinstance(found, Refusal):
            headers = {"www_authenticate": "Bearer"} if found.status == 401 else {}  # noqa: PLR2004
            await exchange.answer(found.status, found.reason, **headers)
            return None
        return found.name

    async def _guarded(self, request: Request, exchange: Exchange, task: _Task) -> None:
        """Answer to callers with the right to a Pod; strangers do not learn whether there is one.

        ``create`` is asked for whatever the method: a WebSocket begins with a GET, which a right to read would open.
        """
        pod = None if task.namespace is None else self._places.pod(task.namespace, task.pod)
        caller = await self._judge(request, exchange, Act(task.verb, _PROXY, "" if pod is None else pod.node))
        if caller is not None:
            await task.answer(_Asked(request, pod, task.container, caller), exchange)

    # --- Pods --------------------------------------------------------------------------------------------------------

    async def _locate(self, pod: VPod | None, container: str) -> Located:
        """Find the module of a container, the first one without a name. Raises `NotFound`."""
        if pod is None:
            raise NotFound("there is no such Pod of modules")
        base = self._places.base(pod.node)
        if base is None:
            raise NotFound(f"the base of Pod {pod.key} is not known (Node {pod.node or 'none'})", 500)
        for module in await self._places.modules(pod):
            if module.container == container or not container:
                if isinstance(module, Refused):
                    raise NotFound(f"container {module.container} has no module: {module.message}", 400)
                return Located(pod, module.container, base, module)
        raise NotFound(f"Pod {pod.key} has no container {container}", 400)

    async def _log(self, asked: _Asked, exchange: Exchange) -> None:
        request = asked.request
        if request.method not in _READ:
            raise NotFound("logs are read by GET", 405)
        wish = Wish.of(request, now=self._wall())
        found = await self._locate(asked.pod, asked.container)

        def is_there() -> bool:
            now = self._places.pod(*found.pod.key)
            return now is not None and now.uid == found.pod.uid

        await self._logs.send(found, wish, exchange, is_there=is_there)

    async def _forward(self, asked: _Asked, exchange: Exchange) -> None:
        found = await self._locate(asked.pod, "")
        protocol = _protocol(asked.request, forwarding.PROTOCOLS)
        await Forwarding(found.pod, found.base).run(exchange, protocol)

    async def _console(self, asked: _Asked, exchange: Exchange) -> None:
        protocol = _protocol(asked.request, consoles.PROTOCOLS)
        command = Command.of(asked.request)
        found = await self._locate(asked.pod, asked.container)
        caller = f"{asked.caller} for Pod {found.pod.key}"
        console = Console(self._bases, found, command, caller=caller)
        try:
            await console.open()  # before the protocol changes, so that a refusal is told
            await console.run(exchange, protocol)
        finally:
            await console.close()

    # --- Nodes -------------------------------------------------------------------------------------------------------

    async def _page(self, request: Request, exchange: Exchange, path: str) -> None:
        pages: dict[str, tuple[tuple[str, ...], Callable[[], Awaitable[tuple[str | bytes, str]]]]] = {
            "pods": (("pods", "proxy"), self._pods),
            "healthz": (("healthz", "proxy"), _healthz),
            "metrics/resource": (("metrics",), self._resource),
            "stats/summary": (("stats",), self._summary),
        }
        found = pages.get(path)
        caller = await self._judge(request, exchange, Act("get", _PROXY if found is None else found[0]))
        if caller is None:
            return
        if found is None or request.method not in _READ:
            await _nothing(_Asked(request, None, "", caller), exchange)
            return
        content, content_type = await found[1]()
        await exchange.answer(200, content if request.method == "GET" else b"", content_type=content_type)

    async def _pods(self) -> tuple[bytes, str]:
        pods = [_document(pod) for node, _ in self._places.led() for pod in self._places.pods_on(node)]
        return msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}), _JSON

    async def _resource(self) -> tuple[str, str]:
        return await self._figures.resource(), _PROMETHEUS

    async def _summary(self) -> tuple[bytes, str]:
        return msgspec.json.encode(await self._figures.summary()), _JSON


async def _healthz() -> tuple[str, str]:
    return "ok", "text/plain; charset=utf-8"


async def _attach(_: _Asked, exchange: Exchange) -> None:
    await exchange.answer(
        400, "a module has no input to attach to: `kubectl logs -f` shows the output, `kubectl exec` opens a console"
    )


async def _nothing(asked: _Asked, exchange: Exchange) -> None:
    await exchange.answer(404, f"there is nothing at /{'/'.join(asked.request.path)} of the kubelet's API of modules")


def _protocol(request: Request, known: tuple[str, ...]) -> str:
    """Choose the protocol inside SPDY; empty for a client that names none. Raises `NotFound`."""
    if request.wants != _SPDY:
        raise NotFound(
            "only SPDY/3.1 is spoken here, as by kubectl through an API server with the default feature gates", 400
        )
    named = [name.strip() for name in request.headers.get("x-stream-protocol-version", "").split(",") if name.strip()]
    if not named:
        return ""
    for name in named:
        if name in known:
            return name
    raise NotFound(f"none of {', '.join(named)} is spoken here, but {', '.join(known)}", 403)


def _document(pod: VPod) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": pod.key.name,
        "namespace": pod.key.namespace,
        "uid": pod.uid,
        "labels": pod.labels,
        "annotations": pod.annotations,
        "creationTimestamp": pod.created or None,
    }
    if pod.leaves_at is not None:
        metadata["deletionTimestamp"] = pod.leaves_at
    spec = {
        "nodeName": pod.node,
        "containers": pod.containers,
        "restartPolicy": pod.restart.value,
        "serviceAccountName": pod.service_account,
    }
    return {"metadata": metadata, "spec": spec, "status": pod.status}
