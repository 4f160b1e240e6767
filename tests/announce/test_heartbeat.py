"""A base tells its controller that it serves, and that it ends; a controller in trouble is none of the base's."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.conftest import free_port, until

from koupleless.adapters import prometheus
from koupleless.announce.announcer import Announcer
from koupleless.announce.controller import Controller, check_names
from koupleless.announce.fortune import Pulse
from koupleless.announce.heartbeat import Heartbeat
from koupleless.arklet.health import BaseMetadata
from koupleless.errors import SettingsError
from koupleless.wire.announcements import BaseStatus, Metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.controllers import FakeController

    from koupleless.announce.baseline import Baseline

NO_BASELINE = cast("Baseline", None)
METADATA = BaseMetadata(identity="10.0.0.7", name="shop", version="1.2", local_ip="127.0.0.1", host_name="base-0")


@pytest.fixture
def announce() -> Iterator[Callable[..., Announcer]]:
    """``announce(url, **of_controller)`` begins to tell a controller of a base."""
    made: list[Announcer] = []

    def start(url: str, metadata: BaseMetadata = METADATA, **options: Any) -> Announcer:
        made.append(Announcer(metadata, NO_BASELINE, controller=Controller.of(url, **options)))
        made[-1].begin(1240)
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def beating() -> Iterator[Callable[..., Heartbeat]]:
    """``beating(url, period_s)`` begins a heartbeat alone."""
    made: list[Heartbeat] = []

    def start(url: str, period_s: float) -> Heartbeat:
        made.append(Heartbeat(Controller.of(url), status, period_s=period_s))
        made[-1].begin()
        return made[-1]

    yield start
    for one in made:
        one.close()


def status(serves: bool) -> BaseStatus:
    return BaseStatus(base_metadata=Metadata(identity="10.0.0.7"), state="ACTIVATED" if serves else "DEACTIVATED")


def last_success() -> float:
    return max(
        value
        for read in list(prometheus._readers.values())
        for family in read()
        if family.name == "koupleless_controller_last_success_timestamp_seconds"
        for value in family.values.values()
        if isinstance(value, float)
    )


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "koupleless.announce"]


def test_the_first_beat_comes_at_once_and_says_who_the_base_is(
    announce: Callable[..., Announcer], controller: FakeController
) -> None:
    announce(controller.url)

    beat = controller.beat()
    assert len(beat.pop("startId")) == 16
    assert beat == {
        "baseMetadata": {"identity": "10.0.0.7", "name": "shop", "version": "1.2", "clusterName": "default"},
        "localIP": "127.0.0.1",
        "localHostName": "base-0",
        "port": 1240,
        "state": "ACTIVATED",
        "servicePort": 0,
    }


def test_a_base_that_starts_again_under_its_identity_is_told_from_the_one_before(
    announce: Callable[..., Announcer], controller: FakeController
) -> None:
    announce(controller.url).close()
    first, last = controller.beat(), controller.beat()
    announce(controller.url)
    second = controller.beat()

    assert (first["state"], last["state"], second["state"]) == ("ACTIVATED", "DEACTIVATED", "ACTIVATED")
    assert first["startId"] == last["startId"] != second["startId"]


def test_the_last_beat_comes_at_once_when_the_base_begins_to_end_and_none_after_it(
    beating: Callable[..., Heartbeat], controller: FakeController
) -> None:
    heartbeat = beating(controller.url, 0.01)
    for _ in range(3):
        assert controller.beat()["state"] == "ACTIVATED"
    heartbeat.leave()
    controller.until("DEACTIVATED")
    heartbeat.close()
    until(lambda: not any(thread.name.startswith("koupleless-heartbeat") for thread in threading.enumerate()))

    # A beat that was under way already may come in after the last one; no other does.
    assert sum(1 for _ in iter(lambda: controller.heard.qsize() and controller.heard.get(), 0)) <= 1


def test_a_controller_that_is_away_is_told_when_it_comes_and_the_log_has_one_line_for_each_turn(
    beating: Callable[..., Heartbeat], controllers: Callable[..., FakeController], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "koupleless.announce")
    port, before = free_port(), time.time()
    beating(f"http://127.0.0.1:{port}", 0.05)
    until(lambda: said(caplog))
    time.sleep(0.2)  # some more attempts, which say nothing
    assert last_success() == 0

    controller = controllers(port)
    for _ in range(3):
        controller.beat()
    until(lambda: len(said(caplog)) == 2)
    assert last_success() >= before

    controller.status, controller.text = 400, "json: cannot unmarshal"
    until(lambda: len(said(caplog)) == 3)
    for _ in range(3):
        controller.beat()
    controller.status = 200
    until(lambda: len(said(caplog)) == 4)

    at = f"the controller at http://127.0.0.1:{port}"
    assert said(caplog) == [
        f"{at} cannot be reached: Connection refused; tried again until it answers",
        f"{at} knows this base as 10.0.0.7",
        f"{at} answers 400: json: cannot unmarshal; tried again until it answers",
        f"{at} knows this base as 10.0.0.7",
    ]


def test_a_controller_that_never_answers_holds_nobody(
    announce: Callable[..., Announcer], controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.announce.heartbeat._LAST_S", 0.2)
    controller.holding.clear()

    begin = time.monotonic()
    announcer = announce(controller.url)
    assert time.monotonic() - begin < 1
    controller.beat()

    begin = time.monotonic()
    announcer.leave()
    assert time.monotonic() - begin < 1
    assert controller.beat()["state"] == "DEACTIVATED"  # though the beat before waits for its answer still
    announcer.close()
    assert time.monotonic() - begin < 3


def test_a_name_that_is_looked_up_for_ever_holds_nobody(
    announce: Callable[..., Announcer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.announce.heartbeat._LAST_S", 0.1)
    monkeypatch.setattr("koupleless.announce.heartbeat._GRACE_S", 0.1)
    over = threading.Event()

    def look_up(*_: object, **__: object) -> socket.socket:
        over.wait(20)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", look_up)

    begin = time.monotonic()
    announce("http://controller.example:7777").close()
    took_s = time.monotonic() - begin
    over.set()
    assert took_s < 2


def test_failures_are_followed_by_pauses_that_grow_up_to_the_period() -> None:
    pulse = Pulse(12)

    assert [round(pulse.after(is_success=False)) for _ in range(2)] == [1, 2]
    later = [pulse.after(is_success=False) for _ in range(5)]
    assert later[0] < 5 < later[1] < 9 < min(later[2:]) <= max(later) < 13.3
    assert pulse.after(is_success=True) == 12
    assert round(pulse.after(is_success=False)) == 1


def test_an_error_that_nobody_has_thought_of_ends_no_heartbeat(
    beating: Callable[..., Heartbeat], controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([ZeroDivisionError("of all errors")])
    post = Controller.post

    def fail_once(*args: Any, **options: Any) -> bytes:
        for error in failures:
            raise error
        return post(*args, **options)

    monkeypatch.setattr(Controller, "post", fail_once)
    monkeypatch.setattr("koupleless.announce.heartbeat.Pulse", lambda period_s: Pulse(period_s, first_s=0.01))
    beating(controller.url, 0.01)

    assert controller.beat()["state"] == "ACTIVATED"


# --- security --------------------------------------------------------------------------------------------------------


def test_the_token_is_sent_as_it_is_in_its_file_at_the_moment(
    announce: Callable[..., Announcer], controller: FakeController, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = iter(["first-secret", "second-secret"])
    announcer = announce(controller.url, read_token=lambda: next(tokens))

    assert controller.next("/heartbeat").headers["authorization"] == "Bearer first-secret"
    announcer.close()
    assert controller.next("/heartbeat").headers["authorization"] == "Bearer second-secret"
    assert "secret" not in caplog.text
    assert "secret" not in repr(vars(announcer))


def test_a_controller_with_a_certificate_is_believed_if_its_issuer_is_named(
    announce: Callable[..., Announcer],
    controllers: Callable[..., FakeController],
    certificate: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    controller = controllers(tls=context)

    announce(controller.url)
    until(lambda: "cannot be trusted" in caplog.text)
    assert controller.heard.empty()

    announce(controller.url, ca=certificate)
    assert controller.beat()["state"] == "ACTIVATED"


def test_issuers_that_are_of_no_use_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(SettingsError, match=r"arklet.controller.ca: .*no.pem cannot be used"):
        Controller.of("https://controller", ca=tmp_path / "no.pem")
    with pytest.raises(SettingsError, match="is not called by https"):
        Controller.of("http://controller", ca=tmp_path / "no.pem")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"identity": "Base_1"}, "arklet.identity"),
        ({"identity": "a/b"}, "arklet.identity"),
        ({"identity": "10.0.0.7", "environment": "pro d"}, "arklet.environment"),
        ({"identity": "10.0.0.7", "cluster": "über"}, "arklet.cluster"),
        ({"identity": "10.0.0.7", "version": "1.0+build"}, "version"),
        ({"identity": "10.0.0.7", "name": "a" * 64}, "name"),
    ],
)
def test_values_that_become_names_in_a_cluster_are_checked(values: dict[str, Any], key: str) -> None:
    with pytest.raises(SettingsError, match=f"{key} = "):
        check_names(BaseMetadata(**values))


def test_names_of_a_base_without_a_network_pass() -> None:
    check_names(BaseMetadata.of_this_machine())
    check_names(BaseMetadata(identity="unknown-a1b2c", environment="Prod"))


def test_a_base_that_no_other_machine_can_call_is_told_so(
    announce: Callable[..., Announcer], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    announce("http://192.0.2.1:7777")

    assert "cannot call this base, whose arklet listens on 127.0.0.1" in caplog.text
