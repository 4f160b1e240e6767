"""The keys common to a project, ``biz.toml`` and ``MANIFEST.MF``: their rules, and the rules for single values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from packaging.utils import InvalidName, canonicalize_name

from koupleless.artifact.reading.texts import read_requirement, shown
from koupleless.biz import BizId, Isolation, parse_name, parse_version
from koupleless.envfiles import variable_issue
from koupleless.errors import InvalidIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_MAX_PATH: Final = 1024
_MAX_COMPONENT: Final = 255
_BYTECODE_ROOM: Final = 32
"""Characters that the name of a bytecode file may have in addition to the name of the source file."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WEB_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")


@dataclass(frozen=True, slots=True)
class CommonKeys:
    """The checked values of the keys common to a project, ``biz.toml`` and ``MANIFEST.MF``."""

    id: BizId | None
    entry: str
    web_context_path: str
    deny_imports: tuple[str, ...]
    declared_libraries: tuple[str, ...]
    own: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def check_common_keys(
    issues: list[str],
    *,
    name: str | None,
    version: str | None,
    entry: str | None,
    web_context_path: str | None,
    deny_imports: Sequence[str] = (),
    declared_libraries: Sequence[str] = (),
    own: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> CommonKeys:
    """Check the common keys. Mistakes are added to ``issues``; the result must not be used then."""
    before = len(issues)
    # The wording of the original, which clients of the original search for.
    if not name:
        issues.append("Biz Name must not be empty!")
    if not version:
        issues.append("Biz Version must not be empty!")
    for parse, text in ((parse_name, name), (parse_version, version)):
        try:
            if text:
                parse(text)
        except InvalidIdentity as error:
            issues.append(str(error))
    identity = BizId.of(name, version) if name and version and len(issues) == before else None
    if not entry:
        issues.append('the entry must not be empty; set entry = "package.module:callable"')
    elif len(entry) > _MAX_PATH or not is_entry(entry):
        issues.append(f"entry {shown(entry)} is neither package.module:callable, package.module:factory() nor a module")
    if web_context_path is not None and normal_web_path(web_context_path) is None:
        issues.append(f"web-context-path {shown(web_context_path)} is no path such as /hello")
    issues.extend(
        f"deny-imports {shown(pattern)} is neither a package (a.b) nor a stem (a.b.*)"
        for pattern in deny_imports
        if not _is_dotted(pattern.removesuffix(".*"))
    )
    listed = {"declared-libraries": declared_libraries, "own": own, "shared": shared}
    names = {key: check_libraries(key, texts, issues) for key, texts in listed.items()}
    issues.extend(
        f"own and shared both name {name}; leave one of them out"
        for name in sorted({*names["own"]} & {*names["shared"]})
    )
    return CommonKeys(
        id=identity,
        entry=entry or "",
        web_context_path=f"/{name}" if web_context_path is None else web_context_path.strip() or "/",
        deny_imports=tuple(deny_imports),
        declared_libraries=names["declared-libraries"],
        own=names["own"],
        shared=names["shared"],
    )


def is_entry(text: str) -> bool:
    """Whether ``text`` has the form of an entry: ``pkg.mod``, ``pkg.mod:attr.sub`` or ``pkg.mod:factory()``."""
    module, colon, attribute = text.partition(":")
    return _is_dotted(module) and (not colon or _is_dotted(attribute.removesuffix("()")))


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def normal_web_path(text: str) -> str | None:
    """``text`` with a slash at the start and without a slash at the end; ``None`` if ``text`` is no path."""
    path = "/" + text.strip().strip("/")
    if path == "/":
        return path
    if not _WEB_PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        return None
    return path


def check_env(values: Mapping[str, str], issues: list[str]) -> dict[str, str]:
    """The variables of a module that a process can have; notes an issue for any other."""
    found = {name: variable_issue(name, value) for name, value in values.items()}
    issues += [f"env: {why}" for why in found.values() if why is not None]
    return {name: value for name, value in values.items() if found[name] is None}


def check_env_file(path: str | None, issues: list[str]) -> str:
    """The relative path of a file of variables; empty for none. Notes an issue for a path that leads elsewhere."""
    if not path:
        return ""
    if (why := path_issue(path)) is not None:
        issues.append(f"env-file {shown(path)} {why}")
        return ""
    return path


def path_issue(path: str) -> str | None:
    """The reason why ``path`` must not be used for a file below a directory; ``None`` if ``path`` is safe."""
    parts = path.split("/")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "has a path that is no Unicode text"
    checks = {
        "is an absolute path": path.startswith("/") or ":" in parts[0],
        "climbs out of its directory": ".." in parts,
        "has a backslash in its path": "\\" in path,
        "is no plain path": "" in parts or "." in parts,
        "has a control character in its path": not path.isprintable() and _CONTROL.search(path) is not None,
        "has a path that is too long": sum(sizes) + len(sizes) > _MAX_PATH or max(sizes) > _MAX_COMPONENT,
        "has a name that is too long for its bytecode beside it": path.endswith(".py")
        and sizes[-1] > _MAX_COMPONENT - _BYTECODE_ROOM,
    }
    return next((why for why, applies in checks.items() if applies), None)


def _each(texts: Iterable[str], convert: Callable[[str], str], issues: list[str]) -> list[str]:
    """Convert every text; a ``ValueError`` of the conversion becomes an issue."""
    converted = []
    for text in texts:
        try:
            converted.append(convert(text))
        except ValueError as error:
            issues.append(str(error))
    return converted


def check_libraries(key: str, texts: Iterable[str], issues: list[str]) -> tuple[str, ...]:
    """The distribution names under ``key``, normalised and sorted; other texts become issues."""

    def normalised(text: str) -> str:
        try:
            return canonicalize_name(text, validate=True)
        except InvalidName:
            raise ValueError(f"{key}: {shown(text)} is no distribution name") from None

    return tuple(sorted(_each(texts, normalised, issues)))


def check_requirements(texts: Iterable[str], issues: list[str]) -> tuple[str, ...]:
    """The PEP 508 texts in normal spelling; other texts become issues."""
    return tuple(_each(texts, read_requirement, issues))


def check_isolation(text: str | None, issues: list[str]) -> Isolation:
    """The isolation named by ``text``; the default without a text. A wrong name becomes an issue."""
    try:
        return Isolation(text) if text else Isolation.NAMESPACE
    except ValueError:
        issues.append(f"isolation = {shown(text)} is none of {', '.join(item.value for item in Isolation)}")
        return Isolation.NAMESPACE
