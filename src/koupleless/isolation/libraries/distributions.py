"""Find the distribution of a Python module, and answer ``importlib.metadata`` for the running biz.

The index of the base is made when a policy first asks for an owner, from the RECORD files of all distributions on the
search path of the base: one read per distribution, no parsing of tables. The index is kept until the search path, or a
directory on the path, changes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import sysconfig
import threading
from collections import Counter
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import Distribution, DistributionFinder, MetadataPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from koupleless.context import as_base
from koupleless.isolation.interpreter import find_of_base
from koupleless.isolation.libraries.mentions import imported_for_sure, imported_in_c
from koupleless.isolation.policy import PROCESS_NAMES, SELF, Provenance
from koupleless.isolation.system import base_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec

_SUFFIXES: Final = (".py", ".pyc", ".so", ".pyd")
_EXTENSION: Final = re.compile("(" + "|".join(re.escape(suffix) for suffix in EXTENSION_SUFFIXES) + ")(,|$)")
_PRIVATE: Final = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
"""Files of metadata about the way of an installation, which say nothing about its content."""
_DEVELOPMENT: Final = frozenset(
    {"benchmark", "benchmarks", "build", "ci", "cov", "coverage", "dev", "develop", "development", "doc", "docs"}
    | {"format", "lint", "linting", "mypy", "release", "style", "test", "testing", "tests", "typecheck", "typing"}
)
"""Words in the names of extras for the authors of a distribution."""


class Index:
    """Python modules of a search path, with the distributions of each. Immutable but for remembered answers."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self.versions: dict[str, str] = {}
        """Normalised name -> version; the first on the path wins, as in an import."""
        self._distributions: dict[str, Distribution] = {}
        self._tops: dict[str, list[str]] = {}
        self._records: dict[str, list[str]] = {}
        self._editable: list[tuple[str, str]] = []
        self.extended: set[str] = set()
        """Distributions with extension modules."""
        self.compiled: set[str] = set()
        """Distributions with extension modules and without source to be executed instead."""
        self._closures: dict[str, frozenset[str]] = {}
        self._surroundings: dict[str, frozenset[str]] = {}
        self._needs: dict[str, frozenset[str]] = {}
        self._imports: dict[str, frozenset[str]] = {}
        self._certain: dict[str, frozenset[str]] = {}
        self._contents: dict[tuple[str, bool], str] = {}
        self._compiled_contents: dict[str, str] = {}
        for distribution in MetadataPathFinder.find_distributions(DistributionFinder.Context(path=list(paths))):
            name, version = _identity_of(distribution)
            if name and name not in self.versions:
                self.versions[name] = version
                self._distributions[name] = distribution
                self._read(name, distribution)

    def _read(self, name: str, distribution: Distribution) -> None:
        text = distribution.read_text("RECORD") or distribution.read_text("installed-files.txt") or ""
        lines = [line for line in text.splitlines() if not line.startswith(("..", "/"))]
        self._records[name] = lines
        tops = {_module_part(line.partition(",")[0].lstrip('"')) for line in lines}
        for top in tops - {""}:
            self._tops.setdefault(top, []).append(name)
        files = [line.partition(",")[0].strip('"') for line in lines if _EXTENSION.search(line)]
        if any(map(_module_part, files)):
            self.extended.add(name)
            if not _is_sourced(files, lines):
                self.compiled.add(name)
        editable = _editable_directory(distribution)
        if editable:
            self._editable.append((editable, name))

    def owners(self, module: str) -> tuple[str, ...]:
        """Return the distributions that own a Python module.

        An owner has files of the top-level package; of a package shared by several distributions, files of the module's
        portion.
        """
        top, dot, rest = module.partition(".")
        names = self._tops.get(top, ())
        if len(names) < 2 or not dot:  # noqa: PLR2004 - one owner owns all of it
            return tuple(names)
        while rest:  # a child without files belongs to the owner of the parent
            prefix = f"{top}/{rest.replace('.', '/')}"
            found = tuple(
                name
                for name in names
                if any(line.startswith(prefix) and line[len(prefix)] in "/." for line in self._records[name])
            )
            if found:
                return found
            rest = rest.rpartition(".")[0]
        return ()

    def is_sourced(self, module: str) -> bool:
        """Tell whether a Python module belongs to a distribution compiled by mypyc, which has the source as well."""
        return any(owner in self.extended and owner not in self.compiled for owner in self.owners(module))

    def owner_of_file(self, file: str) -> str | None:
        """Return the distribution with an editable project that holds the file; ``None`` if there is none."""
        return next((name for directory, name in self._editable if file.startswith(directory)), None)

    def top_level(self, name: str) -> frozenset[str]:
        """Return the top-level names of a distribution's Python modules."""
        return frozenset(top for top, names in self._tops.items() if name in names)

    def place(self, name: str) -> str:
        """Return the directory in which a distribution is installed."""
        return os.path.normpath(str(self._distributions[name].locate_file("")))

    def directories(self, name: str) -> frozenset[str]:
        """Return the directories of one distribution alone, including directories of bundled compiled libraries."""
        if name not in self.versions:
            return frozenset()
        heads = {head for head, slash, _ in (line.partition("/") for line in self._records[name]) if slash}
        place = self.place(name)
        return frozenset(
            os.path.join(place, head)  # noqa: PTH118 - texts, as in a RECORD
            for head in heads
            if not head.endswith((".dist-info", ".egg-info")) and self._tops.get(head, [name]) == [name]
        )

    def parts(self, name: str) -> frozenset[str]:
        """Return the installed parts of a distribution, as relative paths.

        A part is a directory of this distribution alone, or a single file in a directory shared with others.
        """
        found = set()
        for line in self._records[name]:
            file = line.partition(",")[0].strip('"')
            head = file.partition("/")[0]
            if head != "__pycache__":
                found.add(head if self._heads[head] == 1 else file)
        return frozenset(found)

    @functools.cached_property
    def _heads(self) -> Counter[str]:
        """Count the distributions that have written to each directory, and to each file beside the directories."""
        heads: Counter[str] = Counter()
        for lines in self._records.values():
            heads.update({line.partition(",")[0].strip('"').partition("/")[0] for line in lines})
        return heads

    def console_scripts(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield the commands of some distributions: the name, and the function as ``module:function``."""
        for name in sorted(names):
            text = self._distributions[name].read_text("entry_points.txt")
            if text and "console_scripts" in text:
                for entry in self._distributions[name].entry_points.select(group="console_scripts"):
                    yield entry.name, entry.value.partition("[")[0].strip()

    @functools.cached_property
    def shared(self) -> frozenset[str]:
        """Distributions with compiled Python modules, and the surroundings of each."""
        return frozenset().union(*(self.surroundings(name) for name in self.compiled))

    def surroundings(self, name: str) -> frozenset[str]:
        """Return a distribution, all its requirements, and compiled distributions imported by its extension modules.

        Imports of extension modules are those seen in source beside them. Compiled code keeps every imported Python
        module in static data: for good, and once for all users.
        """
        known = self._surroundings.get(name)
        if known is None:
            found = set(ahead := list(self.closure(name)))
            while ahead:
                for other in self._imported_in_c(ahead.pop()) - found:
                    ahead += self.closure(other) - found
                    found |= self.closure(other)
            known = self._surroundings[name] = frozenset(found)
        return known

    def _imported_in_c(self, name: str) -> frozenset[str]:
        files = [line.partition(",")[0].strip('"') for line in self._records[name]]
        tops: set[str] = set()
        for file in files if name in self.compiled else ():
            if file.endswith((".pyx", ".pxi")):
                with contextlib.suppress(OSError):
                    tops |= imported_in_c(Path(self.place(name), file).read_text("utf-8", "replace"))
        return frozenset(owner for top in tops for owner in self._tops.get(top, ()) if owner in self.compiled)

    def closure(self, name: str) -> frozenset[str]:
        """Return a distribution and its requirements on this search path, direct and indirect ones, extras included."""
        known = self._closures.get(name)
        if known is None:
            found, ahead = {name}, [name]
            while ahead:
                further = {other for other in self._wanted(ahead.pop()) if other in self.versions} - found
                found |= further
                ahead += further
            known = self._closures[name] = frozenset(found)
        return known

    def family(self, name: str) -> frozenset[str]:
        """Return a distribution, the distributions of its extras, and the requirements of all of these.

        Only distributions on this search path are among these.
        """
        ahead = [name, *(other for other in self._wanted(name) if other in self.versions)]
        found = set(ahead)
        while ahead:
            further = self.needs(ahead.pop()) - found
            found |= further
            ahead += further
        return frozenset(found)

    def needs(self, name: str) -> frozenset[str]:
        """Return the distributions on this search path that one requires directly, without extras."""
        known = self._needs.get(name)
        if known is None:
            wanted = {canonicalize_name(found) for found in _required(self._distributions[name])}
            known = self._needs[name] = frozenset(wanted & self.versions.keys())
        return known

    def users(self, name: str) -> frozenset[str]:
        """Return the distributions on this search path that require the named one directly, as `needs` says."""
        return self._users.get(name, frozenset())

    def optional_users(self, name: str) -> frozenset[str]:
        """Return the distributions on this search path with an extra for the named one."""
        return self._optional_users.get(name, frozenset())

    def imports(self, name: str) -> frozenset[str]:
        """Return the distributions on this search path imported by loaded Python modules of the named one.

        Counted are imports at the top of Python modules that the base has loaded.
        """
        known = self._imports.get(name)
        if known is None:
            tops: set[str] = set()
            for line in self._records[name]:
                file = line.partition(",")[0].strip('"')
                with contextlib.suppress(OSError):
                    if file.endswith(".py") and _module_part(file) and find_of_base(_module_name(file)) is not None:
                        text = Path(self.place(name), file).read_text("utf-8", "replace")
                        tops.update(found.partition(".")[0] for found in _IMPORTS.findall(text))
            owners = {owner for top in tops for owner in self._tops.get(top, ())}
            known = self._imports[name] = frozenset(owners - {name})
        return known

    def tied(self, names: Iterable[str], tops: Iterable[str]) -> frozenset[str]:
        """Return the distributions of ``names`` that need one of the packages ``tops``, directly or by another one.

        A distribution needs a package if one of its Python modules imports the package under no condition.
        """
        needed, found, left = {*tops}, set[str](), {*names}
        while needed and left:
            further = {name for name in left if not needed.isdisjoint(self._imported_for_sure(name))}
            found |= further
            left -= further
            needed = {top for name in further for top in self.top_level(name)}
        return frozenset(found)

    def _imported_for_sure(self, name: str) -> frozenset[str]:
        """Return the top-level packages that Python modules of a distribution import under no condition."""
        known = self._certain.get(name)
        if known is None:
            tops: set[str] = set()
            for line in self._records[name]:
                file = line.partition(",")[0].strip('"')
                if file.endswith(".py") and _module_part(file):
                    with contextlib.suppress(OSError):
                        text = Path(self.place(name), file).read_text("utf-8", "replace")
                        tops.update(each.partition(".")[0] for each in imported_for_sure(text, ""))
            known = self._certain[name] = frozenset(tops)
        return known

    def concerns(self, name: str) -> bool:
        """Tell whether a distribution is on this search path, or is of use to one on the path."""
        return name in self.versions or name in self._users or name in self._optional_users

    @functools.cached_property
    def _users(self) -> dict[str, frozenset[str]]:
        users: dict[str, set[str]] = {}
        for name, distribution in self._distributions.items():
            for other in map(canonicalize_name, _required(distribution)):  # a missing one too: a biz may bring it
                users.setdefault(other, set()).add(name)
        return {name: frozenset(found) for name, found in users.items()}

    @functools.cached_property
    def _optional_users(self) -> dict[str, frozenset[str]]:
        users: dict[str, set[str]] = {}
        for name, distribution in self._distributions.items():
            text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
            for other, _, marker in _REQUIRES.findall(text.partition("\n\n")[0]):
                if any(map(_is_for_use, _EXTRA.findall(marker))):
                    users.setdefault(canonicalize_name(other), set()).add(name)
        return {name: frozenset(found) for name, found in users.items()}

    def _wanted(self, name: str) -> set[str]:
        # An extra belongs to the distribution as well: a library looks for optional libraries in its own surroundings.
        distribution = self._distributions[name]
        extras = ["", *(extra for extra in distribution.metadata.get_all("Provides-Extra") or () if _is_for_use(extra))]
        wanted: set[str] = {
            canonicalize_name(requirement.name)
            for requirement in _requirements(distribution)
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
        }
        # psycopg-binary speeds up psycopg, which names psycopg-binary as an extra, and each imports the other.
        stem = name.rpartition("-")[0]
        if stem in self.versions and any(
            canonicalize_name(requirement.name) == name and "extra" in str(requirement.marker)
            for requirement in _requirements(self._distributions[stem])
        ):
            wanted.add(stem)
        return wanted

    def content(self, name: str, *, alone: bool = False) -> str:
        """Return a digest of a distribution's files, and of its surroundings unless ``alone``; equal for equal ones."""
        known = self._contents.get((name, alone))
        if known is None:
            digest = hashlib.sha256()
            for member in (name,) if alone else sorted(self.surroundings(name)):
                digest.update(f"{member} {self.versions[member]}\n".encode())
                for line in sorted(self._records[member]):
                    file, _, rest = line.partition(",")
                    if "__pycache__" not in file and not file.endswith((".pyc", *_PRIVATE)):
                        digest.update(f"{file},{rest.strip(',') or self._stamp(member, file)}\n".encode())
            known = self._contents[name, alone] = digest.hexdigest()
        return known

    def compiled_content(self, name: str) -> str:
        """Return a digest of the compiled files of a distribution with several such files; empty for any other."""
        known = self._compiled_contents.get(name)
        if known is None:
            lines = [line for line in sorted(self._records.get(name, ())) if _EXTENSION.search(line)]
            digest = hashlib.sha256()
            for line in lines if len(lines) > 1 else ():
                file, _, rest = line.partition(",")
                digest.update(f"{file},{rest.strip(',') or self._stamp(name, file)}\n".encode())
            known = self._compiled_contents[name] = digest.hexdigest() if len(lines) > 1 else ""
        return known

    def _stamp(self, name: str, file: str) -> str:
        """Return a digest of a file without one in RECORD; empty if the file cannot be read."""
        try:
            return hashlib.sha256(Path(self.place(name), file).read_bytes()).hexdigest()
        except OSError:
            return ""

    def has_same(self, name: str, other: Index) -> bool:
        """Tell whether another index has the very same content of a distribution."""
        return other.versions.get(name) == self.versions[name] and other.content(name, alone=True) == self.content(
            name, alone=True
        )


def _requirements(distribution: Distribution) -> list[Requirement]:
    requirements = []
    for text in distribution.requires or ():
        with contextlib.suppress(InvalidRequirement):
            requirements.append(Requirement(text))
    return requirements


_IMPORTS: Final = re.compile(r"^(?:from|import)[ \t]+(\w[\w.]*)", re.MULTILINE)
_REQUIRES: Final = re.compile(
    r"^Requires-Dist:\s*([A-Za-z0-9][\w.-]*)([^;\n]*)(?:;(.*))?$", re.MULTILINE | re.IGNORECASE
)
_EXTRA: Final = re.compile(r"""\bextra\s*==\s*["']([^"']+)""")


def _required(distribution: Distribution) -> Iterator[str]:
    """Yield the names that a distribution requires here without any extra: from the text, which is read often."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
    if not text:  # an egg-info directory keeps requirements in another file
        yield from (
            requirement.name for requirement in _requirements(distribution) if _holds(str(requirement.marker or ""))
        )
        return
    for name, _, marker in _REQUIRES.findall(text.partition("\n\n")[0]):
        if _holds(marker):
            yield name


@functools.lru_cache(maxsize=1024)
def _holds(marker: str) -> bool:
    """Tell whether an environment marker holds here, without any extra."""
    if not marker.strip():
        return True
    with contextlib.suppress(InvalidMarker, UndefinedEnvironmentName):
        return Marker(marker).evaluate({"extra": ""})
    return False


def _is_for_use(extra: str) -> bool:
    """Tell whether an extra is for users of a distribution, and not for its developers."""
    return _DEVELOPMENT.isdisjoint(canonicalize_name(extra).split("-"))


def _identity_of(distribution: Distribution) -> tuple[str, str]:
    """Return normalised name and version; from the directory's name where possible, for metadata is slow to read."""
    path = getattr(distribution, "_path", None)
    stem, dot, suffix = getattr(path, "name", "").rpartition(".")
    name, dash, version = stem.partition("-")
    if dot and suffix == "dist-info" and dash:
        return canonicalize_name(name), version
    try:
        return canonicalize_name(distribution.metadata["Name"] or ""), distribution.version or ""
    except (OSError, UnicodeDecodeError, KeyError):
        return "", ""


def _module_part(file: str) -> str:
    """Return the top-level Python module to which a file of a RECORD belongs; empty for metadata and data."""
    head, slash, _ = file.partition("/")
    if head.endswith((".dist-info", ".egg-info", ".data")):
        return ""
    if slash:
        return head if head.isidentifier() and head != "__pycache__" else ""
    stem, dot, _ = head.partition(".")
    if not dot or not head.endswith(_SUFFIXES):
        return ""
    # Files beside a package, as compilers write them, are imported by C code, and a name may be no identifier: mypyc
    # takes a digest.
    return stem if stem.isidentifier() or head.endswith(tuple(EXTENSION_SUFFIXES)) else ""


def _is_sourced(extensions: Iterable[str], lines: Iterable[str]) -> bool:
    """Tell whether mypyc has made each extension module of a RECORD, and the source lies beside each.

    Extension modules made together by mypyc refer to each other by one library, with a name ending in ``__mypyc``.
    """
    stems = {file.partition(".")[0] for file in extensions}
    made = {stem for stem in stems if stem.endswith("__mypyc")}
    installed = {line.partition(",")[0].strip('"') for line in lines}
    return bool(made) and installed.issuperset(f"{stem}.py" for stem in stems - made)


def _module_name(file: str) -> str:
    """Return the name of the Python module in a source file of a RECORD."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _editable_directory(distribution: Distribution) -> str:
    text = distribution.read_text("direct_url.json")
    if not text:
        return ""
    try:
        data = json.loads(text)
    except ValueError:
        return ""
    if not (isinstance(data, dict) and isinstance(data.get("dir_info"), dict) and data["dir_info"].get("editable")):
        return ""
    return os.path.join(unquote(urlsplit(str(data.get("url", ""))).path), "")  # noqa: PTH118 - a prefix for startswith


# --- the base's ----------------------------------------------------------------------------------------------------


class _Indexes:
    """Indexes by search path; an index is made again when one of its directories changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], tuple[tuple[int, ...], Index]] = {}

    def get(self, path: Sequence[str]) -> Index:
        key = tuple(path)
        stamp = tuple(_mtime(entry) for entry in key)
        with self._lock:
            known = self._known.get(key)
        if known is not None and known[0] == stamp:
            return known[1]
        index = Index(key)
        with self._lock:
            self._known[key] = (stamp, index)
        return index

    def forget(self, path: Sequence[str]) -> None:
        with self._lock:
            self._known.pop(tuple(path), None)


def _mtime(entry: str) -> int:
    try:
        return os.stat(entry).st_mtime_ns  # noqa: PTH116 - entries are texts, and may be no paths at all
    except OSError:
        return 0


_indexes = _Indexes()


def base_index() -> Index:
    """Return the index of the distributions installed in the base. Thread-safe."""
    return _indexes.get(base_path())


def index_of(path: Sequence[str]) -> Index:
    """Return the index of the distributions installed in some directories. Thread-safe."""
    return _indexes.get(path)


def forget_index(path: Sequence[str]) -> None:
    """Drop everything remembered of some directories, here and in ``importlib.metadata``."""
    _indexes.forget(path)
    MetadataPathFinder().invalidate_caches()  # an instance: before 3.13 this is no class method


def provenance(name: str) -> Provenance | None:
    """Return the origin of a Python module of the base; ``None`` if the base does not have the module."""
    index = base_index()
    owners = index.owners(name)
    if is_stdlib(name):
        return Provenance(is_stdlib=True)
    if owners:
        return Provenance(owners=tuple((owner, index.versions[owner]) for owner in owners))
    spec = _base_spec(name)
    if spec is None:
        return None
    places = [place for place in (spec.origin, *(spec.submodule_search_locations or ())) if place]
    place = next((place for place in places if place not in {"built-in", "frozen", "namespace"}), "")
    owner = index.owner_of_file(place)
    if owner is not None:
        return Provenance(owners=((owner, index.versions[owner]),), location=place)
    if name.partition(".")[0] == SELF:
        return Provenance(owners=((SELF, ""),), location=place)
    directory = place if os.path.isdir(place) else os.path.dirname(place)  # noqa: PTH112, PTH120 - as in the spec
    return Provenance(location=place, in_directory=os.path.isdir(directory))  # noqa: PTH112


def is_stdlib(name: str) -> bool:
    """Tell whether the base has the name from the standard library, even if a distribution has files beside it.

    Not all names of the standard library can be known beforehand: some are made when Python is built, and the tests of
    Python are not listed.
    """
    top = name.partition(".")[0]
    spec = None if top in PROCESS_NAMES else _base_spec(top)
    if spec is None:
        return top in PROCESS_NAMES - {SELF}
    if spec.origin in {"built-in", "frozen"}:
        return True
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(place.startswith(_STDLIB) and not place.startswith(_INSTALLED) for place in places)


def _directories(*names: str) -> tuple[str, ...]:
    return tuple(os.path.join(sysconfig.get_path(name), "") for name in names)  # noqa: PTH118 - for startswith


_STDLIB: Final = _directories("stdlib", "platstdlib")
_INSTALLED: Final = tuple(
    os.path.join(directory, kind, "")  # noqa: PTH118
    for directory in _STDLIB
    for kind in ("site-packages", "dist-packages")
)


def files_of_base(name: str) -> tuple[Path, ...]:
    """Return the files and directories of a top-level Python module of the base; none if there are none on the disk."""
    spec = _base_spec(name)
    if spec is None:
        return ()
    if spec.submodule_search_locations is not None:
        return tuple(map(Path, spec.submodule_search_locations))
    return (Path(spec.origin),) if spec.has_location and spec.origin else ()


def _base_spec(name: str) -> ModuleSpec | None:
    module = find_of_base(name)
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return spec  # type: ignore[no-any-return]
    with as_base():
        try:
            return importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return None


# --- for a biz -----------------------------------------------------------------------------------------------------


def distributions_for(
    context: DistributionFinder.Context,
    *,
    own_path: Sequence[str],
    declared: frozenset[str],
    copied: frozenset[str] = frozenset(),
) -> Iterator[Distribution]:
    """Yield the distributions found for a biz by ``importlib.metadata``.

    A path named by the caller is searched as given. A name means the biz's copy, else the base's. An enumeration yields
    the biz's distributions first. Distributions of the base follow if the biz declares each of them, or has ``copied``
    it, and does not bring it.
    """
    asked: dict[str, Any] = vars(context)
    name = asked.get("name")
    if "path" in asked:
        yield from MetadataPathFinder.find_distributions(context)
        return
    own = list(MetadataPathFinder.find_distributions(DistributionFinder.Context(name=name, path=list(own_path))))
    yield from own
    if name is not None:
        if not declared or canonicalize_name(name) in declared or canonicalize_name(name) == SELF:
            yield from _of_base(context)
        return
    wanted = declared | copied
    if wanted:
        seen = {_identity_of(distribution)[0] for distribution in own}
        for distribution in _of_base(context):
            other = _identity_of(distribution)[0]
            if other in wanted and other not in seen:
                seen.add(other)
                yield distribution


def _of_base(context: DistributionFinder.Context) -> list[Distribution]:
    with as_base():  # other finders of the base may know more than its search path tells
        return list(Distribution.discover(context=context))
