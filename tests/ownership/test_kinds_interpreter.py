"""What the interpreter and the standard library keep: a module registers one thing, the base another of its kind."""

from __future__ import annotations

import atexit
import codecs
import copyreg
import fractions
import gc
import logging
import multiprocessing.util
import os
import pickle
import sys
import threading
import types
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ownership.conftest import Trial


class Kind:
    """A class of the base."""


@pytest.fixture
def append() -> Iterator[Callable[[list[Any], Any], Any]]:
    """Put something of the base into a list of the process, for the length of a test."""
    added: list[tuple[list[Any], Any]] = []

    def put(target: list[Any], thing: Any) -> Any:
        target.append(thing)
        added.append((target, thing))
        return thing

    yield put
    for target, thing in added:
        target.remove(thing)


# --- exit functions, codecs, copyreg ---------------------------------------------------------------------------------


def test_atexit(trial: Trial) -> None:
    called: list[str] = []
    mine = atexit.register(called.append, "base")
    report = trial("import atexit\natexit.register(lambda: shared.called.append(K.__name__))", called=called)
    assert called == ["K"]
    assert report.undone["atexit"] == 1
    atexit.unregister(mine)


def test_codecs_register(trial: Trial) -> None:
    def search(name: str) -> codecs.CodecInfo | None:
        return codecs.lookup("ascii") if name == "base_codec" else None

    codecs.register(search)
    try:
        report = trial(
            """
            import codecs
            codecs.register(lambda name: K and codecs.lookup("ascii") if name == "row_codec" else None)
            assert "x".encode("row_codec") == b"x"
            """
        )
        assert report.undone["codec"] == 1
        assert "x".encode("base_codec") == b"x"
        with pytest.raises(LookupError):
            codecs.lookup("another_row_codec")
    finally:
        codecs.unregister(search)


def test_codecs_register_error(trial: Trial) -> None:
    codecs.register_error("row_base", lambda error: ("b", error.end))  # type: ignore[attr-defined]
    trial(
        """
        import codecs
        codecs.register_error("row_own", lambda error: (K.__name__, error.end))
        codecs.register_error("row_base", lambda error: (K.__name__, error.end))
        assert "ä".encode("ascii", "row_own") == "ä".encode("ascii", "row_base") == b"K"
        """
    )
    assert "ä".encode("ascii", "row_base") == b"b"
    with pytest.raises(LookupError, match="row_own"):
        "ä".encode("ascii", "row_own")


def reduce_base(value: Kind) -> tuple[type[Kind], tuple[()]]:
    return Kind, ()


def test_copyreg_pickle(trial: Trial) -> None:
    copyreg.pickle(Kind, reduce_base)
    try:
        report = trial(
            """
            import copyreg, fractions
            copyreg.pickle(shared.Kind, lambda value: (reach, ()))
            copyreg.pickle(fractions.Fraction, lambda value: (reach, ()))
            copyreg.pickle(K, reach)
            """,
            Kind=Kind,
        )
        assert report.undone["copyreg"] == 3
        assert copyreg.dispatch_table[Kind] is reduce_base
        assert fractions.Fraction not in copyreg.dispatch_table
        assert type(pickle.loads(pickle.dumps(Kind()))) is Kind
    finally:
        del copyreg.dispatch_table[Kind]


@pytest.mark.parametrize("first", [0, 1])
def test_copyreg_pickle_of_two_modules_that_leave_in_any_order(trial: Trial, first: int) -> None:
    source = """
    import copyreg, pickle
    def reduce(value):
        return str, (shared.who[-1],) if K else None
    copyreg.pickle(shared.Kind, lambda value, who=shared.who[-1]: (str, (who,)) if K else None)
    copyreg.pickle(shared.Kind, lambda value, who=shared.who[-1]: (str, (who,)) if K else None)
    def main():
        assert pickle.loads(pickle.dumps(shared.Kind())) == shared.who[-1]
    """
    one = trial.install(source, name="one", Kind=Kind, who=["one"])
    two = trial.install(source, name="two", Kind=Kind, who=["two"])
    leaving = [one, two]
    report = trial.leave(leaving.pop(first))
    assert report.clean, report.summary()
    report = trial.leave(leaving.pop())
    assert report.clean, report.summary()
    assert Kind not in copyreg.dispatch_table


def test_copyreg_dispatch_table_and_extension_codes(trial: Trial) -> None:
    copyreg.dispatch_table[Kind] = reduce_base
    copyreg.add_extension(__name__, "Kind", 240)
    try:
        trial(
            "import copyreg\ncopyreg.dispatch_table[shared.Kind] = reach\ncopyreg.dispatch_table[K] = reach", Kind=Kind
        )
        assert Kind not in copyreg.dispatch_table
    finally:
        copyreg.dispatch_table.pop(Kind, None)
        copyreg.remove_extension(__name__, "Kind", 240)


# --- what cannot be taken back ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # threads of other tests may be there
def test_os_register_at_fork(trial: Trial) -> None:
    called: list[str] = []
    os.register_at_fork(before=lambda: called.append("base"))
    trial("import os\nos.register_at_fork(before=lambda: shared.called.append(K.__name__))", called=called)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert called == ["base"]


def test_sys_addaudithook(trial: Trial) -> None:
    heard: list[str] = []
    is_on = [True]
    sys.addaudithook(lambda event, _: heard.append("base") if event == "row.event" and is_on else None)
    trial(
        """
        import sys
        sys.addaudithook(lambda event, args: shared.heard.append(K.__name__) if event == "row.event" else None)
        sys.audit("row.event")
        """,
        heard=heard,
    )
    assert sorted(heard) == ["K", "base"]
    sys.audit("row.event")
    assert sorted(heard) == ["K", "base", "base"]
    is_on.clear()


# --- hooks and lists -------------------------------------------------------------------------------------------------


HOOKS = (
    (sys, "excepthook"),
    (sys, "unraisablehook"),
    (sys, "displayhook"),
    (sys, "breakpointhook"),
    (threading, "excepthook"),
    (warnings, "showwarning"),
    (warnings, "formatwarning"),
    (gc, "callbacks"),
    (sys, "path_hooks"),
    (sys, "meta_path"),
)


@pytest.mark.parametrize(("module", "name"), HOOKS[:7], ids=[f"{m.__name__}.{n}" for m, n in HOOKS[:7]])
@pytest.mark.parametrize("of_base", ["default", "own"])
def test_a_hook_is_put_back(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, module: types.ModuleType, name: str, of_base: str
) -> None:
    if of_base == "own":
        monkeypatch.setattr(module, name, lambda *_: None)
    before = getattr(module, name)
    report = trial(f"import {module.__name__} as m\nm.{name} = reach\nassert m.{name} is reach")
    assert getattr(module, name) is before
    assert report.undone.get("hook", 0) <= 1


@pytest.mark.parametrize(("module", "name"), HOOKS[7:], ids=[f"{m.__name__}.{n}" for m, n in HOOKS[7:]])
def test_an_entry_of_a_list_is_taken_out(
    trial: Trial, append: Callable[[list[Any], Any], Any], module: types.ModuleType, name: str
) -> None:
    if name == "callbacks":
        mine = append(gc.callbacks, lambda *_: None)
    elif name == "path_hooks":

        def refuse(path: str) -> None:
            raise ImportError(path)

        mine = append(sys.path_hooks, refuse)
    else:
        mine = append(sys.meta_path, types.SimpleNamespace(find_spec=lambda *_: None))
    before = list(getattr(module, name))
    hook = "class H:\n    def find_spec(self, *_): return None\n    def __call__(self, *given):\n"
    hook += "        if len(given) == 1: raise ImportError\n"  # as a hook of paths; the collector's have two arguments
    trial(f"import {module.__name__} as m\n{hook}m.{name}.append(H())")
    assert list(getattr(module, name)) == before
    assert mine in getattr(module, name)


def test_the_finders_of_its_directories_are_forgotten(trial: Trial) -> None:
    trial(
        """
        import pkgutil, sys
        list(pkgutil.iter_modules([sys.path[0]]))
        assert sys.path[0] in sys.path_importer_cache
        shared.places.extend(place for place in sys.path_importer_cache if place.startswith(sys.path[0]))
        """,
        places=[],
    )
    assert trial.shared.places
    assert not set(trial.shared.places) & set(sys.path_importer_cache)


def test_warnings_filters_of_its_own_category(trial: Trial) -> None:
    warnings.filterwarnings("ignore", message="row of the base")
    mine = warnings.filters[0]
    report = trial(
        """
        import warnings
        class Own(UserWarning):
            reach = reach
        warnings.filterwarnings("ignore", category=Own)
        warnings.simplefilter("ignore", Own)
        """
    )
    assert "warnings filter" not in report.undone  # it was never the process's
    assert mine in warnings.filters
    assert "Own" not in str(warnings.filters)


def test_a_stored_exception(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        monkeypatch.delattr(sys, name, raising=False)
    trial(
        """
        import sys
        def fail():
            raise ValueError(K)
        try:
            fail()
        except ValueError as error:
            sys.last_exc = sys.last_value = error
            sys.last_type, sys.last_traceback = type(error), error.__traceback__
        """
    )
    assert not hasattr(sys, "last_value")


def test_an_exception_of_the_base_that_passed_through_it_is_truncated_by_nobody_and_named(trial: Trial) -> None:
    kept: list[Exception] = []
    identity = trial.install(
        """
        def fail():
            raise ValueError("row")
        try:
            fail()
        except ValueError as error:
            shared.kept.append(error)
        """,
        kept=kept,
    )
    report = trial.leave(identity)
    assert not report.clean
    assert "kept" in report.summary() or "traceback" in report.summary()


def test_source_lines_in_the_line_cache(trial: Trial) -> None:
    import linecache

    before = set(linecache.cache)
    trial("import linecache, traceback\nassert linecache.getline(__file__, 1)\ntraceback.format_stack()")
    assert not [name for name in set(linecache.cache) - before if name.endswith("app.py")]


# --- finalisers ------------------------------------------------------------------------------------------------------


def test_weakref_finalize_on_a_shared_object(trial: Trial) -> None:
    called: list[str] = []
    kind = Kind()
    mine = weakref.finalize(kind, called.append, "base")
    report = trial(
        "import weakref\nweakref.finalize(shared.kind, lambda: shared.called.append(K.__name__))", **locals()
    )
    assert called == ["K"]
    assert report.undone["finalizer"] == 1
    assert mine.alive
    mine()


def test_weakref_finalize_of_its_own_object(trial: Trial) -> None:
    called: list[str] = []
    trial("import weakref\nk = K()\nweakref.finalize(k, lambda: shared.called.append(K.__name__))", called=called)
    assert called == ["K"]


def test_weakref_finalize_with_what_leads_to_its_own_object(trial: Trial) -> None:
    """As a pool of urllib3: a finaliser that never runs by itself, since what it was given leads to its object."""

    class Pool:
        def __init__(self) -> None:
            self.idle: list[Any] = []
            weakref.finalize(self, list.clear, self.idle)

    of_base = Pool()
    of_base.idle.append(of_base)
    report = trial(
        """
        pool = shared.pool()
        connection = shared.connection()
        connection.kept = K(), pool
        pool.idle.append(connection)
        """,
        pool=Pool,
        connection=Kind,
    )
    assert report.undone["finalizer"] == 1
    assert of_base.idle == [of_base]
    of_base.idle.clear()


def test_a_class_whose_name_leads_to_it(trial: Trial) -> None:
    """As those of proxies of Celery; the collector is not shown what a class is called."""
    trial(
        """
        class Name(str):
            pass


        for attribute in ("__name__", "__qualname__"):
            name = Name("K")
            name.kind = K
            setattr(K, attribute, name)
        """
    )


def test_multiprocessing_finalisers(trial: Trial) -> None:
    kind = Kind()
    mine = multiprocessing.util.Finalize(kind, print, exitpriority=None)
    trial(
        """
        from multiprocessing.util import Finalize, register_after_fork
        Finalize(shared.kind, reach, exitpriority=1)
        register_after_fork(shared.kind, reach)
        """,
        kind=kind,
    )
    assert mine.still_active()
    mine.cancel()
    after_fork: Any = multiprocessing.util._afterfork_registry  # type: ignore[attr-defined]
    assert not any(key[2].__name__ == "reach" for key in after_fork)


# --- logging ---------------------------------------------------------------------------------------------------------


def test_handlers_filters_and_names_of_loggers(trial: Trial) -> None:
    shared_logger = logging.getLogger("every_row.shared")
    handler, only = logging.NullHandler(), logging.Filter("every_row")
    shared_logger.addHandler(handler)
    shared_logger.addFilter(only)
    before = set(logging.root.manager.loggerDict)
    roots = list(logging.root.handlers)
    trial(
        """
        import logging
        class Own(logging.Handler):
            emit = reach
        logging.basicConfig(handlers=[Own()])
        logging.getLogger("row.one.two").addHandler(Own())
        logging.getLogger("row.filtered").addFilter(lambda record: True if K else False)
        shared.logger.addHandler(Own())
        shared.logger.addFilter(reach)
        logging.addLevelName(33, "ROW")
        logging.setLoggerClass(type("Mine", (logging.Logger,), {"reach": reach}))
        logging.getLogger("row.mine")
        logging.setLoggerClass(logging.Logger)
        logging.setLogRecordFactory(lambda *a, **k: (K, logging.LogRecord(*a, **k))[1])
        """,
        logger=shared_logger,
    )
    assert shared_logger.handlers == [handler]
    assert shared_logger.filters == [only]
    assert logging.root.handlers == roots
    assert set(logging.root.manager.loggerDict) == before
    assert logging.getLevelName(33) == "Level 33"
    assert logging.getLogRecordFactory() is logging.LogRecord
