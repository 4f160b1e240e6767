"""Things that the standard library makes once: a biz was the first to need one, left, and the base goes on using it.

Each in an interpreter of its own, in which nothing has been made yet.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LIFE = '''
import gc, os, sys, textwrap
from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.ownership.ledger import Ledger
from koupleless.recorders.door import RECORDING


def life(source, deadline_s=10.0):
    """One life of a biz; returns what could not be undone."""
    scope = Scope(BizId.of("first", "1.0"))
    ledger = Ledger(scope)
    scope.attach(ledger)
    variables = {"__name__": "first_module"}
    with entered(scope):
        exec(textwrap.dedent(source), variables)
    failures = ledger.undo_all(deadline_s)
    variables.clear()
    scope.close()
    gc.collect()
    assert not failures, failures
    return dict(ledger.undone)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


RECORDING.acquire()
'''

FIRST_NEEDS = {
    "a fork server": (
        "import multiprocessing as mp\n"
        "with mp.get_context('forkserver').Pool(1) as pool: assert pool.apply(abs, (-3,)) == 3"
    ),
    "a directory for sockets": (
        "from multiprocessing import util, connection\n"
        "with connection.Listener(family='AF_UNIX') as listener: assert os.path.exists(listener.address)\n"
        "assert os.path.isdir(util.get_temp_dir())"
    ),
    "a resource tracker": (
        "from multiprocessing import resource_tracker, shared_memory\n"
        "memory = shared_memory.SharedMemory(create=True, size=10)\n"
        "memory.close(); memory.unlink()\n"
        "os.kill(resource_tracker._resource_tracker._pid, 0)"
    ),
    "a thread that hands out descriptors": (
        "import multiprocessing as mp, pickle\nfrom multiprocessing import reduction\n"
        "ours, theirs = mp.Pipe()\n"
        "again = pickle.loads(reduction.ForkingPickler.dumps(theirs))\n"
        "again.send('word'); assert ours.recv() == 'word'\n"
        "ours.close(); theirs.close(); again.close()"
    ),
    "shared memory for values": (
        "import multiprocessing as mp\nvalue = mp.Value('i', 7)\nvalue.value += 1\nassert value.value == 8"
    ),
    "multiprocessing's logger": (
        "import atexit, multiprocessing as mp\nmp.get_logger().info('word')\n"
        "import multiprocessing.util\nassert multiprocessing.util._logger.name == 'multiprocessing'"
    ),
    "a directory for temporary files": (
        "import tempfile\nwith tempfile.NamedTemporaryFile() as file: assert os.path.exists(file.name)"
    ),
    "a pool of concurrent.futures": (
        "from concurrent.futures import ProcessPoolExecutor\n"
        "with ProcessPoolExecutor(1) as pool: assert pool.submit(abs, -3).result(30) == 3"
    ),
    "types of files": "import mimetypes\nassert mimetypes.guess_type('a.html')[0] == 'text/html'",
    "a watcher of child processes": (
        "import asyncio\n"
        "async def main():\n"
        "    child = await asyncio.create_subprocess_exec(sys.executable, '-c', 'pass')\n"
        "    assert await child.wait() == 0\n"
        "asyncio.run(main())"
    ),
    "an executor for names of hosts": "import asyncio\nasyncio.run(asyncio.to_thread(abs, -3))",
}


@pytest.mark.parametrize("need", FIRST_NEEDS)
def test_what_a_biz_was_the_first_to_need_works_for_the_base(tmp_path: Path, need: str) -> None:
    use = "import os, sys\n" + FIRST_NEEDS[need]
    run(
        tmp_path,
        f"""
        USE = {use!r}
        if __name__ == "__main__":
            life(USE)
            exec(USE, {{"__name__": "base_module"}})  # the base, for which it was made too
            after_one = descriptors()
            for _ in range(3):
                life(USE)
            exec(USE, {{"__name__": "base_module"}})
            assert descriptors() <= after_one, "each life leaves descriptors open"
        """,
    )


def test_a_finalizer_of_the_base_is_not_run_when_the_biz_that_made_the_first_one_leaves(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        import weakref
        assert not weakref.finalize._registered_with_atexit, "this test is about the first one"
        class Thing: pass
        of_base, ran = Thing(), []
        life("import weakref\\nclass K: pass\\nk = K()\\nweakref.finalize(k, abs, 0)")
        weakref.finalize(of_base, ran.append, "of the base")
        life("import weakref\\nclass K: pass\\nk = K()\\nweakref.finalize(k, abs, 0)")
        assert ran == [] and not weakref.finalize._shutdown
        """,
    )


def test_an_exit_function_of_the_biz_runs_though_code_of_a_library_of_the_base_registers_it(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        import types
        library = types.ModuleType("library")
        exec("import atexit\\nran = []\\ndef at_exit(function): atexit.register(function)", vars(library))
        sys.modules["library"] = library
        undone = life("import library\\ndef end(): library.ran.append(1)\\nlibrary.at_exit(end)")
        assert library.ran == [1] and undone["atexit"] == 1, (library.ran, undone)
        """,
    )


def test_what_is_called_before_threads_are_awaited_is_called_when_the_biz_leaves(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        import builtins, threading
        before = list(threading._threading_atexits)
        ran = []
        own = dict(vars(builtins))
        code = "import threading\\ndef end(word): ran.append(word)\\nthreading._register_atexit(end, 'word')"
        function = "exec(CODE, {'__builtins__': OWN, '__name__': 'own', 'ran': RAN})"
        builtins.CODE, builtins.OWN, builtins.RAN = code, own, ran
        undone = life(function)
        assert ran == ["word"] and undone == {"atexit": 1}, (ran, undone)
        builtins.ended = []
        life("import threading\\nthreading._register_atexit(ended.append, 'not of the biz')")
        assert threading._threading_atexits == before, (threading._threading_atexits, before)
        """,
    )


def test_how_children_are_started_is_chosen_by_each_biz_for_itself(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        import multiprocessing as mp
        default = mp.get_start_method(allow_none=True)
        choose = '''
            import multiprocessing as mp
            from multiprocessing import context
            mp.set_start_method("spawn")
            assert mp.get_start_method() == "spawn" == mp.get_context().get_start_method()
            context._concrete_contexts["own"] = mp.get_context("spawn")
            assert mp.get_context("own") is mp.get_context("spawn")
        '''
        life(choose)
        life(choose)  # alone, it is chosen once, which each life of a biz may do
        assert mp.get_start_method(allow_none=True) == default
        life("import multiprocessing as mp\\nmp.get_context()\\nmp.Queue().close()")
        try:
            mp.get_context("own")
        except ValueError:
            pass
        else:
            raise AssertionError("the base has what a biz registered")
        mp.set_start_method("forkserver")  # nobody has chosen for the base
        life("import multiprocessing as mp\\nassert mp.get_start_method() == 'forkserver'")
        """,
    )


def test_descriptors_of_processes_and_pools_that_it_keeps_are_closed(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        SOURCE = '''
            import multiprocessing as mp
            context = mp.get_context("spawn")
            children = [context.Process(target=abs, args=(-1,)) for _ in range(2)]
            for child in children: child.start()
            for child in children: child.join()
            pool = context.Pool(1)
            assert pool.apply(abs, (-1,)) == 1
        '''
        if __name__ == "__main__":
            life(SOURCE)
            after_one = descriptors()
            for _ in range(2):
                life(SOURCE)
            assert descriptors() <= after_one, (descriptors(), after_one)
        """,
    )


def run(directory: Path, source: str) -> None:
    """Run a program that imports recorders only, and check that it ended well and by itself."""
    program = directory / "program.py"
    program.write_text(LIFE + textwrap.dedent(source))
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
