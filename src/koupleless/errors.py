"""The tree of errors, each with the data a caller can act on.

There are three families: an artefact with a mistake (nothing was changed), a refusal of the container (nothing was
changed), and a failure of a biz's own code (everything done is undone). The arklet alone turns errors into wire
replies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koupleless.biz import BizId, BizState

_LISTED: Final = 50
"""How many mistakes of one file a message lists."""
_LONGEST: Final = 1000
"""The number of characters shown of one mistake: the file is a stranger's."""


class KouplelessError(Exception):
    """The root of the tree. ``str(error)`` is a sentence a user can act on. Every error can be copied and pickled."""

    source: ClassVar[str] = "Client"
    """The side to be mended, the first level of `code_of`; most errors without a family are those of commands."""

    def __reduce__(self) -> Any:
        # Exception would call the class with the text alone; the arguments of the class are in the attributes.
        return _again, (type(self), self.args), vars(self)


def code_of(kind: type[KouplelessError]) -> str:
    """The code of an error, as the page of error codes lists the code: source and type."""
    return f"{kind.source}.{kind.__name__}"


def _again(kind: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


_name: Final[Any] = type.__dict__["__name__"]


def in_words(error: BaseException) -> str:
    """An exception as text, whatever its class does. Keep the text: the frames of an exception would hold a biz."""
    name: str = _name.__get__(type(error))  # past the metaclass, which is code of the biz as well
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - __str__ is code of the biz, and may raise SystemExit
        text = ""
    return f"{name}: {text}" if text else name


# --- artefacts: found before anything is changed -------------------------------------------------------------------


class ArtifactError(KouplelessError):
    """An artefact, a project or a location that cannot be used."""

    source: ClassVar[str] = "Artifact"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class ManifestInvalid(ArtifactError):
    """A manifest, ``biz.toml`` or project table with mistakes.

    ``issues`` holds every mistake, not the first.
    """

    def __init__(self, origin: str, issues: Sequence[str]) -> None:
        self.origin = origin
        self.issues = tuple(issues)
        listed = "; ".join(_short(issue) for issue in self.issues[:_LISTED])
        if len(self.issues) > _LISTED:
            listed += f"; and {len(self.issues) - _LISTED} more"
        super().__init__(f"{origin} has {len(self.issues)} mistake{'s' * (len(self.issues) != 1)}: {listed}")


class ArchiveRefused(ArtifactError):
    """An archive that is damaged, too large, or has an entry of a forbidden kind or for a forbidden place."""

    def __init__(self, origin: str, reason: str) -> None:
        self.origin = origin
        self.reason = reason
        super().__init__(f"archive {origin} was refused: {reason}")


class DigestMismatch(ArtifactError):
    """Content with another digest than promised."""

    def __init__(self, origin: str, *, expected: str, actual: str) -> None:
        self.origin = origin
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"{origin} has sha256 {actual}, but {expected} was promised; the content was changed or damaged on its way"
        )


class IdentityMismatch(ArtifactError):
    """An artefact with another identity in the manifest than expected."""

    def __init__(self, origin: str, *, expected: BizId, actual: BizId) -> None:
        self.origin = origin
        self.expected = str(expected)
        self.actual = str(actual)
        super().__init__(f"{origin} is {actual}, not {expected}; ask for {actual}, or build the artefact as {expected}")


class FetchFailed(ArtifactError):
    """A location without an artefact: missing, unreachable, too slow, or the address of other content."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"cannot fetch {url}: {reason}")


class LibrariesMissing(ArtifactError):
    """An artefact travels without its private libraries, and the store of the base does not have them."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        super().__init__(
            f"{origin} has no libraries inside, and they are no more in the store of the base; deploy again"
        )


class BuildFailed(ArtifactError):
    """A project or requirement that could not be made into an artefact; ``output`` is the text of the build tool."""

    def __init__(self, project: str, reason: str, *, output: str = "") -> None:
        self.project = project
        self.reason = reason
        self.output = output
        super().__init__(f"cannot build {project}: {reason}")


# --- the container's refusals: the state of things forbids the operation -------------------------------------------


class ContainerError(KouplelessError):
    """The container refuses an operation; nothing was changed."""

    source: ClassVar[str] = "Container"


class InvalidIdentity(ContainerError, ValueError):
    """A text other than ``name:version``."""


class BizNotFound(ContainerError):
    """No biz of that identity is registered."""

    def __init__(self, biz: BizId) -> None:
        self.identity = str(biz)
        super().__init__(f"biz {biz} is not installed")


class BizRepeated(ContainerError):
    """The identity is taken already, in whatever state."""

    def __init__(self, biz: BizId) -> None:
        self.identity = str(biz)
        super().__init__(f"biz {biz} is installed already; raise the version, or uninstall the installed one first")


class BizBusy(ContainerError):
    """Another operation on the same name is running; ``operation`` names it."""

    def __init__(self, biz: BizId, operation: str) -> None:
        self.identity = str(biz)
        self.operation = operation
        super().__init__(f"biz {biz} is busy: {operation} has not finished")


class IllegalMove(ContainerError):
    """A state out of reach of the present one."""

    def __init__(self, biz: BizId, state: BizState, to: BizState) -> None:
        self.identity = str(biz)
        self.state = state.value
        self.to = to.value
        super().__init__(f"biz {biz} is {self.state} and cannot become {self.to}")


class MasterBizProtected(ContainerError):
    """The base itself was named in the place of a module."""

    def __init__(self, biz: BizId) -> None:
        self.identity = str(biz)
        super().__init__(f"{biz} is the base itself and cannot be uninstalled")


class PathTaken(ContainerError):
    """Two bizs cannot answer under one web context path; ``owner`` is the identity of the biz with the path."""

    def __init__(self, biz: BizId, path: str, owner: BizId) -> None:
        self.identity = str(biz)
        self.path = path
        self.owner = str(owner)
        super().__init__(
            f"biz {biz} wants the path {path}, which {owner} serves; "
            "change web-context-path, or uninstall the other one"
        )


class InstallCancelled(ContainerError):
    """Somebody has cancelled the install; the module was not started."""


class ContainerClosed(ContainerError):
    """The base is shutting down and takes no more operations."""


class StateUnwritable(ContainerError):
    """A change that the disk could not record, and that would be lost with the process; nothing was changed."""

    def __init__(self, change: str, reason: str) -> None:
        self.change = change
        self.reason = reason
        super().__init__(
            f"{change} cannot be recorded in the state directory of the base: {reason}; make room there, or serve with "
            "--ephemeral"
        )


class NoVersionBefore(ContainerError):
    """A name without a version that answered before the present one."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no version of {name} answered before the present one, so there is nothing to go back to")


class EndRefused(ContainerError):
    """A base that cannot end its process, because the process belongs to another server."""

    def __init__(self, base: str) -> None:
        self.base = base
        super().__init__(f"base {base} runs inside another server, and ends with that server only")


# --- a biz's own code: everything done is undone -------------------------------------------------------------------


class BizFailed(KouplelessError):
    """Code of a biz failed while it was started or stopped.

    ``traceback`` is the text of the biz's own traceback: the frames of this package and of the import system are cut.
    The original exception is not kept: the frames would keep the removed biz alive.
    """

    source: ClassVar[str] = "Module"

    def __init__(self, biz: BizId | None, reason: str, *, traceback: str = "") -> None:
        """``biz`` is ``None`` for the application of the base."""
        self.identity = "" if biz is None else str(biz)
        self.reason = reason
        self.traceback = traceback
        super().__init__(f"the application of the base {reason}" if biz is None else f"biz {biz} {reason}")


class StartFailed(BizFailed):
    """The entry could not be found, imported, called or started."""


class StartTimeout(StartFailed):
    """The biz did not start within the deadline of ``seconds``."""

    def __init__(self, biz: BizId | None, seconds: float, *, traceback: str = "") -> None:
        self.seconds = seconds
        super().__init__(biz, f"did not start within {seconds:g} s", traceback=traceback)


class PatchRefused(KouplelessError):
    """A biz called a function to replace parts of the process for everybody; nothing was patched."""

    source: ClassVar[str] = "Module"

    def __init__(self, biz: BizId, call: str, reason: str) -> None:
        self.identity = str(biz)
        self.call = call
        self.reason = reason
        super().__init__(f"biz {biz} may not call {call}: {reason}")


class StopFailed(BizFailed):
    """A stop hook or the shutdown of the application raised or timed out. The biz is removed all the same."""


# --- imports: children of Python's own errors, so that ``except ImportError`` of a biz works -----------------------


class ModuleRefused(ModuleNotFoundError, KouplelessError):
    """A biz imported a Python module of the base that the biz may not take from the base.

    A Python module missing everywhere raises Python's own ``ModuleNotFoundError``, as without a base. ``name`` is the
    Python module, ``identity`` the biz; ``advice`` has the reason and the change to make. The advice is a note (PEP
    678): tracebacks show the note, and the text stays equal to Python's own, since code may compare texts.
    """

    source: ClassVar[str] = "Module"

    def __init__(self, message: str, *, name: str, biz: BizId, advice: str = "") -> None:
        self.identity = str(biz)
        self.advice = advice
        super().__init__(message, name=name)
        if advice:
            self.add_note(advice)

    def __reduce__(self) -> Any:
        """Pass to another process, as a pool sends the errors of its workers."""
        return _again, (type(self), self.args), {**vars(self), "name": self.name, "msg": self.msg}


class BizGone(KouplelessError):
    """A biz was uninstalled while its code imported, or while a caller waited for the biz; ``what`` is the rest.

    No ``ImportError``: a scheduler that outlives the biz would take the failed import for a missing job, and delete the
    job. ``name`` is the Python module of a failed import.
    """

    source: ClassVar[str] = "Module"

    def __init__(
        self, biz: BizId, *, name: str | None = None, what: str = "its code can import nothing any more"
    ) -> None:
        self.identity = str(biz)
        self.name = name
        super().__init__(f"biz {biz} was uninstalled; {what}")


# --- services ------------------------------------------------------------------------------------------------------


class ServiceError(KouplelessError):
    """A use of a service that cannot be made.

    ``code`` is the number of the case in the field: ``100002`` context missing, ``100003`` biz absent or installing,
    ``100004`` biz in a wrong state or without such an object, ``200001`` no such service.
    """

    source: ClassVar[str] = "Service"

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


# --- settings and the ops API --------------------------------------------------------------------------------------


class SettingsError(KouplelessError):
    """A setting that cannot be used; the text names the setting and its source."""

    source: ClassVar[str] = "Base"


class BaseStartFailed(KouplelessError):
    """The base could not be put together: a port in use, a static module that fails, no application."""

    source: ClassVar[str] = "Base"


class StateHeld(BaseStartFailed):
    """A state directory that another base holds; ``pid`` is the number of the other process, 0 if not known."""

    def __init__(self, directory: str, pid: int) -> None:
        self.directory = directory
        self.pid = pid
        holder = f"process {pid}" if pid else "another process"
        super().__init__(
            f"the state directory {directory} is held by the base of {holder}; give this base another --name or "
            "--state-dir, or serve with --ephemeral"
        )


class BaseUnreachable(KouplelessError):
    """No arklet answered at the address within the time allowed."""

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        self.reason = reason
        super().__init__(f"no base answers at {address}: {reason}")
