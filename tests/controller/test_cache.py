"""The cache of a kind has what the API server has, whatever happens on the way, and tells keys."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from tests.controller.conftest import secured, unsecured
from tests.kube.fixtures import programs
from tests.kube.memory.faults import Fault
from tests.kube.memory.kinds import KINDS
from tests.kube.memory.serving import served
from tests.kube.plane import hold

from koupleless.controller.cluster.api import Api, Key, Kind
from koupleless.controller.cluster.cache import Cache, Pace
from koupleless.controller.cluster.delays import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.kube.memory.app import MemoryServer

CONFIGS = KINDS["", "configmaps"]
QUICK = Pace(watch_s=20, quiet_s=10, look_again_s=0, page=2, backoff=Backoff(first_s=0.005, longest_s=0.05))
NOT_BEFORE_S = 5


def data_of(document: dict[str, Any]) -> dict[str, str]:
    data: dict[str, str] = document.get("data") or {}
    return data


class Scene:
    """An API server in memory, with config maps of one namespace, and a cache that follows it."""

    def __init__(self, url: str, memory: MemoryServer) -> None:
        self.url = url
        self.memory = memory
        self.told: list[str] = []

    def put(self, name: str, value: str = "1", **labels: str) -> None:
        body = {"metadata": {"name": name, "labels": labels}, "data": {"a": value}}
        store = self.memory.store
        if any(found["metadata"]["name"] == name for found in store.all_of(CONFIGS, "default")):
            store.update(CONFIGS, "default", name, body)
        else:
            store.create(CONFIGS, "default", body)

    def delete(self, name: str) -> None:
        self.memory.store.delete(CONFIGS, "default", name, {})

    def count(self, verb: str) -> int:
        return sum(seen.verb == verb for seen in self.memory.seen)

    @contextlib.asynccontextmanager
    async def following(self, **options: Any) -> AsyncIterator[Cache[dict[str, str]]]:
        config = unsecured(self.url)
        async with Api(config) as api:
            options = {"pace": QUICK, "index": lambda data: (data.get("a", ""),), **options}
            cache = Cache(api, Kind("/api/v1/configmaps", data_of), lambda key: self.told.append(key.name), **options)
            running = asyncio.create_task(cache.run())
            try:
                yield cache
            finally:
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running

    async def same(self, cache: Cache[dict[str, str]]) -> None:
        """Wait until the cache has what the server has."""

        def is_same() -> bool:
            keys = [*cache.keys()]
            there = self.memory.store.all_of(CONFIGS, "")
            return {Key("default", one["metadata"]["name"]): data_of(one) for one in there} == {
                key: cache.get(key) for key in keys
            }

        await soon(is_same)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what can be seen, and gives no other sign
            await asyncio.sleep(0.002)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with served() as (url, memory):
        yield Scene(url, memory)


def play(script: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60):
            await script()

    asyncio.run(whole())


# --- in order


def test_what_is_there_is_read_in_pages_and_told_once(scene):
    for name in "abcde":
        scene.put(name)

    async def script() -> None:
        async with scene.following() as cache:
            assert not cache.is_synced
            await cache.synced()
            assert sorted(cache.keys()) == [Key("default", name) for name in "abcde"]
            assert cache.get(Key("default", "a")) == {"a": "1"}
            assert cache.get(Key("default", "z")) is None

    play(script)
    assert sorted(scene.told) == [*"abcde"]
    assert scene.count("list") == 3


def test_changes_are_told_after_they_can_be_read(scene):
    seen: list[tuple[str, object]] = []

    async def script() -> None:
        async with scene.following() as cache:
            cache._content._changed = lambda key: seen.append((key.name, cache.get(key)))
            await cache.synced()
            for value in ("1", "2"):
                scene.put("a", value)
            scene.delete("a")
            await soon(lambda: len(seen) == 3)

    play(script)
    assert seen == [("a", {"a": "1"}), ("a", {"a": "2"}), ("a", None)]


def test_a_selector_is_the_servers_and_what_it_finds_no_more_is_gone(scene):
    scene.put("a", of="us")
    scene.put("b", of="others")

    async def script() -> None:
        async with scene.following(labels="of=us") as cache:
            await cache.synced()
            assert [*cache.keys()] == [Key("default", "a")]
            scene.put("b", of="us")
            await soon(lambda: len(cache) == 2)
            scene.put("a", of="others")
            await soon(lambda: len(cache) == 1)
            assert scene.told[-1] == "a"

    play(script)


def test_the_index_follows_each_change(scene):
    for name, value in (("a", "x"), ("b", "x"), ("c", "y")):
        scene.put(name, value)

    async def script() -> None:
        async with scene.following() as cache:
            await cache.synced()
            scene.put("b", "y")
            scene.delete("a")
            await scene.same(cache)
            assert [*cache.of("x")] == []
            assert [*cache.of("y")] == [{"a": "y"}, {"a": "y"}]
            assert cache._content.indexed.keys() == {"y"}

    play(script)


def test_an_object_that_cannot_be_read_hides_no_other_and_is_told(scene, caplog):
    scene.put("a")

    def read(document: dict[str, Any]) -> dict[str, str]:
        if document["metadata"]["name"] == "bad":
            raise KeyError("spec")
        return data_of(document)

    async def script() -> None:
        async with Api(unsecured(scene.url)) as api:
            cache = Cache(api, Kind("/api/v1/configmaps", read), lambda key: scene.told.append(key.name), pace=QUICK)
            running = asyncio.create_task(cache.run())
            await cache.synced()
            scene.put("bad")
            scene.put("b")
            await soon(lambda: len(cache) == 2)
            assert scene.told == ["a", "bad", "b"]
            assert cache.get(Key("default", "bad")) is None
            running.cancel()

    play(script)
    assert "default/bad cannot be read" in caplog.text


def test_all_keys_are_told_again_from_time_to_time(scene):
    scene.put("a")

    async def script() -> None:
        async with scene.following(pace=Pace(look_again_s=0.02)):
            await soon(lambda: len(scene.told) > 3)

    play(script)
    assert set(scene.told) == {"a"}


# --- faults


def test_watches_that_end_in_order_go_on_without_a_list(scene):
    scene.put("a")

    async def script() -> None:
        for _ in range(4):
            scene.memory.faults.add(Fault("watch", "configmaps", events=1))
        async with scene.following() as cache:
            await cache.synced()
            for value in "23456":
                scene.put("a", value)
                await scene.same(cache)

    play(script)
    assert scene.count("list") == 1
    assert scene.count("watch") >= 4


def test_a_cut_watch_loses_nothing_and_needs_no_list(scene):
    scene.put("a")

    async def script() -> None:
        scene.memory.faults.add(Fault("watch", "configmaps", events=1, is_cut=True))
        async with scene.following() as cache:
            await cache.synced()
            for name in "bcd":
                scene.put(name)
            await scene.same(cache)

    play(script)
    assert scene.told == [*"abcd"]
    assert scene.count("list") == 1


@pytest.mark.parametrize("fault", [{"status": 410}, {"events": 0, "code": 410}], ids=["as an answer", "in the stream"])
def test_a_version_that_is_gone_leads_to_a_list_that_tells_the_differences_alone(scene, fault):
    for name in "abc":
        scene.put(name)

    async def script() -> None:
        async with scene.following() as cache:
            await cache.synced()
            await soon(lambda: scene.count("watch") == 1)
            scene.memory.faults.add(Fault("watch", "configmaps", times=3, status=500))
            scene.memory.faults.add(Fault("watch", "configmaps", **fault))
            scene.memory.faults.add(Fault("list", "configmaps", status=500))
            end_watches(scene)
            scene.told.clear()
            scene.put("b", "2")
            scene.delete("c")
            scene.put("d")
            await scene.same(cache)
            await soon(lambda: len(scene.told) == 3)

    play(script)
    assert sorted(scene.told) == ["b", "c", "d"]


def end_watches(scene: Scene) -> None:
    """Have open watches end with the next change: their place in the log is forgotten."""
    scene.memory.store.compact()


def test_a_log_that_was_compacted_leads_to_a_list(scene):
    scene.put("a")

    async def script() -> None:
        async with scene.following() as cache:
            await cache.synced()
            await soon(lambda: scene.count("watch") == 1)
            with scene.memory.store.lock:
                scene.put("b")
                scene.memory.store.compact()
            await scene.same(cache)

    play(script)
    assert scene.count("list") >= 2


def test_a_server_that_is_asked_too_much_is_left_alone_as_long_as_it_asks(scene):
    async def script() -> None:
        scene.memory.faults.add(Fault("list", "configmaps", status=429, headers={"Retry-After": "1"}))
        async with scene.following() as cache:
            await soon(lambda: bool(cache.trouble))
            assert "429" in cache.trouble
            assert "429" in repr(cache)
            before = asyncio.get_running_loop().time()
            await cache.synced()
            assert asyncio.get_running_loop().time() - before > 0.9
            await soon(lambda: not cache.trouble)

    play(script)
    assert scene.count("list") == 2


def test_errors_of_the_server_are_waited_for_and_the_content_stays(scene):
    scene.put("a")

    async def script() -> None:
        async with scene.following() as cache:
            await cache.synced()
            await soon(lambda: scene.count("watch") == 1)
            scene.memory.faults.add(Fault("watch", "configmaps", times=20, status=500))
            scene.memory.faults.add(Fault("list", "configmaps", times=2, status=500))
            with scene.memory.store.lock:
                scene.put("b")
                scene.memory.store.compact()
            await soon(lambda: bool(cache.trouble))
            assert cache.is_synced
            assert cache.get(Key("default", "a")) == {"a": "1"}
            await scene.same(cache)

    play(script)


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_in_trouble_is_not_asked_for_lists_besides(scene, status):
    async def script() -> None:
        scene.memory.faults.add(Fault("watch", "configmaps", times=12, status=status))
        async with scene.following() as cache:
            await soon(lambda: scene.count("watch") == 13)
            scene.put("a")
            await scene.same(cache)

    play(script)
    assert scene.count("list") == 1


def test_a_version_that_the_server_does_not_know_leads_to_a_list(scene):
    async def script() -> None:
        scene.memory.faults.add(Fault("watch", "configmaps", times=5, status=504))  # restored from a copy
        async with scene.following() as cache:
            await soon(lambda: scene.count("list") == 2)
            scene.put("a")
            await scene.same(cache)

    play(script)
    assert scene.count("list") == 2


def test_a_slow_list_keeps_what_is_known_until_it_is_there(scene):
    scene.put("a")

    async def script() -> None:
        async with scene.following() as cache:
            await cache.synced()
            await soon(lambda: scene.count("watch") == 1)
            scene.memory.faults.add(Fault("list", "configmaps", delay_s=0.3))
            with scene.memory.store.lock:
                scene.delete("a")
                scene.put("b")
                scene.memory.store.compact()
            await soon(lambda: scene.count("list") == 2)
            assert cache.get(Key("default", "a")) == {"a": "1"}
            await scene.same(cache)

    play(script)


def test_pages_that_the_server_has_forgotten_come_all_at_once(scene):
    for name in "abcde":
        scene.put(name)

    async def script() -> None:
        scene.memory.faults.add(Fault("list", "configmaps"))  # the first page as it is
        scene.memory.faults.add(Fault("list", "configmaps", status=410))
        async with scene.following() as cache:
            await cache.synced()
            assert len(cache) == 5

    play(script)
    assert [dict(seen.query).get("limit") for seen in scene.memory.seen if seen.verb == "list"] == ["2", "2", "0"]


def test_a_silent_connection_is_taken_for_broken(scene):
    scene.put("a")

    async def script() -> None:
        scene.memory.faults.add(Fault("watch", "configmaps", delay_s=5))
        async with scene.following(pace=Pace(quiet_s=0.3, look_again_s=0, backoff=QUICK.backoff)) as cache:
            await cache.synced()
            scene.put("b")
            await scene.same(cache)

    play(script)
    assert scene.count("watch") == 2


def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause(scene):
    async def script() -> None:
        scene.memory.faults.add(Fault("watch", "configmaps", times=1_000_000, events=0))
        async with scene.following() as cache:
            await soon(lambda: bool(cache.trouble))
            before = scene.count("watch")
            await asyncio.sleep(0.5)
            assert scene.count("watch") - before < 40

    play(script)


def test_a_server_that_is_away_is_waited_for(scene):
    async def script() -> None:
        async with Api(unsecured("http://127.0.0.1:9")) as api:
            cache = Cache(api, Kind("/api/v1/configmaps", data_of), lambda _: None, pace=QUICK)
            running = asyncio.create_task(cache.run())
            await soon(lambda: "not reached" in cache.trouble)
            assert not cache.is_synced
            running.cancel()

    play(script)


# --- the real one


@pytest.mark.kube
def test_the_real_server_is_followed_alike(control_plane, kube, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for index in range(5):
        kube.post(path, json={"metadata": {"name": f"m{index}", "labels": {"of": "us"}}, "data": {"a": "1"}})
    told: list[str] = []

    async def script() -> None:
        async with Api(secured(control_plane, "admin")) as api:
            kind = Kind(path, data_of)
            cache = Cache(
                api, kind, lambda key: told.append(key.name), labels="of=us", index=lambda d: (d["a"],), pace=QUICK
            )
            running = asyncio.create_task(cache.run())
            await cache.synced()
            assert sorted(told) == [f"m{index}" for index in range(5)]
            told.clear()
            await asyncio.to_thread(kube.patch, f"{path}/m0", json={"data": {"a": "2"}}, headers=MERGE)
            await asyncio.to_thread(kube.delete, f"{path}/m1")
            await soon(lambda: told == ["m0", "m1"])
            assert [*cache.of("2")] == [{"a": "2"}]
            running.cancel()

    play(script)


MERGE = {"Content-Type": "application/merge-patch+json"}


@pytest.mark.kube
@pytest.mark.timeout(240)
def test_the_real_server_is_followed_over_its_restart(tmp_path):
    held = hold(tmp_path, programs())  # of this test alone, as others would be disturbed
    path = "/api/v1/namespaces/default/configmaps"
    told: list[str] = []

    async def script() -> None:
        async with Api(secured(held.access, "admin")) as api:
            ours = {"by": "this-test"}  # each namespace gets a ConfigMap of the controller manager, at some time
            await api.create(path, {"metadata": {"name": "before", "labels": ours}, "data": {"a": "1"}})
            cache = Cache(
                api, Kind(path, data_of), lambda key: told.append(key.name), labels="by=this-test", pace=QUICK
            )
            running = asyncio.create_task(cache.run())
            await cache.synced()
            await soon(lambda: "before" in told)
            told.clear()

            restarting = asyncio.create_task(asyncio.to_thread(held.restart, "kube-apiserver"))
            await soon(lambda: bool(cache.trouble))
            assert cache.get(Key("default", "before")) == {"a": "1"}
            await restarting
            await api.create(path, {"metadata": {"name": "after", "labels": ours}})
            await soon(lambda: Key("default", "after") in [*cache.keys()])
            await api.delete(f"{path}/before")
            await soon(lambda: Key("default", "before") not in [*cache.keys()])
            assert told == ["after", "before"]
            assert not cache.trouble
            running.cancel()

    try:
        play(script)
    finally:
        held.release()
