r"""For tests of libraries: prove that a module which uses the library can leave.

A test of ``mylib``::

    from koupleless.testing import assert_unloads

    def test_a_module_with_a_listener_can_leave():
        assert_unloads("import mylib\n\n@mylib.listen\ndef heard(event): ...\n")

The module is installed into a container of the test's process, used, and uninstalled. The container has no other
module; the Python modules that the tests have imported are those of its base. A base that serves differs in one point
only: here nothing listens on a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.build import Options, build
from koupleless.container.host import Host
from koupleless.container.starting.prepare import words
from koupleless.container.surroundings import Deadlines
from koupleless.context import life_context
from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.libraries.holding import Speakers, Wishes, conflicts
from koupleless.isolation.namespace import Namespace
from koupleless.ownership.purge import PurgeReport
from koupleless.router.table import normalise_path
from koupleless.tracebacks import own_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence

    from koupleless.container.stage import Stage
    from koupleless.context import Scope
    from koupleless.router.asgi import Front

__all__ = ["Loaded", "PurgeReport", "Reply", "assert_unloads", "loaded"]

_START_S: Final = 60.0
_LEAVE_S: Final = 10.0
_ANSWER_S: Final = 60.0
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a module to a request."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Pairs of names, in lower case, and values, in the order of sending."""
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class Loaded:
    """An installed module. Valid until the uninstall; used by one thread.

    A result or an error of `call` may hold the module, for as long as the test keeps the object: keep plain values.
    """

    def __init__(self, scope: Scope, *, module: str, path: str, stage: Stage, front: Front) -> None:
        self.biz = scope.biz
        self._scope = scope
        self._module = module
        self._stage = stage
        self._front = front
        self._path = path

    def call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of the module as the module: ``"name"`` of the entry's file, or ``"package.module:name"``.

        A coroutine is awaited on the loop shared by the modules of the base. Returns the result of the function; an
        exception of the function passes through.
        """
        entry = function if ":" in function else f"{self._module}:{function}"
        return life_context(self._scope).run(self._call, entry, *args, **kwargs)

    def _call(self, entry: str, *args: Any, **kwargs: Any) -> Any:
        result = self._scope.facet(Namespace).resolve(entry)(*args, **kwargs)
        return self._stage.call(lambda: result, timeout_s=_ANSWER_S) if inspect.iscoroutine(result) else result

    def get(self, path: str = "/", **options: Any) -> Reply:
        """`request` with ``GET``."""
        return self.request("GET", path, **options)

    def request(
        self, method: str, path: str = "/", *, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
    ) -> Reply:
        """Send one request to the module, below the path of the module, through the front of the base.

        For an exception of the application the answer is a 500 with the traceback as text, as from a server.
        """
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": self._path + target,
            "raw_path": (self._path + target).encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"base"), *((name.lower().encode(), value.encode()) for name, value in headers)],
            "client": ("127.0.0.1", 1),
            "server": ("base", 80),
        }
        return self._stage.call(lambda: _exchange(self._front, scope, body), timeout_s=_ANSWER_S)


async def _exchange(front: Front, scope: MutableMapping[str, Any], body: bytes) -> Reply:
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    ended = asyncio.Event()
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if messages:
            return messages.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            ended.set()

    try:
        await front(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - as a server does; in the test an exception would hold the module
        return Reply(_SERVER_ERROR, (), own_traceback(error).encode())
    start = sent[0]
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in start["headers"])
    return Reply(start["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


@contextlib.contextmanager
def loaded(
    source: str | Path,
    *,
    name: str = "sample",
    entry: str | None = None,
    requirements: Sequence[str] = (),
    own: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> Iterator[Loaded]:
    """Install a module for the length of a ``with``; at the end uninstall the module, and fail unless it is gone.

    ``source`` is the text of a module of one file called ``name``, or the path of a file, a project or an artefact.
    ``entry`` is the entry, as in a project; by default the application, factory or ``main`` of a file, else the file
    itself, and for a project the entry in the project.
    ``requirements`` are further requirements, as PEP 508 texts: distributions of this environment are shared with the
    base, others are fetched by pip and packed.
    ``own`` and ``shared`` name distributions for the module to hold as own copies, or to share with the base, unless
    the project decides. A pure-Python library without a decision is an own copy: to prove that a module can leave while
    sharing a library, pass ``shared=["mylib"]``.

    Raises ``AssertionError`` with the purge report in words, ``StartFailed`` if the module does not start, the children
    of ``ArtifactError`` for a source that cannot be built, and ``ValueError`` for contradictions of ``own`` and
    ``shared``. An exception of the body passes through; then nothing is asserted, because the traceback of the
    exception may well hold the module.
    """
    with contextlib.ExitStack() as closing:
        directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="koupleless-test-")))
        artefact = _artefact(
            source, directory, name, Options(out=directory, entry=entry, requirements=tuple(requirements))
        )
        deadlines = Deadlines(start_s=_START_S, drain_s=_LEAVE_S, stop_s=_LEAVE_S)
        host = Host.make(directory / "store", deadlines=deadlines, wishes=_wishes(own, shared))
        container = host.container
        closing.callback(container.close)
        prepared = container.prepare(str(artefact))
        module = prepared.manifest.entry.partition(":")[0]
        info = container.install(prepared).info
        scope = container.scope_of(info.id)
        assert scope is not None
        path = normalise_path(info.web_context_path)
        yield Loaded(scope, module=module, path=path, stage=host.stage, front=host.front)
        del scope
        report = container.uninstall(info.id)
        if not report.clean:
            raise AssertionError(_in_words(report))


def assert_unloads(
    source: str | Path,
    *,
    drive: Callable[[Loaded], object] | None = None,
    name: str = "sample",
    entry: str | None = None,
    requirements: Sequence[str] = (),
    own: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> None:
    """Install a module, let ``drive`` use the module, uninstall the module, and fail unless nothing of it is left.

    The other arguments, and the errors, are the ones of `loaded`.
    """
    with loaded(source, name=name, entry=entry, requirements=requirements, own=own, shared=shared) as module:
        if drive is not None:
            drive(module)


def _artefact(source: str | Path, directory: Path, name: str, options: Options) -> Path:
    if isinstance(source, str):
        path = directory / f"{name}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return build(path, options).path
    if source.suffix == ".py" or (source / "pyproject.toml").is_file():
        return build(source, options).path
    return source


def _wishes(own: Sequence[str], shared: Sequence[str]) -> Wishes:
    wishes = Wishes.of(own, shared)
    if found := conflicts(base_index(), Speakers(module=wishes, words=words())):
        raise ValueError("; ".join(found))
    return wishes


def _in_words(report: PurgeReport) -> str:
    """A purge report as the text of an assertion: survivors with their holders, and registrations not undone."""
    lines = [f"{report.biz} left something behind"]
    for held in report.held:
        size = "" if held.size_bytes is None else f", about {held.size_bytes:,} bytes"
        lines.append(f"  still alive: {held.name}{size}")
        lines.append(f"    held by {' -> '.join(held.holders) or 'something that was not found'}")
    lines += [f"  not undone: {failure}" for failure in report.failures]
    if report.undone:
        lines.append("  undone: " + ", ".join(f"{count} {kind}" for kind, count in report.undone.items()))
    return "\n".join(lines)
