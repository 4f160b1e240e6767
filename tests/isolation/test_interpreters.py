"""Interpreters that a module makes (``concurrent.interpreters``, 3.14 and newer) are its own, and go with it."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, entered
from koupleless.isolation.namespace import Namespace

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="concurrent.interpreters begins with CPython 3.14")

TEXT = """
    from concurrent import interpreters
    from concurrent.futures import InterpreterPoolExecutor

    kept = interpreters.create()
    queue = interpreters.create_queue()

    def double(number):
        return 2 * number

    def work():
        kept.prepare_main(queue=queue)
        kept.exec("import sys; queue.put(sorted(sys.modules).count('main'))")
        with InterpreterPoolExecutor(1) as executor:
            return kept.call(double, 4), list(executor.map(double, [1, 2])), queue.get()
"""


def test_they_work_as_alone_and_the_one_that_is_kept_ends_with_the_module(write):
    interpreters: Any = importlib.import_module("concurrent.interpreters")
    before = interpreters.list_all()
    namespace = Namespace(Scope(BizId.parse("short:1.0")), [str(write({"main.py": TEXT}))])
    with entered(namespace.scope):
        main: Any = namespace.import_module("main")
        assert main.work() == (8, [2, 4], 0)
        assert len(interpreters.list_all()) == len(before) + 1
    del main
    namespace.drop()
    namespace.scope.close()
    del namespace
    gc.collect()
    assert interpreters.list_all() == before
