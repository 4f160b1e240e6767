"""The builder: makes an artefact of a project, a single file or a requirement. Equal input gives equal bytes.

Runs on a developer's machine: reads the project, runs pip for the distributions to be packed, and writes one file. No
packed code is imported or run.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import io
import re
import sys
import tokenize
import tomllib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from koupleless.artifact.archive import write_archive
from koupleless.artifact.calls import find_refused_calls
from koupleless.artifact.manifest import (
    BIZ_TOML,
    MANIFEST_MF,
    MARK,
    UNLISTED,
    Manifest,
    check_requirements,
    render_biz_toml,
    render_manifest_mf,
)
from koupleless.artifact.project import Overrides, Project, find_files, parse_project, read_project, top_level_names
from koupleless.artifact.slim import BaseFacts, Report, gather
from koupleless.artifact.store import bytecode_path, compile_source
from koupleless.artifact.temporary import temporary_directory
from koupleless.biz import Isolation
from koupleless.errors import BuildFailed, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

LIB: Final = "lib"
DEFAULT_VERSION: Final = "1.0.0"

_SCRIPT_BLOCK: Final = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
_APPLICATIONS: Final = ("app", "application", "asgi", "wsgi")
_FACTORIES: Final = ("create_app", "make_app")
_NATIVE: Final = re.compile(r"\.(?:so|pyd)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of one build. Frozen; made by the command line."""

    out: Path | None = None
    """The directory for the artefact; by default ``dist`` beside the project or file."""
    name: str | None = None
    version: str | None = None
    entry: str | None = None
    web_context_path: str | None = None
    requirements: tuple[str, ...] = ()
    """Requirements in addition to the project's own, as PEP 508 texts."""
    base: BaseFacts | None = None
    """The distributions of the base; by default those of the running interpreter."""
    standalone: bool = False
    """Pack all dependencies, provided by a base or not."""
    compile: bool = True
    """Add bytecode for the running Python."""
    python: str = sys.executable
    """The interpreter with the pip that fetches distributions to pack; of the same version as the running one."""

    @property
    def facts(self) -> BaseFacts | None:
        """The distributions that may be left out because the base has them; ``None``: leave nothing out."""
        if self.standalone:
            return None
        return self.base if self.base is not None else BaseFacts.of_environment()

    @property
    def overrides(self) -> Overrides:
        """Values of the project replaced by the caller."""
        return Overrides(self.name, self.version, self.entry, self.web_context_path)


@dataclass(frozen=True, slots=True)
class Built:
    """A built artefact: the file, the manifest, the size in bytes, and the decisions about its dependencies."""

    path: Path
    manifest: Manifest
    size: int
    report: Report = field(repr=False)


def build(path: Path, options: Options = Options()) -> Built:
    """Build the project directory or the single ``.py`` file at ``path``.

    Raises as `build_project` and `build_file` do.
    """
    return build_file(path, options) if path.suffix == ".py" and path.is_file() else build_project(path, options)


def build_project(path: Path, options: Options = Options()) -> Built:
    """Build the project in the directory ``path``.

    Raises ``ManifestInvalid`` with all mistakes of the ``pyproject.toml``, ``BuildFailed`` (with the output of pip) and
    other children of ``ArtifactError``.
    """
    project = read_project(path, options.overrides)
    files = _read(project, find_files(project))
    files |= _metadata(project, files)
    return _assemble(project, files, options, out=options.out or path / "dist")


def build_file(path: Path, options: Options = Options()) -> Built:
    """Build a module of one file.

    The entry is ``app`` or ``application`` of the file, else ``create_app()``, else ``main``, else the file itself. A
    ``# /// script`` block (PEP 723) may hold ``dependencies`` and ``[tool.koupleless.module]``. The version is the
    file's ``__version__``, else ``1.0.0``. Raises as `build_project` does.
    """
    try:
        data = path.read_bytes()
        with tokenize.open(path) as file:
            text = file.read()
        tree = ast.parse(text, str(path))
    except OSError as error:
        raise BuildFailed(str(path), error.strerror or str(error)) from None
    except (SyntaxError, ValueError) as error:
        raise BuildFailed(str(path), f"it is no Python: {error}") from None
    module = re.sub(r"\W", "_", path.stem)
    if module in sys.stdlib_module_names or module == "koupleless" or not module.isidentifier():
        raise BuildFailed(str(path), f"a module cannot be called {module}, as a part of Python is; rename the file")
    block = _script_block(path, text)
    facts: dict[str, object] = {"name": path.stem, "version": _assigned_version(tree) or DEFAULT_VERSION}
    needs = {key: block[key] for key in ("dependencies", "requires-python") if key in block}
    document = {"project": facts | needs, "tool": block.get("tool", {})}
    project = parse_project(
        document,
        root=path.parent,
        origin=str(path),
        overrides=options.overrides,
        default_entry=_found_entry(module, tree),
    )
    # A single file is never installed, so no metadata is expected at run time.
    return _assemble(project, {f"{module}.py": data}, options, out=options.out or path.parent / "dist")


def build_requirement(requirement: str, *, entry: str, options: Options = Options()) -> Built:
    """Build an artefact of an unchanged application from the package index.

    The application itself is always packed; the dependencies are packed if the base does not provide them. The artefact
    has the name of the distribution, and the version chosen by pip. Raises as `build_project` does.
    """
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement as error:
        raise BuildFailed(requirement, f"it is no requirement: {str(error).splitlines()[0]}") from None
    own = str(canonicalize_name(wanted.name))
    name = options.name or own
    document = {
        "project": {"name": name, "version": options.version or "0", "dependencies": [str(wanted)]},
        "tool": {"koupleless": {"module": {"entry": entry}}},
    }
    overrides = Overrides(name, options.version, entry, options.web_context_path)
    out = options.out or Path("dist")
    project = parse_project(document, root=Path(), origin=requirement, overrides=overrides)
    return _assemble(project, {}, options, out=out, application=own)


def _read(project: Project, places: Mapping[str, Path]) -> dict[str, bytes]:
    try:
        return {place: path.read_bytes() for place, path in places.items()}
    except OSError as error:
        raise BuildFailed(str(project.root), f"cannot read {error.filename}: {error.strerror}") from None


# --- a single file -------------------------------------------------------------------------------------------------


def _script_block(path: Path, text: str) -> dict[str, object]:
    blocks = list(_SCRIPT_BLOCK.finditer(text))
    if len(blocks) > 1:
        raise BuildFailed(str(path), "it has more than one '# /// script' block")
    if not blocks:
        return {}
    lines = [line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines()]
    try:
        return tomllib.loads("\n".join(lines))
    except tomllib.TOMLDecodeError as error:
        raise BuildFailed(str(path), f"its '# /// script' block is no TOML: {error}") from None


def _assigned_version(tree: ast.Module) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if "__version__" in names and isinstance(node.value.value, str):
                return node.value.value
    return None


def _found_entry(module: str, tree: ast.Module) -> str:
    names = _top_level_names(tree)
    callables = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    for name in _APPLICATIONS:
        if name in names:
            return f"{module}:{name}"
    for name in _FACTORIES:
        if name in callables:
            return f"{module}:{name}()"
    return f"{module}:main" if "main" in callables else module


def _top_level_names(tree: ast.Module) -> set[str]:
    """Names bound by the Python module, as far as visible without running the code."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.With, ast.If, ast.Try)):
            names.update(
                inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            )
    return names


# --- putting it together -------------------------------------------------------------------------------------------


def _assemble(
    project: Project, files: dict[str, bytes], options: Options, *, out: Path, application: str | None = None
) -> Built:
    issues: list[str] = []
    requirements = (*project.requirements, *check_requirements(options.requirements, issues))
    if issues:
        raise ManifestInvalid(str(project.id), issues)
    calls = [] if project.isolation is Isolation.PROCESS else find_refused_calls(files, project.entry)
    if calls:
        raise BuildFailed(str(project.id), "; ".join(calls))
    with temporary_directory("koupleless-build-") as directory:
        always = frozenset(project.bring) | ({application} if application else frozenset[str]())
        report = gather(
            str(project.id), requirements, directory, facts=options.facts, always=always, python=options.python
        )
        gathered = {path.relative_to(directory).as_posix(): path for path in _files_below(str(directory))}
        private = _read(project, gathered)
    if private and LIB in top_level_names(files):
        raise BuildFailed(str(project.id), f"its own package {LIB} is where private dependencies go; rename it")
    files = {**files, **{f"{LIB}/{place}": data for place, data in private.items()}, MARK: b""}
    if options.compile:
        files |= _bytecode(files)
    identity = project.id
    if application and options.version is None:
        versions = {decision.name: decision.version for decision in report.decisions}
        identity = type(identity).of(identity.name, versions[application])
    manifest = Manifest(
        id=identity,
        entry=project.entry,
        web_context_path=project.web_context_path,
        strips_path=project.strips_path,
        priority=project.priority,
        declared_libraries=_declared(project, report),
        deny_imports=project.deny_imports,
        own=project.own,
        shared=project.shared,
        isolation=project.isolation,
        python_tag=_python_tag(files),
        requirements=requirements,
        provided=report.provided,
        packed=tuple(f"{decision.name}=={decision.version}" for decision in report.packed),
        files={
            place: hashlib.sha256(data).hexdigest() for place, data in sorted(files.items()) if place not in UNLISTED
        },
    )
    path = out / f"{identity.name}-{identity.version}-ark-biz.zip"
    heads = {MANIFEST_MF: render_manifest_mf(manifest).encode(), BIZ_TOML: render_biz_toml(manifest).encode()}
    try:
        size = write_archive(path, {**heads, **dict(sorted(files.items()))})
    except OSError as error:
        raise BuildFailed(str(identity), f"cannot write {path}: {error.strerror}") from None
    return Built(path, manifest, size, report)


def _files_below(directory: str) -> list[Path]:
    return sorted(path for path in Path(directory).rglob("*") if path.is_file())


def _declared(project: Project, report: Report) -> tuple[str, ...]:
    """The libraries of a biz in declared mode: those listed by the author and all its dependencies, packed or not."""
    if not project.is_declared_mode:
        return ()
    return tuple(sorted({*project.declared_libraries, *(decision.name for decision in report.decisions)}))


def _bytecode(files: Mapping[str, bytes]) -> dict[str, bytes]:
    found = {}
    with warnings.catch_warnings():
        # Invalid escapes and the like in the code of others. The filter is process-wide; a build owns the process.
        warnings.simplefilter("ignore")
        for place, data in files.items():
            if place.endswith(".py") and (compiled := compile_source(data, place, reproducible=True)):
                found[bytecode_path(place)] = compiled
    return found


def _python_tag(files: Mapping[str, bytes]) -> str:
    """``py3``, or the tag of the running Python if there are extension modules for this Python alone."""
    native = [place for place in files if _NATIVE.search(place) and ".abi3." not in place and ".libs/" not in place]
    return f"cp3{sys.version_info.minor}" if native else "py3"


def _metadata(project: Project, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of a ``.dist-info``: version and entry points, found by the project at run time as if installed."""
    if project.distribution is None:
        return {}
    name, version = project.distribution
    directory = f"{canonicalize_name(name).replace('-', '_')}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project.requirements]
    made = {f"{directory}/METADATA": "\n".join([*lines, ""]).encode()}
    if project.entry_points:
        groups = [
            "\n".join([f"[{group}]", *(f"{point} = {value}" for point, value in sorted(points.items())), ""])
            for group, points in sorted(project.entry_points.items())
        ]
        made[f"{directory}/entry_points.txt"] = "\n".join(groups).encode()
    record = io.StringIO()
    rows = [[place, "", ""] for place in sorted({*files, *made, f"{directory}/RECORD"})]
    csv.writer(record, lineterminator="\n").writerows(rows)
    return {**made, f"{directory}/RECORD": record.getvalue().encode()}
