"""Reports of failed commands: an exit status, a sentence, and advice.

The advice comes from the first rule that recognises the failure, by the kind of error or by a fragment of the texts of
the build tool, the base or the module's own code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from koupleless.client import NoArklet, Refused
from koupleless.errors import (
    BaseStartFailed,
    BaseUnreachable,
    BizNotFound,
    BuildFailed,
    KouplelessError,
    code_of,
)
from koupleless.wire.envelope import ReplyInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REFUSED: Final = 1
UNUSABLE: Final = 2
BUILD_FAILED: Final = 3
UNREACHABLE: Final = 4
UPLOAD_FAILED: Final = 5
ENDED_BROKEN: Final = 6
INTERRUPTED: Final = 130

_NAMED: Final = 8
"""The number of installed modules named in the error for a module that is not installed."""
_TRACEBACK: Final = "Traceback (most recent call last)"
_OWN_ERROR: Final = re.compile(r"^koupleless\.errors\.\w+: ")
"""The start of an error of this project in a traceback. The text after the class name is complete by itself."""

PREFACE: Final = "Internal Error: "
"""The start of a message of any arklet about the failure of a module; says nothing."""

HELP: Final = "https://github.com/koupleless/koupleless-python/blob/main/docs/troubleshooting.md"
"""The page with a section for each kind of failure."""
DOES_NOT_LEAVE: Final = "the-module-does-not-leave"
"""The section about objects that are left of a module."""


class UploadFailed(KouplelessError):
    """An artefact was offered to a remote base, and never fetched by the base."""


class NotCopied(UploadFailed):
    """An artefact could not be copied into the Pod of a base."""


class KubectlFailed(KouplelessError):
    """``kubectl`` is absent, or has failed; ``reason`` are the last words of ``kubectl``."""

    def __init__(self, doing: str, reason: str) -> None:
        self.doing = doing
        self.reason = reason
        super().__init__(f"{doing}: {reason}")

    @property
    def is_forbidden(self) -> bool:
        """Whether the rights of the user do not suffice."""
        return "Forbidden" in self.reason


class NoBase(KouplelessError):
    """A Pod leads to no base."""

    def __init__(self, pod: str, reason: str) -> None:
        self.pod = pod
        self.reason = reason
        super().__init__(f"Pod {pod} leads to no base: {reason}")


class PodSilent(BaseUnreachable):
    """The base of a Pod did not answer through the port of the Pod."""


class NotInstalled(Refused):
    """A base refused to install a module; the text is for the authors of the module."""

    def __init__(
        self,
        refused: Refused,
        *,
        identity: str,
        is_ours: bool,
        serving: Sequence[str] = (),
        in_sources: Callable[[str], str] = str,
    ) -> None:
        super().__init__(refused.command, refused.envelope)
        self.identity = identity
        self.is_ours = is_ours
        """Whether the base belongs to this project. The texts of such a base are understood without codes."""
        self.serving = tuple(serving)
        """The versions that go on serving."""
        self.in_sources = in_sources
        """Replaces paths in the store of the base by paths of the author's files, in a text."""


class NotThere(BizNotFound):
    """A module is not installed. ``identity`` is the text of the user, a name alone or an identity.

    ``installed`` are the identities of the installed modules.
    """

    def __init__(self, identity: str, installed: Sequence[str]) -> None:
        self.identity = identity
        versions = [other for other in installed if other.partition(":")[0] == identity.partition(":")[0]]
        named = list(versions or installed)
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        there = f"installed: {', '.join(named[:_NAMED])}{more}" if named else "no module is installed"
        KouplelessError.__init__(self, f"{identity} is not installed; {there}")


class EndedBroken(KouplelessError):
    """A module was accepted by the base, and is broken now."""

    def __init__(self, identity: str, message: str) -> None:
        self.identity = identity
        self.message = message
        super().__init__(f"{identity} was accepted but is broken now" + (f": {message}" if message else ""))


def exit_status(error: KouplelessError) -> int:
    """The exit status for a failure."""
    match error:
        case UploadFailed():
            return UPLOAD_FAILED
        case EndedBroken():
            return ENDED_BROKEN
        case Refused() | BizNotFound() | BaseStartFailed():
            return REFUSED
        case BaseUnreachable() | NoArklet() | ReplyInvalid() | KubectlFailed():
            return UNREACHABLE
        case BuildFailed():
            return BUILD_FAILED
        case _:
            return UNUSABLE


def report(error: KouplelessError, *, is_verbose: bool = False) -> list[str]:
    """The lines to print for a failure: the failure itself, the words of the base, and the advice."""
    lines = [f"error: {error}"]
    if isinstance(error, NotInstalled):
        lines = _not_installed(error, is_verbose=is_verbose)
    elif isinstance(error, Refused):
        lines = [f"error: the base refused {error.command} ({_codes(error)}): {error.reason}"]
        if error.envelope.message and error.envelope.message != error.reason:
            lines.append(f"       {error.envelope.message}")
        lines += _trace(error, is_verbose=is_verbose)
    if isinstance(error, BuildFailed) and error.output:
        lines += error.output.rstrip().splitlines()
    if (rule := _rule_for(error)) is not None:
        lines += [
            f"suggestion: {rule.advise(error, _everything_said(error))}",
            f"            {more(rule.section)}",
        ]
    if is_verbose and not isinstance(error, Refused):
        lines.append(f"code: {code_of(type(error))}")
    return lines


def more(section: str) -> str:
    """The words that lead to a section of the page of help."""
    return f"more: {HELP}#{section}"


def _not_installed(error: NotInstalled, *, is_verbose: bool) -> list[str]:
    said = error.in_sources(error.reason)
    for preface in (PREFACE, "refresh biz info from jar failed: "):
        said = said.removeprefix(preface)
    for subject in (f"biz {error.identity} ", f"Biz: {error.identity} "):
        said = said.replace(subject, "it ", 1) if said.startswith(subject) else said
    said = _OWN_ERROR.sub("", said.removeprefix("it did not start: "))
    rest = said.strip().splitlines()
    # The text of a syntax error begins with file and line.
    sentence = rest.pop(-1 if rest[0].startswith('File "') else 0)
    codes = "" if error.is_ours and not is_verbose else f" ({error.command}: {_codes(error)})"
    lines = [f"error: {error.identity} was not installed: {sentence}{codes}"]
    lines += _trace(error, is_verbose=is_verbose) or rest
    for identity in error.serving:
        lines.append(f"{'the earlier ' * (identity == error.identity)}{identity} keeps serving")
    return lines


def _codes(error: Refused) -> str:
    envelope = error.envelope
    return ", ".join(code for code in (envelope.code.value, error.response_code, envelope.error_type) if code)


def _trace(error: Refused, *, is_verbose: bool) -> list[str]:
    """The traceback, if worth showing: from a base of this project, of the user's own code; else with ``-v``."""
    trace = error.envelope.error_stack_trace or ""
    if isinstance(error, NotInstalled):
        trace = error.in_sources(trace)
    return trace.rstrip().splitlines() if is_verbose or trace.startswith(_TRACEBACK) else []


def suggest(error: KouplelessError) -> str | None:
    """The advice of the first rule that recognises the failure; ``None`` if there is no such rule."""
    rule = _rule_for(error)
    return None if rule is None else rule.advise(error, _everything_said(error))


def _rule_for(error: KouplelessError) -> Rule | None:
    text = _everything_said(error)
    return next((rule for rule in RULES if rule.recognises(error, text)), None)


def _everything_said(error: KouplelessError) -> str:
    parts = [str(error)]
    if isinstance(error, Refused):
        parts += [error.response_code, error.envelope.message or "", error.envelope.error_stack_trace or ""]
    if isinstance(error, BuildFailed):
        parts.append(error.output)
    if isinstance(error, EndedBroken):
        parts.append(error.message)
    return "\n".join(parts)


def _is(*kinds: type[KouplelessError]) -> Callable[[KouplelessError, str], bool]:
    return lambda error, _: isinstance(error, kinds)


def _says(pattern: str) -> Callable[[KouplelessError, str], bool]:
    expression = re.compile(pattern, re.IGNORECASE)
    return lambda _, text: expression.search(text) is not None


def _answer(advice: str) -> Callable[[KouplelessError, str], str]:
    return lambda _error, _text: advice


def _unreachable(error: KouplelessError, _: str) -> str:
    assert isinstance(error, BaseUnreachable)
    if "refused" in error.reason.lower():
        return (
            "start the base (`arkctl serve`), or name the address of the base: --host, --port, ARKCTL_PORT; "
            "`arkctl doctor` looks for a base"
        )
    if "certificate" in error.reason.lower():
        return "name the issuers of the arklet's certificate (ARKCTL_CA_CERTS), and --host as in the certificate"
    if "without an answer" in error.reason:
        return "if the arklet speaks TLS, name the issuers of its certificate (ARKCTL_CA_CERTS), or set ARKCTL_TLS=true"
    return "check --host and --port; if the base is only slow, raise --timeout"


def _kubectl(error: KouplelessError, _: str) -> str:
    assert isinstance(error, KubectlFailed)
    if error.is_forbidden:
        return "ask for the rights to get Pods and Nodes, and to create pods/portforward and pods/exec"
    if "PATH" in error.reason:
        return "install kubectl, or name the base by --host"
    return (
        "try the same with kubectl; --context and --kubeconfig choose the cluster, and kubectl get pods -A lists Pods"
    )


def _wrong_peer(error: KouplelessError, _: str) -> str:
    assert isinstance(error, NoArklet)
    owner = owner_of(error.address)
    who = f"the port belongs to {owner}" if owner else "another program seems to own the port"
    return f"{who}; the arklet of a base listens on 1238 unless told otherwise: check --port"


def _missing_module(_: KouplelessError, text: str) -> str:
    found = re.search(r"No module named '([^']+)'", text)
    name = found[1] if found else "the module"
    return (
        f"{name} is neither in the artefact nor in the base: add its distribution to `project.dependencies` and build "
        "again, or install the distribution where the base runs"
    )


class Rule(NamedTuple):
    """A rule of advice. Both functions take the error and all texts said about the failure."""

    section: str
    """The anchor in the page of help."""
    recognises: Callable[[KouplelessError, str], bool]
    advise: Callable[[KouplelessError, str], str]


RULES: Final = (
    Rule(
        "the-pod-is-not-reached",
        _is(PodSilent),
        _answer("name the port of the arklet in the Pod (--port); kubectl logs POD shows whether the base has started"),
    ),
    Rule("the-pod-is-not-reached", _is(KubectlFailed), _kubectl),
    Rule(
        "the-pod-is-not-reached",
        _is(NoBase),
        _answer("name the Pod of a base, or of a module that has a Node: kubectl get pods -o wide"),
    ),
    Rule(
        "the-pod-is-not-reached",
        _is(NotCopied),
        _answer("name the container of the base (--container); it needs sh, cat, wc and room in /tmp; or deploy a URL"),
    ),
    Rule("the-base-does-not-answer", _is(BaseUnreachable), _unreachable),
    Rule(
        "the-base-does-not-fetch-the-artefact",
        _is(UploadFailed),
        _answer("the base fetches the artefact from this machine: let the base through the firewall, or deploy a URL"),
    ),
    Rule(
        "a-token-is-demanded",
        _says(r"HTTP 40[13]|not authori[sz]ed|bearer|token (is )?(missing|wrong|required)"),
        _answer("the arklet demands a token: pass --token, or set ARKCTL_TOKEN"),
    ),
    Rule("the-base-does-not-answer", _is(NoArklet), _wrong_peer),
    Rule(
        "the-build-fails",
        _says(r"No module named '?(pip|hatchling|setuptools|build)\b|BackendUnavailable|requires a different Python"),
        lambda *_: f"the build ran with {_interpreter()}; install the missing package, or use another interpreter",
    ),
    Rule(
        "the-build-fails",
        _says(r"\bentry\b.*(missing|required|not given|no default|must be)|no entry|names no entry"),
        _answer('set `entry = "package.module:app"` under [tool.koupleless.module], or pass --entry'),
    ),
    Rule(
        "the-module-is-refused",
        _says(r"change web-context-path|Child name .* is not unique|path .* is (already )?taken"),
        _answer("give one of the two another `web-context-path`, or undeploy the module with this path"),
    ),
    Rule(
        "the-module-is-refused",
        _says(r"REPEAT_BIZ|has been installed or registered"),
        _answer("this version is installed already: raise the version, or use --strategy replace"),
    ),
    Rule(
        "the-module-is-refused",
        _says(r"NOT_FOUND_BIZ"),
        _answer("`arkctl status` lists the installed modules"),
    ),
    Rule(
        "the-module-is-refused",
        _says(r"conflict, exist unfinished command"),
        _answer("another operation on this module is under way: wait for its end, then try again"),
    ),
    Rule(
        "the-module-does-not-start",
        _says(r"more than once per process|does not support loading in subinterpreters|refuses? a second"),
        _answer(
            "a process can have this compiled extension once: install the extension beside the base, and build again"
        ),
    ),
    # An error of this project already says what to change; an error of Python does not.
    Rule(
        "the-module-does-not-start",
        _says(r"(?s)\A(?!.*neither biz).*(ModuleNotFoundError|ModuleRefused|No module named)"),
        _missing_module,
    ),
    Rule(
        "the-module-does-not-start",
        _says(r"isinstance\(\) arg|is not an instance of|expected .* instance"),
        _answer(
            "a package may be in the base and in the module at once: leave the package to the base, so that types agree"
        ),
    ),
    Rule(
        "the-module-does-not-start",
        _says(r"MemoryError|memory threshold|metaspace"),
        _answer("the base is short of memory: undeploy modules, or restart the base"),
    ),
    Rule(
        "the-module-does-not-start",
        _says(r"did not start within"),
        _answer("look for work at import or start-up that waits for something; the limit is the base's start-timeout"),
    ),
    Rule(
        "the-build-fails",
        _says(r"is no project"),
        _answer("name a project or a .py file: arkctl deploy PATH; `arkctl new module DIRECTORY` makes a project"),
    ),
    Rule(
        "the-build-fails",
        lambda error, _: isinstance(error, BuildFailed) and bool(error.output),
        lambda *_: f"the build ran with {_interpreter()}; `arkctl doctor` checks this interpreter",
    ),
)


def _interpreter() -> str:
    import sys  # noqa: PLC0415 - only on the way to an error

    return f"{sys.executable} (Python {sys.version.split()[0]})"


def owner_of(address: str) -> str | None:
    """The process that listens on the port of ``address``; ``None`` if on another machine or not visible."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - only on the way to an error

    port = int(address.rpartition(":")[2])
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        return None
    return None
