"""The builder: makes an artefact of a project, a single file or a requirement. Equal input gives equal bytes.

Runs on a developer's machine: reads the project, runs pip for the distributions to be packed, and writes one file. No
packed code is imported or run.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import hashlib
import io
import re
import sys
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from koupleless.artifact.archive import write_archive
from koupleless.artifact.building.calls import find_refused_calls
from koupleless.artifact.building.options import Options
from koupleless.artifact.building.project import Project, parse_project, read_project
from koupleless.artifact.building.project_files import find_files, packed_env_file, top_level_names
from koupleless.artifact.building.remembered import Libraries, RememberingPip, bytecode_of
from koupleless.artifact.building.requirements import BaseFacts
from koupleless.artifact.building.single_file import find_entry, find_version, read_script_block
from koupleless.artifact.building.slim import Report, choose
from koupleless.artifact.cached.cache import Cache
from koupleless.artifact.keeping.libraries import LIB
from koupleless.artifact.manifest import BIZ_TOML, MANIFEST_MF, MARK, UNLISTED, Manifest, render_biz_toml
from koupleless.artifact.manifest_mf import render_manifest_mf
from koupleless.artifact.reading.common_keys import check_requirements
from koupleless.artifact.sources.wheel import read_wheel
from koupleless.artifact.temporary import temporary_directory
from koupleless.biz import Isolation
from koupleless.envfiles import read_env_file
from koupleless.errors import BuildFailed, ManifestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Built", "Options", "build", "build_file", "build_project", "build_requirement"]

DEFAULT_VERSION: Final = "1.0.0"

_NATIVE: Final = re.compile(r"\.(?:so|pyd)$")


@dataclass(frozen=True, slots=True)
class Built:
    """A built artefact: the file, the manifest, the size in bytes, and the decisions about its dependencies."""

    path: Path
    manifest: Manifest
    size: int
    report: Report = field(repr=False)
    notes: tuple[str, ...] = ()
    """Sentences about the variables of the environment: those in the artefact, and files of variables left out."""


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
    project = read_project(path, options)
    left: list[str] = []
    files = _read(project, find_files(project, left))
    files |= _metadata(project, files)
    built = _assemble(project, files, options, out=options.out or path / "dist")
    return dataclasses.replace(built, notes=(*built.notes, *_told_of_left(project, left)))


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
        raise BuildFailed(str(path), f"the file is no Python: {error}") from None
    module = re.sub(r"\W", "_", path.stem)
    if module in sys.stdlib_module_names or module == "koupleless" or not module.isidentifier():
        raise BuildFailed(str(path), f"a module cannot be called {module}, as a part of Python is; rename the file")
    block = read_script_block(path, text)
    facts: dict[str, object] = {"name": path.stem, "version": find_version(tree) or DEFAULT_VERSION}
    needs = {key: block[key] for key in ("dependencies", "requires-python") if key in block}
    document = {"project": facts | needs, "tool": block.get("tool", {})}
    project = parse_project(
        document,
        root=path.parent,
        origin=str(path),
        options=options,
        default_entry=find_entry(module, tree),
    )
    # A single file is never installed, so no metadata is expected at run time.
    files = {f"{module}.py": data, **_read(project, packed_env_file(project))}
    return _assemble(project, files, options, out=options.out or path.parent / "dist")


def build_wheel(path: Path, options: Options) -> Built:
    """Build an artefact of a wheel that names no entry; ``options`` do. Name and version are the wheel's.

    The code of the wheel becomes the module's own. Raises as `build_project` does.
    """
    wheel = read_wheel(path)
    document = {"project": {"name": wheel.name, "version": wheel.version, "dependencies": list(wheel.requirements)}}
    project = parse_project(document, root=path.parent, origin=str(path), options=options)
    return _assemble(project, dict(wheel.files), options, out=options.out or path.parent)


def build_requirement(requirement: str, *, entry: str, options: Options = Options()) -> Built:
    """Build an artefact of an unchanged application from the package index.

    The application itself is always packed; the dependencies are packed if the base does not provide them. The artefact
    has the name of the distribution, and the version chosen by pip. Raises as `build_project` does.
    """
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement as error:
        raise BuildFailed(requirement, f"this is no requirement: {str(error).splitlines()[0]}") from None
    own = str(canonicalize_name(wanted.name))
    name = options.name or own
    document = {
        "project": {"name": name, "version": options.version or "0", "dependencies": [str(wanted)]},
        "tool": {"koupleless": {"module": {"entry": entry}}},
    }
    options = dataclasses.replace(options, name=name, entry=entry)
    out = options.out or Path("dist")
    project = parse_project(document, root=Path(), origin=requirement, options=options)
    return _assemble(project, {}, options, out=out, application=own)


def _read(project: Project, places: Mapping[str, Path]) -> dict[str, bytes]:
    try:
        return {place: path.read_bytes() for place, path in places.items()}
    except OSError as error:
        raise BuildFailed(str(project.root), f"cannot read {error.filename}: {error.strerror}") from None


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
    if options.compile:
        files |= bytecode_of(files)
    with temporary_directory("koupleless-build-") as directory:
        always = frozenset(project.bring) | ({application} if application else frozenset[str]())
        pip = RememberingPip(
            str(project.id), options.python, Cache.of_user(), is_fresh=options.refresh, tell=options.tell
        )
        report = choose(requirements, pip, facts=_facts(options), always=always)
        libraries = pip.pack(report.resolved, directory, compiled=options.compile)
        if libraries.files and LIB in top_level_names(files):
            raise BuildFailed(
                str(project.id),
                f"the package {LIB} of the project has the name of the directory for private dependencies; "
                "rename the package",
            )
        manifest = _manifest(
            project, requirements, report, application=application if options.version is None else None
        )
        built = _write(manifest, files, libraries, out=out, report=report, options=options)
    return dataclasses.replace(built, notes=_told_of_variables(project, files))


def _manifest(project: Project, requirements: tuple[str, ...], report: Report, *, application: str | None) -> Manifest:
    """The manifest without the files; with the version of the distribution ``application``, if there is one."""
    identity = project.id
    if application:
        versions = {decision.name: decision.version for decision in report.decisions}
        identity = type(identity).of(identity.name, versions[application])
    return Manifest(
        id=identity,
        entry=project.entry,
        web_context_path=project.web_context_path,
        strips_path=project.strips_path,
        scopes_cookies=project.scopes_cookies,
        priority=project.priority,
        declared_libraries=_declared(project, report),
        deny_imports=project.deny_imports,
        own=project.own,
        shared=project.shared,
        isolation=project.isolation,
        requirements=requirements,
        env=project.env,
        env_file=project.env_file,
        provided=report.provided,
        packed=tuple(f"{decision.name}=={decision.version}" for decision in report.packed),
    )


def _write(
    manifest: Manifest, files: dict[str, bytes], libraries: Libraries, *, out: Path, report: Report, options: Options
) -> Built:
    """Write the artefact, without the libraries if the receiver has them."""
    options.tell(f"packing {manifest.id}")
    files = {**files, MARK: b""}
    digests = {place: hashlib.sha256(data).hexdigest() for place, data in files.items() if place not in UNLISTED}
    is_whole = not (libraries.files and options.is_present is not None and options.is_present(libraries.digest))
    manifest = dataclasses.replace(
        manifest,
        python_tag=_python_tag([*files, *libraries.places]),
        libraries="" if is_whole else libraries.digest,
        files=dict(sorted({**digests, **(libraries.places if is_whole else {})}.items())),
    )
    identity = manifest.id
    path = out / f"{identity.name}-{identity.version}-ark-biz.zip"
    heads = {MANIFEST_MF: render_manifest_mf(manifest).encode(), BIZ_TOML: render_biz_toml(manifest).encode()}
    try:
        upon = libraries.archive if is_whole else None
        size = write_archive(path, {**heads, **dict(sorted(files.items()))}, upon=upon)
    except OSError as error:
        raise BuildFailed(str(identity), f"cannot write {path}: {error.strerror}") from None
    return Built(path, manifest, size, report)


def _told_of_variables(project: Project, files: Mapping[str, bytes]) -> tuple[str, ...]:
    told = []
    if project.env:
        told.append(f"the artefact has values for {', '.join(sorted(project.env))}")
    if project.packs_env_file and project.env_file in files:
        names = ", ".join(sorted(read_env_file(project.root / project.env_file))) or "no variables"
        told.append(f"the artefact has {project.env_file}, with values for {names}: who has the artefact reads them")
    return tuple(told)


def _told_of_left(project: Project, left: Sequence[str]) -> tuple[str, ...]:
    if not left:
        return ()
    if project.env_file in left:
        how = (
            f"{project.env_file} is read when the project is deployed from this machine, --pack-env-file packs the file"
        )
    else:
        how = 'env-file = ".env" names one, which is read when the project is deployed from this machine'
    return (f"not in the artefact, because values may be secrets: {', '.join(left)}; {how}",)


def _facts(options: Options) -> BaseFacts | None:
    """The distributions that may be left out because the base has them; ``None``: leave nothing out."""
    if options.standalone:
        return None
    return options.base if options.base is not None else BaseFacts.of_environment()


def _declared(project: Project, report: Report) -> tuple[str, ...]:
    """The libraries of a biz in declared mode: those listed by the author and all its dependencies, packed or not."""
    if not project.is_declared_mode:
        return ()
    return tuple(sorted({*project.declared_libraries, *(decision.name for decision in report.decisions)}))


def _python_tag(files: Iterable[str]) -> str:
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
