"""The warnings of a biz: its own filters, and its own way to show them."""

import gc
import io
import logging
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from koupleless.context import Scope, entered
from koupleless.view.standard.warning import WARNINGS, Warnings

MakeBiz = Callable[..., Scope]


pytestmark = pytest.mark.usefixtures("with_warnings")


def warn(text: str = "hello", category: type[Warning] = UserWarning) -> None:
    """From a place that has shown nothing yet."""
    warnings.warn_explicit(text, category, "somewhere.py", 1)


@pytest.fixture
def on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the warnings of the base as an ordinary process does; pytest keeps them to itself."""

    def show(message: Any) -> None:
        sys.stderr.write(warnings._formatwarnmsg(message))  # type: ignore[attr-defined]

    monkeypatch.setattr(warnings, "_showwarnmsg_impl", show)


def test_a_filter_of_a_biz_counts_for_it_alone(make_biz: MakeBiz) -> None:
    one, two = make_biz("one"), make_biz("two")
    before = list(warnings.filters)
    with entered(one):
        warnings.simplefilter("ignore")
        warn()
    with entered(two), pytest.raises(UserWarning, match="hello"):  # as the tests are set up
        warn()
    with pytest.raises(UserWarning, match="hello"):
        warn()
    assert list(warnings.filters) == before
    with entered(one):
        warn()


def test_a_biz_has_the_filters_of_the_process_until_it_sets_its_own(make_biz: MakeBiz) -> None:
    biz = make_biz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with entered(biz):
            warn()
            warnings.filterwarnings("error", message="own", append=True)
            warnings.filterwarnings("error", message="first")
            warnings.filterwarnings("error", message="first")
            assert [entry[0] for entry in warnings.filters].count("error") >= 2
            with pytest.raises(UserWarning):
                warn("first")
        assert warnings.filters[0][0] == "ignore"
        warn("first")
    with entered(biz):
        warn()  # what the process forgets since is the biz's by now


def test_what_catch_warnings_puts_back_is_the_process_s_again(make_biz: MakeBiz) -> None:
    biz = make_biz()
    with entered(biz):
        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            warn("kept")
        assert [str(one.message) for one in recorded] == ["kept"]
    assert biz.facet(Warnings).own.keys() == {"onceregistry"}


def test_bizs_in_catch_warnings_at_once_do_not_undo_each_other(make_biz: MakeBiz) -> None:
    """In one process of their own these two would: the first one out takes the other's filters along."""
    before, turns = list(warnings.filters), threading.Barrier(2, timeout=30)
    seen: list[str] = []

    def first() -> None:
        with entered(make_biz("one")):
            with warnings.catch_warnings():
                turns.wait()
                turns.wait()
            turns.wait()

    def second() -> None:
        with entered(make_biz("two")):
            turns.wait()
            with warnings.catch_warnings(record=True) as recorded:
                warnings.simplefilter("always")
                turns.wait()
                turns.wait()
                warn("late")
            seen.extend(str(one.message) for one in recorded)

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == ["late"]
    assert list(warnings.filters) == before


def test_a_block_ends_with_what_it_began_with_whoever_is_in_another_meanwhile(make_biz: MakeBiz) -> None:
    biz, before, recorded_by_base = make_biz(), list(warnings.filters), []
    with warnings.catch_warnings(record=True) as recorded:
        with entered(biz):
            block = warnings.catch_warnings()
            block.__enter__()
            warnings.simplefilter("error")
        recorded_by_base = recorded
    with entered(biz):
        block.__exit__(None, None, None)
        assert biz.facet(Warnings).own.keys() == {"onceregistry"}, "neither the filters nor the log of the base"
        with pytest.raises(UserWarning):
            warn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with entered(biz):
            shown = warnings.filters
        kept = list(shown)
    with entered(biz):
        warnings.filters = shown  # what was the process's for a while
        warnings.simplefilter("always")
    biz.facet(Warnings).close()
    assert list(warnings.filters) == before
    assert shown == kept
    assert recorded_by_base == []


def test_a_block_puts_back_what_python_s_does_and_no_more(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        warnings.simplefilter("ignore")
        filters = warnings.filters
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.formatwarning = lambda *_: "own"
        assert warnings.filters is filters
        assert warnings.formatwarning("", UserWarning, "", 1) == "own"


def test_a_block_of_the_base_that_ends_in_a_biz_is_the_base_s(make_biz: MakeBiz) -> None:
    before = warnings.filters
    block = warnings.catch_warnings()
    block.__enter__()
    with entered(make_biz()):
        block.__exit__(None, None, None)
        with pytest.raises(RuntimeError, match="without entering"):
            warnings.catch_warnings().__exit__(None, None, None)
    assert warnings.filters is before


@pytest.mark.usefixtures("on_stderr")
def test_a_biz_shows_and_formats_its_own(make_biz: MakeBiz, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with entered(make_biz("one")):
            warnings.showwarning = lambda message, *_: shown.append(str(message))
            warn("of one")
        with entered(make_biz("two")):
            warnings.formatwarning = lambda message, *_: f"<{message}>"
            warn("of two")
        warn("of the base")
    assert shown == ["of one"]
    written = capsys.readouterr().err
    assert written.startswith("<of two>")
    assert "UserWarning: of the base" in written


def test_a_block_records_what_reaches_the_module_s_own_function_by_that_of_a_biz(make_biz: MakeBiz) -> None:
    def record() -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            show = warnings.showwarning
            warnings.showwarning = lambda message, *rest: show(f"moved {message}", *rest)
            warn()
        return [f"{each.filename}:{each.lineno} {each.message}" for each in caught]

    alone = record()
    with entered(make_biz()):
        assert record() == alone == ["somewhere.py:1 moved hello"]


def test_what_shows_warnings_must_be_callable(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        warnings.simplefilter("always")
        warnings.showwarning = None  # type: ignore[assignment]
        with pytest.raises(TypeError, match="showwarning"):
            warn()


@pytest.mark.usefixtures("on_stderr")
def test_a_reset_is_the_biz_s_own(make_biz: MakeBiz, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(warnings.filters)
    with entered(make_biz()):
        warnings.resetwarnings()
        assert warnings.filters == []
        warn("default")
    assert "default" in capsys.readouterr().err
    assert list(warnings.filters) == before


def test_once_is_once_for_each_biz(make_biz: MakeBiz) -> None:
    counts = []
    for name in ("one", "two"):
        with entered(make_biz(name)), warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("once")
            for _ in range(3):
                warn("the same")
            counts.append(len(recorded))
    assert counts == [1, 1]


def test_a_biz_captures_its_own_and_gives_them_back(make_biz: MakeBiz, with_logs: None) -> None:
    before = warnings.showwarning
    with entered(make_biz()):
        warnings.simplefilter("always")
        stream = io.StringIO()
        logging.basicConfig(stream=stream)
        logging.captureWarnings(True)
        logging.captureWarnings(True)
        warn("to the log")
        assert "WARNING:py.warnings:somewhere.py:1: UserWarning: to the log" in stream.getvalue()
        logging.captureWarnings(False)
        assert warnings.showwarning is before
    assert warnings.showwarning is before


def test_a_deleted_variable_is_the_process_s_again(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        warnings.showwarning = lambda *_: None
        del warnings.showwarning
        assert warnings.showwarning is vars(warnings)["showwarning"]


def test_the_base_sets_them_as_ever() -> None:
    module = sys.modules["warnings"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "formatwarning", print)
        assert vars(module)["formatwarning"] is print
        patch.delattr(module, "formatwarning")
        with pytest.raises(AttributeError, match="has no attribute 'formatwarning'"):
            _ = module.formatwarning
    assert vars(module)["formatwarning"] is warnings.formatwarning


def test_nothing_of_a_closed_biz_is_kept_and_its_late_code_changes_nothing(make_biz: MakeBiz) -> None:
    biz, before = make_biz(), list(warnings.filters)
    category = type("Own", (UserWarning,), {})
    with entered(biz):
        warnings.simplefilter("ignore", category)
        warn("ignored", category)  # the interpreter has the list now
        warnings.onceregistry = {("text", category): 1}  # type: ignore[attr-defined]
    gone = weakref.ref(category)
    biz.facet(Warnings).close()
    biz.close()
    del category
    gc.collect()
    assert gone() is None
    with entered(biz), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.resetwarnings()
    assert list(warnings.filters) == before


def test_filters_of_a_block_that_has_ended_are_not_kept(make_biz: MakeBiz) -> None:
    """The interpreter holds the list that it has looked at last, in a block perhaps."""
    biz = make_biz()
    category = type("Own", (UserWarning,), {})
    with entered(biz), warnings.catch_warnings():
        warnings.simplefilter("ignore", category)
        warn("ignored", category)
    gone = weakref.ref(category)
    biz.facet(Warnings).close()
    biz.close()
    del category
    gc.collect()
    assert gone() is None
    with pytest.raises(UserWarning, match="hello"):
        warn()


def test_the_last_removal_restores_the_module_exactly() -> None:
    WARNINGS.release()
    before = dict(vars(warnings))
    WARNINGS.acquire()
    WARNINGS.acquire()
    WARNINGS.release()
    assert type(warnings) is not types.ModuleType
    WARNINGS.release()
    assert type(warnings) is types.ModuleType
    assert {name: value for name, value in vars(warnings).items() if before.get(name) is not value} == {}
    WARNINGS.acquire()
