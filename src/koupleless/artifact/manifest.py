"""The manifest of an artefact: a checked, immutable value, and ``biz.toml``, parsed and rendered. No file is touched.

``biz.toml`` is complete and known only to this project. The second spelling, ``META-INF/MANIFEST.MF``, is in
`koupleless.artifact.manifest_mf`. All mistakes of a manifest are reported at once.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.artifact.reading.common_keys import (
    check_common_keys,
    check_env,
    check_env_file,
    check_isolation,
    check_requirements,
    path_issue,
)
from koupleless.artifact.reading.table import Table
from koupleless.artifact.reading.texts import read_toml, shown
from koupleless.biz import DEFAULT_PRIORITY, BizId, Isolation
from koupleless.errors import ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

BIZ_TOML: Final = "biz.toml"
MANIFEST_MF: Final = "META-INF/MANIFEST.MF"
MARK: Final = "com/alipay/sofa/ark/biz/mark"
"""The empty entry by which tools of the original recognise an archive as a biz."""
UNLISTED: Final = frozenset({BIZ_TOML, MANIFEST_MF})
"""Files without a digest: one holds the digests, the other is for tools of the original, which know no digests."""
FORMAT: Final = 1
_MAX_KEPT: Final = 1 << 20
"""Upper bound for the characters of a manifest without digests, which stay in memory as long as the biz."""
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_TAG: Final = re.compile(r"(?:py|cp)3([0-9]{0,3})")


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
    scopes_cookies: bool = False
    """Whether cookies of the application for ``/`` are set for the context path."""
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
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables of the environment, unless the base or the deployment has others."""
    env_file: str = ""
    """The relative path of a file of further variables, in the artefact or only in the project; empty for none."""
    libraries: str = ""
    """The digest of the files below ``lib`` (`tree_digest`) if the artefact travels without them; else empty."""
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
        return (
            f"{self.id} was built for {self.python_tag}, this base runs cp3{running}; build the module with the Python "
            "of the base"
        )


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
    keys = check_common_keys(
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
    strips_path, scopes_cookies = table.flag("strip-path"), table.flag("scope-cookies")
    isolation = check_isolation(table.text("isolation"), issues)
    python_tag = table.text("python") or "py3"
    if not _TAG.fullmatch(python_tag):
        issues.append(f"python = {shown(python_tag)} is neither py3 nor a tag such as cp311")
    requirements = check_requirements(table.texts("requirements"), issues)
    provided = check_requirements(table.texts("provided"), issues)
    packed = check_requirements(table.texts("packed"), issues)
    libraries = table.text("libraries") or ""
    if libraries and not DIGEST.fullmatch(libraries):
        issues.append(f"libraries = {shown(libraries)} is no SHA-256")
    files = table.mapping("files")
    for path, digest in files.items():
        if (why := path_issue(path)) is not None:
            issues.append(f"file {shown(path)} {why}")
        if not DIGEST.fullmatch(digest):
            issues.append(f"file {shown(path)} has {shown(digest)} for a SHA-256")
    env = check_env(table.mapping("env"), issues)
    env_file = check_env_file(table.text("env-file"), issues)
    own = table.mapping("attributes")
    table.refuse_the_rest()
    if issues or keys.id is None:
        raise ManifestInvalid(origin, issues)
    manifest = Manifest(
        id=keys.id,
        entry=keys.entry,
        web_context_path=keys.web_context_path,
        strips_path=strips_path,
        scopes_cookies=scopes_cookies,
        priority=priority,
        declared_libraries=keys.declared_libraries,
        deny_imports=keys.deny_imports,
        own=keys.own,
        shared=keys.shared,
        isolation=isolation,
        python_tag=python_tag,
        requirements=requirements,
        provided=provided,
        packed=packed,
        env=env,
        env_file=env_file,
        libraries=libraries,
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
        manifest.env,
        manifest.env.values(),
        (manifest.entry, manifest.web_context_path, manifest.env_file),
    )
    if sum(len(text) for texts in lists for text in texts) > _MAX_KEPT:
        raise ManifestInvalid(
            origin, [f"the manifest has more than {_MAX_KEPT} characters besides the digests of files"]
        )
    return manifest


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
    flags = {"strip-path": manifest.strips_path, "scope-cookies": manifest.scopes_cookies}
    lines += [f"{key} = true" for key, is_set in flags.items() if is_set]
    if manifest.libraries:
        lines.append(f'libraries = "{manifest.libraries}"')
    if manifest.env_file:
        lines.append(f"env-file = {_toml(manifest.env_file)}")
    for title, table in (("env", manifest.env), ("attributes", manifest.attributes), ("files", manifest.files)):
        if table:
            lines += ["", f"[{title}]", *(f"{_toml(key)} = {_toml(table[key])}" for key in sorted(table))]
    return "\n".join(lines) + "\n"


def _toml(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # A JSON string is a TOML string except for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
