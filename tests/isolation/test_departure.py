"""Modules of the base that are out of the table for a moment, or for good."""

from __future__ import annotations

import importlib
import sys
import threading

import pytest

from koupleless.isolation.interpreter import REAL
from koupleless.isolation.libraries.departure import taken_out, unimportable
from koupleless.isolation.libraries.holding import Speakers, Wishes

from .test_distributions import wheel

LIBRARY = wheel("based-lib", "1", {"based_lib/__init__.py": "count = []\n", "based_lib/part.py": "import based_lib\n",
                               "based_lib/plain/deep.py": ""})  # fmt: skip
SHARED = Speakers(base=Wishes.of(shared=["based-lib"]))


def test_what_is_left_in_the_dictionary_is_put_back(base):
    base(LIBRARY)
    module = importlib.import_module("based_lib.part").based_lib
    with taken_out(["based_lib", "based_lib.part", "based_lib.absent"]) as modules:
        assert set(modules) == {"based_lib", "based_lib.part"}
        assert "based_lib" not in REAL
    assert importlib.import_module("based_lib") is module
    deep = importlib.import_module("based_lib.plain.deep")
    with taken_out(["based_lib", "based_lib.plain", "based_lib.plain.deep"]) as modules:
        assert modules["based_lib.plain.deep"] is deep
    assert importlib.import_module("based_lib.plain.deep") is deep
    with pytest.raises(RuntimeError, match="no"), taken_out(["based_lib"]):
        raise RuntimeError("no")
    assert REAL["based_lib"] is module


def test_what_is_removed_is_loaded_anew_by_the_next_that_asks_also_by_a_biz_that_had_it(base, biz):
    root = base(LIBRARY)
    namespace = biz({"app.py": "def get():\n    import based_lib.part\n    return based_lib\n"}, speakers=SHARED)
    get = namespace.import_module("app").get
    first = get()
    assert get() is first is REAL["based_lib"]
    assert str(root / "based_lib") in sys.path_importer_cache
    with taken_out(["based_lib", "based_lib.part"]) as modules:
        modules.clear()
    assert str(root / "based_lib") not in sys.path_importer_cache
    again = get()
    assert again is not first
    assert get() is again is REAL["based_lib"]
    assert REAL["based_lib.part"].based_lib is again


@pytest.mark.parametrize("leaves", [False, True])
def test_whoever_imports_it_meanwhile_waits_and_gets_one_or_the_other(base, leaves):
    base(LIBRARY)
    module = importlib.import_module("based_lib")
    found = []
    begins = threading.Event()

    def ask():
        begins.set()
        found.append(importlib.import_module("based_lib"))

    thread = threading.Thread(target=ask)
    with unimportable(["based_lib"]), taken_out(["based_lib"]) as modules:
        thread.start()
        begins.wait(10)
        thread.join(0.2)
        assert thread.is_alive()
        assert found == []
        if leaves:
            modules.clear()
    thread.join(10)
    assert (found[0] is module) is not leaves
    assert REAL["based_lib"] is found[0]
