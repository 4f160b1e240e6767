"""The environment of a biz. What C code reads by ``getenv`` is the process's, and is not tested here."""

import asyncio
import ctypes
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from koupleless.context import Scope, entered
from koupleless.errors import KouplelessError
from koupleless.view.environ import ENVIRON, Environment

MakeBiz = Callable[..., Scope]

early_environ = os.environ
early_argv = sys.argv

pytestmark = pytest.mark.usefixtures("with_environ")


def printed(*names: Any) -> Any:
    return [sys.executable, "-c", f"import os; print([os.environ.get(name) for name in {names!r}])"]


@pytest.fixture(autouse=True)
def _process_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", "of the process")
    for name in ("OWN", "hello_KEY", "KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_biz_reads_what_the_process_has(make_biz: MakeBiz) -> None:
    with entered(make_biz()):
        assert os.environ["SHARED"] == "of the process"
        assert os.getenv("SHARED") == "of the process"


def test_a_biz_sees_the_variables_it_was_installed_with_over_those_of_the_process(make_biz: MakeBiz) -> None:
    with entered(make_biz(envs={"SHARED": "of the biz", "OWN": "1"})):
        assert (os.environ["SHARED"], os.environ["OWN"]) == ("of the biz", "1")
    assert os.environ["SHARED"] == "of the process"
    assert "OWN" not in os.environ


def test_what_a_biz_writes_neither_the_base_nor_another_biz_sees(make_biz: MakeBiz) -> None:
    writer, other = make_biz("writer"), make_biz("other")
    with entered(writer):
        os.environ["OWN"] = "1"
        os.environ["SHARED"] = "changed"
    with entered(other):
        assert os.environ.get("OWN") is None
        assert os.environ["SHARED"] == "of the process"
    assert os.environ.get("OWN") is None
    assert os.environ["SHARED"] == "of the process"
    with entered(writer):
        assert (os.environ["OWN"], os.environ["SHARED"]) == ("1", "changed")


def test_a_biz_sees_what_the_base_writes_later(make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = make_biz()
    monkeypatch.setenv("SHARED", "later")
    with entered(scope):
        assert os.environ["SHARED"] == "later"


def test_a_deletion_hides_the_variable_of_the_process_from_this_biz_alone(make_biz: MakeBiz) -> None:
    scope = make_biz()
    with entered(scope):
        del os.environ["SHARED"]
        assert "SHARED" not in os.environ
        assert os.getenv("SHARED", "none") == "none"
        with pytest.raises(KeyError, match="SHARED"):
            del os.environ["SHARED"]
        with pytest.raises(KeyError, match="SHARED"):
            os.environ["SHARED"]
        os.environ["SHARED"] = "back"
        assert os.environ.pop("SHARED") == "back"
    assert os.environ["SHARED"] == "of the process"


def test_every_way_to_see_the_whole_environment_shows_the_merged_one(make_biz: MakeBiz) -> None:
    with entered(make_biz(envs={"OWN": "1"})):
        del os.environ["SHARED"]
        for whole in (
            dict(os.environ),
            os.environ.copy(),
            os.environ | {},
            {} | os.environ,
            {key: os.environ[key] for key in os.environ},
            dict(os.environ.items()),
            {os.fsdecode(key): os.fsdecode(value) for key, value in os.environb.items()},
        ):
            assert whole["OWN"] == "1"
            assert "SHARED" not in whole
            assert len(whole) == len(os.environ)
        assert "'OWN': '1'" in repr(os.environ)


def test_updates_of_all_kinds_stay_with_the_biz(make_biz: MakeBiz) -> None:
    before = dict(os.environ)
    with entered(make_biz()):
        os.environ |= {"A": "1"}
        os.environ.update(B="2")
        assert os.environ.setdefault("C", "3") == "3"
        os.environb[b"D"] = b"4"
        os.putenv("E", "5")
        os.unsetenv("SHARED")
        assert [os.environ[key] for key in "ABCDE"] == ["1", "2", "3", "4", "5"]
        assert os.getenvb(b"A") == b"1"
        assert "SHARED" not in os.environ
    assert dict(os.environ) == before


def test_the_base_still_writes_and_deletes_for_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "1")
    assert subprocess.check_output(printed("OWN"), text=True) == "['1']\n"
    del os.environ["OWN"]
    assert subprocess.check_output(printed("OWN"), text=True) == "[None]\n"


def test_code_that_imported_environ_early_gets_the_view_of_the_running_biz(make_biz: MakeBiz) -> None:
    assert early_environ is os.environ
    with entered(make_biz(envs={"OWN": "1"})):
        assert early_environ["OWN"] == "1"


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [("", "x", OSError), ("A=B", "x", ValueError), ("A", "x\0", ValueError), (1, "x", TypeError), ("A", 1, TypeError)],
)
def test_what_no_environment_can_hold_is_refused_as_by_the_process(
    make_biz: MakeBiz, key: Any, value: Any, error: Any
) -> None:
    with pytest.raises(error):
        os.environ[key] = value
    with entered(make_biz()), pytest.raises(error):
        os.environ[key] = value


def test_code_of_a_biz_that_is_gone_reads_the_process_but_cannot_write_to_it(make_biz: MakeBiz) -> None:
    scope = make_biz(envs={"OWN": "1"})
    scope.close()
    with entered(scope):
        assert "OWN" not in os.environ
        assert os.environ["SHARED"] == "of the process"
        with pytest.raises(KouplelessError, match=r"hello:1\.0 was uninstalled"):
            os.environ["SHARED"] = "x"
        with pytest.raises(KouplelessError, match=r"hello:1\.0 was uninstalled"):
            del os.environ["SHARED"]
    assert os.environ["SHARED"] == "of the process"


def test_c_code_finds_what_a_biz_writes_that_has_the_process_for_itself_and_no_other(make_biz: MakeBiz) -> None:
    def in_c(name: bytes) -> bytes | None:
        return getenv(name)  # type: ignore[no-any-return]

    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    scope, alone = make_biz(), make_biz("alone")
    alone.attach(Environment(alone, has_process=True))
    for biz, found in ((scope, None), (alone, b"written")):
        with entered(biz):
            os.environ["KOUPLELESS_TEST_OWN"] = "written"
            assert in_c(b"KOUPLELESS_TEST_OWN") == found
            del os.environ["KOUPLELESS_TEST_OWN"]
            assert in_c(b"KOUPLELESS_TEST_OWN") is None
    assert "KOUPLELESS_TEST_OWN" not in os.environ


# --- <name>_<KEY> -------------------------------------------------------------------------------------------------


def test_a_variable_with_the_name_of_the_biz_before_it_answers_for_the_plain_key(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("hello_KEY", "for hello")
    monkeypatch.setenv("KEY", "for all")
    with entered(make_biz("hello")):
        assert os.environ["KEY"] == "for hello"
        assert dict(os.environ)["KEY"] == "for hello"
        assert os.getenv("hello_KEY") == "for hello"  # noqa: SIM112 - the name of the biz as it is
    with entered(make_biz("other")):
        assert os.environ["KEY"] == "for all"


def test_dots_and_dashes_in_the_name_are_underscores_and_case_counts(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("my_big_app_KEY", "yes")
    monkeypatch.setenv("MY_BIG_APP_OTHER", "no")
    with entered(make_biz("my-big.app")):
        assert os.environ["KEY"] == "yes"
        assert "OTHER" not in os.environ


def test_the_prefix_counts_in_the_variables_of_the_install_too_and_is_the_stronger_one(make_biz: MakeBiz) -> None:
    with entered(make_biz("hello", envs={"KEY": "plain", "hello_KEY": "prefixed"})):
        assert os.environ["KEY"] == "prefixed"


def test_what_the_biz_itself_writes_is_stronger_than_a_prefixed_variable(
    make_biz: MakeBiz, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("hello_KEY", "for hello")
    with entered(make_biz("hello")):
        os.environ["KEY"] = "written"
        assert os.environ["KEY"] == "written"
        del os.environ["KEY"]
        assert "KEY" not in os.environ


# --- child processes ----------------------------------------------------------------------------------------------


def test_a_child_process_inherits_the_environment_of_the_biz(make_biz: MakeBiz) -> None:
    with entered(make_biz(envs={"OWN": "1"})):
        del os.environ["SHARED"]
        assert subprocess.check_output(printed("OWN", "SHARED"), text=True) == "['1', None]\n"
        assert subprocess.run(printed("OWN"), env=None, capture_output=True, text=True, check=True).stdout == "['1']\n"


def test_a_child_process_with_an_environment_of_its_own_gets_that(make_biz: MakeBiz) -> None:
    with entered(make_biz(envs={"OWN": "1"})):
        output = subprocess.check_output(printed("OWN", "OTHER"), env={"OTHER": "2"}, text=True)
    assert output == "[None, '2']\n"


def test_an_environment_passed_by_position_counts_too(make_biz: MakeBiz) -> None:
    args = (-1, None, None, subprocess.PIPE, None, None, True, False, None)
    with entered(make_biz(envs={"OWN": "1"})):
        for env, expected in ((None, b"['1']\n"), ({"OWN": "2"}, b"['2']\n")):
            with subprocess.Popen(printed("OWN"), *args, env) as child:
                assert child.communicate()[0] == expected


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_spawned_worker_inherits_the_environment_of_the_biz(make_biz: MakeBiz, method: str) -> None:
    context = multiprocessing.get_context(method)
    with entered(make_biz(envs={"OWN": "1"})), ProcessPoolExecutor(1, mp_context=context) as pool:
        seen = pool.submit(os.getenv, "OWN").result(60)
    # One server of workers serves everybody: its children are told the environment.
    assert seen == "1"


def test_a_child_process_of_an_event_loop_inherits_the_environment_of_the_biz(make_biz: MakeBiz) -> None:
    async def run() -> Any:
        child = await asyncio.create_subprocess_exec(*printed("OWN"), stdout=subprocess.PIPE)
        return (await child.communicate())[0]

    with entered(make_biz(envs={"OWN": "1"})):
        assert asyncio.run(run()) == b"['1']\n"


def test_os_system_runs_in_the_environment_of_the_biz_and_returns_a_wait_status(make_biz: MakeBiz) -> None:
    with entered(make_biz(envs={"CODE": "3"})):
        assert os.waitstatus_to_exitcode(os.system("exit $CODE")) == 3
    assert os.waitstatus_to_exitcode(os.system("exit 4")) == 4


# --- sys.argv -----------------------------------------------------------------------------------------------------


def test_a_biz_finds_its_own_arguments_and_the_base_finds_its_own(make_biz: MakeBiz) -> None:
    of_base = list(early_argv)
    with entered(make_biz("hello", args=["--verbose", "file"])):
        assert sys.argv == ["hello", "--verbose", "file"]
        assert sys.argv[1:] == ["--verbose", "file"]
        assert [*sys.argv] == list(sys.argv) == ["python", *sys.argv[1:]][:0] + sys.argv
        assert "--verbose" in sys.argv
        assert len(sys.argv) == 3
        assert ["x"] + sys.argv == ["x", "hello", "--verbose", "file"]  # noqa: RUF005 - the operator is what is tested
        assert repr(sys.argv) == "['hello', '--verbose', 'file']"
    assert sys.argv == of_base


def test_a_biz_changes_its_own_arguments_only(make_biz: MakeBiz) -> None:
    of_base = list(early_argv)
    with entered(make_biz("hello", args=["run", "now"])):
        sys.argv.pop(1)
        sys.argv[0] = "renamed"
        sys.argv += ["later"]
        sys.argv.append("end")
        assert sys.argv == ["renamed", "now", "later", "end"]
    assert sys.argv == of_base


def test_the_arguments_of_the_base_stay_the_list_that_others_imported(make_biz: MakeBiz) -> None:
    sys.argv.append("--added")
    try:
        assert early_argv[-1] == "--added"
    finally:
        sys.argv.remove("--added")


# --- installing ---------------------------------------------------------------------------------------------------


def test_the_last_removal_restores_the_process_and_not_an_earlier_one(make_biz: MakeBiz) -> None:
    ENVIRON.release()
    before = [type(os.environ), type(os.environb), os.putenv, os.system, subprocess.Popen.__init__, sys.argv]
    ENVIRON.acquire()
    ENVIRON.acquire()
    ENVIRON.release()
    with entered(make_biz(envs={"OWN": "1"})):
        assert os.environ["OWN"] == "1"
    ENVIRON.release()
    after = [type(os.environ), type(os.environb), os.putenv, os.system, subprocess.Popen.__init__, sys.argv]
    ENVIRON.acquire()
    assert all(one is other for one, other in zip(before, after, strict=True))


def test_bizs_on_many_threads_never_see_each_other(make_biz: MakeBiz) -> None:
    failures = []
    ready = threading.Barrier(4)

    def run(number: Any) -> None:
        with entered(make_biz(f"biz{number}")):
            ready.wait(10)
            for round_ in range(200):
                os.environ["WHO"] = f"{number}.{round_}"
                if os.environ["WHO"] != f"{number}.{round_}" or dict(os.environ)["WHO"] != f"{number}.{round_}":
                    failures.append((number, round_))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert "WHO" not in os.environ
