"""Replies: the ``data`` of an envelope, a struct for each kind.

The decoders of the original Go clients insist on the types of the members. All members have defaults, because other
arklets leave members out; only a member typed ``| None`` is left out here when the member has no value.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from koupleless.biz import DEFAULT_PRIORITY, BizState, ChangeReason
from koupleless.wire.envelope import ReplyInvalid, ResponseCode, without_nulls

if TYPE_CHECKING:
    from koupleless.descriptions import BizInfo as Biz
    from koupleless.descriptions import Resident as Brought
    from koupleless.descriptions import StateRecord as Record

T = TypeVar("T")


class HelpItem(msgspec.Struct, frozen=True):
    """One command of the list in a ``help`` reply."""

    desc: str = ""
    id: str = ""


class LibrariesData(msgspec.Struct, frozen=True):
    """The data of a ``queryLibraries`` reply: digests of private libraries in the store of the base."""

    present: list[str] = []


class StateRecord(msgspec.Struct, frozen=True, rename="camel"):
    """One change of state of a biz."""

    change_time: int = 0
    """Milliseconds since the epoch."""
    message: str = ""
    reason: ChangeReason = ChangeReason.UNDEFINE
    state: BizState = BizState.UNRESOLVED

    @classmethod
    def of(cls, record: Record) -> StateRecord:
        """Spell a state record of the container."""
        return cls(record.time_ms, record.message, record.reason, record.state)


class BizHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The four members by which ``health`` shows a biz."""

    biz_name: str = ""
    biz_version: str = ""
    biz_state: BizState = BizState.UNRESOLVED
    web_context_path: str = "/"

    @classmethod
    def of(cls, biz: Biz) -> BizHealth:
        """Spell a biz."""
        return cls(
            biz_name=biz.id.name,
            biz_version=biz.id.version,
            biz_state=biz.state,
            web_context_path=biz.web_context_path,
        )


class Zombie(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A Python module, or another object, of a removed biz that is still in memory. Sent only by this project."""

    biz: str
    """The identity of the biz."""
    name: str
    """The name of the Python module, or a description of the object."""
    since: int
    """The time of the removal, in milliseconds since the epoch."""
    holders: list[str]
    """The chain of referrers in words, the outermost first; empty where no referrer was found."""
    size_bytes: int | None = None


class Resident(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A library that bizs brought into the process. Sent only by this project."""

    name: str
    version: str
    size_bytes: int
    """Growth of the process while the library was loaded; 0 where the operating system does not say."""
    modules: int
    """The number of loaded Python modules of the library."""
    users: list[str] = []
    """The identities of the bizs that use the library now."""

    @classmethod
    def of(cls, one: Brought) -> Resident:
        """Spell a resident library of the container."""
        return cls(
            name=one.name,
            version=one.version,
            size_bytes=one.size_bytes,
            modules=one.modules,
            users=list(one.users),
        )


class Library(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A distribution used by a biz. Sent only by this project."""

    name: str
    version: str
    held: str
    """``shared``, ``own copy`` or ``own version``."""
    reason: str


def _libraries(biz: Biz) -> list[Library] | msgspec.UnsetType:
    if not biz.libraries:
        return msgspec.UNSET
    return [Library(name=one.name, version=one.version, held=one.held, reason=one.reason) for one in biz.libraries]


class BizInfo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One biz as ``queryAllBiz`` shows a biz."""

    biz_name: str = ""
    biz_version: str = ""
    biz_state: BizState = BizState.UNRESOLVED
    biz_state_records: list[StateRecord] = []
    main_class: str = ""
    web_context_path: str = "/"
    libraries: list[Library] | msgspec.UnsetType = msgspec.UNSET
    """The libraries imported by the biz until it had started, and how each is held. Sent only by this project."""
    health: str | msgspec.UnsetType = msgspec.UNSET
    """``UP``, ``DOWN`` or ``UNKNOWN``, by the state and the last answers of the checks. Sent only by this project."""

    @property
    def identity(self) -> str:
        """``name:version``."""
        return f"{self.biz_name}:{self.biz_version}"

    @classmethod
    def of(cls, biz: Biz, *, has_libraries: bool = False) -> BizInfo:
        """Spell a biz; libraries only on request, since a biz has many of them and clients poll."""
        return cls(
            biz_name=biz.id.name,
            biz_version=biz.id.version,
            biz_state=biz.state,
            biz_state_records=[StateRecord.of(record) for record in biz.records],
            main_class=biz.entry,
            web_context_path=biz.web_context_path,
            libraries=_libraries(biz) if has_libraries else msgspec.UNSET,
        )


class BizDetails(BizInfo, frozen=True, kw_only=True, rename="camel"):
    """One biz as ``installBiz`` shows a biz: all members of the original; a member without a meaning here is empty."""

    attributes: dict[str, str] = {}
    biz_temp_work_dir: str = ""
    biz_url: str = ""
    class_path: list[str] = []
    declared_mode: bool = False
    deny_import_classes: list[str] = []
    deny_import_package_nodes: list[str] = []
    deny_import_package_stems: list[str] = []
    deny_import_packages: list[str] = []
    deny_import_resources: list[str] = []
    deny_prefix_import_resource_stems: list[str] = []
    deny_suffix_import_resource_stems: list[str] = []
    identity_: str = msgspec.field(default="", name="identity")
    inject_export_packages: list[str] = []
    inject_plugin_dependencies: list[str] = []
    priority: int = DEFAULT_PRIORITY

    @classmethod
    def of(cls, biz: Biz, *, has_libraries: bool = True) -> BizDetails:
        """Spell a biz."""
        return cls(
            biz_name=biz.id.name,
            biz_version=biz.id.version,
            biz_state=biz.state,
            biz_state_records=[StateRecord.of(record) for record in biz.records],
            main_class=biz.entry,
            web_context_path=biz.web_context_path,
            libraries=_libraries(biz) if has_libraries else msgspec.UNSET,
            attributes=dict(biz.attributes),
            biz_temp_work_dir=biz.work_dir,
            biz_url=biz.url,
            class_path=list(biz.class_path),
            declared_mode=bool(biz.declared_libraries),
            deny_import_packages=list(biz.deny_imports),
            identity_=str(biz.id),
            priority=biz.priority,
        )


class BizReply(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The reply to a switch, and the members common to all replies about one biz."""

    code: ResponseCode
    message: str


class Held(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One object of a removed biz that is still in memory."""

    name: str
    holders: list[str]
    """The chain of referrers in words, the outermost first."""
    size_bytes: int | None = None


class PurgeReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of the process after a biz was removed: clean, or the remains. Sent only by this project."""

    biz: str
    clean: bool
    summary: str
    held: list[Held] = []
    undone: dict[str, int] = {}
    """Kind of registration -> number of registrations undone."""
    failures: list[str] = []
    elapsed_ms: float = 0.0
    ended: list[str] = []
    """Threads, tasks and processes that did not end by themselves and were ended, in words that say how."""
    stays: list[Resident] = []
    """Libraries last used by this biz, which stay loaded for the next user."""
    changed: list[str] = []
    """Names in shared Python modules that still have the values set by the biz."""
    compared: bool = False
    """Whether the shared Python modules were compared; if not, ``changed`` says nothing."""
    notes: list[str] = []
    """Sentences for the operator about other subjects than the remains in the process."""

    @property
    def left(self) -> str:
        """The remains of the biz, in words for people, and no more than is known."""
        if not self.clean:
            return f"left behind: {self.summary}"
        if self.changed:
            return f"no code of the module is left; {self.summary}"
        return "nothing left behind" if self.compared else "no code of the module is left"


class InstallData(BizReply, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The reply to one install."""

    elapsed_space: int
    """Growth of the process in bytes; may be negative."""
    biz_infos: list[BizDetails] | None = None
    """Exactly one on success."""
    replaced: list[PurgeReport] | None = None
    """Purge reports of the bizs replaced by this one. Sent only by this project."""
    warnings: list[str] | None = None
    """Sentences: changes to shared Python modules, seen by all, and notes on the replaced bizs. Only this project's."""


class UninstallData(BizReply, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The reply to one uninstall."""

    purge_report: PurgeReport | None = None


class CommandData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The reply about a command to be run as a module. Sent only by this project."""

    biz_name: str
    biz_version: str
    path: str
    """A file on the machine of the base, to be read by a user of the same name."""


class ConsoleData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The reply of a console in a module. Sent only by this project."""

    session: str
    output: str = ""
    """Texts printed since the last answer, and values shown."""
    errors: str = ""
    """Tracebacks since the last answer."""
    state: str = "ready"
    """``ready`` for an input, ``more`` for the rest of a statement, ``running``, or ``ended``."""
    status: int = 0
    """The exit status, as of a process: 1 after an error."""


class EnvData(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The reply about kept values of a module's environment: names only. Sent only by this project."""

    biz_name: str
    names: list[str]
    """Names of values given by deployments and by this command."""
    project_names: list[str] = []
    """Names of values from the env-file of the project."""
    unknown: list[str] = []
    """Names to be removed that had no given value."""
    running: list[str] = []
    """Identities of the module that run with the values from their start."""


class LogEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of the log of a module."""

    time: float
    """In seconds."""
    biz_name: str
    text: str
    """The lines of the entry, as in the log."""


class LogsData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The reply about the logs of modules, in the order of time. Sent only by this project."""

    entries: list[LogEntry] = []
    places: dict[str, str] = {}
    """Texts that mean the ends of the logs, for the next query."""


class BatchEntry(BizReply, frozen=True, kw_only=True, rename="camel"):
    """The reply to one element of a batch."""

    biz_infos: list[BizDetails] = []
    """Always exactly one element: the original controller reads the first without a check."""


class BatchData(BizReply, frozen=True, kw_only=True, rename="camel"):
    """The reply to a batch install."""

    elapsed_space: int = 0
    biz_url_to_response: dict[str, BatchEntry] = {}
    """URL as requested -> reply."""


class HealthData(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The parts of the health of a base named in the query: the base, processor and memory, bizs, plugins."""

    master_biz_info: BizHealth | None = None
    cpu: dict[str, Any] | None = None
    jvm: dict[str, Any] | None = None
    biz_list_info: list[BizHealth] | None = None
    biz_info: BizHealth | None = None
    zombies: list[Zombie] | None = None
    """Left out when empty. Sent only by this project."""
    residents: list[Resident] | None = None
    """The libraries that bizs brought into the process. Left out when empty. Sent only by this project."""
    plugin_list_info: list[dict[str, Any]] | None = None
    plugin_info: dict[str, Any] | None = None


class HealthReply(msgspec.Struct, frozen=True, rename="camel"):
    """The ``data`` of ``health``."""

    health_data: HealthData


class OpsStatus(enum.Enum):
    """The state of a background run."""

    INITIALIZED = "INITIALIZED"
    EXECUTING = "EXECUTING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self in (OpsStatus.SUCCEEDED, OpsStatus.FAILED)


class StackFrame(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One frame of a traceback."""

    class_name: str
    """The name of the Python module; the original has the class here."""
    file_name: str
    line_number: int
    method_name: str
    native_method: bool = False


class Recorded(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A module that a base keeps. Sent only by this project."""

    biz_name: str
    biz_version: str
    digest: str
    """The digest of the artefact in the store."""
    url: str
    """The source as given at the install."""
    active: bool = True
    """Whether this version answers by name."""
    args: list[str] = []
    variables: list[str] = []
    """The names of the environment variables given with the install; never the values."""


class ExportData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The modules that a base keeps over a restart, in the order of their installs. Sent only by this project."""

    base: str = ""
    modules: list[Recorded] = []
    before: list[Recorded] = []
    """Versions that answered before the present ones, for a rollback."""


class Throwable(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"kind": "@type", "localized_message": "localizedMessage", "stack_trace": "stackTrace"},
    omit_defaults=True,
):
    """An exception as data."""

    kind: str
    message: str
    localized_message: str
    stack_trace: list[StackFrame]
    cause: Throwable | None = None


class OpsRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One background run."""

    request_id: str
    ark_biz_meta: dict[str, Any]
    """The request as the arklet read the request."""
    status: OpsStatus
    start_time: int
    start_timestamp: int
    end_timestamp: int
    """0 while the run lasts, like `elapsed_time`."""
    elapsed_time: int
    end_time: int | None = None
    thread_name: str | None = None
    message: str | None = None
    throwable: Any = None


def decode_data(data: Any, kind: type[T]) -> T:
    """Read the ``data`` of any arklet's reply, with states in any case. Raises ``ReplyInvalid``."""
    try:
        return msgspec.convert(_ours(without_nulls(data)), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ReplyInvalid(f"the reply's data cannot be read: {error}") from None


_REASONS: Final = {reason.value: reason.value for reason in ChangeReason} | {
    reason.name: reason.value for reason in ChangeReason
}


def _ours(value: Any) -> Any:
    """Plain data with the states of all bizs and state records in upper case, and reasons spelled as ours."""
    if isinstance(value, list):
        return [_ours(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {key: _ours(item) for key, item in value.items()}
    state = "bizState" if "bizName" in plain else "state" if "changeTime" in plain else None
    if state is not None and isinstance(plain.get(state), str):
        plain[state] = plain[state].upper()
    if "changeTime" in plain and "reason" in plain:
        plain["reason"] = _REASONS.get(plain["reason"], ChangeReason.UNDEFINE.value)
    return plain
