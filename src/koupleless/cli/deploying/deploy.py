"""Deployment of one target into one base: build, make reachable, call the arklet.

The strategy ``replace`` depends on the arklet. An arklet of this project gets one ``installBiz`` with the strategy
``replace``: the base starts the new biz, moves the traffic over in one step and drains the old biz, even if name and
version are equal; if the new biz fails, the old biz goes on serving. Any other arklet gets the calls of the original
client: ``uninstallBiz`` of the same identity, then ``installBiz``. If another version is active there, the new version
is switched to, and the other versions are removed afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from koupleless.artifact.building.options import Options, print_nothing
from koupleless.artifact.fetching.locations import is_loopback
from koupleless.biz import BizId, BizState
from koupleless.cli.deploying.following import followed
from koupleless.cli.deploying.offer import OneFileServer
from koupleless.cli.deploying.scratch import scratch
from koupleless.cli.deploying.target import ms_since, prepare_artefact
from koupleless.cli.showing.progress import Progress
from koupleless.cli.showing.render import as_curl, libraries_table
from koupleless.cli.showing.suggestions import EndedBroken, NotInstalled, UploadFailed
from koupleless.client import ArkletClient, Refused
from koupleless.errors import BaseUnreachable, KouplelessError
from koupleless.exchange import BadAnswer, exchange
from koupleless.wire.replies import InstallData, LibrariesData, decode_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from koupleless.artifact.building.options import Tell
    from koupleless.cli.deploying.target import Artefact, DeployTarget
    from koupleless.cli.kube.pods import Carrier
    from koupleless.settings.client import ClientSettings
    from koupleless.wire.replies import BizInfo, Library, PurgeReport

OUR_SERVER: Final = "koupleless"
"""The start of the ``Server`` header of this project's arklet."""
_POLL_S: Final = 0.2
_IDENTITY: Final = re.compile(r"(?:Internal Error: )?[Bb]iz:? (\S+:\S+) ")
_STORED: Final = re.compile(
    r"(?<=\")[^\"\n]*/[0-9a-f]{64}/[^/\"\n]+/([^\"\n]+)(?=\")"  # in a traceback
    r"|/[^\s\"'()]*/[0-9a-f]{64}/[^/\s\"'()]+/([^\s\"'():,]+)"  # in a sentence
)
"""A path of an unpacked file in the store of a base; the group is the relative path in the artefact."""
_TOLD_MS: Final = 500.0
"""Time beside build and install from which it is broken down."""
_CANCEL_S: Final = 3.0
_COST: Final = re.compile(r"\bcost: (\d+) ms\b")
"""The duration of an install in the message of any arklet."""


def is_ours(settings: ClientSettings) -> bool:
    """Whether the arklet belongs to this project, according to the ``Server`` header. Unreachable means no."""
    address, limit_s = (settings.host, settings.port), min(settings.timeout_s, 10)
    try:
        answer = exchange(
            address, "GET", "/help", connect_timeout_s=limit_s, timeout_s=limit_s, tls=settings.read_tls()
        )
    except (OSError, ValueError, BadAnswer):
        return False
    return answer.headers.get("server", "").startswith(OUR_SERVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """Options of one deployment. Frozen; made by the command line."""

    build: Options = Options()
    """Options of the build before the deployment."""
    no_build: bool = False
    """Deploy the artefact in ``dist``."""
    strategy: str = "replace"
    """``replace``, ``replace-all`` or ``install-only``."""
    args: tuple[str, ...] = ()
    """Arguments for the module."""
    envs: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables for the environment of the module, kept by the base until changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The result of one deployment."""

    identity: str
    state: BizState | None
    """``None`` if the base does not report a state."""
    context_path: str
    removed: tuple[str, ...] = ()
    """Identities of the bizs removed by the client."""
    replaced: tuple[PurgeReport, ...] = ()
    """Purge reports of the replaced bizs; only from a base of this project."""
    libraries: tuple[Library, ...] = ()
    """Libraries imported by the biz, and how each is held; only from a base of this project."""
    warnings: tuple[str, ...] = ()
    """Changes to shared Python modules that all bizs see, in words; only from a base of this project."""
    build_ms: float
    start_ms: int | None
    """Duration of the install in the base's own words, in ms; ``None`` if not reported."""
    install_ms: float
    """Time from the first call to the last reply: the install, and the removal of the replaced bizs."""

    @property
    def left_behind(self) -> tuple[str, ...]:
        """Remains of the replaced bizs, in words; empty if no biz left remains."""
        return tuple(report.left for report in self.replaced if not report.clean or report.changed)

    @property
    def has_survivors(self) -> bool:
        """Whether objects of a replaced biz still live, or a step of leaving failed."""
        return any(not report.clean for report in self.replaced)

    def as_text(self) -> str:
        """Lines for people: the result, the warnings, and a table of libraries."""
        state = self.state.value if self.state else "installed"
        place = f" at {self.context_path}" if self.context_path else ""
        times = [f"build {self.build_ms:.0f} ms"] if self.build_ms else []
        times += [f"install {self.start_ms} ms"] if self.start_ms is not None else []
        times += self._rest()
        times += [f"in all {self.build_ms + self.install_ms:.0f} ms"]
        removed = f"; removed {', '.join(self.removed)}" if self.removed else ""
        replaced = f"; replaced {', '.join(report.biz for report in self.replaced)}" if self.replaced else ""
        left = "".join(f"; {words}" for words in self.left_behind)
        line = f"{self.identity} {state}{place} ({', '.join(times)}){removed}{replaced}{left}"
        warnings = (f"warning: {words}" for words in self.warnings)
        return "\n".join([line, *warnings, *([libraries_table(self.libraries)] if self.libraries else [])])

    def _rest(self) -> list[str]:
        """The times beside build and install, where they are known and long enough to ask for them."""
        left = sum(report.elapsed_ms for report in self.replaced)
        if self.start_ms is None or self.install_ms - self.start_ms < _TOLD_MS:
            return []
        return [
            f"check and unpack {max(0, self.install_ms - self.start_ms - left):.0f} ms",
            *([f"leave {left:.0f} ms"] if left else []),
        ]

    def as_json(self) -> dict[str, object]:
        """Members for programs: all facts and words of the text, and the purge reports."""
        name, _, version = self.identity.partition(":")
        return {
            "bizName": name,
            "bizVersion": version,
            "bizState": self.state,
            "webContextPath": self.context_path,
            "removed": list(self.removed),
            "replaced": list(self.replaced),
            "leftBehind": list(self.left_behind),
            "libraries": list(self.libraries),
            "warnings": list(self.warnings),
            "buildMs": round(self.build_ms, 1),
            "startMs": self.start_ms,
            "installMs": round(self.install_ms, 1),
        }


class Deployment:
    """One target on its way into one base; `run` may be called again and again. Used by one thread."""

    def __init__(
        self,
        client: ArkletClient,
        settings: ClientSettings,
        target: DeployTarget,
        options: DeployOptions,
        *,
        say: Callable[[str], object],
        progress: Callable[[], Progress] = lambda: Progress(is_silent=True),
        carrier: Carrier | None = None,
    ) -> None:
        """``progress`` makes the display of the steps of one run, ``carrier`` takes artefacts into a Pod."""
        self._client = client
        self._settings = settings
        self._target = target
        self._options = options
        self._say = say
        self._progress = progress
        self._carrier = carrier

    def run(self, *, wait_s: float | None = None) -> Done:
        """Build, install, and with ``wait_s`` wait at most so many seconds until the biz is started.

        Raises ``ArtifactError`` before the first call, ``NotInstalled``, ``BaseUnreachable``, ``NoArklet``,
        ``UploadFailed``, and ``EndedBroken``.
        """
        with scratch() as directory, self._progress() as progress:
            artefact = self._prepare(directory, is_present=self._has_libraries, tell=progress.begin)
            name = artefact.identity.name if artefact.identity else self._target.text
            begin = time.perf_counter()
            try:
                with self._published(artefact) as url, followed(self._settings, name, progress):
                    data, removed = self._install(artefact, url)
            except Refused as error:
                if error.command != "installBiz":
                    raise
                raise self._not_installed(artefact, error) from None
            except KeyboardInterrupt:
                self._say(self._cancel(name))
                raise
        return self._conclude(artefact, data, removed, install_ms=ms_since(begin), wait_s=wait_s)

    def _prepare(
        self,
        directory: Path,
        *,
        is_present: Callable[[str], bool] | None = None,
        tell: Tell = print_nothing,
    ) -> Artefact:
        options = dataclasses.replace(self._options.build, is_present=is_present, tell=tell)
        artefact = prepare_artefact(self._target, options, scratch=directory, no_build=self._options.no_build)
        if artefact.env_file is not None and not self._is_here:
            where = f"in Pod {self._settings.pod}" if self._carrier is not None else f"on {self._settings.host}"
            self._say(
                f"{artefact.env_file.name} stays here: the base is {where}, and a file of variables "
                f"is read for a base on this machine only; to send the values: --env-file {artefact.env_file.name}"
            )
            artefact = dataclasses.replace(artefact, env_file=None)
        return artefact

    @property
    def _is_here(self) -> bool:
        """Whether the base is on this machine, and reads files of this machine."""
        return self._carrier is None and is_loopback(self._settings.host)

    def _cancel(self, name: str) -> str:
        """Cancel the install in the base, which goes on without its caller; returns a sentence with the result."""
        settings = self._settings
        token, tls = settings.read_token(), settings.read_tls()
        client = ArkletClient(settings.host, settings.port, token=token, timeout_s=_CANCEL_S, tls=tls)
        with contextlib.suppress(KouplelessError):
            if client.call("cancelBiz", {"bizName": name}).is_success:
                return f"the install of {name} was cancelled: the base undoes the start, and is as before"
        return (
            f"the base may go on with the install of {name}: arkctl status shows the module, arkctl logs {name} -f its "
            f"log, and arkctl undeploy {name} removes the module"
        )

    def _has_libraries(self, digest: str) -> bool:
        """Whether the base has private libraries in its store; no base of another project has them."""
        envelope = self._client.call("queryLibraries", {"digests": [digest]})
        return envelope.is_success and digest in decode_data(envelope.data or {}, LibrariesData).present

    def _not_installed(self, artefact: Artefact, error: Refused) -> NotInstalled:
        """The refusal with facts known only here: the identity, the bizs still serving, the author's files."""
        found = _IDENTITY.match(error.reason)
        identity = str(artefact.identity or (found[1] if found else self._target.text))
        serving: list[str] = []
        with contextlib.suppress(KouplelessError):
            serving = [
                biz.identity
                for biz in self._client.query()
                if biz.biz_name == identity.partition(":")[0] and biz.biz_state is BizState.ACTIVATED
            ]
        return NotInstalled(
            error, identity=identity, is_ours=is_ours(self._settings), serving=serving, in_sources=self._in_sources
        )

    def _in_sources(self, text: str) -> str:
        """``text`` with paths of the project's files in place of paths in the store of the base."""
        if self._target.is_built or self._options.no_build:
            return text
        path = self._target.path
        roots = [path / "src", path] if path.is_dir() else [path.parent]

        def there(match: re.Match[str]) -> str:
            files = (root / (match[1] or match[2]) for root in roots)
            return next((str(file) for file in files if file.is_file()), match[0])

        return _STORED.sub(there, text)

    def rehearse(self) -> list[str]:
        """Build, and return the calls of `run` as ``curl`` commands instead of sending them."""
        with scratch() as directory:
            artefact = self._prepare(directory)
            where = artefact.path.as_uri() if artefact.path else self._target.text
        self._say(f"would deploy {artefact.identity or self._target.text}")
        named = _named(artefact.identity)
        install = {**named, "bizUrl": where, **self._extras(artefact)}
        calls = [("installBiz", install)]
        if self._options.strategy == "replace" and is_ours(self._settings):
            install["installStrategy"] = "replace"
        elif self._options.strategy == "replace" and artefact.identity:
            calls.insert(0, ("uninstallBiz", {**named, "bizUrl": where}))
        has_token = self._settings.read_token() is not None
        return [as_curl(self._client.address, command, body, has_token=has_token) for command, body in calls]

    def _extras(self, artefact: Artefact) -> dict[str, object]:
        strategies = {"replace-all": "uninstallThenInstall"}
        extras = {
            "args": list(self._options.args),
            "envs": dict(self._options.envs),
            "installStrategy": strategies.get(self._options.strategy),
        }
        given: dict[str, object] = {key: value for key, value in extras.items() if value}
        if artefact.env_file is not None:
            given["projectEnvs"] = artefact.project_envs()
        return given

    def _install(self, artefact: Artefact, url: str) -> tuple[InstallData, list[str]]:
        identity = artefact.identity
        body = {**_named(identity), "bizUrl": url, **self._extras(artefact)}
        if self._options.strategy != "replace":
            return self._ask_install(body), []
        if is_ours(self._settings):
            return self._ask_install({**body, "installStrategy": "replace"}), []
        removed = []
        if identity is not None:
            envelope = self._client.call("uninstallBiz", {**_named(identity), "bizUrl": url})
            if envelope.is_success:
                removed.append(str(identity))
            elif Refused("uninstallBiz", envelope).response_code != "NOT_FOUND_BIZ":
                raise Refused("uninstallBiz", envelope)
        data = self._ask_install(body)
        if identity is not None and data.biz_infos and data.biz_infos[0].biz_state is BizState.DEACTIVATED:
            self._client.switch(identity)
            removed += self._remove_others(identity)
        return data, removed

    def _ask_install(self, body: Mapping[str, Any]) -> InstallData:
        envelope = self._client.call("installBiz", body)
        if not envelope.is_success:
            raise Refused("installBiz", envelope)
        # Only the code of the envelope is certain to be sent.
        return decode_data({"code": "SUCCESS", "message": "", "elapsedSpace": 0, **(envelope.data or {})}, InstallData)

    def _remove_others(self, identity: BizId) -> list[str]:
        others = [biz for biz in self._client.query() if biz.biz_name == identity.name]
        removed = []
        for other in others:
            if other.biz_version != identity.version:
                self._client.uninstall(BizId.parse(other.identity))
                removed.append(other.identity)
        return removed

    @contextlib.contextmanager
    def _published(self, artefact: Artefact) -> Iterator[str]:
        """Make the artefact reachable for the base while the context lasts; gives the URL."""
        if artefact.path is None:
            yield self._target.text
        elif self._carrier is not None:
            with self._carrier.carried(artefact.path) as url:
                yield url
        elif self._is_here:
            yield artefact.path.as_uri()
        else:
            with OneFileServer(artefact.path, towards=self._settings.host) as offer:
                try:
                    yield offer.url
                except Refused as error:
                    if not offer.was_fetched:
                        raise UploadFailed(
                            f"the base at {self._settings.host} did not fetch the artefact from {offer.url}: {error}"
                        ) from error
                    raise

    def _conclude(
        self, artefact: Artefact, data: InstallData, removed: list[str], *, install_ms: float, wait_s: float | None
    ) -> Done:
        info = data.biz_infos[0] if data.biz_infos else None
        identity = info.identity if info else str(artefact.identity or self._target.text)
        state = info.biz_state if info else None
        if removed and state is BizState.DEACTIVATED:
            state = BizState.ACTIVATED  # the reply was sent before the switch
        if wait_s is not None:
            state = self._wait(identity, wait_s)
        if state is BizState.BROKEN:
            raise self._broken(info, identity)
        return Done(
            identity=identity,
            state=state,
            context_path=info.web_context_path if info else "",
            removed=tuple(removed),
            replaced=tuple(data.replaced or ()),
            libraries=tuple(info.libraries or ()) if info else (),
            warnings=tuple(data.warnings or ()),
            build_ms=artefact.build_ms,
            start_ms=int(cost[1]) if (cost := _COST.search(data.message)) else None,
            install_ms=install_ms,
        )

    def _broken(self, info: BizInfo | None, identity: str) -> EndedBroken:
        said = info.biz_state_records[-1].message if info and info.biz_state_records else ""
        return EndedBroken(identity, self._in_sources(said))

    def _wait(self, identity: str, wait_s: float) -> BizState:
        deadline = time.monotonic() + wait_s
        while True:
            for biz in self._client.query():
                if biz.identity == identity:
                    if biz.biz_state is BizState.BROKEN:
                        raise self._broken(biz, identity)
                    if biz.biz_state.is_started:
                        return biz.biz_state
            if time.monotonic() >= deadline:
                raise BaseUnreachable(self._client.address, f"{identity} was not started within {wait_s:g} s")
            time.sleep(_POLL_S)


def _named(identity: BizId | None) -> dict[str, str]:
    return {"bizName": identity.name, "bizVersion": identity.version} if identity else {}
