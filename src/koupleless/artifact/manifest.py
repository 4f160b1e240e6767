"""The manifest of an artefact: parsed into a checked, immutable value, and rendered. No file is touched.

Two spellings carry the same facts: ``biz.toml``, complete and only of this project, and ``META-INF/MANIFEST.MF`` with
the keys of the Java original, for tools of the original that read name and version. All mistakes of a manifest are
reported at once.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from packaging.utils import InvalidName, canonicalize_name

from koupleless.artifact.texts import read_requirement, read_toml, shown
from koupleless.biz import DEFAULT_PRIORITY, BizId, Isolation, parse_name, parse_version
from koupleless.errors import InvalidIdentity, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

BIZ_TOML: Final = "biz.toml"
MANIFEST_MF: Final = "META-INF/MANIFEST.MF"
MARK: Final = "com/alipay/sofa/ark/biz/mark"
"""The empty entry by which tools of the original recognise an archive as a biz."""
UNLISTED: Final = frozenset({BIZ_TOML, MANIFEST_MF})
"""Files without a digest: one holds the digests, the other is for tools of the original, which know no digests."""

FORMAT: Final = 1
_MAX_PATH: Final = 1024
_MAX_COMPONENT: Final = 255
_BYTECODE_ROOM: Final = 32
"""Characters that the name of a bytecode file may have in addition to the name of the source file."""
_MAX_KEPT: Final = 1 << 20
"""Upper bound for the characters of a manifest without digests, which stay in memory as long as the biz."""
_INTEGERS: Final = range(-(2**31), 2**31)
"""Whole numbers that every client can read from the wire."""
_MOST_HINTS: Final = 8
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TAG: Final = re.compile(r"(?:py|cp)3([0-9]{0,3})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_WEB_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The facts known of a biz before any code of the biz runs. Immutable; safe to share between threads."""

    id: BizId
    entry: str
    """``package.module:callable``, ``package.module:factory()``, or a Python module to import."""
    web_context_path: str
    """The text of the author, with or without slashes at both ends; ``/`` is the root."""
    strips_path: bool = False
    """Whether the application sees request paths without the context path."""
    priority: int = DEFAULT_PRIORITY
    declared_libraries: tuple[str, ...] = ()
    """Normalised names of distributions the biz may take from the base; not empty means declared mode."""
    deny_imports: tuple[str, ...] = ()
    """``a.b`` means the package alone, ``a.b.*`` the package and all packages and Python modules below."""
    own: tuple[str, ...] = ()
    """Normalised names of distributions of the base wanted as own copies."""
    shared: tuple[str, ...] = ()
    """Normalised names of distributions wanted shared with the base."""
    isolation: Isolation = Isolation.NAMESPACE
    python_tag: str = "py3"
    """``py3`` runs on every Python; ``cp311`` on CPython 3.11 only, because of compiled extensions inside."""
    requirements: tuple[str, ...] = ()
    """The requirements of the author, as PEP 508 texts."""
    provided: tuple[str, ...] = ()
    """Requirements left out of the artefact, to be satisfied by the base, as PEP 508 texts."""
    packed: tuple[str, ...] = ()
    """The private distributions inside, as ``name==version``."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Relative path -> SHA-256; empty where no digests were recorded."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """All other keys of the manifest, for operators to read."""

    def python_issue(self) -> str | None:
        """The reason why the running interpreter cannot run this biz, as a sentence; ``None`` if there is none."""
        match = _TAG.fullmatch(self.python_tag)
        minor = match[1] if match else ""
        if not minor:
            return None
        running = sys.version_info.minor
        fits = running == int(minor) if self.python_tag.startswith("cp") else running >= int(minor)
        if fits:
            return None
        return f"{self.id} was built for {self.python_tag}, this base runs cp3{running}; build it with that Python"


# --- reading -------------------------------------------------------------------------------------------------------


class Table:
    """A reader of one TOML table: returns values of the right kind and collects the mistakes as issues.

    Lives as long as one parse. ``where`` stands before each issue, for files with several tables.
    """

    def __init__(self, values: object, issues: list[str], *, where: str = "") -> None:
        self._where = f"[{where}] " if where else ""
        self._issues = issues
        self._asked: set[str] = set()
        if not isinstance(values, dict):
            self.blame("is no table")
            values = {}
        self._values: dict[str, object] = values

    def blame(self, issue: str) -> None:
        """Note an issue with this table."""
        self._issues.append(self._where + issue)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def _take(self, key: str, kind: type, words: str) -> object:
        self._asked.add(key)
        value = self._values.get(key)
        if value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
            return value
        self.blame(f"{key} = {shown(value)} is not {words}")
        return None

    def text(self, key: str) -> str | None:
        """The text under ``key``, without white space at both ends; ``None`` if there is no text."""
        value = self._take(key, str, "a text")
        return value.strip() if isinstance(value, str) else None

    def number(self, key: str, default: int) -> int:
        """The whole number under ``key``, else ``default``."""
        value = self._take(key, int, "a whole number")
        if not isinstance(value, int):
            return default
        if value not in _INTEGERS:
            self.blame(f"{key} = {shown(value)} is too large a number")
            return default
        return value

    def flag(self, key: str) -> bool:
        """Whether ``key`` is there and true."""
        return self._take(key, bool, "true or false") is True

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts under ``key``; empty if there is no list."""
        value = self._take(key, list, "a list of texts")
        if not isinstance(value, list):
            return ()
        if not all(isinstance(item, str) for item in value):
            self.blame(f"{key} = {shown(value)} is not a list of texts")
            return ()
        return tuple(item.strip() for item in value)

    def mapping(self, key: str) -> dict[str, str]:
        """The table of plain values under ``key``, as texts."""
        value = self._take(key, dict, "a table")
        if not isinstance(value, dict):
            return {}
        plain = {name: _as_text(item) for name, item in value.items()}
        for name, item in plain.items():
            if item is None:
                self.blame(f"{key}.{name} is not a plain value")
        return {name: item for name, item in plain.items() if item is not None}

    def refuse_the_rest(self) -> None:
        """Note an issue for every key that was not read, with the likely spelling."""
        unknown = sorted(self._values.keys() - self._asked)
        if len(unknown) > _MOST_HINTS:
            self.blame(f"{len(unknown)} unknown keys, {shown(unknown[0])} among them")
            return
        for key in unknown:
            near = difflib.get_close_matches(key, self._asked, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(self._asked))}"
            self.blame(f"unknown key {key if len(key) < _MAX_COMPONENT else shown(key)}{hint}")


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (str, int, float)) else None


@dataclass(frozen=True, slots=True)
class Face:
    """The checked values of the keys common to a project, ``biz.toml`` and ``MANIFEST.MF``."""

    id: BizId | None
    entry: str
    web_context_path: str
    deny_imports: tuple[str, ...]
    declared_libraries: tuple[str, ...]
    own: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def check_face(
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
) -> Face:
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
    return Face(
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


def parse_biz_toml(text: str, origin: str, *, attributes: Mapping[str, str] | None = None) -> Manifest:
    """Read ``biz.toml``. ``attributes`` were found in another manifest; attributes of ``biz.toml`` win.

    Raises ``ManifestInvalid`` with all mistakes of the file.
    """
    issues: list[str] = []
    try:
        values = read_toml(text)
    except ValueError as error:
        raise ManifestInvalid(origin, [f"{BIZ_TOML} is no TOML: {error}"]) from None
    table = Table(values, issues)
    if table.number("format", FORMAT) != FORMAT:
        raise ManifestInvalid(origin, [f"format = {values['format']} is newer than this base, which reads {FORMAT}"])
    face = check_face(
        issues,
        name=table.text("name"),
        version=table.text("version"),
        entry=table.text("entry"),
        web_context_path=table.text("web-context-path"),
        deny_imports=table.texts("deny-imports"),
        declared_libraries=table.texts("declared-libraries"),
        own=table.texts("own"),
        shared=table.texts("shared"),
    )
    priority = table.number("priority", DEFAULT_PRIORITY)
    strips_path = table.flag("strip-path")
    isolation = check_isolation(table.text("isolation"), issues)
    python_tag = table.text("python") or "py3"
    if not _TAG.fullmatch(python_tag):
        issues.append(f"python = {shown(python_tag)} is neither py3 nor a tag such as cp311")
    requirements = check_requirements(table.texts("requirements"), issues)
    provided = check_requirements(table.texts("provided"), issues)
    packed = check_requirements(table.texts("packed"), issues)
    files = table.mapping("files")
    for path, digest in files.items():
        if (why := path_issue(path)) is not None:
            issues.append(f"file {shown(path)} {why}")
        if not _DIGEST.fullmatch(digest):
            issues.append(f"file {shown(path)} has {shown(digest)} for a SHA-256")
    own = table.mapping("attributes")
    table.refuse_the_rest()
    if issues or face.id is None:
        raise ManifestInvalid(origin, issues)
    manifest = Manifest(
        id=face.id,
        entry=face.entry,
        web_context_path=face.web_context_path,
        strips_path=strips_path,
        priority=priority,
        declared_libraries=face.declared_libraries,
        deny_imports=face.deny_imports,
        own=face.own,
        shared=face.shared,
        isolation=isolation,
        python_tag=python_tag,
        requirements=requirements,
        provided=provided,
        packed=packed,
        files=files,
        attributes={**(attributes or {}), **own},
    )
    return check_size(manifest, origin)


def check_size(manifest: Manifest, origin: str) -> Manifest:
    """Return ``manifest``. Raises ``ManifestInvalid`` if the manifest is too large to be kept and shown."""
    lists = (
        manifest.declared_libraries,
        manifest.deny_imports,
        manifest.own,
        manifest.shared,
        manifest.requirements,
        manifest.provided,
        manifest.packed,
        manifest.attributes,
        manifest.attributes.values(),
        (manifest.entry, manifest.web_context_path),
    )
    if sum(len(text) for texts in lists for text in texts) > _MAX_KEPT:
        raise ManifestInvalid(origin, [f"it has more than {_MAX_KEPT} characters besides the digests of files"])
    return manifest


def check_isolation(text: str | None, issues: list[str]) -> Isolation:
    """The isolation named by ``text``; the default without a text. A wrong name becomes an issue."""
    try:
        return Isolation(text) if text else Isolation.NAMESPACE
    except ValueError:
        issues.append(f"isolation = {shown(text)} is none of {', '.join(item.value for item in Isolation)}")
        return Isolation.NAMESPACE


_MF_KEYS: Final = frozenset(
    {
        "Manifest-Version",
        "Ark-Biz-Name",
        "Ark-Biz-Version",
        "Start-Class",
        "Main-Class",
        "web-context-path",
        "priority",
        "declared-libraries",
        "deny-import-packages",
    }
)


def parse_manifest_mf(text: str, origin: str) -> Manifest:
    """Read ``META-INF/MANIFEST.MF``. The entry stands under ``Start-Class``, or else ``Main-Class``.

    Raises ``ManifestInvalid`` with all mistakes of the file.
    """
    issues: list[str] = []
    keys = manifest_keys(text)
    face = check_face(
        issues,
        name=keys.get("Ark-Biz-Name"),
        version=keys.get("Ark-Biz-Version"),
        entry=keys.get("Start-Class") or keys.get("Main-Class"),
        web_context_path=keys.get("web-context-path") or None,
        deny_imports=_listed(keys.get("deny-import-packages")),
        declared_libraries=_listed(keys.get("declared-libraries")),
    )
    priority = _whole_number(keys.get("priority"))
    if priority is None:
        issues.append(f"priority = {shown(keys['priority'])} is not a whole number")
    if issues or face.id is None:
        raise ManifestInvalid(origin, issues)
    manifest = Manifest(
        id=face.id,
        entry=face.entry,
        web_context_path=face.web_context_path,
        priority=DEFAULT_PRIORITY if priority is None else priority,
        declared_libraries=face.declared_libraries,
        deny_imports=face.deny_imports,
        attributes=other_attributes(keys),
    )
    return check_size(manifest, origin)


def _whole_number(text: str | None) -> int | None:
    try:
        number = int(text or DEFAULT_PRIORITY)
    except ValueError:
        return None
    return number if number in _INTEGERS else None


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def manifest_keys(text: str) -> dict[str, str]:
    """The main section of a ``MANIFEST.MF``: folded lines are joined, lines other than ``key: value`` are skipped."""
    lines: list[list[str]] = []
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if lines:
                break
        elif line.startswith(" ") and lines:
            lines[-1].append(line[1:])
        else:
            lines.append([line])
    pairs = ("".join(pieces).partition(":") for pieces in lines)
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def other_attributes(keys: Mapping[str, str]) -> dict[str, str]:
    """The keys of a ``MANIFEST.MF`` without a field in `Manifest`."""
    return {key: value for key, value in keys.items() if key not in _MF_KEYS}


# --- writing -------------------------------------------------------------------------------------------------------


def render_biz_toml(manifest: Manifest) -> str:
    """The complete ``biz.toml`` of the manifest. Equal manifests give equal texts."""
    lines = [f"format = {FORMAT}"]
    plain: dict[str, str | int | tuple[str, ...]] = {
        "name": manifest.id.name,
        "version": manifest.id.version,
        "entry": manifest.entry,
        "web-context-path": manifest.web_context_path,
        "priority": manifest.priority,
        "isolation": manifest.isolation.value,
        "python": manifest.python_tag,
        "declared-libraries": manifest.declared_libraries,
        "deny-imports": manifest.deny_imports,
        "own": manifest.own,
        "shared": manifest.shared,
        "requirements": manifest.requirements,
        "provided": manifest.provided,
        "packed": manifest.packed,
    }
    lines += [f"{key} = {_toml(value)}" for key, value in plain.items() if value != ()]
    if manifest.strips_path:
        lines.append("strip-path = true")
    for title, table in (("attributes", manifest.attributes), ("files", manifest.files)):
        if table:
            lines += ["", f"[{title}]", *(f"{_toml(key)} = {_toml(table[key])}" for key in sorted(table))]
    return "\n".join(lines) + "\n"


def _toml(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML string except for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def render_manifest_mf(manifest: Manifest) -> str:
    """``MANIFEST.MF`` for tools of the original.

    Name and version are never folded: the Go client of the original reads both with a regular expression.
    """
    keys = {
        "Manifest-Version": "1.0",
        "Ark-Biz-Name": manifest.id.name,
        "Ark-Biz-Version": manifest.id.version,
        "Start-Class": manifest.entry,
        "web-context-path": manifest.web_context_path,
        "priority": str(manifest.priority),
        "declared-libraries": ",".join(manifest.declared_libraries),
        "deny-import-packages": ",".join(manifest.deny_imports),
        **{key: value for key, value in manifest.attributes.items() if re.fullmatch(r"[A-Za-z0-9_-]{1,68}", key)},
    }
    lines = []
    for key, value in keys.items():
        if value:
            line = f"{key}: {' '.join(value.split())}"
            lines += [line] if key.startswith("Ark-Biz-") else _folded(line)
    return "".join(f"{line}\r\n" for line in [*lines, ""])


def _folded(line: str) -> list[str]:
    """The line in pieces of at most 72 bytes, line end included, cut between characters."""
    pieces, room, current = [], 70, ""
    for character in line:
        size = len(character.encode())
        if room < size:
            pieces.append(current)
            current, room = " ", 69
        current += character
        room -= size
    return [*pieces, current]
