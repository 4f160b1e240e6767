"""How the sources of a biz's configuration are folded, and how its values are found."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koupleless.context import Scope, entered
from koupleless.errors import SettingsError
from koupleless.view import config
from koupleless.view.config import Configuration, current_config

MakeBiz = Callable[..., Scope]


@pytest.fixture
def places(tmp_path: Path) -> Any:
    """Write files by relative path; ``config`` is the base's directory, ``own`` the biz's."""

    def write(files: Any) -> Any:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return {"directories": [tmp_path / "config"], "own": [tmp_path / "own"]}

    return write


def test_each_source_is_stronger_than_the_one_after_it(places: Any) -> None:
    sources: list[dict[str, Any]] = [
        {"args": ["--key=arguments"]},
        {"envs": {"KEY": "environment"}},
        {"config/hello/application-dev.toml": 'key = "central profile"'},
        {"config/hello/application.toml": 'key = "central"'},
        {"own/application-dev.toml": 'key = "own profile"'},
        {"own/application.toml": 'key = "own"'},
        {"shared": {"key": "shared"}},
    ]
    seen = []
    # From the weakest alone to all of them, each addition must win.
    given: dict[str, Any] = {}
    files: dict[str, str] = {}
    for source in reversed(sources):
        for name, value in source.items():
            (files if "/" in name else given)[name] = value
        seen.append(Configuration.load("hello", profile="dev", **places(files), **given)["key"])
    assert seen == [
        *("shared", "own", "own profile", "central", "central profile", "environment", "arguments"),
    ]


def test_files_of_other_bizs_and_other_profiles_do_not_count(places: Any) -> None:
    where = places(
        {
            "config/other/application.toml": 'key = "other biz"',
            "config/hello/application-prod.toml": 'key = "other profile"',
            "config/application.toml": 'key = "nobody"',
            "own/application.toml": 'key = "own"',
        }
    )
    assert dict(Configuration.load("hello", profile="dev", **where)) == {"key": "own"}


def test_sources_are_merged_key_by_key(places: Any) -> None:
    where = places(
        {
            "config/hello/application.toml": "[database]\nhost = 'central'",
            "own/application.toml": "[database]\nhost = 'own'\nport = 5432\nnames = ['a', 'b']",
        }
    )
    configuration = Configuration.load("hello", **where)
    assert dict(configuration) == {"database.host": "central", "database.port": 5432, "database.names": ["a", "b"]}


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("toml", "port = 1\n[db]\nhost = 'x'"),
        ("yaml", "port: 1\ndb:\n  host: x\n"),
        ("yml", "port: 1\ndb: {host: x}\n"),
        ("json", '{"port": 1, "db": {"host": "x"}}'),
    ],
)
def test_every_format_gives_the_same_values(places: Any, suffix: Any, text: Any) -> None:
    where = places({f"own/application.{suffix}": text})
    assert dict(Configuration.load("hello", **where)) == {"port": 1, "db.host": "x"}


def test_of_one_name_in_two_formats_the_first_of_the_documented_order_wins(places: Any) -> None:
    where = places({"own/application.properties": "key=properties\nonly=here", "own/application.toml": "key = 'toml'"})
    assert dict(Configuration.load("hello", **where)) == {"key": "toml", "only": "here"}


def test_properties_are_read_as_java_reads_them(places: Any) -> None:
    text = "\n".join(
        [
            "# a comment",
            "! another",
            "",
            "equals=1",
            "colon : 2",
            "blank 3",
            "  indented = four words in all ",
            "empty=",
            "alone",
            r"long = one \\",
            r"joined = one \ "[:-1],
            "    two",
            r"escaped\=key\ name = tab\tline\nunicode\u00e9",
            "url = http://host:80/?a=b",
        ]
    )
    where = places({"own/application.properties": text})
    assert dict(Configuration.load("hello", **where)) == {
        "equals": "1",
        "colon": "2",
        "blank": "3",
        "indented": "four words in all ",
        "empty": "",
        "alone": "",
        "long": "one \\",
        "joined": "one two",
        "escaped=key name": "tab\tline\nunicodeé",
        "url": "http://host:80/?a=b",
    }


def test_continued_lines_are_joined_in_linear_time(places: Any) -> None:
    where = places({"own/application.properties": "key=" + "word \\\n" * 400_000 + "end\nother=1"})
    began = time.process_time()
    configuration = Configuration.load("hello", **where)
    assert time.process_time() - began < 5
    assert configuration["key"] == "word " * 400_000 + "end"
    assert configuration["other"] == "1"


def test_a_continued_line_may_look_like_a_comment(places: Any) -> None:
    where = places({"own/application.properties": "\\\n# no comment\nkey = \\\n  # none either"})
    configuration = Configuration.load("hello", **where)
    assert configuration["#"] == "no comment"
    assert configuration["key"] == "# none either"


def test_several_profiles_may_be_active_and_the_last_one_named_wins(places: Any) -> None:
    where = places(
        {
            "own/application-a.toml": "key = 'a'\nof-a = 1",
            "own/application-b.toml": "key = 'b'",
        }
    )
    assert dict(Configuration.load("hello", profile="a, b", **where)) == {"key": "b", "of-a": 1}


@pytest.mark.parametrize(
    "given",
    [
        {"args": ["--spring.profiles.active=dev"]},
        {"envs": {"SPRING_PROFILES_ACTIVE": "dev"}},
        {"args": ["--koupleless.profiles.active=dev"]},
        {},
    ],
    ids=["argument", "environment", "our own name", "the module's file"],
)
def test_without_a_profile_of_the_base_the_sources_name_it(places: Any, given: Any) -> None:
    active = "" if given else "spring.profiles.active=dev"
    where = places({"own/application.properties": active, "own/application-dev.properties": "key=dev"})
    assert Configuration.load("hello", **where, **given)["key"] == "dev"


def test_arguments_are_keys_and_values_until_two_dashes(places: Any) -> None:
    args = ["--port=8", "--debug", "file", "-x", "--", "--late=1"]
    assert dict(Configuration.load("hello", args=args)) == {"port": "8", "debug": "true"}


def test_spellings_of_a_key_are_one_key(places: Any) -> None:
    where = places({"own/application.toml": "[data-base]\npoolSize = 5"})
    configuration = Configuration.load("hello", **where)
    assert (
        configuration["data-base.poolSize"]
        == configuration["data_base.POOLSIZE"]
        == configuration["data.base.poolsize"]
    )
    stronger = Configuration.load("hello", envs={"DATA_BASE_POOLSIZE": "9"}, **where)
    assert stronger["data-base.poolSize"] == "9"
    assert len(stronger) == 1


def test_a_key_with_keys_below_it_is_a_mapping_of_those() -> None:
    configuration = Configuration({"a": {"b": {"c": 1}, "d": 2}, "ab": 3})
    assert configuration["a"]["b"]["c"] == configuration["a.b.c"] == 1
    assert dict(configuration["a"]) == {"b.c": 1, "d": 2}
    assert "a" in configuration
    assert "a.x" not in configuration
    assert configuration.get("a.x", "none") == "none"
    with pytest.raises(KeyError, match=r"a\.x"):
        configuration["a.x"]


def test_the_values_which_may_be_secrets_are_not_in_its_repr() -> None:
    assert repr(Configuration({"password": "hunter2"})) == "<Configuration of 1 keys>"


def test_a_base_shares_the_keys_it_lists_and_no_others() -> None:
    base = Configuration({"ark.common.env.share.keys": "region, database.host,missing", "region": "eu", "secret": 1})
    assert base.shared() == {"region": "eu"}
    listed = Configuration({"ark.common.env.share.keys": ["region"], "region": "eu"})
    assert listed.shared() == {"region": "eu"}
    assert Configuration({"region": "eu"}).shared() == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("application.toml", "key = "),
        ("application.json", "{"),
        ("application.yaml", "a: [1"),
        ("application.json", "[1]"),
        ("application.yaml", "just text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(places: Any, name: Any, text: Any) -> None:
    where = places({f"own/{name}": text})
    with pytest.raises(SettingsError, match=name):
        Configuration.load("hello", **where)


def test_an_empty_yaml_file_is_an_empty_configuration(places: Any) -> None:
    assert dict(Configuration.load("hello", **places({"own/application.yaml": ""}))) == {}


def test_without_the_yaml_package_a_yaml_file_says_what_to_install(
    places: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(SettingsError, match="install PyYAML, or write the configuration as TOML"):
        Configuration.load("hello", **places({"own/application.yaml": "a: 1"}))


def test_the_yaml_package_is_not_imported_where_no_yaml_file_is(places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert Configuration.load("hello", **places({"own/application.toml": "a = 1"}))["a"] == 1


def test_a_biz_finds_its_own_configuration(make_biz: MakeBiz) -> None:
    one = make_biz("one", configuration=Configuration({"key": 1}))
    two = make_biz("two", configuration=Configuration({"key": 2}))
    for scope, value in ((one, 1), (two, 2)):
        with entered(scope):
            assert current_config()["key"] == value


def test_a_biz_without_configuration_never_sees_that_of_the_process(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_PROCESS", "1")
    with entered(make_biz()):
        assert dict(current_config()) == {}


def test_a_module_that_runs_alone_reads_its_own_files_environment_and_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config._of_process.cache_clear()
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/application.toml").write_text("a = 'config'")
    Path("application.toml").write_text("a = 'here'\nb = 'here'\nc = 'here'\nd = 'here'")
    monkeypatch.setenv("B", "environment")
    monkeypatch.setattr(sys, "argv", ["app", "--c=argument"])
    try:
        found = current_config()
        assert [found[key] for key in "abcd"] == ["config", "environment", "argument", "here"]
        assert current_config() is found
    finally:
        config._of_process.cache_clear()
