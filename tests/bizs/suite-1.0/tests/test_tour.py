"""Runs alone and inside a biz; every line of it is something that suites of well-known libraries do."""

import concurrent.futures
import copy
import doctest
import importlib
import importlib.metadata
import importlib.resources
import inspect
import logging
import multiprocessing
import os
import pickle
import pkgutil
import runpy
import signal
import subprocess
import sys
import traceback
import typing
import warnings
from pathlib import Path
from unittest import mock

import pytest

import tour
from tour import late, shapes


def test_assertions_are_rewritten(from_conftest):
    assert from_conftest == "conftest"
    with pytest.raises(AssertionError, match="assert 1 == 2"):
        assert tour.VALUE == 2


def test_objects_are_pickled_and_copied():
    shape = shapes.Shape(shapes.Colour.RED, shapes.Shape(shapes.Colour.RED))
    assert pickle.loads(pickle.dumps(shape)) == copy.deepcopy(shape) == shape
    assert pickle.loads(pickle.dumps(shapes.Named("a", shape))) == ("a", shape)
    assert pickle.loads(pickle.dumps(shapes.square)) is shapes.square


def test_source_hints_and_tracebacks_are_found():
    assert "number * number" in inspect.getsource(shapes.square)
    assert inspect.getmodule(shapes.square) is shapes
    assert typing.get_type_hints(shapes.Shape) == {"colour": shapes.Colour, "inner": shapes.Shape | None}
    try:
        shapes.explode()
    except ValueError:
        assert 'raise ValueError("here")' in traceback.format_exc()


def test_modules_are_found_loaded_again_and_replaced(monkeypatch):
    assert tour.lazy is late
    assert importlib.import_module(".late", "tour") is importlib.import_module("tour.late") is late
    assert {module.name for module in pkgutil.iter_modules(tour.__path__)} == {"late", "shapes", "__main__"}
    assert pkgutil.resolve_name("tour.late:double")(2) == 4
    tour.VALUE = 5
    assert importlib.reload(tour).VALUE == 1
    with mock.patch("tour.late.double", return_value=0):
        assert late.double(4) == 0
    monkeypatch.setattr("tour.late.double", lambda number: number)
    assert late.double(4) == 4
    del sys.modules["tour.late"]
    again = importlib.import_module("tour.late")
    assert again is not late
    monkeypatch.setitem(sys.modules, "tour.late", late)
    monkeypatch.setitem(sys.modules, "tour.blocked", None)
    with pytest.raises(ImportError):
        importlib.import_module("tour.blocked")


def test_import_hooks_serve_this_program():
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "tour_made_up":
                return importlib.util.spec_from_loader(name, loader=mock.Mock(create_module=lambda spec: None))
            return None

    sys.meta_path.insert(0, Finder)
    try:
        assert importlib.import_module("tour_made_up").__name__ == "tour_made_up"
    finally:
        sys.meta_path.remove(Finder)
        sys.modules.pop("tour_made_up", None)


def test_programs_and_resources():
    assert importlib.resources.files("tour").joinpath("data/text.txt").read_text() == "some text\n"
    assert runpy.run_module("tour", run_name="not main")["VALUE"] == 1
    assert runpy.run_path(str(Path(tour.__file__).with_name("late.py")))["double"](3) == 6
    assert importlib.metadata.version("pytest") == pytest.__version__
    assert any(entry.name == "cov" or entry.value for entry in importlib.metadata.entry_points(group="pytest11"))


def test_child_processes_are_the_same_program():
    done = subprocess.run([sys.executable, "-m", "tour", "x"], capture_output=True, text=True, check=True)
    assert done.stdout == "main 1 ['x']\n"


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_processes_work_for_this_one(method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert list(pool.map(shapes.square, [1, 2, 3])) == [1, 4, 9]


def test_warnings_name_the_right_line():
    with pytest.warns(DeprecationWarning, match="old") as caught:
        late.warn()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DeprecationWarning):
            late.warn()


def test_what_is_printed_and_logged_is_captured(capfd, caplog):
    os.write(1, b"out")
    logging.getLogger("tour").warning("logged")
    assert capfd.readouterr().out == "out"
    assert caplog.messages == ["logged"]


def test_the_process_is_the_tests_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Path.cwd() == tmp_path
    monkeypatch.setenv("TOUR", "1")
    assert subprocess.run(["sh", "-c", "echo $TOUR"], capture_output=True, text=True, check=True).stdout == "1\n"
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


def test_doctests_run():
    assert doctest.testmod(late) == (0, 1)


def test_pytest_tests_itself(pytester):
    pytester.makepyfile("def test_it():\n    assert 1 == 2")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    pytester.runpytest_subprocess().assert_outcomes(failed=1)
