"""Where a setting comes from, which of several wins, and what is said of one that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.errors import SettingsError
from koupleless.settings.base import ArkletSettings, BaseSettings, load_base
from koupleless.settings.client import ClientSettings, load_client

if TYPE_CHECKING:
    from collections.abc import Mapping


def base(directory: Path, flags: Mapping[str, object] | None = None, **environ: str) -> BaseSettings:
    return load_base(flags, environ=environ, directory=directory)


def test_without_any_setting_the_defaults_hold(tmp_path: Path) -> None:
    assert base(tmp_path) == BaseSettings()
    assert load_client(environ={"XDG_CONFIG_HOME": str(tmp_path)}, directory=tmp_path) == ClientSettings()


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.koupleless.base]\nport = 1\n")
    assert base(tmp_path).port == 1
    assert base(tmp_path, KOUPLELESS_BASE_PORT="2").port == 2
    assert base(tmp_path, {"port": 3}, KOUPLELESS_BASE_PORT="2").port == 3
    assert base(tmp_path, {"port": None}, KOUPLELESS_BASE_PORT="2").port == 2


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("pyproject.toml", '[tool.koupleless.base]\nlog-dir = "logs"', "logs"),
        ("koupleless.toml", '[tool.koupleless.base]\nlog-dir = "logs"', "logs"),
        ("koupleless.toml", '[base]\nlog-dir = "logs"', "logs"),
        ("koupleless.toml", '[base]\n"logging.file.path" = "logs"', "logs"),
        ("koupleless.toml", '[base]\nlogging.file.path = "logs"', "logs"),
    ],
)
def test_a_table_stands_in_either_file_and_its_paths_start_there(
    tmp_path: Path, name: str, text: str, value: str
) -> None:
    (tmp_path / name).write_text(text)
    assert base(tmp_path).log_dir == tmp_path / value


def test_two_tables_for_one_thing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.koupleless.base]\nport = 1\n")
    (tmp_path / "koupleless.toml").write_text("[base]\nport = 2\n")
    with pytest.raises(SettingsError, match="keep one of them"):
        base(tmp_path)


def test_a_file_that_is_named_is_read_instead(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.koupleless.base]\nport = 1\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.toml").write_text('[base]\nport = 2\nstore-dir = "store"\n')
    found = load_base(environ={}, directory=tmp_path, file=tmp_path / "elsewhere" / "other.toml")
    assert found.port == 2
    assert found.store_dir == tmp_path / "elsewhere" / "store"
    with pytest.raises(SettingsError, match="cannot be read"):
        load_base(environ={}, directory=tmp_path, file=tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("KOUPLELESS_ARKLET_HTTP_PORT", "4321", ("arklet.port", 4321)),
        ("KOUPLELESS_ARKLET_PORT", "4321", ("arklet.port", 4321)),
        ("SPRING_APPLICATION_NAME", "shop", ("name", "shop")),
        ("COM_ALIPAY_SOFA_ARK_MASTER_BIZ", "shop", ("name", "shop")),
        ("SPRING_PROFILES_ACTIVE", "dev", ("profile", "dev")),
        ("ARK_COMMON_ENV_SHARE_KEYS", "a, b,,c", ("shared_keys", ("a", "b", "c"))),
        ("ACTIVATE_NEW_MODULE", "TRUE", ("activate_new", True)),
        ("SOFA_ARK_AUTO_UNINSTALL_WHEN_FAILED_ENABLE", "false", ("keep_broken", True)),
        ("SOFA_ARK_AUTO_UNINSTALL_WHEN_FAILED_ENABLE", "true", ("keep_broken", False)),
        ("SOFA_ARK_ACTIVATE_MULTI_BIZ_VERSION_ENABLE", "yes", ("activate_many", True)),
        ("KOUPLELESS_ARKLET_TOKEN", "s3cret", ("arklet.token", "s3cret")),
        ("KOUPLELESS_BASE_DRAIN_TIMEOUT", "2.5", ("drain_timeout_s", 2.5)),
        ("KOUPLELESS_BASE_MODULES", "https://a/b.zip, /c", ("modules", ("https://a/b.zip", "/c"))),
    ],
)
def test_the_environment_knows_our_names_and_the_originals(
    tmp_path: Path, variable: str, text: str, expected: tuple[str, object]
) -> None:
    found: Any = load_base(environ={variable: text}, directory=tmp_path)
    for part in expected[0].split("."):
        found = getattr(found, part)
    assert found == expected[1]


def test_what_kubernetes_says_of_a_service_of_our_name_is_not_ours(tmp_path: Path) -> None:
    found = base(tmp_path, KOUPLELESS_ARKLET_PORT="tcp://10.0.0.7:1238", KOUPLELESS_BASE_PORT="tcp://10.0.0.8:80")
    assert (found.arklet.port, found.port) == (None, 8080)


def test_the_arklet_has_a_table_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "koupleless.toml").write_text(
        '[base.arklet]\nhost = "0.0.0.0"\ninsecure = true\nallowed-hosts = ["base.example"]\n'
    )
    expected = ArkletSettings(host="0.0.0.0", insecure=True, allowed_hosts=("base.example",))
    assert base(tmp_path).arklet == expected


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("prot = 1", "prot in .*no setting; did you mean port"),
        ("arklet.prot = 1", "did you mean arklet.port"),
        ("zzz = 1", "known are .*activate-new"),
        ("port = 70000", "port in .*must be a port number from 0 to 65535, not 70000"),
        ("port = true", "must be a port number"),
        ('port = "many"', "not 'many'"),
        ("port = -1", "must be a port number"),
        ('activate-new = "perhaps"', "must be true or false"),
        ("start-timeout = 0", "must be a number of seconds above 0"),
        ('start-timeout = "soon"', "must be a number of seconds"),
        ("name = 5", "must be a text"),
        ('name = "a b"', "no biz name"),
        ("modules = 5", "must be a list of texts"),
        ("modules = [5]", "must be a list of texts"),
        ('arklet.token = "s3cret"', "is a secret in a file that others read; set .*KOUPLELESS_ARKLET_TOKEN"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, table: str, words: str) -> None:
    (tmp_path / "koupleless.toml").write_text(f"[base]\n{table}\n")
    with pytest.raises(SettingsError, match=words):
        base(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [("[base", "no valid TOML"), ("base = 5", "base in .* must be a table"), ("tool = 5", "must be a table")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "koupleless.toml").write_text(text)
    with pytest.raises(SettingsError, match=words) as raised:
        base(tmp_path)
    assert "koupleless.toml" in str(raised.value)


def test_a_variable_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="KOUPLELESS_ARKLET_HTTP_PORT in the environment must be"):
        base(tmp_path, KOUPLELESS_ARKLET_HTTP_PORT="nine")


def test_a_flag_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--log-dir must be a path, as a text"):
        base(tmp_path, {"log_dir": ""})
    with pytest.raises(SettingsError, match="no setting colour"):
        base(tmp_path, {"colour": "red"})


def test_the_token_comes_from_its_variable_or_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from the file\nsecond line\n")
    assert ArkletSettings(token_file=file).read_token() == "from the file"
    assert ArkletSettings(token="direct", token_file=file).read_token() == "direct"
    assert ArkletSettings().read_token() is None
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"first line .* is empty"):
        ArkletSettings(token_file=file).read_token()
    with pytest.raises(SettingsError, match="cannot be read"):
        ArkletSettings(token_file=tmp_path / "missing").read_token()


def test_a_token_is_not_shown_by_repr() -> None:
    assert "s3cret" not in repr(ArkletSettings(token="s3cret")) + repr(ClientSettings(token="s3cret"))


def test_the_client_reads_project_before_user_file(tmp_path: Path) -> None:
    (tmp_path / "arkctl").mkdir()
    (tmp_path / "arkctl" / "config.toml").write_text('host = "a.example"\nport = 1\noutput = "json"\n')
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[tool.koupleless.arkctl]\nport = 2\ntimeout = 5\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "ARKCTL_OUTPUT": "wide"}
    found = load_client({"port": None}, environ=environ, directory=project)
    assert found == ClientSettings(host="a.example", port=2, timeout_s=5, output="wide")
    assert load_client({"port": 3}, environ=environ, directory=project).port == 3


def test_an_unknown_key_of_the_user_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "arkctl").mkdir()
    (tmp_path / "arkctl" / "config.toml").write_text('hots = "a"\n')
    with pytest.raises(SettingsError, match="did you mean host"):
        load_client(environ={"XDG_CONFIG_HOME": str(tmp_path)}, directory=tmp_path)


def test_the_home_directory_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert base(tmp_path / "x", KOUPLELESS_BASE_STORE_DIR="~/store").store_dir == tmp_path / "store"
    assert Path("~").expanduser() == tmp_path


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ('[[base.forwards]]\ncontextPath = "biz1"', {}),
        ('[[base.koupleless.web.gateway.forwards]]\ncontextPath = "biz1"', {}),
        ('[base]\n"koupleless.web.gateway.forwards" = [{ contextPath = "biz1" }]', {}),
        ("", {"KOUPLELESS_BASE_FORWARDS": '[{"contextPath": "biz1"}]'}),
        ("", {"KOUPLELESS_WEB_GATEWAY_FORWARDS": '[{"contextPath": "biz1"}]'}),
    ],
)
def test_forward_rules_are_tables_under_our_key_or_the_originals(
    tmp_path: Path, text: str, environ: dict[str, str]
) -> None:
    (tmp_path / "koupleless.toml").write_text(text)
    assert load_base(environ=environ, directory=tmp_path).forwards == ({"contextPath": "biz1"},)


@pytest.mark.parametrize("text", ['forwards = ["biz1"]', "forwards = 3"])
def test_forward_rules_of_another_shape_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "koupleless.toml").write_text(f"[base]\n{text}")
    with pytest.raises(SettingsError, match=r"forwards in .* must be a list of tables"):
        base(tmp_path)
    with pytest.raises(SettingsError, match="must be a list of tables, in a variable written as JSON"):
        base(tmp_path / "nowhere", KOUPLELESS_BASE_FORWARDS="biz1")


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many", "1" * 5000, "\u00b2"])
def test_a_number_of_connections_is_a_whole_one_above_nothing(tmp_path: Path, number: str) -> None:
    with pytest.raises(SettingsError, match="whole number above 0"):
        base(tmp_path, KOUPLELESS_BASE_MAX_CONNECTIONS=number)
    with pytest.raises(SettingsError, match="whole number above 0"):
        base(tmp_path, KOUPLELESS_ARKLET_MAX_CONNECTIONS=number)


@pytest.mark.parametrize(("text", "seconds"), [(".5", 0.5), ("5.", 5.0), ("05", 5.0), ("+5", 5.0), ("1e3", 1000.0)])
def test_a_number_in_a_variable_is_read_as_python_reads_one(tmp_path: Path, text: str, seconds: float) -> None:
    assert base(tmp_path, KOUPLELESS_BASE_STOP_TIMEOUT=text).stop_timeout_s == seconds
    if seconds.is_integer():
        assert base(tmp_path, KOUPLELESS_BASE_PORT=text, KOUPLELESS_BASE_STORE_KEEP=text).port == seconds


def test_connections_have_settings(tmp_path: Path) -> None:
    (tmp_path / "koupleless.toml").write_text(
        "[base]\nmax-connections = 40\nheader-timeout = 2.5\narklet.max-connections = 4\narklet.header-timeout = 1\n"
    )
    settings = base(tmp_path)

    assert (settings.max_connections, settings.header_timeout_s) == (40, 2.5)
    assert (settings.arklet.max_connections, settings.arklet.header_timeout_s) == (4, 1.0)


def test_a_home_that_is_not_there_and_toml_that_is_none_are_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no home directory ~nosuchuser"):
        base(tmp_path, KOUPLELESS_BASE_LOG_DIR="~nosuchuser/logs")
    for text in ("a = " + "[" * 100_000, "a = " + "1" * 5000):
        (tmp_path / "koupleless.toml").write_text(text)
        with pytest.raises(SettingsError, match="no valid TOML"):
            base(tmp_path)


# --- the controller --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["MODULE_CONTROLLER_ADDRESS", "KOUPLELESS_ARKLET_HTTP_HEARTBEAT_ENDPOINT"])
def test_the_address_of_the_controller_is_read_as_the_original_and_its_images_write_it(
    tmp_path: Path, variable: str
) -> None:
    assert base(tmp_path).arklet.controller.url is None
    assert load_base(environ={variable: "mc:7777"}, directory=tmp_path).arklet.controller.url == "http://mc:7777"
    assert base(tmp_path, {"arklet_controller_url": "https://mc/"}).arklet.controller.url == "https://mc"


def test_the_controller_has_a_table_below_the_one_of_the_arklet(tmp_path: Path) -> None:
    text = '[base.arklet]\nport = 1\n[base.arklet.controller]\nurl = "mc:7777"\nca = "ca.pem"\ntoken-file = "t"\n'
    (tmp_path / "koupleless.toml").write_text(text)
    (tmp_path / "t").write_text("secret\n")

    arklet = base(tmp_path).arklet
    assert (arklet.port, arklet.controller.url, arklet.controller.ca) == (1, "http://mc:7777", tmp_path / "ca.pem")
    assert arklet.controller.read_token() == "secret"
    assert "s3cret" not in repr(base(tmp_path, KOUPLELESS_ARKLET_CONTROLLER_TOKEN="s3cret"))
    assert "s3cret" not in repr(base(tmp_path, KOUPLELESS_BASE_PULL_SECRETS="s3cret"))


@pytest.mark.parametrize("url", ["ftp://mc", "http://", "http://me:secret@mc", "http://mc:port", "mc:7777?x=1"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="KOUPLELESS_ARKLET_CONTROLLER_URL in the environment"):
        base(tmp_path, KOUPLELESS_ARKLET_CONTROLLER_URL=url)


def test_the_version_of_a_base_is_checked(tmp_path: Path) -> None:
    assert base(tmp_path, KOUPLELESS_ARKLET_METADATA_VERSION="2.1").version == "2.1"
    with pytest.raises(SettingsError, match="no biz version"):
        base(tmp_path, KOUPLELESS_BASE_VERSION="2 1")


def test_a_broker_is_read_under_the_names_of_the_original(tmp_path: Path) -> None:
    values = {"broker": "'mq'", "port": 8883, "username": "'me'", "client.prefix": "'shop'", "ca_path": "'ca.pem'"}
    values |= {"client_crt_path": "'c.pem'", "client_key_path": "'k.pem'"}
    text = "".join(f"koupleless.arklet.mqtt.{key} = {value}\n" for key, value in values.items())
    (tmp_path / "koupleless.toml").write_text(f"[base]\n{text}")
    mqtt = base(tmp_path, KOUPLELESS_ARKLET_MQTT_PASSWORD="secret").arklet.mqtt

    assert mqtt.is_on
    assert (mqtt.broker, mqtt.port, mqtt.username, mqtt.client_prefix) == ("mq", 8883, "me", "shop")
    assert (mqtt.ca_path, mqtt.client_crt_path) == (tmp_path / "ca.pem", tmp_path / "c.pem")
    assert mqtt.read_password() == "secret"
    assert "secret" not in repr(mqtt)
    assert not base(tmp_path, KOUPLELESS_ARKLET_MQTT_ENABLE="false").arklet.mqtt.is_on


def test_a_broker_is_used_if_there_is_one(tmp_path: Path) -> None:
    assert not base(tmp_path).arklet.mqtt.is_on
    with pytest.raises(SettingsError, match=r"arklet.mqtt.broker names no broker"):
        _ = base(tmp_path, KOUPLELESS_ARKLET_MQTT_ENABLE="true").arklet.mqtt.is_on
    (tmp_path / "koupleless.toml").write_text("[base]\narklet.mqtt.password = 'x'\n")
    with pytest.raises(SettingsError, match="is a secret in a file that others read"):
        base(tmp_path)
