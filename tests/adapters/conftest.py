"""Modules in containers of this process, one beside the other, each proved gone when it leaves."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from koupleless.testing import loaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.testing import Loaded


class Fleet:
    """The modules that are there, by name. The process of the tests is their base."""

    def __init__(self) -> None:
        self._closing: dict[str, contextlib.ExitStack] = {}

    def start(self, name: str, source: str) -> Loaded:
        """Install a module of one file; one of the same name leaves first, and has to leave nothing."""
        self.stop(name)
        closing = self._closing[name] = contextlib.ExitStack()
        return closing.enter_context(loaded(source, name=name))

    def stop(self, *names: str) -> None:
        for name in names:
            closing = self._closing.pop(name, None)
            if closing is not None:
                closing.close()

    def stop_all(self) -> None:
        with contextlib.ExitStack() as closing:  # each, whatever the others leave behind
            for name in list(self._closing):
                closing.callback(self.stop, name)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet()
    yield made
    made.stop_all()
