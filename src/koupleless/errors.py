"""Every error the product raises, one tree, each with the data a caller can act on.

The children fall into three families: what is wrong with an artefact (nothing was changed), what the container refuses
(nothing was changed), and what failed while a biz's own code ran (what was done has been undone). Turning them into
wire replies is the business of ``arklet.operations`` alone.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTED: Final = 50
"""How many mistakes of one file a message lists."""
_LONGEST: Final = 1000
"""How much of each it shows: the file is a stranger's."""


class KouplelessError(Exception):
    """The root of the tree. ``str(error)`` is a sentence a user can act on. Each can be copied and pickled."""

    def __reduce__(self) -> Any:
        # Exception would call the class with the text alone; what each takes for its text is in its attributes.
        return _again, (type(self), self.args), vars(self)


def _again(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


_name: Final[Any] = type.__dict__["__name__"]


def in_words(error: BaseException) -> str:
    """An exception as text, whatever its class does; to be kept in its place, for its frames would hold a biz."""
    name: str = _name.__get__(type(error))  # not the metaclass's, which is code of the biz as well
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - its __str__ is code of the biz, and may raise SystemExit
        text = ""
    return f"{name}: {text}" if text else name


# --- artefacts: found before anything is changed -------------------------------------------------------------------


class ArtifactError(KouplelessError):
    """What was given to install or build cannot be used."""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class ManifestInvalid(ArtifactError):
    """A manifest, ``biz.toml`` or project table with mistakes.

    ``issues`` holds every one of them, not the first.
    """

    def __init__(self, origin: str, issues: Sequence[str]) -> None:
        self.origin = origin
        self.issues = tuple(issues)
        listed = "; ".join(_short(issue) for issue in self.issues[:_LISTED])
        if len(self.issues) > _LISTED:
            listed += f"; and {len(self.issues) - _LISTED} more"
        super().__init__(f"{origin} has {len(self.issues)} mistake{'s' * (len(self.issues) != 1)}: {listed}")


class ArchiveRefused(ArtifactError):
    """An archive that is damaged, too large, or holds an entry that must not be unpacked."""

    def __init__(self, origin: str, reason: str) -> None:
        self.origin = origin
        self.reason = reason
        super().__init__(f"archive {origin} was refused: {reason}")


class DigestMismatch(ArtifactError):
    """Content that is not what its digest promises."""

    def __init__(self, origin: str, *, expected: str, actual: str) -> None:
        self.origin = origin
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"{origin} has sha256 {actual}, but {expected} was promised; it was changed or damaged on its way"
        )


class IdentityMismatch(ArtifactError):
    """An artefact whose manifest names another biz than the one that was asked for."""

    def __init__(self, origin: str, *, expected: str, actual: str) -> None:
        self.origin = origin
        self.expected = expected
        self.actual = actual
        super().__init__(f"{origin} is {actual}, not {expected}; ask for what it is, or build it under that identity")


class FetchFailed(ArtifactError):
    """A location that did not yield an artefact: missing, unreachable, too slow, or something else altogether."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"cannot fetch {url}: {reason}")


class BuildFailed(ArtifactError):
    """A project or requirement that could not be made into an artefact; ``output`` is what the build tool said."""

    def __init__(self, project: str, reason: str, *, output: str = "") -> None:
        self.project = project
        self.reason = reason
        self.output = output
        super().__init__(f"cannot build {project}: {reason}")


# --- the container's refusals: the state of things forbids the operation -------------------------------------------


class ContainerError(KouplelessError):
    """The container refuses an operation; nothing was changed."""


class InvalidIdentity(ContainerError, ValueError):
    """A text that is no ``name:version``."""


class BizNotFound(ContainerError):
    """No biz of that identity is registered."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        super().__init__(f"biz {identity} is not installed")


class BizRepeated(ContainerError):
    """The identity is taken already, in whatever state."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        super().__init__(f"biz {identity} is installed already; raise the version, or uninstall it first")


class BizBusy(ContainerError):
    """Another operation on the same name is running; ``operation`` names it."""

    def __init__(self, identity: str, operation: str) -> None:
        self.identity = identity
        self.operation = operation
        super().__init__(f"biz {identity} is busy: {operation} has not finished")


class IllegalMove(ContainerError):
    """A state that cannot be reached from the present one."""

    def __init__(self, identity: str, state: str, to: str) -> None:
        self.identity = identity
        self.state = state
        self.to = to
        super().__init__(f"biz {identity} is {state} and cannot become {to}")


class MasterBizProtected(ContainerError):
    """The base itself was named where only a module may be."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        super().__init__(f"{identity} is the base itself and cannot be uninstalled")


class PathTaken(ContainerError):
    """Two bizs cannot answer under one web context path; ``owner`` is the identity that has it."""

    def __init__(self, identity: str, path: str, owner: str) -> None:
        self.identity = identity
        self.path = path
        self.owner = owner
        super().__init__(
            f"biz {identity} wants the path {path}, which {owner} serves; "
            "change web-context-path, or uninstall the other one"
        )


class ContainerClosed(ContainerError):
    """The base is shutting down and takes no more operations."""


# --- a biz's own code: what was done is undone ---------------------------------------------------------------------


class BizFailed(KouplelessError):
    """Code of a biz failed while it was started or stopped.

    ``traceback`` is the text of the biz's own traceback: the frames of this package and of the import system are cut.
    The original exception is not kept: its frames would keep alive the biz that was just removed.
    """

    def __init__(self, identity: str, reason: str, *, traceback: str = "") -> None:
        self.identity = identity
        self.reason = reason
        self.traceback = traceback
        super().__init__(f"biz {identity} {reason}")


class StartFailed(BizFailed):
    """The entry could not be found, imported, called or started."""


class StartTimeout(StartFailed):
    """The biz did not start within its deadline; ``seconds`` is that deadline."""

    def __init__(self, identity: str, seconds: float, *, traceback: str = "") -> None:
        self.seconds = seconds
        super().__init__(identity, f"did not start within {seconds:g} s", traceback=traceback)


class PatchRefused(KouplelessError):
    """A biz called a function that replaces parts of the process for everybody; nothing was patched."""

    def __init__(self, identity: str, call: str, reason: str) -> None:
        self.identity = identity
        self.call = call
        self.reason = reason
        super().__init__(f"biz {identity} may not call {call}: {reason}")


class StopFailed(BizFailed):
    """A stop hook or the shutdown of the application raised or timed out. The biz is removed all the same."""


# --- imports: also what Python itself would raise, so that a biz's ``except ImportError`` works --------------------


class ModuleRefused(ModuleNotFoundError, KouplelessError):
    """A biz imported a module that is there, and that it may not take from the base.

    Where nobody has a module, it is Python's own ``ModuleNotFoundError``, as without a base. ``name`` is the module,
    ``identity`` the biz; ``advice`` says why, and what to change. It is a note (PEP 678), so that tracebacks show it,
    while the text can be that of Python's own error, which code may compare.
    """

    def __init__(self, message: str, *, name: str, identity: str, advice: str = "") -> None:
        self.identity = identity
        self.advice = advice
        super().__init__(message, name=name)
        if advice:
            self.add_note(advice)

    def __reduce__(self) -> Any:
        """To another process, as a pool sends what its workers raise."""
        return functools.partial(
            type(self), name=self.name or "", identity=self.identity, advice=self.advice
        ), self.args


class BizGone(KouplelessError):
    """A biz was uninstalled, and its code tried to import, or somebody waited for it: ``what`` says which.

    No ``ImportError``: code that outlives its biz, a scheduler say, would take a job that it cannot import for one that
    does not exist, and delete it. ``name`` is the module that was to be imported.
    """

    def __init__(
        self, identity: str, *, name: str | None = None, what: str = "its code can import nothing any more"
    ) -> None:
        self.identity = identity
        self.name = name
        super().__init__(f"biz {identity} was uninstalled; {what}")


# --- services ------------------------------------------------------------------------------------------------------


class ServiceError(KouplelessError):
    """A call through a service reference that cannot be made.

    ``code`` is the number the field uses for the case: ``100002`` context missing, ``100003`` biz absent or
    installing, ``100004`` biz in a wrong state or without such an object, ``200001`` no such service.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


# --- settings and the ops API --------------------------------------------------------------------------------------


class SettingsError(KouplelessError):
    """A setting that cannot be used; the text names it and where it came from."""


class BaseStartFailed(KouplelessError):
    """The base could not be put together: a port in use, a static module that fails, no application."""


class BaseUnreachable(KouplelessError):
    """No arklet answered at the address within the time allowed."""

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        self.reason = reason
        super().__init__(f"no base answers at {address}: {reason}")
