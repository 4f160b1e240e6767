"""Mocks that were started, hooks of threads, tracemalloc and tables by class: undone when the biz leaves."""

from __future__ import annotations

import asyncio
import copy
import optparse
import pprint
import sys
import threading
import tracemalloc
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from koupleless.context import entered

MakeBiz = Callable[[str], Any]
MakeModule = Callable[[str, str], types.ModuleType]


def on_thread(function: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture
def target(base_module: MakeModule) -> types.ModuleType:
    return base_module("mocked", "LIMIT = 1\nTABLE = {'a': 1}\ndef f():\n    return 'original'\n")


def test_mocks_that_were_never_stopped_are_stopped(biz: Any, target: Any) -> None:
    original = target.f
    biz.run(
        """
        from unittest import mock
        mock.patch("mocked.f", K.reach).start()
        mock.patch.object(target, "LIMIT", K).start()
        mock.patch.multiple(target, LIMIT=2, f=reach).start()
        mock.patch.dict(target.TABLE, {"a": 2, "b": K}).start()
        """,
        target=target,
    )
    assert target.LIMIT == 2
    target.TABLE["later"] = 1
    report = biz.leave()
    assert report.clean, report.summary()
    assert report.undone["mock"] == 4
    assert (target.f, target.LIMIT, target.TABLE) == (original, 1, {"a": 1, "later": 1})
    assert not mock._patch._active_patches  # type: ignore[attr-defined]


def test_a_mock_that_was_stopped_is_forgotten(biz: Any, target: Any) -> None:
    biz.run(
        """
        from unittest import mock
        patcher = mock.patch.object(target, "LIMIT", 2)
        patcher.start()
        patcher.stop()
        """,
        target=target,
    )
    assert not len(biz.ledger)
    assert "mock" not in biz.leave().undone


@pytest.mark.parametrize("first", [0, 1])
def test_two_bizs_mock_the_same_thing_and_leave_in_any_order(make_biz: MakeBiz, target: Any, first: int) -> None:
    original = target.f
    bizs = [make_biz("one"), make_biz("two")]
    for biz in bizs:
        biz.run("from unittest import mock\nmock.patch.object(target, 'f', reach).start()", target=target)
    for biz in (bizs[first], bizs[1 - first]):
        report = biz.leave()
        assert report.clean, report.summary()
    assert target.f is original
    assert not mock._patch._active_patches  # type: ignore[attr-defined]


def test_stopall_stops_those_of_whoever_calls_it(make_biz: MakeBiz, target: Any) -> None:
    one, two = make_biz("one"), make_biz("two")
    of_base: Any = mock.patch.object(target, "TABLE", {})
    of_base.start()
    one.run("from unittest import mock\nmock.patch.object(target, 'f', 1).start()", target=target)
    two.run("from unittest import mock\nmock.patch.object(target, 'LIMIT', 2).start()", target=target)
    with entered(one.scope):
        mock.patch.stopall()
    assert (target.LIMIT, target.TABLE) == (2, {})
    assert target.f() == "original"
    mock.patch.stopall()
    assert (target.LIMIT, target.TABLE) == (2, {"a": 1})
    assert two.leave().clean
    assert one.leave().clean
    assert target.LIMIT == 1


def test_hooks_for_asynchronous_generators_are_called_for_the_biz_alone_and_end_with_it(biz: Any) -> None:
    async def items() -> Any:
        yield 1

    def visit() -> None:
        generator = items()
        with pytest.raises(StopIteration):
            generator.asend(None).send(None)

    def work() -> Any:
        seen: list[str] = []
        sys.set_asyncgen_hooks(firstiter=lambda _: seen.append("base"))
        module = biz.run(
            """
            import sys
            seen = []
            sys.set_asyncgen_hooks(firstiter=lambda generator: seen.append(K), finalizer=reach)
            """
        )
        with entered(biz.scope):
            visit()
        visit()
        result = list(seen), len(module.seen)
        del module
        report = biz.leave()
        visit()
        return *result, report, list(seen), sys.get_asyncgen_hooks().finalizer

    before, own, report, after, _ = on_thread(work)
    assert (before, own, after) == (["base"], 1, ["base", "base"])
    assert report.clean, report.summary()


def test_the_hooks_of_a_loop_that_a_biz_runs_are_left_to_it(biz: Any) -> None:
    def work() -> Any:
        module = biz.run(
            """
            import asyncio, sys
            async def items():
                yield 1
            async def main():
                async for item in items():
                    return item, sys.get_asyncgen_hooks().firstiter.__self__ is asyncio.get_running_loop()
            result = asyncio.run(main())
            """
        )
        return module.result, sys.get_asyncgen_hooks().firstiter

    assert on_thread(work) == ((1, True), None)
    assert biz.leave().clean
    assert asyncio.iscoroutinefunction(work) is False


def test_tracing_of_memory_that_a_biz_started_ends_with_it_and_the_bases_goes_on(make_biz: MakeBiz) -> None:
    assert not tracemalloc.is_tracing()
    one = make_biz("one")
    one.run("import tracemalloc\ntracemalloc.start()")
    assert tracemalloc.is_tracing()
    assert one.leave().undone["tracemalloc"] == 1
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        two = make_biz("two")
        two.run("import tracemalloc\ntracemalloc.start()\ntracemalloc.stop()")
        assert tracemalloc.is_tracing()
        assert two.leave().clean
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_tables_by_class_lose_the_entries_of_the_biz(biz: Any) -> None:
    sizes = len(copy._deepcopy_dispatch), len(pprint.PrettyPrinter._dispatch)  # type: ignore[attr-defined]
    biz.run(
        """
        import copy, pickle, pprint
        from multiprocessing.reduction import ForkingPickler
        copy._deepcopy_dispatch[K] = reach
        getattr(copy, "_copy_dispatch", {})[K] = reach
        pickle._Pickler.dispatch[K] = reach
        pprint.PrettyPrinter._dispatch[K.__repr__] = reach
        ForkingPickler.register(K, reach)
        """
    )
    report = biz.leave()
    assert report.clean, report.summary()
    assert report.undone["table by class"] == 4 + hasattr(copy, "_copy_dispatch")  # which 3.14 has no more
    assert sizes == (len(copy._deepcopy_dispatch), len(pprint.PrettyPrinter._dispatch))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "source",
    [
        "import ctypes\nclass S(ctypes.Structure):\n    def reach(self): return K\nctypes.POINTER(S)",
        "import ctypes\nclass S(ctypes.Structure):\n    def reach(self): return K\nctypes.CFUNCTYPE(ctypes.c_int, S)",
        "import email.contentmanager as m\nm.raw_data_manager.add_get_handler('x/tiny', reach)",
        "import email.contentmanager as m\nm.raw_data_manager.add_set_handler(K, reach)",
        "import email.policy\nemail.policy.default.header_factory.map_to_type('x-tiny', K)",
        "import encodings\nencodings._cache['tiny'] = (reach, None, None, None)",
        "import http.server\nhttp.server.SimpleHTTPRequestHandler.extensions_map['.tiny'] = K",
        "import optparse\noptparse.Option.TYPE_CHECKER['tiny'] = reach",
        "import optparse\noptparse.Option.CHECK_METHODS.append(reach)",
        "import unittest\nunittest.addModuleCleanup(reach)",
        "import xml.dom\nxml.dom.registerDOMImplementation('tiny', reach)",
        "import xmlrpc.client\nxmlrpc.client.Marshaller.dispatch[K] = reach",
        "import xmlrpc.client\nxmlrpc.client.Unmarshaller.dispatch['tiny'] = reach",
    ],
)
def test_registries_of_the_standard_library_that_nobody_has_named(biz: Any, source: str) -> None:
    biz.run(source)
    report = biz.leave()
    assert report.clean, report.summary()


def test_entries_of_others_in_them_stay(make_biz: MakeBiz) -> None:
    checks = optparse.Option.TYPE_CHECKER
    before = dict(checks)
    bizs = [make_biz("one"), make_biz("two")]
    for biz in bizs:
        biz.run("import optparse\noptparse.Option.TYPE_CHECKER[NAME] = reach", NAME=biz.scope.biz.name)
    try:
        assert bizs[0].leave().undone == {"registry": 1}
        assert list(checks) == [*before, "two"]
    finally:
        bizs[1].leave()
    assert checks == before


def test_what_stands_for_something_that_runs_is_not_struck_out(biz: Any) -> None:
    go = threading.Event()
    source = "import threading\nclass Own(threading.Thread):\n    def run(self):\n        go.wait(10)\n"
    thread = biz.run(source, go=go).Own(daemon=True)
    thread.start()  # as the base, which therefore has it
    report = biz.leave()
    assert not report.clean
    assert thread in threading.enumerate()
    go.set()
    thread.join(10)
    assert not thread.is_alive()
