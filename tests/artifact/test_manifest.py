"""What an artefact says of itself: both spellings, every mistake at once, and writing what can be read again."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from koupleless.artifact.manifest import Manifest, parse_biz_toml, render_biz_toml
from koupleless.artifact.manifest_mf import manifest_keys, parse_manifest_mf, render_manifest_mf
from koupleless.artifact.reading.common_keys import is_entry, normal_web_path, path_issue
from koupleless.biz import BizId, Isolation
from koupleless.errors import ManifestInvalid

FULL = Manifest(
    id=BizId.of("shop", "1.2.0"),
    entry="shop.web:create_app()",
    web_context_path="/shop/v1",
    priority=7,
    declared_libraries=("flask", "pydantic-core"),
    own=("dash",),
    shared=("redis",),
    deny_imports=("numpy", "base.private.*"),
    isolation=Isolation.PROCESS,
    python_tag="cp311",
    requirements=("flask>=3", 'uvicorn[standard]>=0.30; python_version >= "3.11"'),
    provided=("flask>=3",),
    packed=("six==1.17.0",),
    files={"shop/web.py": "a" * 64, 'odd "name"\x7f ü.txt': "b" * 64},
    attributes={"commit-id": "1234", "note": "back\\slash\tand ü"},
)
LEAST = 'name = "hello"\nversion = "1.0"\nentry = "hello.app:app"\n'


def test_what_is_written_is_read_again_as_it_was() -> None:
    plain = replace(FULL, files={"shop/web.py": "a" * 64, 'odd "name" ü.txt': "b" * 64})
    assert parse_biz_toml(render_biz_toml(plain), "test") == plain


def test_a_delete_character_survives_in_an_attribute() -> None:
    manifest = replace(FULL, files={}, attributes={"key": "a\x7fb"})
    assert parse_biz_toml(render_biz_toml(manifest), "test").attributes == {"key": "a\x7fb"}


def test_only_name_version_and_entry_are_needed() -> None:
    manifest = parse_biz_toml(LEAST, "test")
    assert manifest == Manifest(id=BizId.of("hello", "1.0"), entry="hello.app:app", web_context_path="/hello")


def test_three_mistakes_are_reported_together() -> None:
    text = 'name = "no name!"\nversion = "1.0"\nentry = "not an entry"\npriority = "high"\n'
    with pytest.raises(ManifestInvalid) as caught:
        parse_biz_toml(text, "x.zip")
    assert len(caught.value.issues) == 3
    assert "no name!" in caught.value.issues[0]
    assert "has 3 mistakes" in str(caught.value)


def test_an_empty_file_names_everything_that_is_missing_in_the_words_of_the_original() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse_biz_toml("", "x.zip")
    assert caught.value.issues[:2] == ("Biz Name must not be empty!", "Biz Version must not be empty!")
    assert "entry" in caught.value.issues[2]


def test_an_unknown_key_is_refused_with_the_likely_one() -> None:
    with pytest.raises(ManifestInvalid, match="unknown key priorty; did you mean priority"):
        parse_biz_toml(LEAST + "priorty = 3\n", "test")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('isolation = "vm"', "none of namespace, process"),
        ('python = "jython"', "neither py3 nor"),
        ('declared-libraries = ["a b"]', "no distribution name"),
        ('own = ["a b"]', "own: 'a b' is no distribution name"),
        ('own = ["A_b"]\nshared = ["a-b"]', "own and shared both name a-b"),
        ("declared-libraries = [1]", "not a list of texts"),
        ('deny-imports = ["a-b"]', "neither a package"),
        ('requirements = ["flask =="]', "no requirement"),
        ('web-context-path = "/a b"', "no path such as"),
        ('web-context-path = "/a/../b"', "no path such as"),
        ("priority = true", "not a whole number"),
        ('[files]\n"../x.py" = "00"', "climbs out"),
        ("[files]\nx = 'zz'", "for a SHA-256"),
        ("[attributes]\nx = [1]", "not a plain value"),
        ("attributes = 3", "is not a table"),
        ("name", "no TOML"),
    ],
)
def test_each_wrong_value_is_said_in_words(line: str, words: str) -> None:
    with pytest.raises(ManifestInvalid, match=words):
        parse_biz_toml(LEAST + line, "test")


def test_a_newer_format_is_refused_before_its_keys_are_judged() -> None:
    with pytest.raises(ManifestInvalid, match="format = 2 is newer"):
        parse_biz_toml('format = 2\nwhatever = "x"', "test")


@pytest.mark.parametrize("text", ["a", "a.b", "a.b:c", "a.b:c.d", "a:make()", "über.app:app"])
def test_entries_that_name_something(text: str) -> None:
    assert is_entry(text)


@pytest.mark.parametrize("text", ["", ":a", "a:", "a b", "a.b:c d", "a..b", "a:f(1)", "a:()", "a-b:c"])
def test_entries_that_name_nothing(text: str) -> None:
    assert not is_entry(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", "/"),
        ("", "/"),
        ("hello", "/hello"),
        ("/hello/", "/hello"),
        ("/a/b", "/a/b"),
        ("/a?b", None),
        ("/a//b", None),
    ],
)
def test_a_web_path_has_its_leading_slash_and_no_other(text: str, path: str | None) -> None:
    assert normal_web_path(text) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a/b.py", None),
        ("a b/ü.txt", None),
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("../x", "climbs"),
        ("a/../../x", "climbs"),
        ("a\\b", "backslash"),
        ("a//b", "plain"),
        ("./a", "plain"),
        ("", "plain"),
        ("a\nb", "control"),
        ("\udc80", "Unicode"),
        ("a" * 256, "too long"),
        ("/".join(["a" * 200] * 6), "too long"),
    ],
)
def test_paths_that_may_not_be_unpacked(path: str, why: str | None) -> None:
    found = path_issue(path)
    assert (found is None) if why is None else (found is not None and why in found)


def test_the_original_manifest_is_read_with_its_keys() -> None:
    text = (
        "Manifest-Version: 1.0\r\nArk-Biz-Name: hello\r\nArk-Biz-Version: 1.0\r\nMain-Class: other\r\n"
        "Start-Class: hello.app:app\r\nweb-context-path: hi\r\npriority: 5\r\n"
        "declared-libraries: Flask, pydantic_core\r\n"
        "deny-import-packages: a.b,c.*\r\ncommit-id: 77\r\n\r\nName: section\r\nArk-Biz-Name: other\r\n"
    )
    manifest = parse_manifest_mf(text, "test")
    assert manifest == Manifest(
        id=BizId.of("hello", "1.0"),
        entry="hello.app:app",
        web_context_path="hi",
        priority=5,
        declared_libraries=("flask", "pydantic-core"),
        deny_imports=("a.b", "c.*"),
        attributes={"commit-id": "77"},
    )


def test_two_keys_and_an_entry_are_enough_for_the_original_manifest() -> None:
    manifest = parse_manifest_mf("Ark-Biz-Name: a\nArk-Biz-Version: 1\nMain-Class: pkg.mod:app\n", "test")
    assert (str(manifest.id), manifest.entry, manifest.web_context_path) == ("a:1", "pkg.mod:app", "/a")


def test_a_manifest_without_the_name_fails_with_the_words_that_clients_know() -> None:
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest_mf("Manifest-Version: 1.0\npriority: soon\n", "x.jar")
    assert "Biz Name must not be empty!" in caught.value.issues
    assert any("soon" in issue for issue in caught.value.issues)


def test_folded_lines_are_joined() -> None:
    assert manifest_keys("a: 12\n 34\n  5\nb: x\n")["a"] == "1234 5"


def test_long_values_are_folded_but_name_and_version_never() -> None:
    name = "n" * 128
    manifest = replace(FULL, id=BizId.of(name, "v" * 100), attributes={"note": "ü" * 100}, files={})
    lines = render_manifest_mf(manifest).split("\r\n")
    assert f"Ark-Biz-Name: {name}" in lines
    assert f"Ark-Biz-Version: {'v' * 100}" in lines
    assert all(len(line.encode()) <= 70 for line in lines if not line.startswith("Ark-Biz-"))
    keys = manifest_keys(render_manifest_mf(manifest))
    assert keys["note"] == "ü" * 100
    assert keys["declared-libraries"] == "flask,pydantic-core"


def test_a_tag_decides_which_python_may_run_it() -> None:
    here = sys.version_info.minor
    fits = ["py3", f"py3{here}", f"py3{here - 1}", f"cp3{here}"]
    assert [replace(FULL, python_tag=tag).python_issue() for tag in fits] == [None] * 4
    for tag in (f"cp3{here - 1}", f"py3{here + 1}"):
        assert f"was built for {tag}" in (replace(FULL, python_tag=tag).python_issue() or "")
