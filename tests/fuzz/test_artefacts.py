"""Archives, manifests and wheels that are nearly right: read as what they say, or refused in words, soon."""

from __future__ import annotations

import io
import json
import time
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.artifact.memory import MemorySource
from tests.fuzz.mutations import INPUTS, SEED, Mutator

from koupleless.artifact.fetch import fetch
from koupleless.artifact.keeping.unpack import copy_files
from koupleless.artifact.manifest import BIZ_TOML, MANIFEST_MF, MARK, Manifest, parse_biz_toml, render_biz_toml
from koupleless.artifact.manifest_mf import parse_manifest_mf, render_manifest_mf
from koupleless.artifact.source import source_for
from koupleless.biz import BizId
from koupleless.errors import KouplelessError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.timeout(0 if INPUTS > 20_000 else 120)

SLOWEST_S = 2.0
"""Of the processor's time, for one input: what a stranger may cost."""
LONGEST = 60_000
MANIFEST = Manifest(
    id=BizId.of("hello", "1.0.0"),
    entry="hello.app:app",
    web_context_path="/hello",
    requirements=("click>=8; python_version > '3'", "pip @ https://a.example/x.whl"),
    packed=("six==1.0",),
    deny_imports=("a.b", "c.*"),
    declared_libraries=("click",),
    attributes={"team": "a", "note": 'quotes " and \\ and \u00e9'},
    files={"hello/app.py": "0" * 64},
)
TOML = render_biz_toml(MANIFEST).encode()
MF = render_manifest_mf(MANIFEST).encode()
RECORD = b"hello/app.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\nhello-1.0.dist-info/RECORD,,\n"
METADATA = b"Metadata-Version: 2.1\nName: hello\nVersion: 1.0\nRequires-Dist: click>=8\n\nwords\n"
POINTS = b"[console_scripts]\na = b:c\n[koupleless.module]\nhello = hello.app:app [x]\n"
WORDS = [
    *(b"name", b"version", b"entry", b"priority = ", b"[files]", b"[[a]]", b"requirements = [", b"sha256=", b"'''"),
    *(b'"""', b"Ark-Biz-Name: ", b"Start-Class: ", b"Requires-Dist: ", b"[koupleless.module]"),
    *(b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06"),
]


def bounded(read: Callable[[], object], about: object) -> None:
    """Call it: it returns or raises an error of ours with a text that can be shown, and takes little time."""
    begun = time.thread_time()
    said = ""
    try:
        read()
    except KouplelessError as error:
        said = str(error)
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__} for {about!r}") from error
    assert len(said) < LONGEST, about
    assert time.thread_time() - begun < SLOWEST_S, about


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return buffer.getvalue()


MODULE = {BIZ_TOML: TOML.partition(b"[files]")[0], MANIFEST_MF: MF, MARK: b"", "hello/app.py": b"x = 1\n" * 20}
WHEEL = {
    "hello/app.py": b"",
    "hello-1.0.dist-info/METADATA": METADATA,
    "hello-1.0.dist-info/RECORD": RECORD,
    "hello-1.0.dist-info/entry_points.txt": POINTS,
}


def read_whole(path: Path) -> None:
    with source_for(path).open() as content:
        for _, pieces in content.files():
            for _ in pieces:
                pass


def test_archives_with_changed_bytes(tmp_path: Path) -> None:
    mutator = Mutator(SEED, WORDS)
    seeds = [("hello.zip", zipped(MODULE)), ("hello.zip", zipped(MODULE, zipfile.ZIP_STORED))]
    seeds += [("hello-1.0-py3-none-any.whl", zipped(WHEEL)), ("hello-1.0-py3-none-any.whl", zipped(WHEEL, 0))]
    for number in range(INPUTS // 10):
        name, seed = seeds[number % len(seeds)]
        path = tmp_path / name
        data = mutator.mutate(seed)
        path.write_bytes(data)
        bounded(lambda path=path: read_whole(path), (SEED, number, data))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("seed", "share", "read"),
    [
        pytest.param(TOML, 2, lambda text: parse_biz_toml(text, "x"), id="biz.toml"),
        pytest.param(MF, 4, lambda text: parse_manifest_mf(text, "x"), id="MANIFEST.MF"),
    ],
)
def test_manifests_with_changed_text(seed: bytes, share: int, read: Callable[[str], Manifest]) -> None:
    mutator = Mutator(SEED, WORDS)

    def read_and_render(text: str) -> None:
        manifest = read(text)
        again = parse_biz_toml(render_biz_toml(manifest), "again")
        assert again == manifest
        render_manifest_mf(manifest)
        json.dumps(manifest.attributes)

    for number in range(INPUTS // share):
        text = mutator.mutate(seed).decode("utf-8", "replace")
        bounded(lambda text=text: read_and_render(text), (SEED, number, text))  # type: ignore[misc]


def test_wheels_with_changed_metadata(tmp_path: Path) -> None:
    mutator = Mutator(SEED, WORDS)
    path = tmp_path / "hello-1.0-py3-none-any.whl"
    names = [name for name in WHEEL if "dist-info" in name]
    for number in range(INPUTS // 20):
        name = names[number % len(names)]
        data = mutator.mutate(WHEEL[name])
        path.write_bytes(zipped({**WHEEL, name: data}, zipfile.ZIP_STORED))
        bounded(lambda: read_whole(path), (SEED, number, name, data))


def test_names_of_files_stay_below_the_directory(tmp_path: Path) -> None:
    mutator = Mutator(SEED, [b"../", b"/", b"C:", b"\\", b"..", b"\0", b"com1", b"\xcc\x81", b"a" * 250])
    (tmp_path / "in").mkdir()
    for number in range(INPUTS // 20):
        name = mutator.mutate(b"hello/deep/app.py").decode("utf-8", "surrogateescape")
        target = tmp_path / "in" / f"{number}"
        target.mkdir()

        def unpack(name: str = name, target: Path = target) -> None:
            source = MemorySource({BIZ_TOML: MODULE[BIZ_TOML], name: b"x"})
            with source.open() as content:
                copy_files(content, target, "x")

        bounded(unpack, (SEED, number, name))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_locations_that_are_nearly_right() -> None:
    mutator = Mutator(SEED, [b"http://", b"file://", b"//[", b"@", b"#sha256=", b"~root", b"%2e%2e", b"\xe2\x84\x80"])
    seeds = [b"file:///nowhere/x.zip#sha256=" + b"0" * 64, b"~nobody/x.zip", b"/nowhere/x.zip", b"ftp://u:p@[::1]:80/x"]

    def look(url: str, allowed: tuple[str, ...]) -> None:
        with fetch(url, allowed_prefixes=allowed, timeout_s=0.001):
            pass

    for number in range(INPUTS // 20):
        url = mutator.mutate(seeds[number % len(seeds)]).decode("utf-8", "surrogateescape")
        if url.lower().startswith("http"):
            continue  # it would be asked for
        allowed = ((), ("/srv",), ("https://a.example",))[number % 3]
        bounded(lambda url=url, allowed=allowed: look(url, allowed), (SEED, number, url))  # type: ignore[misc]


# --- documents of the right form, with anything in them ---------------------------------------------------------------

TEXTS = st.lists(st.text(max_size=8), max_size=4)
PLAIN = st.one_of(st.text(max_size=20), st.integers(), st.booleans(), st.floats(allow_nan=False), TEXTS)
VALUES = st.recursive(PLAIN, lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)
PLACES = st.sampled_from([BIZ_TOML, MANIFEST_MF, "a/b.py", "a", "a/b.py/c", "koupleless/x"])
KEYS = st.sampled_from(
    [
        *("format", "name", "version", "entry", "web-context-path", "priority", "isolation", "python", "files"),
        *("declared-libraries", "deny-imports", "own", "shared", "requirements", "provided", "packed", "attributes"),
    ]
)


ANYTHING = settings(
    max_examples=max(200, INPUTS // 100),
    deadline=None,
    database=None,
    derandomize=SEED == 1,
    suppress_health_check=list(HealthCheck),
)


def written(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


@ANYTHING
@given(st.dictionaries(st.one_of(KEYS, st.text(max_size=6)), VALUES, max_size=6))
def test_documents_of_any_values(document: dict[str, Any]) -> None:
    sound = {"name": "hello", "version": "1", "entry": "a:b"}
    text = "\n".join(f"{json.dumps(key)} = {written(value)}" for key, value in {**sound, **document}.items())
    bounded(lambda: render_biz_toml(parse_biz_toml(text, "x")), text)


@ANYTHING
@given(st.dictionaries(PLACES, st.binary(max_size=40)))
def test_artefacts_of_any_files(files: dict[str, bytes]) -> None:
    def read() -> None:
        with MemorySource(files).open() as content:
            list(content.files())

    bounded(read, files)
