"""A lock file: the modules of a base with the digests of their artefacts, to be had again elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from koupleless.biz import BizId
from koupleless.client import Refused
from koupleless.errors import KouplelessError, SettingsError
from koupleless.wire.replies import BizReply, EnvData, ExportData, InstallData, Recorded, decode_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from koupleless.client import ArkletClient

T = TypeVar("T")

_FORMAT: Final = 1


class LockFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a lock file."""

    format: int
    base: str = ""
    modules: list[Recorded]


class DigestDiffers(KouplelessError):
    """A base with another artefact under an identity of the lock file; nothing was changed."""

    def __init__(self, identity: str, *, locked: str, present: str) -> None:
        self.identity = identity
        super().__init__(
            f"{identity} of the lock file has the digest {locked[:12]}, and that in the base has {present[:12]}; "
            f"undeploy it first, or give the artefact another version"
        )


def ask(client: ArkletClient, command: str, kind: type[T], body: Mapping[str, object] | None = None) -> T:
    """Send a command of ours; returns the data of the reply. Raises as the methods of ``client``."""
    envelope = client.call(command, body)
    if not envelope.is_success:
        raise Refused(command, envelope)
    return decode_data(envelope.data, kind)


def write(exported: ExportData) -> str:
    """The text of a lock file."""
    locked = LockFile(format=_FORMAT, base=exported.base, modules=exported.modules)
    return msgspec.json.format(msgspec.json.encode(locked), indent=2).decode() + "\n"


def read(path: Path) -> LockFile:
    """Read a lock file. Raises ``SettingsError``, and ``InvalidIdentity`` for an impossible name or version."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=LockFile)
    except OSError as error:
        raise SettingsError(f"lock file {path} cannot be read: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path} is no lock file: {error}") from error
    if found.format != _FORMAT:
        raise SettingsError(f"{path} has format {found.format}, and this arkctl reads format {_FORMAT}")
    for module in found.modules:
        BizId.of(module.biz_name, module.biz_version)
    return found


def install(client: ArkletClient, locked: LockFile, *, say: Callable[[str], object]) -> list[str]:
    """Install the modules of a lock file that a base does not have; returns their identities.

    Every artefact has the digest of the lock file, or is refused. Raises ``DigestDiffers`` before the first install,
    and as the methods of ``client``.
    """
    present = {_identity(each): each for each in ask(client, "exportBizs", ExportData).modules}
    for module in locked.modules:
        there = present.get(_identity(module))
        if there is not None and there.digest != module.digest:
            raise DigestDiffers(_identity(module), locked=module.digest, present=there.digest)
    missing = [module for module in locked.modules if _identity(module) not in present]
    for module in missing:
        _tell_variables(client, module, say)
        body = {**_named(module), "bizUrl": module.url, "bizDigest": module.digest, "args": module.args}
        ask(client, "installBiz", InstallData, body)
    for module in locked.modules:
        if module.active:
            ask(client, "switchBiz", BizReply, _named(module))
    return [_identity(module) for module in missing]


def _tell_variables(client: ArkletClient, module: Recorded, say: Callable[[str], object]) -> None:
    """Tell about variables that the module had, and that the base has no values for."""
    if module.variables:
        kept = ask(client, "envBiz", EnvData, {"bizName": module.biz_name})
        lacking = sorted({*module.variables} - {*kept.names})
        if lacking:
            had = f"{_identity(module)} was deployed with values for {', '.join(lacking)}"
            say(f"warning: {had}, which a lock file does not have: arkctl env {module.biz_name} set {lacking[0]}=...")


def _named(module: Recorded) -> dict[str, object]:
    return {"bizName": module.biz_name, "bizVersion": module.biz_version}


def _identity(module: Recorded) -> str:
    return f"{module.biz_name}:{module.biz_version}"
