"""The types that tests of a library see: `koupleless.testing`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

from koupleless import BizId
from koupleless.testing import Loaded, LocalBase, PurgeReport, Reply, assert_unloads, loaded, local_base

with loaded("def count():\n    return 1\n", requirements=["other>=2"], own=["one"], shared=("mylib",)) as module:
    assert_type(module, Loaded)
    assert_type(module.biz, BizId)
    assert_type(module.call("count", 1, by="name"), Any)
    reply = module.get("/items")
    assert_type(reply, Reply)
    assert_type(reply.status, int)
    assert_type(reply.headers, tuple[tuple[str, str], ...])
    assert_type(reply.body, bytes)
    assert_type(reply.text, str)
    assert_type(reply.json(), Any)
    assert_type(module.request("POST", "/items", body=b"{}", headers=[("accept", "text/plain")]), Reply)
    module.request("POST", "/items", body="{}")  # type: ignore[arg-type]  # a body is bytes
    reply.status = 200  # type: ignore[misc]  # an answer is frozen

with loaded(Path("tests/module"), name="sample", entry="sample.app:create()") as of_project:
    assert_type(of_project, Loaded)

loaded(b"def count(): ...")  # type: ignore[arg-type]  # a text, or a path

with local_base(Path("place"), app=None, own=["one"]) as base:
    assert_type(base, LocalBase)
    assert_type(base.directory, Path)
    assert_type(base.install("app = print", name="shop", env={"COLOR": "red"}, args=["a"]), Loaded)
    assert_type(base.get("/shop/"), Reply)
    base.install("app = print", env=["COLOR"])  # type: ignore[arg-type]  # names with values


def drive(module: Loaded) -> int:
    """Use the module; whatever is returned is not looked at."""
    return module.get().status


assert_type(assert_unloads("import mylib", drive=drive), None)
assert_type(assert_unloads(Path("module.py"), drive=lambda module: module.get("/")), None)
assert_unloads("import mylib", drive=lambda: None)  # type: ignore[misc, arg-type]  # it is given the module


def told(report: PurgeReport) -> str:
    """Read the public fields of a report."""
    assert_type(report.biz, BizId)
    assert_type(report.clean, bool)
    assert_type([held.holders for held in report.held], list[tuple[str, ...]])
    return report.summary()
