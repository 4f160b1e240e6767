"""The table of the pages, and words for every other path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.arklet.pages import actuator, ark_health, openapi
from koupleless.arklet.pages.page import Page, Route
from koupleless.arklet.pages.probes import PROBES, Probed, probe, takes_long
from koupleless.wire.envelope import Envelope, encode

if TYPE_CHECKING:
    from koupleless.arklet.operations import Operations
    from koupleless.container.container import Container
    from koupleless.health.readiness import Readiness

HEALTH: Final = "/actuator/health"
_QUIET: Final = ("help", "queryAllBiz", "health")
"""Commands that need no input and change nothing, and are answered to a GET, too."""

ROUTES: Final = (
    Route("/", "this overview"),
    Route("/livez", "a probe: the event loop runs", Probed, (200, 503)),
    Route("/readyz", "a probe: the base takes requests", Probed, (200, 503)),
    Route("/healthz", "a probe: as /readyz, and no module is down", Probed, (200, 503)),
    Route(HEALTH, "the health of base and modules", actuator.Overall, (200, 503)),
    Route("/actuator/info", "the base and its modules", actuator.Info),
    Route(ark_health.PATH, "the health command, with a code in the body", ark_health.Found),
    Route(f"{ark_health.PATH}/{{type}}", "of one type: system, biz or plugin", ark_health.Found),
    Route(f"{ark_health.PATH}/{{type}}/{{name}}/{{version}}", "of one module", ark_health.Found),
    Route(
        "/metrics",
        "metrics of base and modules, unless switched off",
        statuses=(200, 404, 500),
        texts=("text/plain", "application/openmetrics-text"),
    ),
    Route(openapi.PATH, "this interface as an OpenAPI document", dict[str, Any]),
    *(Route(f"/{command}", "the command, without input", Envelope) for command in _QUIET),
)
"""The pages, with the one of metrics, which is answered apart from the others."""


class Pages:
    """The answers to GET. Thread-safe; lives as long as the arklet."""

    def __init__(self, operations: Operations, container: Container, readiness: Readiness) -> None:
        self._operations = operations
        self._container = container
        self._readiness = readiness
        self.workers = readiness.workers
        """Threads for answers that take long."""

    def is_open(self, path: str) -> bool:
        """Whether strangers may ask, under any ``Host``: they learn of up or down, and of nothing else."""
        return path in PROBES or path == HEALTH

    def takes_long(self, path: str) -> bool:
        """Whether the answer takes longer than a moment: checks of modules are called, or a document is made."""
        return takes_long(path) or path in (HEALTH, openapi.PATH)

    def answer(self, path: str, *, is_trusted: bool) -> Page:
        """Answer a GET of a path. ``is_trusted`` says that the caller may do everything; others get `is_open` paths."""
        if path in PROBES:
            return probe(self._readiness, path)
        if path == HEALTH:
            return actuator.health(self._readiness, self._container, is_trusted=is_trusted)
        if path == "/actuator/info":
            return actuator.info(self._container)
        if path == openapi.PATH:
            return Page(200, openapi.document(ROUTES))
        if path == ark_health.PATH or path.startswith(f"{ark_health.PATH}/"):
            return ark_health.answer(self._readiness, self._operations.vitals, path)
        return self._of_command(path)

    def _of_command(self, path: str) -> Page:
        """Answer under the name of a command, or with words about the arklet."""
        command = path.strip("/")
        if command in _QUIET:
            return Page(200, encode(self._operations.handle(command, b"")))
        if command in self._commands():
            said = f"{command} changes something or needs input, so it is called by POST:\n\n{_curl(command)}\n"
            return Page.of_text(said, 405)
        if not command:
            return Page.of_text(self._overview())
        return Page.of_text(f"There is nothing at {path}.\n\n{self._overview()}", 404)

    def _commands(self) -> dict[str, str]:
        return {item.id: item.desc for item in self._operations.help(None).data}

    def _overview(self) -> str:
        commands = "".join(f"  {name:<20}{said}\n" for name, said in self._commands().items())
        pages = "".join(f"  {route.path:<37}{route.summary}\n" for route in ROUTES)
        return (
            f"The arklet of the base {self._container.base.id}. arkctl is its command line: arkctl status\n\n"
            f"GET\n{pages}\n"
            f"POST, with an object of JSON\n{commands}\n{_curl('queryAllBiz')}\n"
        )


def _curl(command: str) -> str:
    return f"  curl -X POST -H 'Content-Type: application/json' -d '{{}}' http://ADDRESS/{command}"
