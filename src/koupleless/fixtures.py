"""The plugin for pytest: the fixture ``koupleless_base``, a base with modules in the process of a test.

::

    def test_orders_use_prices(koupleless_base):
        koupleless_base.install(Path("examples/prices"))
        orders = koupleless_base.install(Path("examples/orders"), env={"CURRENCY": "EUR"})
        assert orders.get("/tea").status == 200

Loaded by every pytest beside which this package is installed, so nothing is imported before a test asks for a base.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.debugging import pytestPDB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from koupleless.testing import LocalBase


@pytest.fixture
def koupleless_app() -> object:
    """The application of the base: nothing, unless a fixture of this name nearer to the test returns one."""
    return None


@pytest.fixture
def koupleless_base(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, koupleless_app: object
) -> Iterator[LocalBase]:
    """A base for one test; the modules that are left at the end are uninstalled, and have to be gone.

    After a failed test nothing is asserted, because the traceback of the failure may well hold a module. A
    ``breakpoint()`` in a module stops there, with the debugger of pytest.
    """
    from koupleless.testing import local_base  # noqa: PLC0415 - a test without the fixture pays nothing

    monkeypatch.setattr(sys, "breakpointhook", _stop)
    if request.config.option.usepdb_cls is None:
        monkeypatch.setattr(request.config.option, "usepdb_cls", ("koupleless.testing", "Debugger"))
    before = request.session.testsfailed
    with local_base(tmp_path / "koupleless", app=koupleless_app) as base:
        yield base
        if request.session.testsfailed > before:
            base.abandon()


def _stop(*args: Any, **kwargs: Any) -> None:
    """Stop in the frame of the caller, which may be code of a module: pytest makes its debugger as the base."""
    from koupleless.context import as_base  # noqa: PLC0415 - as above

    with as_base():
        debugger = pytestPDB._init_pdb("set_trace", *args, **kwargs)  # type: ignore[no-untyped-call]  # noqa: SLF001 - no other way to a frame
    debugger.set_trace(sys._getframe(1))  # noqa: SLF001
