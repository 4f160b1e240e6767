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
import json
import pdb  # noqa: T100 - for tests with breakpoints
import tempfile
import textwrap
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.build import Options, build
from koupleless.container.host import Host
from koupleless.container.starting.prepare import words
from koupleless.container.surroundings import Deadlines
from koupleless.container.terms import Strategy
from koupleless.context import as_base, life_context
from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.libraries.holding import Speakers, Wishes, conflicts
from koupleless.isolation.namespace import Namespace
from koupleless.ownership.purge import PurgeReport
from koupleless.router.face import face_of
from koupleless.router.table import normalise_path
from koupleless.service.registry import default_registry
from koupleless.tracebacks import own_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
    from types import FrameType

    import httpx

    from koupleless.container.stage import Stage
    from koupleless.context import Scope
    from koupleless.router.asgi import Front

__all__ = ["Loaded", "LocalBase", "PurgeReport", "Reply", "assert_unloads", "loaded", "local_base"]

_START_S: Final = 60.0
_LEAVE_S: Final = 10.0
_ANSWER_S: Final = 60.0
_SERVER_ERROR: Final = 500
_SHOWN: Final = 200
"""Bytes of a body shown in an error."""


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

    def json(self) -> Any:
        """Return the value of a body in JSON. Raises ``ValueError`` for any other body, with the start of the body."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise ValueError(f"no JSON, in an answer with status {self.status}: {self.body[:_SHOWN]!r}") from error


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
        """Send a `request` with ``GET``."""
        return self.request("GET", path, **options)

    def request(
        self, method: str, path: str = "/", *, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
    ) -> Reply:
        """Send one request to the module, below the path of the module, through the front of the base.

        For an exception of the application the answer is a 500 with the traceback as text, as from a server.
        """
        return _request(self._stage, self._front, method, self._path + path, body=body, headers=headers)


def _request(
    stage: Stage,
    front: Front,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    headers: Iterable[tuple[str, str]] = (),
) -> Reply:
    target, _, query = path.partition("?")
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers]
    if not any(name == b"host" for name, _ in pairs):
        pairs.insert(0, (b"host", b"base"))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": urllib.parse.unquote(target),
        "raw_path": target.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": pairs,
        "client": ("127.0.0.1", 1),
        "server": ("base", 80),
    }
    return stage.call(lambda: _exchange(front, scope, body), timeout_s=_ANSWER_S)


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


class Debugger(pdb.Pdb):
    """pdb with commands that run as the base, wherever the program has stopped.

    pytest takes its capture of output away and puts it back in commands, which no module may do.
    """

    def interaction(self, frame: FrameType | None, tb_or_exc: Any) -> None:
        with as_base():
            super().interaction(frame, tb_or_exc)


class LocalBase:
    """A base in the process of a test, with modules that are installed from source; nothing listens on a port.

    Data directories, configuration (``config/<name>/``) and unpacked files of modules lie below ``directory``. Code of
    the test is code of the base: services are offered and used with `koupleless.service`. Made by `local_base`; used by
    one thread.
    """

    def __init__(self, directory: Path, host: Host) -> None:
        self.directory = directory
        self._host = host
        self._modules: list[Loaded] = []

    def install(
        self,
        source: str | Path,
        *,
        name: str = "sample",
        entry: str | None = None,
        requirements: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
    ) -> Loaded:
        """Install a module, or replace the installed one of the same name.

        ``source``, ``name``, ``entry``, and ``requirements`` are the ones of `loaded`; ``env`` are variables for the
        module, and ``args`` its arguments. Raises as `loaded` does, and ``AssertionError`` if a replaced module is not
        gone.
        """
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="build-") as place:
            options = Options(out=Path(place), entry=entry, requirements=tuple(requirements))
            container = self._host.container
            prepared = container.prepare(str(_artefact(source, Path(place), name, options)))
            module = prepared.manifest.entry.partition(":")[0]
            self._modules = [one for one in self._modules if one.biz.name != prepared.id.name]
            installed = container.install(prepared, args=args, envs=env, strategy=Strategy.REPLACE)
        scope = container.scope_of(installed.info.id)
        assert scope is not None
        path = normalise_path(installed.info.web_context_path)
        loaded = Loaded(scope, module=module, path=path, stage=self._host.stage, front=self._host.front)
        self._modules.append(loaded)
        _check(installed.replaced)
        return loaded

    def uninstall(self, module: Loaded) -> None:
        """Uninstall a module. Raises ``AssertionError`` with the purge report in words unless the module is gone."""
        self._modules = [one for one in self._modules if one is not module]
        _check([self._host.container.uninstall(module.biz)])

    def uninstall_all(self) -> None:
        """Uninstall all modules, the last one first. Raises ``AssertionError`` as `uninstall`, for all together."""
        reports = [self._host.container.uninstall(self._modules.pop().biz) for _ in range(len(self._modules))]
        _check(reports)

    def abandon(self) -> None:
        """Forget the modules, so that nothing is asserted at the end: for a test that has failed."""
        self._modules.clear()

    def get(self, path: str = "/", **options: Any) -> Reply:
        """Send a `request` with ``GET``."""
        return self.request("GET", path, **options)

    def request(self, method: str, path: str = "/", **options: Any) -> Reply:
        """Send one request to the base, whose application or module answers, as `Loaded.request` does."""
        return _request(self._host.stage, self._host.front, method, path, **options)

    def client(self, **options: Any) -> httpx.Client:
        """A client of ``httpx``, which has to be installed, for the base and all modules.

        ``options`` are those of ``httpx.Client``. Bodies are sent and received whole.
        """
        import httpx  # noqa: PLC0415 - for who asks for a client

        def answer(request: httpx.Request) -> httpx.Response:
            target = request.url.raw_path.decode("ascii")
            reply = self.request(request.method, target, body=request.read(), headers=request.headers.multi_items())
            return httpx.Response(reply.status, headers=reply.headers, content=reply.body)

        return httpx.Client(**{"transport": httpx.MockTransport(answer), "base_url": "http://base", **options})


@contextlib.contextmanager
def local_base(
    directory: Path | None = None, *, app: object = None, own: Sequence[str] = (), shared: Sequence[str] = ()
) -> Iterator[LocalBase]:
    """A base for the length of a ``with`` on one thread; then all modules are uninstalled, and have to be gone.

    ``directory`` is a place for files, by default a temporary directory. ``app`` is the application of the base.
    ``own`` and ``shared`` name distributions for modules to hold as own copies, or to share with the base.

    Raises ``AssertionError`` with the purge reports in words, ``TypeError`` for an ``app`` that is no application, and
    ``ValueError`` for contradictions of ``own`` and ``shared``. An exception of the body passes through; then nothing
    is asserted, because the traceback of the exception may well hold a module.
    """
    with contextlib.ExitStack() as closing:
        if directory is None:
            directory = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="koupleless-test-")))
        directory.mkdir(parents=True, exist_ok=True)
        face = face_of(app, name="base")
        if app is not None and face.asgi is None:
            raise TypeError(f"{app!r} is neither an ASGI nor a WSGI application")
        host = Host.make(
            directory / "store",
            app=face.asgi,
            services=default_registry(),
            deadlines=Deadlines(start_s=_START_S, drain_s=_LEAVE_S, stop_s=_LEAVE_S),
            wishes=_wishes(own, shared),
            data_dir=directory / "data",
            config_dirs=(directory / "config",),
        )
        closing.callback(host.container.close)
        base = LocalBase(directory, host)
        yield base
        base.uninstall_all()


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
    """Install a module for the length of a ``with`` on one thread; then uninstall it, and fail unless it is gone.

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
    with local_base(own=own, shared=shared) as base:
        yield base.install(source, name=name, entry=entry, requirements=requirements)


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

    ``drive`` is called on the thread of the caller. The other arguments, and the errors, are the ones of `loaded`.
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


def _check(reports: Iterable[PurgeReport]) -> None:
    if unclean := [report for report in reports if not report.clean]:
        raise AssertionError("\n".join(map(_in_words, unclean)))


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
