"""The MQTT tunnel with a real broker: Java bases, lost words, brokers that come and go, hostile messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiomqtt
import pytest
from tests.controller.behind import ENV, Ear, JavaBehindBroker, heartbeat, letter, play, soon, tunnel_on

from koupleless.controller.tunnels.answers import Outcome
from koupleless.controller.tunnels.mqtt.clocks import Clocks
from koupleless.controller.tunnels.tunnel import Deaf, Limits, NoAnswer
from koupleless.controller.vnodes.base import AnnouncedBase, BaseState, Way
from koupleless.controller.vpods.actual import State, table_of
from koupleless.controller.vpods.module import Module, ModuleKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.certificates import Authority
    from tests.mqtt.broker import Broker

BASE = AnnouncedBase("10.0.0.7", "shop", "1.0.0", "default", "127.0.0.1", "b", 0, BaseState.ACTIVATED, way=Way.MQTT)
ORDERS, ORDERS_2 = ModuleKey("orders", "1"), ModuleKey("orders", "2")
MODULE = Module("orders", ORDERS, "https://repo.example/orders.zip", ("--fast",), {"TOKEN": "t0ken"})
ROOT = f"koupleless_{ENV}/{BASE.identity}"


@pytest.mark.parametrize("word", [str.lower, str.upper], ids=["small", "capital"])
@pytest.mark.parametrize("whole_lists", [False, True], ids=["simpleBiz", "biz"])
def test_a_java_base_is_heard_asked_and_told(broker: Broker, word: Callable[[str], str], whole_lists: bool) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker(word=word, whole_lists=whole_lists)
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            await soon(lambda: ear.heard)
            assert ear.heard[0] == BASE
            assert (await tunnel.health(BASE)).is_active
            assert await tunnel.modules(BASE) == ()
            assert (await tunnel.install(BASE, MODULE)).outcome is Outcome.DONE
            assert table_of(await tunnel.modules(BASE))[ORDERS].state is State.ACTIVATED
            assert (await tunnel.install(BASE, MODULE)).reason == "AlreadyInstalled"
            assert (await tunnel.uninstall(BASE, ORDERS)).outcome is Outcome.DONE
            assert (await tunnel.uninstall(BASE, ORDERS)).outcome is Outcome.DONE  # is not there
            assert await tunnel.modules(BASE) == ()
        sent = next(json.loads(content) for command, content, _ in java.received if command == "installBiz")
        assert sent == {"bizName": "orders", "bizVersion": "1", "bizUrl": "https://repo.example/orders.zip",
                        "args": ["--fast"], "envs": {"TOKEN": "t0ken"}}  # fmt: skip
        assert not any(is_kept for _, _, is_kept in java.received)
        assert ear.changes == []

    play(act)


def test_a_failure_comes_in_the_words_of_the_base(broker: Broker) -> None:
    async def act() -> None:
        java = JavaBehindBroker(broken={"orders"})
        async with tunnel_on(broker, Ear()) as tunnel, java.connected(broker):
            answer = await tunnel.install(BASE, MODULE)
            assert (answer.outcome, answer.reason) == (Outcome.REFUSED, "InstallFailed")
            assert answer.message

    play(act)


def test_a_base_of_the_original_switches_where_no_other_version_answers(broker: Broker) -> None:
    async def act() -> None:
        java = JavaBehindBroker()
        async with tunnel_on(broker, Ear()) as tunnel, java.connected(broker):
            await tunnel.install(BASE, MODULE)
            await tunnel.install(BASE, replace(MODULE, key=ORDERS_2))
            assert java.states() == {"orders:1": "activated", "orders:2": "deactivated"}
            answer = await tunnel.switch(BASE, ORDERS_2)
            assert (answer.outcome, answer.reason) == (Outcome.REFUSED, "NoSwitch")
            assert "activate.new.module" in answer.message
            await tunnel.uninstall(BASE, ORDERS)
            assert (await tunnel.switch(BASE, ORDERS_2)).reason == "Reinstalling"
            await tunnel.install(BASE, replace(MODULE, key=ORDERS_2))
            assert java.states() == {"orders:2": "activated"}

    play(act)


# --- words that are lost, doubled or late -----------------------------------------------------------------------------


def test_a_base_without_an_answer_holds_nobody_up_for_long(broker: Broker) -> None:
    async def act() -> None:
        async with tunnel_on(broker, Ear(), limits=Limits(health_s=0.05, list_s=0.05)) as tunnel:
            for ask in (tunnel.health, tunnel.modules):
                with pytest.raises(NoAnswer, match=r"base 10\.0\.0\.7 gives no answer to"):
                    await ask(BASE)
            with pytest.raises(
                NoAnswer, match="gives no answer to health"
            ):  # asked first, as nobody has heard the base
                await tunnel.install(BASE, MODULE)
            with pytest.raises(NoAnswer, match="no part of a topic"):
                await tunnel.health(replace(BASE, identity="a/+"))

    play(act)


def test_a_question_that_came_before_the_base_had_subscribed_is_asked_again_at_once(broker: Broker) -> None:
    async def act() -> None:
        java = JavaBehindBroker()
        async with tunnel_on(broker, Ear()) as tunnel, asyncio.timeout(Limits().health_s):
            asking = [asyncio.create_task(ask(BASE)) for ask in (tunnel.health, tunnel.modules)]
            installing = asyncio.create_task(tunnel.install(BASE, MODULE))  # "health" is open, and answers for both
            await soon(lambda: len(tunnel._pending._open) == 2)
            await asyncio.sleep(0)
            async with java.connected(broker):
                await asyncio.gather(*asking)
                with pytest.raises(NoAnswer, match="has not answered the last health yet"):
                    await installing
                assert (await tunnel.install(BASE, MODULE)).outcome is Outcome.DONE

    play(act)


def test_a_question_is_not_asked_twice_at_a_time(broker: Broker) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        java.hold.clear()
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            await soon(lambda: ear.heard)
            first = asyncio.create_task(tunnel.install(BASE, MODULE))
            await soon(lambda: java.calls)
            with pytest.raises(NoAnswer, match="has not answered the last installBiz orders:1 yet"):
                await tunnel.install(BASE, MODULE)
            java.hold.set()
            assert (await first).outcome is Outcome.DONE
            assert java.calls == ["installBiz orders:1"]

    play(act)


def test_a_change_lost_on_the_way_to_the_base_is_sent_again(broker: Broker) -> None:
    async def act() -> None:
        java = JavaBehindBroker(deaf={"installBiz", "uninstallBiz"})
        async with tunnel_on(broker, Ear(), doubt_s=0.3) as tunnel, java.connected(broker):
            assert (await tunnel.install(BASE, MODULE)).outcome is Outcome.DONE
            assert (await tunnel.uninstall(BASE, ORDERS)).outcome is Outcome.DONE
            assert java.calls == ["installBiz orders:1", "uninstallBiz orders:1"]

    play(act)


def test_the_list_tells_of_a_change_with_an_answer_that_was_lost(broker: Broker) -> None:
    async def act() -> None:
        java = JavaBehindBroker(loses={"installBiz", "uninstallBiz"})
        async with tunnel_on(broker, Ear(), doubt_s=0.3) as tunnel, java.connected(broker):
            answer = await tunnel.install(BASE, MODULE)
            assert (answer.outcome, answer.reason) == (Outcome.UNCERTAIN, "AnswerLost")
            assert (await tunnel.uninstall(BASE, ORDERS)).outcome is Outcome.DONE
            assert java.calls == ["installBiz orders:1", "uninstallBiz orders:1"]

    play(act)


def test_a_base_at_work_is_waited_for_though_it_calls_the_repeated_command_a_conflict(broker: Broker) -> None:
    async def act() -> None:
        java = JavaBehindBroker()
        java.hold.clear()
        async with tunnel_on(broker, Ear(), doubt_s=0.3) as tunnel, java.connected(broker):
            installing = asyncio.create_task(tunnel.install(BASE, MODULE))
            await soon(lambda: "installBiz orders:1 amid another" in java.calls)
            java.hold.set()
            assert (await installing).outcome is Outcome.DONE

    play(act)


def test_an_answer_delivered_twice_answers_once_and_has_the_list_asked_for(broker: Broker) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            await tunnel.install(BASE, MODULE)
            response = {"code": "FAILED", "data": {"code": "REPEAT_BIZ"}}
            done = {"command": "installBiz", "bizName": "orders", "bizVersion": "1", "response": response}
            await java.say("bizOperation", done)
            await soon(lambda: ear.changes == [BASE.identity])
            assert (await tunnel.uninstall(BASE, ORDERS)).outcome is Outcome.DONE

    play(act)


def test_a_late_answer_to_an_earlier_question_is_no_answer_to_the_next(broker: Broker) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker(behind_s=3600)
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            await soon(lambda: ear.heard)
            java.deaf.add("queryAllBiz")
            asking = asyncio.create_task(tunnel.modules(BASE))
            await soon(lambda: java.received)
            await java.publish("simpleBiz", letter([{"name": "gone", "version": "1"}], behind_s=java.behind_s + 5))
            await java.say("simpleBiz", [{"name": "here", "version": "1"}])
            assert [one["name"] for one in await asking] == ["here"]

    play(act)


@pytest.mark.parametrize("infos", [None, [], [{"bizName": "orders", "bizVersion": "1", "bizState": 4}]])
def test_the_outcome_of_a_batch_has_the_list_asked_for_whatever_it_says(broker: Broker, infos: Any) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            await tunnel.health(BASE)  # from now on the answers of the base are heard
            entry = {"code": "FAILED", "message": "no", "bizInfos": infos}
            data = {"code": "FAILED", "bizUrlToResponse": {"https://x/": entry}}
            await java.say("batchInstallBizResponse", {"command": "batchInstallBiz", "response": {"data": data}})
            await soon(lambda: ear.changes == [BASE.identity])

    play(act)


def test_a_base_that_restarts_or_ends_amid_a_change_gives_no_answer_any_more(broker: Broker) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        java.hold.clear()
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            for last, words in ({"startId": "two"}, "restarted"), ({"state": "deactivated"}, "ended"):
                await java.beat(startId="one")
                await soon(lambda: ear.heard and ear.heard[-1].start == "one")
                changing = asyncio.create_task(tunnel.install(BASE, MODULE))
                await soon(lambda: java.calls)
                await java.beat(**last)
                with pytest.raises(NoAnswer, match=words):
                    await changing

    play(act)


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("behind_s", "words"), [(45, "45 s behind"), (-45, "45 s ahead of")])
def test_a_base_with_another_time_is_heard_and_the_log_says_so_once(
    broker: Broker, caplog: pytest.LogCaptureFixture, behind_s: float, words: str
) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker(behind_s=behind_s)
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            await java.beat()
            await soon(lambda: len(ear.heard) == 2)
            assert (await tunnel.install(BASE, MODULE)).outcome is Outcome.DONE
        told = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
        assert len(told) == 1
        assert f"base 10.0.0.7: its clock is {words}" in told[0]

    play(act)


def test_a_heartbeat_that_took_longer_than_the_others_is_late() -> None:
    now = [1_000.0]
    clocks = Clocks(clock=lambda: now[0], wall=lambda: now[0] + 5)

    def is_late(made_s: float) -> bool:
        return clocks.is_late("b", int(made_s * 1_000))

    assert not is_late(940)  # the clock of the base is a minute behind
    now[0] += 10
    assert not is_late(950)
    now[0] += 21
    assert is_late(960)
    assert not is_late(981)
    assert not clocks.is_late("b", 253_402_300_799_000)  # a last will
    assert not clocks.is_late("b", None)
    now[0] += 10
    assert is_late(971)  # the clock of the base was set back by twenty seconds,
    now[0] += 10
    assert not is_late(981)  # and is believed from now on
    assert clocks.is_older("b", 900_000, now[0])
    assert not clocks.is_older("b", 981_000, now[0])
    clocks.forget(now[0] + 1)
    assert not clocks.is_older("b", 900_000, now[0])


# --- the broker -------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_away_at_the_start_is_tried_again(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def act() -> None:
        broker.stop()
        async with tunnel_on(broker, Ear(), is_up=False) as tunnel:
            await soon(lambda: "cannot be reached" in tunnel.trouble)
            with pytest.raises(NoAnswer, match=r"the MQTT broker at 127\.0\.0\.1:\d+ cannot be reached"):
                await tunnel.health(BASE)
            broker.start()
            await soon(lambda: not tunnel.trouble)
        assert sum("tried again until it answers" in record.getMessage() for record in caplog.records) == 1

    play(act)


def test_all_subscriptions_are_renewed_after_a_restart_of_the_broker_amid_installs(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koupleless.controller.tunnels.mqtt.link._STEADY_S", 0)

    async def act() -> None:
        ear = Ear()
        bases = [JavaBehindBroker(identity=f"10.0.0.{number}") for number in range(5)]
        async with tunnel_on(broker, ear, doubt_s=0.1) as tunnel:
            for _ in range(3):
                async with asyncio.TaskGroup() as connecting:
                    stack = [base.connected(broker) for base in bases]
                    for one in stack:
                        connecting.create_task(one.__aenter__())
                for base in bases:
                    base.bizs.clear()
                    base.hold.clear()
                modules = [(replace(BASE, identity=base.identity), MODULE) for base in bases]
                for base in bases:
                    base.calls.clear()
                installs = [asyncio.create_task(tunnel.install(*one)) for one in modules]
                await soon(lambda: all(base.calls for base in bases))
                broker.stop()
                for install in installs:
                    with pytest.raises(NoAnswer, match="the MQTT broker at"):
                        await install
                for one in stack:
                    with contextlib.suppress(aiomqtt.MqttError):
                        await one.__aexit__(None, None, None)
                broker.start()
                await soon(lambda: not tunnel.trouble)
            for base in bases:
                base.hold.set()
                base._under_way.clear()
                async with base.connected(broker):
                    me = replace(BASE, identity=base.identity)
                    await base.say("batchInstallBizResponse", {})
                    await soon(lambda: base.identity in ear.changes)  # noqa: B023 - awaited here; heard unasked
                    assert (await tunnel.health(me)).is_active
                    assert (await tunnel.install(me, MODULE)).outcome is Outcome.DONE

    play(act)


def test_silence_after_a_connect_is_the_fault_of_a_base_only_after_a_while(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        async with tunnel_on(broker, ear, limits=Limits(health_s=0.5)) as tunnel:
            with pytest.raises(Deaf, match="within"):
                await tunnel.health(BASE)
            async with java.connected(broker):
                await soon(lambda: ear.heard)
                java.deaf.add("health")
                with pytest.raises(NoAnswer, match="within") as heard:
                    await tunnel.health(BASE)
                assert not isinstance(heard.value, Deaf)
            monkeypatch.setattr("koupleless.controller.tunnels.mqtt.tunnel._GRACE_S", 0)
            with pytest.raises(NoAnswer, match="within") as never_heard:
                await tunnel.health(replace(BASE, identity="other"))
            assert not isinstance(never_heard.value, Deaf)

    play(act)


def test_a_broker_that_hangs_holds_nobody_up_and_is_left(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("koupleless.controller.tunnels.mqtt.link._ACK_S", 0.1)

    async def act() -> None:
        java = JavaBehindBroker()
        async with tunnel_on(broker, Ear()) as tunnel, java.connected(broker):
            await tunnel.health(BASE)
            assert broker._running is not None
            os.kill(broker._running.pid, signal.SIGSTOP)
            with pytest.raises(Deaf, match="has not confirmed a message"):
                await tunnel.health(BASE)
            os.kill(broker._running.pid, signal.SIGCONT)
            assert (await tunnel.health(BASE)).is_active

    play(act)


def test_two_controllers_of_one_name_do_not_knock_for_ever_at_once(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        async with tunnel_on(broker, Ear()), tunnel_on(broker, Ear(), is_up=False):
            await asyncio.sleep(2)
        connects = broker.log().count("New client connected")
        assert 2 <= connects <= 8

    play(act)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # paho-mqtt closes no socket whose handshake failed
def test_over_tls_the_controller_shows_its_certificate_and_checks_the_broker(
    tls_broker: Broker, authority: Authority, tmp_path: Any
) -> None:
    mine = authority.issue("controller")

    async def act() -> None:
        tls = {"ca": authority.certificate, "certificate": mine.certificate, "key": mine.key}
        async with tunnel_on(tls_broker, Ear(), tls=tls) as tunnel:
            assert not tunnel.trouble
        async with tunnel_on(tls_broker, Ear(), is_up=False, tls={**tls, "ca": None}) as tunnel:
            await soon(lambda: "certificate verify failed" in tunnel.trouble)
        async with tunnel_on(tls_broker, Ear(), is_up=False, tls={"ca": authority.certificate}) as tunnel:
            await soon(lambda: "did not return a certificate" in tls_broker.log())
            with pytest.raises(NoAnswer):
                await tunnel.health(BASE)

    play(act)


def test_commands_kept_from_an_earlier_controller_are_cleared_and_others_stay(broker: Broker) -> None:
    async def act() -> None:
        kept = [f"{ROOT}/{command}" for command in ("installBiz", "uninstallBiz", "health", "queryAllBiz")]
        others = ["koupleless_prod/10.0.0.7/installBiz", f"{ROOT}/base/info"]
        async with aiomqtt.Client(broker.host, broker.port) as client:
            for topic in (*kept, f"{ROOT}/base/baseline", *others):
                await client.publish(topic, b"{}", qos=1, retain=True)

        async def found() -> set[str]:
            async with aiomqtt.Client(broker.host, broker.port) as client:
                await client.subscribe("#", qos=1)
                await client.publish("end", b"", qos=1)
                topics = set()
                async for message in client.messages:
                    if message.topic.value == "end":
                        break
                    topics.add(message.topic.value)
                return topics

        assert await found() == {*kept, f"{ROOT}/base/baseline", *others}
        java = JavaBehindBroker()
        async with tunnel_on(broker, Ear()) as tunnel:
            async with asyncio.timeout(10):
                while await found() != set(others):  # noqa: ASYNC110 - the broker tells it nowhere else
                    await asyncio.sleep(0.02)
            async with java.connected(broker):
                assert (await tunnel.health(BASE)).is_active
        assert java.calls == []

    play(act)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_base_asks_for_its_baseline_and_gets_a_bare_array(broker: Broker) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        async with tunnel_on(broker, ear), java.connected(broker):
            for cluster, expected in ("default", ear.modules), ("other", []):
                java.received.clear()
                await java.say("queryBaseline", {"identity": BASE.identity, "clusterName": cluster})
                await soon(lambda: java.received)
                command, content, is_kept = java.received[0]
                assert (command, json.loads(content), is_kept) == ("baseline", expected, False)

    play(act)


HOSTILE: list[tuple[str, bytes]] = [
    ("heart", b""),
    ("heart", b"{"),
    ("heart", b"[" * 100_000),
    ("heart", b"\xff\xfe"),
    ("heart", b"x" * (1 << 17)),
    ("heart", b"7"),
    ("heart", letter(None).encode()),
    ("heart", letter(heartbeat("10.0.0.8")).encode()),  # in the name of another base
    ("heart", letter(heartbeat("10.0.0.7", port="1238")).encode()),
    ("heart", json.dumps({"publishTimestamp": 10**40, "data": {"baseMetadata": {"identity": 7}}}).encode()),
    ("queryBaseline", b"7"),
    ("queryBaseline", letter([1]).encode()),
    ("health", letter({"code": 7}).encode()),
    ("health", letter(None).encode()),
    ("simpleBiz", letter({"name": 1}).encode()),
    ("biz", letter([]).encode()),
    ("bizOperation", letter(None).encode()),
    ("bizOperation", letter({"command": {}}).encode()),
    ("bizOperation", letter({"command": "installBiz", "bizName": [], "response": {"code": 1}}).encode()),
    ("batchInstallBizResponse", letter([[]]).encode()),
    ("unheardOf", b"{}"),
]


def test_hostile_messages_end_nothing_and_fill_no_log(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            await tunnel.health(BASE)
            for _ in range(5):
                for kind, content in HOSTILE:
                    await java.publish(kind, content)
            await java.publish("heart", letter(heartbeat("10.0.0.7", localHostName="late")), retain=True)
            await java.beat(localHostName="last")
            await soon(lambda: ear.heard and ear.heard[-1].host == "last")
            assert (await tunnel.install(BASE, MODULE)).outcome is Outcome.DONE
        assert {base.identity for base in ear.heard} == {BASE.identity}

    with caplog.at_level(logging.INFO, "koupleless.controller"):
        play(act)
    assert sum("is ignored" in record.getMessage() for record in caplog.records) == 1
    assert not any(record.levelno >= logging.ERROR for record in caplog.records)


def test_a_kept_heartbeat_of_a_former_life_is_no_sign_of_life(broker: Broker) -> None:
    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker()
        async with aiomqtt.Client(broker.host, broker.port) as client:
            await client.publish(f"koupleless_{ENV}/dead/base/heart", letter(heartbeat("dead")), qos=1, retain=True)
        async with tunnel_on(broker, ear), java.connected(broker):
            await soon(lambda: ear.heard)
        assert [base.identity for base in ear.heard] == [BASE.identity]

    play(act)


FLOOD = """
import json, sys, time
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
host, port, env, count, heart = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
client = paho.Client(CallbackAPIVersion.VERSION2)
client.connect(host, port)
client.loop_start()
for number in range(count):
    identity = f"base-{number % 1000}"
    letter = {"publishTimestamp": int(time.time() * 1000), "data": json.loads(heart.replace("NAME", identity))}
    sent = client.publish(f"koupleless_{env}/{identity}/base/heart", json.dumps(letter), qos=1)
sent.wait_for_publish(60)
client.disconnect()
client.loop_stop()
"""


def test_ten_thousand_heartbeats_are_heard_amid_commands(broker: Broker) -> None:
    count = 10_000

    async def act() -> None:
        ear, java = Ear(), JavaBehindBroker(identity="base-0")
        me = replace(BASE, identity="base-0")
        async with tunnel_on(broker, ear) as tunnel, java.connected(broker):
            arguments = (broker.host, str(broker.port), ENV, str(count), json.dumps(heartbeat("NAME")))
            flood = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOOD, *arguments)
            await soon(lambda: len(ear.heard) > 1)
            rounds = 0
            while len(ear.heard) <= count:
                assert (await tunnel.install(me, MODULE)).outcome is Outcome.DONE
                assert (await tunnel.uninstall(me, ORDERS)).outcome is Outcome.DONE
                rounds += 1
            assert await flood.wait() == 0
            assert rounds
            assert len({base.identity for base in ear.heard}) == 1_000

    play(act)
