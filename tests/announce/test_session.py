"""A base behind a real MQTT broker: messages out, commands in, and what becomes of both when the broker is away."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.conftest import until
from tests.controllers import DEADLINE_S, ROOT, Remote
from tests.state.conftest import Lasting, make_module

from koupleless.announce.baseline import Baseline
from koupleless.announce.letters import MOST_LETTERS, Outbox
from koupleless.announce.session import Broker, Session
from koupleless.arklet.health import BaseMetadata
from koupleless.arklet.operations import Operations
from koupleless.errors import SettingsError
from koupleless.wire.announcements import BaseStatus, Metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.certificates import Authority
    from tests.mqtt.broker import Broker as RealBroker


class Behind(Lasting):
    """A base without a server, behind a broker."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.metadata = BaseMetadata(identity="base-7", name="shop", version="1.2", local_ip="127.0.0.1")
        self.operations = Operations(self.container, self.metadata)
        self.baseline = Baseline(self.container, self.operations)
        self.sessions: list[Session] = []

    def connect(self, broker: RealBroker, *, period_s: float = 0.1, **options: Any) -> Session:
        made = Broker.of(broker.host, broker.port, **options)
        session = Session(made, self.baseline, self.status, environment="DEV", period_s=period_s)
        self.sessions.append(session)
        session.begin()
        return session

    def status(self, serves: bool) -> BaseStatus:
        metadata = Metadata(identity="base-7", name="shop", version="1.2", cluster_name="default")
        state = "ACTIVATED" if serves else "DEACTIVATED"
        return BaseStatus(base_metadata=metadata, local_ip="127.0.0.1", port=1238, state=state)

    def end_sessions(self) -> None:
        while self.sessions:
            self.sessions.pop().close()

    def end(self) -> None:
        self.end_sessions()
        self.operations.close()
        super().end()


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Behind]:
    made = Behind(tmp_path / "state")
    yield made
    made.end()


@pytest.fixture
def remote(broker: RealBroker) -> Iterator[Remote]:
    made = Remote(broker)
    yield made
    made.close()


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., Path]:
    return functools.partial(make_module, tmp_path)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses after failures."""
    monkeypatch.setattr("koupleless.announce.fortune._dice.uniform", lambda *_: 0.05)


def order(identity: str, path: Path | None = None) -> dict[str, str]:
    name, _, version = identity.partition(":")
    body = {"bizName": name, "bizVersion": version}
    return body if path is None else {**body, "bizUrl": path.as_uri()}


def break_connection(broker: RealBroker) -> None:
    """Come as another start of the base, whereupon the broker closes the connection of the first."""
    is_in = threading.Event()
    thief = paho.Client(CallbackAPIVersion.VERSION2, client_id="koupleless@@@base-7")
    thief.on_connect = lambda *_: is_in.set()
    thief.connect(broker.host, broker.port)
    thief.loop_start()
    assert is_in.wait(DEADLINE_S)
    thief.disconnect()
    thief.loop_stop()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "koupleless.announce"]


# --- heartbeats ------------------------------------------------------------------------------------------------------


def test_heartbeats_and_a_question_for_the_baseline_come_at_once(
    base: Behind, broker: RealBroker, remote: Remote
) -> None:
    base.connect(broker)

    heart = remote.next("heart")
    assert heart["baseMetadata"] == {"identity": "base-7", "name": "shop", "version": "1.2", "clusterName": "default"}
    assert (heart["state"], heart["localIP"], heart["port"]) == ("ACTIVATED", "127.0.0.1", 1238)
    assert remote.next("queryBaseline") == heart["baseMetadata"]
    assert remote.next("heart") == heart


def test_the_last_heartbeat_says_that_the_base_ends_and_none_comes_after(
    base: Behind, broker: RealBroker, remote: Remote
) -> None:
    session = base.connect(broker, period_s=0.01, has_will=True)
    for _ in range(3):
        assert remote.next("heart")["state"] == "ACTIVATED"

    session.close()
    while remote.next("heart")["state"] == "ACTIVATED":
        pass
    base.connect(broker, period_s=60)  # whatever of the former were under way came before this
    assert remote.next("heart")["state"] == "ACTIVATED"


def test_the_broker_says_that_a_base_has_ended_whose_connection_breaks(
    base: Behind, broker: RealBroker, remote: Remote
) -> None:
    base.connect(broker, period_s=60, has_will=True)
    assert remote.next("heart")["state"] == "ACTIVATED"

    break_connection(broker)

    will = next(got for got in iter(lambda: remote.got.get(timeout=DEADLINE_S), None) if got.kind == "heart")
    assert will.body["data"]["state"] == "DEACTIVATED"
    assert will.body["publishTimestamp"] > (time.time() + 10**9) * 1000  # the original drops messages of the past


def test_without_the_setting_a_broken_connection_is_no_end(base: Behind, broker: RealBroker, remote: Remote) -> None:
    base.connect(broker, period_s=0.05)
    remote.next("heart")
    break_connection(broker)

    for _ in range(5):
        assert remote.next("heart")["state"] == "ACTIVATED"


# --- commands --------------------------------------------------------------------------------------------------------


def test_questions_are_answered(base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path]) -> None:
    base.install(module("prices:1"))
    base.connect(broker, period_s=60)
    remote.next("heart")
    remote.send("health", {})
    remote.send("queryAllBiz", {})

    health = remote.next("health")
    assert health["code"] == "SUCCESS"
    assert "baseIdentity" not in health
    assert health["data"]["healthData"]["masterBizInfo"]["bizState"] == "ACTIVATED"
    (biz,) = remote.next("simpleBiz")
    record = biz.pop("latestStateRecord")
    assert biz == {"name": "prices", "version": "1", "state": "ACTIVATED"}
    assert isinstance(record.pop("changeTime"), int)
    assert record == {"state": "ACTIVATED", "reason": "STARTED", "message": ""}


def test_an_install_and_an_uninstall_are_done_and_answered(
    base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path]
) -> None:
    base.connect(broker, period_s=60)
    remote.next("heart")
    remote.send("installBiz", order("prices:1", module("prices:1")))

    done = remote.next("bizOperation")
    assert (done["command"], done["bizName"], done["bizVersion"]) == ("installBiz", "prices", "1")
    assert done["response"]["code"] == "SUCCESS"
    assert done["response"]["data"]["bizInfos"][0]["bizState"] == "ACTIVATED"
    assert "baseIdentity" not in done["response"]
    assert base.get("/prices/") == "prices:1"

    remote.send("uninstallBiz", order("prices:1"))
    done = remote.next("bizOperation")
    assert (done["command"], done["response"]["code"]) == ("uninstallBiz", "SUCCESS")
    assert done["response"]["data"]["purgeReport"]["clean"]
    assert base.states() == []


def test_another_version_answers_after_a_switch(
    base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path]
) -> None:
    base.connect(broker, period_s=60)
    remote.next("heart")
    for identity in ("prices:1", "prices:2"):
        remote.send("installBiz", order(identity, module(identity)))
        assert remote.next("bizOperation")["response"]["code"] == "SUCCESS"
    before = base.get("/prices/")
    other = "prices:1" if before == "prices:2" else "prices:2"
    remote.send("switchBiz", order(other), retain=False)

    done = remote.next("bizOperation")
    assert (done["command"], done["bizVersion"], done["response"]["code"]) == ("switchBiz", other[-1], "SUCCESS")
    assert base.get("/prices/") == other


def test_a_failure_has_its_reason_where_the_controller_looks_for_it(
    base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path]
) -> None:
    base.connect(broker, period_s=60)
    remote.next("heart")
    remote.send("installBiz", order("prices:1", module("prices:1", "raise RuntimeError('the database is away')")))
    remote.send("installBiz", {"bizName": "nameless"})

    answers = {(done := remote.next("bizOperation"))["bizName"]: done["response"] for _ in range(2)}
    assert {response["code"] for response in answers.values()} == {"FAILED"}
    assert answers["prices"]["data"]["code"] == "FAILED"
    assert "the database is away" in answers["prices"]["data"]["message"]
    assert "bizUrl should not be blank" in answers["nameless"]["data"]["message"]


def test_an_uninstall_of_an_absent_module_is_not_answered(base: Behind, broker: RealBroker, remote: Remote) -> None:
    base.connect(broker, period_s=60)
    remote.next("heart")
    remote.send("uninstallBiz", order("gone:1"))
    remote.send("uninstallBiz", {"bizName": "gone"})  # which is answered, and comes after

    done = remote.next("bizOperation")
    assert "bizVersion" not in done
    assert "bizVersion should not be blank" in done["response"]["data"]["message"]
    assert remote.none("bizOperation")


def test_commands_about_one_name_are_done_in_the_order_in_which_they_came(
    base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path]
) -> None:
    base.connect(broker, period_s=60)
    remote.next("heart")
    slow = module("prices:1", "import time\ntime.sleep(0.2)\ndef app(e, s): s('200 OK', []); return [b'1']\n")
    remote.send("installBiz", order("prices:1", slow))
    remote.send("uninstallBiz", order("prices:1"))
    remote.send("installBiz", order("other:1", module("other:1")))

    answers = [remote.next("bizOperation") for _ in range(3)]
    assert [each["response"]["code"] for each in answers] == ["SUCCESS"] * 3
    assert [each["command"] for each in answers if each["bizName"] == "prices"] == ["installBiz", "uninstallBiz"]
    assert answers[0]["bizName"] == "other"  # which waits for no other name
    assert base.states() == [("other:1", "ACTIVATED")]


def test_what_is_no_command_is_passed_over(
    base: Behind, broker: RealBroker, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    base.connect(broker, period_s=60)
    remote.next("heart")
    remote.send("killBiz", {"bizName": "a", "bizVersion": "1"})
    remote.send("base/baseline", {"no": "array"})
    remote.client.publish(f"{ROOT}/installBiz", b"{", 1)
    remote.client.publish(f"{ROOT}/installBiz", b" " * (2 << 20), 1)
    remote.send("health", {})

    assert "the body is not JSON" in remote.next("bizOperation")["response"]["message"]
    assert remote.next("health")["code"] == "SUCCESS"
    until(lambda: "the baseline that came over MQTT is ignored" in caplog.text)
    assert "unsupported command killBiz over MQTT" in caplog.text
    assert "installBiz over MQTT has 2097152 bytes" in caplog.text


# --- kept messages, and the baseline ---------------------------------------------------------------------------------


def test_changes_kept_by_the_broker_from_a_former_life_are_not_made(
    base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "koupleless.announce")
    base.install(module("kept:1"))
    remote.send("installBiz", order("old:1", module("old:1")), qos=1)
    remote.send("uninstallBiz", order("kept:1"), qos=1)
    remote.send("base/baseline", [order("older:1", module("older:1"))], qos=1)
    remote.send("queryAllBiz", {}, qos=1)

    base.connect(broker, period_s=60)

    assert [each["name"] for each in remote.next("simpleBiz")] == ["kept"]  # a question is answered, whoever asks
    remote.send("installBiz", order("new:1", module("new:1")))
    assert remote.next("bizOperation")["bizName"] == "new"
    assert base.states() == [("kept:1", "ACTIVATED"), ("new:1", "ACTIVATED")]
    ignored = [line.partition(" ")[0] for line in said(caplog) if line.endswith("from former times, and is ignored")]
    assert sorted(ignored) == ["base/baseline", "installBiz", "uninstallBiz"]


def test_they_are_made_where_the_operator_wants_it(
    base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path]
) -> None:
    remote.send("installBiz", order("old:1", module("old:1")), qos=1)

    base.connect(broker, period_s=60, obeys_retained=True)

    assert remote.next("bizOperation")["bizName"] == "old"


def test_a_baseline_is_brought_in_and_answered_with_a_biz_for_each_element(
    base: Behind, broker: RealBroker, remote: Remote, module: Callable[..., Path]
) -> None:
    base.install(module("prices:1"))
    base.connect(broker, period_s=60)
    remote.next("queryBaseline")
    wanted = [order("prices:2", module("prices:2")), order("new:1", module("new:1"))]
    wanted.append({**order("gone:1"), "bizUrl": "file:///nowhere.jar"})
    remote.send("base/baseline", wanted, qos=1)

    done = remote.next("batchInstallBizResponse")
    assert set(done) == {"command", "response"}
    assert (done["command"], done["response"]["code"]) == ("batchInstallBiz", "FAILED")
    entries = done["response"]["data"]["bizUrlToResponse"]
    states = {(info := entry["bizInfos"][0])["bizName"]: info["bizState"] for entry in entries.values()}
    assert states == {"prices": "ACTIVATED", "new": "ACTIVATED", "gone": "BROKEN"}
    assert {len(entry["bizInfos"]) for entry in entries.values()} == {1}
    assert sorted(base.states()) == [("new:1", "ACTIVATED"), ("prices:2", "ACTIVATED")]


def test_the_baseline_is_asked_for_until_a_controller_answers(base: Behind, broker: RealBroker, remote: Remote) -> None:
    base.connect(broker, period_s=0.02)
    for _ in range(3):
        remote.next("queryBaseline")
    remote.send("base/baseline", [], qos=1)

    assert remote.next("batchInstallBizResponse")["response"]["data"]["bizUrlToResponse"] == {}
    with contextlib.suppress(queue.Empty):
        while True:
            remote.got.get_nowait()
    for _ in range(13):
        remote.next("heart")
    assert remote.none("queryBaseline")


# --- a broker that is away -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon")
def test_a_broker_that_comes_back_finds_the_base_again_and_the_log_has_a_line_for_each_turn(
    base: Behind, broker: RealBroker, remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "koupleless.announce")
    base.connect(broker, period_s=0.1)
    remote.next("heart")
    broker.stop()
    until(lambda: len(said(caplog)) == 2)
    time.sleep(0.2)  # some more attempts, which say nothing
    broker.start()

    remote.next("heart")
    remote.send("health", {})
    assert remote.next("health")["code"] == "SUCCESS"
    at = f"the MQTT broker at 127.0.0.1:{broker.port}"
    first, lost, again = said(caplog)
    assert first == again == f"{at} carries the heartbeats of this base as base-7"
    assert lost.startswith(f"{at} cannot be reached: ")


def test_the_answer_to_an_operation_that_ended_without_a_connection_comes_after_the_next_connect(
    base: Behind,
    broker: RealBroker,
    remote: Remote,
    module: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_connect = threading.Event()
    subscribe = Session._subscribe

    async def subscribe_later(*arguments: Any) -> None:
        await asyncio.to_thread(may_connect.wait, DEADLINE_S)
        await subscribe(*arguments)

    base.connect(broker, period_s=60)
    remote.next("heart")
    slow = module("prices:1", "import time\ntime.sleep(0.3)\ndef app(e, s): s('200 OK', []); return [b'1']\n")
    remote.send("installBiz", order("prices:1", slow))
    until(lambda: base.states() == [("prices:1", "RESOLVED")])
    monkeypatch.setattr(Session, "_subscribe", subscribe_later)
    break_connection(broker)
    until(lambda: base.states() == [("prices:1", "ACTIVATED")])
    assert remote.none("bizOperation")
    may_connect.set()

    done = remote.next("bizOperation")
    assert (done["bizName"], done["response"]["code"]) == ("prices", "SUCCESS")


def test_a_base_ends_without_a_wait_for_a_broker_that_is_not_there(
    base: Behind, broker: RealBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    session = base.connect(broker)
    until(lambda: said(caplog))

    begin = time.monotonic()
    session.close()
    assert time.monotonic() - begin < 1
    assert len(said(caplog)) == 1


def test_a_base_ends_without_a_wait_for_a_broker_that_says_nothing(base: Behind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        fake: Any = type("Mute", (), {"host": "127.0.0.1", "port": mute.getsockname()[1]})
        session = base.connect(fake)
        connection, _ = mute.accept()
        begin = time.monotonic()
        session.close()
        assert time.monotonic() - begin < 2
        connection.close()


# --- TLS, and the settings -------------------------------------------------------------------------------------------


def test_over_tls_with_a_certificate_the_base_is_let_in(
    base: Behind, tls_broker: RealBroker, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "koupleless.announce")
    shown = authority.issue("base")

    base.connect(tls_broker, issuers=authority.certificate, certificate=shown.certificate, key=shown.key)
    until(lambda: any("carries the heartbeats" in line for line in said(caplog)))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # paho-mqtt closes no socket whose handshake failed
def test_over_tls_without_a_certificate_or_trust_the_base_is_not_let_in(
    base: Behind,
    tls_broker: RealBroker,
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("koupleless.announce.session._TIMEOUT_S", 0.5)
    base.connect(tls_broker, issuers=authority.certificate)
    until(lambda: any("cannot be reached" in line for line in said(caplog)))
    caplog.clear()
    base.connect(tls_broker, is_secure=True)
    until(lambda: any("certificate verify failed" in line for line in said(caplog)))
    base.end_sessions()
    gc.collect()


def test_settings_of_no_use_are_refused(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"arklet.mqtt.ca-path: .*/none.pem cannot be used"):
        Broker.of("mq", issuers=tmp_path / "none.pem")
    with pytest.raises(SettingsError, match=r"arklet.mqtt.client-crt-path: .*/none.pem cannot be used"):
        Broker.of("mq", issuers=authority.certificate, certificate=tmp_path / "none.pem")
    with pytest.raises(SettingsError, match="the connection speaks no TLS"):
        Broker.of("mq", certificate=authority.certificate)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'koupleless\[mqtt\]'"):
        Broker.of("mq")


def test_ports_are_the_usual_ones_unless_named(authority: Authority) -> None:
    assert Broker.of("mq").port == 1883
    assert Broker.of("mq", issuers=authority.certificate).port == 8883
    assert Broker.of("mq", 1234, is_secure=True).port == 1234


@pytest.mark.usefixtures("soon")
def test_the_password_is_read_for_each_connect_and_shown_to_nobody(
    base: Behind,
    broker: RealBroker,
    remote: Remote,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    passwords = iter(["first-secret", "second-secret", "third-secret"])
    session = base.connect(broker, username="me", read_password=lambda: next(passwords))
    remote.next("heart")
    broker.stop()
    broker.start()
    remote.next("heart")

    until(lambda: next(passwords, None) != "second-secret")
    assert "secret" not in caplog.text
    assert "secret" not in repr(session._broker)


def test_the_outbox_is_bounded_and_keeps_what_lasts() -> None:
    async def run() -> None:
        outbox = Outbox()
        for number in range(MOST_LETTERS + 5):
            outbox.put("a", str(number).encode(), is_lasting=number % 2 == 0)
        assert (await outbox.first()).content == b"5"
        outbox.renew()
        first = await outbox.first()
        assert first.content == b"6"
        outbox.drop(first)
        outbox.drop(first)
        assert (await outbox.first()).content == b"8"

    asyncio.run(run())
