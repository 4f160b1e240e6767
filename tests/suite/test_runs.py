"""`arkctl test`: a suite inside a biz, and beside itself alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest
from tests.conftest import unmeasured, until

from koupleless.suite.outcomes import NoReport, Outcome, Outcomes
from koupleless.suite.run import RunTooLong, Suite, compare_runs

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.network, pytest.mark.timeout(600)]

TOUR = Path(__file__).parents[1] / "bizs" / "suite-1.0"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(cache: Path) -> Run:
    """``run(tree, "--compare", "--", "-q")`` is that command, done; what suites need is installed once for all.

    That is found again by the name of the tree too, so all trees here have the same.
    """

    def arkctl(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "koupleless", "test", str(tree)]
        if "--program" not in arguments:  # all that use pytest need the same, so that it is there for all but one
            command += ["--requirement", "pytest-cov"]
        environment = {**unmeasured(), "XDG_CACHE_HOME": str(cache), "PIP_NO_COMPILE": "1"}
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, timeout=540, check=False
        )

    return arkctl


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty one."""
    path = tmp_path / "tree"
    path.mkdir()
    return path


def test_a_suite_runs_inside_as_alone_and_its_coverage_is_measured(run: Run, tree: Path) -> None:
    shutil.copytree(TOUR, tree, dirs_exist_ok=True)
    inside = run(tree, "--", "-q", "--cov=tour", "--cov-report=term")
    assert inside.returncode == 0, inside.stdout + inside.stderr
    assert "14 passed" in inside.stdout
    covered = next(line for line in inside.stdout.splitlines() if line.startswith("tour/shapes.py"))
    assert int(covered.split()[-1].removesuffix("%")) > 90
    compared = run(tree, "--compare", "--", "-q")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert compared.stdout.endswith("alone: 14 passed\ninside: 14 passed\n0 of 14 tests differ\n")


def test_the_tests_that_differ_are_named_and_the_status_says_so(run: Run, tree: Path) -> None:
    test = (
        "import koupleless\ndef test_who():\n    assert koupleless.current_biz() is None\ndef test_any():\n    pass\n"
    )
    (tree / "test_who.py").write_text(test)
    compared = run(tree, "--compare", "--", "-q")
    assert compared.returncode == 1
    assert "test_who::test_who: passed alone, failed inside: AssertionError" in compared.stdout
    assert compared.stdout.endswith("1 of 2 tests differ\n")


def test_the_plugin_of_the_package_stays_out_as_alone(run: Run, tree: Path) -> None:
    """A base need not have the pytest that the plugin would import there."""
    (tree / "test_plugin.py").write_text(
        "def test_plugin(pytestconfig):\n    assert not pytestconfig.pluginmanager.has_plugin('koupleless')\n"
    )
    done = run(tree, "--", "-q")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_executor_that_nobody_shuts_down_does_not_keep_the_run_from_ending(run: Run, tree: Path) -> None:
    test = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import time\n"
        "pool = ThreadPoolExecutor(1)\n"
        "def test_pool():\n"
        "    assert pool.submit(int, '1').result() == 1\n"
        "    pool.submit(lambda: time.sleep(0.2) or print('done late', flush=True))\n"
    )
    (tree / "test_pool.py").write_text(test)
    inside = run(tree, "--", "-q", "-s")
    assert inside.returncode == 0
    assert "done late" in inside.stdout


def test_a_child_finds_the_tree_and_what_it_requires_and_nothing_else_of_ours(run: Run, tree: Path) -> None:
    (tree / "beside.py").write_text("name = 'beside'\n")
    test = (
        "import subprocess, sys, pytest\n"
        "def child(*options):\n"
        "    return subprocess.check_output([sys.executable, *options], text=True, stderr=subprocess.STDOUT)\n"
        "def test_own():\n"
        "    assert child('-c', 'import beside, pytest, koupleless; print(beside.name)') == 'beside\\n'\n"
        "@pytest.mark.parametrize('name', ['uvicorn', 'fastapi'])\n"
        "def test_other(name):\n"
        "    assert child('-c', f'import importlib.util as u; print(u.find_spec({name!r}))') == 'None\\n'\n"
        "def test_suite():\n"
        "    assert '2 passed' in child('-m', 'pytest', '-q', '-k', 'test_other', __file__)\n"
        "def test_exit():\n"
        "    assert child('-I', '-c', 'import sys; print(sys.prefix != sys.base_prefix)') == 'True\\n'\n"
    )
    (tree / "test_children.py").write_text(test)
    compared = run(tree, "--compare", "--", "-q", "-p", "no:cacheprovider")
    assert compared.stdout.endswith("alone: 5 passed\ninside: 5 passed\n0 of 5 tests differ\n"), compared.stdout


FORKS = """
import os, pty, signal

def ending(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def test_fork():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(4)
    assert ending(child) == 3

def test_terminal():
    child, terminal = pty.fork()
    if not child:
        os.execvp("sh", ["sh", "-c", "echo said; exit 7"])
    assert os.read(terminal, 10).strip() == b"said"
    assert ending(child) == 7
"""


def test_a_child_that_a_program_forks_goes_on_as_alone(run: Run, tree: Path) -> None:
    (tree / "test_forks.py").write_text(FORKS)
    inside = run(tree, "--", "-q", "-p", "no:cacheprovider", "-W", "ignore")
    assert "2 passed" in inside.stdout, inside.stdout


CLOCKS = """
import ctypes, datetime as dt, logging, os, threading, time, zoneinfo
import freezegun, time_machine

def test_travel():
    with time_machine.travel(0.0, tick=False):
        assert time.time() == 0
        assert dt.datetime.now(dt.timezone.utc).year == dt.date.today().year == time.gmtime().tm_year == 1970
        assert logging.LogRecord("a", 1, "b", 1, "c", (), None).created == 0
    assert time.time() > 1e9

def test_travel_to_a_zone():
    there = dt.datetime(2020, 1, 1, 12, tzinfo=zoneinfo.ZoneInfo("America/New_York"))
    with time_machine.travel(there, tick=False):
        assert dt.datetime.now() == dt.datetime(2020, 1, 1, 12)
        assert time.tzname[0] == "EST"

@time_machine.travel(1.0)
def test_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(time.time()))
    thread.start()
    thread.join()
    assert seen[0] < 100

def test_freeze():
    with freezegun.freeze_time("2012-01-14 03:21:34"):
        from datetime import datetime
        assert datetime.now() == dt.datetime(2012, 1, 14, 3, 21, 34)
        assert time.time() == logging.LogRecord("a", 1, "b", 1, "c", (), None).created == 1326511294.0
    assert dt.datetime.now().year > 2020

def test_zone():
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    assert time.timezone == -9 * 3600
    assert time.localtime(0).tm_hour == dt.datetime.fromtimestamp(0).hour == 9
    assert dt.datetime(1970, 1, 1, 9).timestamp() == time.mktime((1970, 1, 1, 9, 0, 0, 0, 1, 0)) == 0
    del os.environ["TZ"]
    time.tzset()
    assert ctypes.CDLL(None).getenv(b"TZ") == 0
"""


def test_the_clock_of_the_process_is_the_program_s(run: Run, tree: Path) -> None:
    (tree / "test_clocks.py").write_text(CLOCKS)
    wanted = ("--requirement", "time-machine", "--requirement", "freezegun")
    compared = run(tree, "--compare", *wanted, "--", "-q", "-p", "no:cacheprovider")
    assert compared.stdout.endswith("alone: 5 passed\ninside: 5 passed\n0 of 5 tests differ\n"), compared.stdout


def test_output_and_status_are_those_of_pytest(run: Run, tree: Path) -> None:
    (tree / "test_bad.py").write_text("def test_bad():\n    assert 1 == 2\n")
    inside = run(tree, "--", "-q")
    assert inside.returncode == 1
    assert "E       assert 1 == 2" in inside.stdout
    assert run(tree, "--", "-q", "nothing.py").returncode == 4


def test_another_program_runs_as_the_main_module(run: Run, tree: Path) -> None:
    (tree / "beside.py").write_text("name = 'beside'\n")
    script = (
        "import sys, beside, atexit\natexit.register(print, 'end')\nprint(__name__, beside.name, sys.argv)\nsys.exit(7)"
    )
    (tree / "program.py").write_text(script)
    inside = run(tree, "--program", "program.py", "--", "a", "-b")
    assert inside.returncode == 7
    assert inside.stdout == "__main__ beside ['program.py', 'a', '-b']\nend\n"


def test_a_directory_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "missing").returncode == 2


def test_a_report_tells_tests_of_one_name_apart(tmp_path: Path) -> None:
    cases = (
        '<testcase classname="a" name="t"/><testcase classname="a" name="t"><skipped message="no&#10;more"/></testcase>'
    )
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    read = Outcomes.read(report)
    assert read.tests == {"a::t": Outcome.PASSED, "a::t (2)": Outcome.SKIPPED}
    assert read.messages == {"a::t (2)": "no"}
    assert read.as_text() == "1 passed, 1 skipped"
    assert [each.as_text() for each in read.differences(Outcomes({"a::t": Outcome.PASSED}, {}))] == [
        "a::t (2): skipped alone, not run inside"
    ]


def test_what_unittest_prints_is_read(run: Run, tree: Path) -> None:
    (tree / "test_cases.py").write_text(
        "import unittest, koupleless\n"
        "class Cases(unittest.TestCase):\n"
        "    def test_same(self):\n        'In words.'\n"
        "    def test_other(self):\n        self.assertIsNone(koupleless.current_biz())\n"
        "    @unittest.skip('later')\n    def test_skipped(self): pass\n"
        "    @unittest.expectedFailure\n    def test_expected(self): self.fail()\n"
    )
    (tree / "program.py").write_text("import unittest\nunittest.main('test_cases', verbosity=2)\n")
    compared = run(tree, "--program", "program.py", "--compare")
    assert compared.returncode == 1
    assert compared.stdout.endswith(
        "test_cases.Cases.test_other::test_other: passed alone, failed inside\n"
        "alone: 2 passed, 2 skipped\ninside: 1 passed, 1 failed, 2 skipped\n1 of 4 tests differ\n"
    )
    with pytest.raises(NoReport, match="printed no tests"):
        Outcomes.parse("nothing")


def test_a_run_without_a_report_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoReport, match="without a report"):
        Outcomes.read(tmp_path / "missing.xml")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pyproject.toml", '[project]\nname = "ItsDangerous"\nversion = "2.2.0"\n'),
        ("setup.cfg", "[metadata]\nname = itsdangerous\n"),
        ("PKG-INFO", "Metadata-Version: 2.1\nName: Itsdangerous\n"),
    ],
)
def test_a_requirement_that_names_the_tree_replaces_building_it(run: Run, tree: Path, file: str, text: str) -> None:
    (tree / "pyproject.toml").write_text('[build-system]\nrequires = []\nbuild-backend = "missing"\n')
    with (tree / file).open("a") as opened:
        opened.write(text)
    (tree / "test_it.py").write_text(
        "import itsdangerous\ndef test_it():\n    assert 'tree' not in itsdangerous.__file__.split('/')\n"
    )
    compared = run(tree, "--requirement", "itsdangerous==2.2.0", "--compare", "--", "-q")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert compared.stdout.endswith("alone: 1 passed\ninside: 1 passed\n0 of 1 tests differ\n")


def test_a_run_that_takes_too_long_is_ended_with_its_children(tree: Path) -> None:
    (tree / "program.py").write_text(
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "time.sleep(300)\n"
    )
    with pytest.raises(RunTooLong, match="longer than 5 s"):
        compare_runs(Suite(tree=tree, program="program.py", limit_s=5), say=lambda _: None)
    child = int((tree / "child").read_text())
    until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_a_child_that_ignores_the_environment_finds_what_is_there_alone(run: Run, tree: Path) -> None:
    (tree / "beside.py").write_text("")
    (tree / "test_child.py").write_text(
        "import subprocess, sys\n"
        "def test_isolated():\n"
        "    subprocess.run([sys.executable, '-I', '-c', 'import beside, pytest_cov'], check=True)\n"
        "def test_without_variables():\n"
        "    subprocess.run([sys.executable, '-c', 'import beside, pytest_cov'], check=True, env={})\n"
    )
    compared = run(tree, "--compare", "--", "-q")
    assert compared.stdout.endswith("alone: 2 passed\ninside: 2 passed\n0 of 2 tests differ\n"), compared.stdout
