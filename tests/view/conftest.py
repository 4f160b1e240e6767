"""Bizs with the facets of this room, and the views installed around each test."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from koupleless.biz import BizId
from koupleless.context import Scope, current
from koupleless.view.config import Configuration
from koupleless.view.environ import ENVIRON, Environment
from koupleless.view.logging.logs import LOGS, LogSpace
from koupleless.view.own import Own
from koupleless.view.shared.process import GUARDS
from koupleless.view.standard.stdlib import STDLIB
from koupleless.view.standard.warning import WARNINGS, Warnings

MakeBiz = Callable[..., Scope]


@pytest.fixture
def make_biz() -> Iterator[MakeBiz]:
    scopes: list[Scope] = []

    def make(
        name: str = "hello",
        version: str = "1.0",
        *,
        envs: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        file: Path | None = None,
        level: int | str | None = None,
        configuration: Configuration | None = None,
    ) -> Scope:
        scope = Scope(BizId.of(name, version))
        scope.attach(Environment(scope, envs=envs, args=args))
        scope.attach(LogSpace(scope, file=file, level=level))
        scope.attach(Warnings())
        scope.attach(Own())
        if configuration is not None:
            scope.attach(configuration)
        scopes.append(scope)
        return scope

    yield make
    for scope in scopes:
        space = scope.find_facet(LogSpace)
        if space is not None:
            space.close()
        scope.close()


@pytest.fixture
def with_environ() -> Iterator[None]:
    ENVIRON.acquire()
    yield
    ENVIRON.release()


@pytest.fixture
def with_logs() -> Iterator[None]:
    LOGS.acquire()
    yield
    LOGS.release()


@pytest.fixture
def with_warnings() -> Iterator[None]:
    WARNINGS.acquire()
    yield
    WARNINGS.release()


@pytest.fixture
def with_stdlib() -> Iterator[None]:
    STDLIB.acquire()
    yield
    STDLIB.release()


@pytest.fixture
def with_guards() -> Iterator[None]:
    GUARDS.acquire()
    yield
    GUARDS.release()


class Kept(logging.Handler):
    """Keeps what it is given, and who was running then."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[Any] = []
        self.runners: list[Scope | None] = []
        self.is_closed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.runners.append(current())

    def close(self) -> None:
        self.is_closed = True
        super().close()

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def of_base() -> Iterator[Kept]:
    """The base's configuration: a handler on the root, INFO."""
    handler, level = Kept(), logging.root.level
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    yield handler
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)
    handler.close()


@pytest.fixture
def library() -> Iterator[logging.Logger]:
    """A logger that a library made when the base imported it."""
    logger = logging.getLogger("test_logs_library.part")
    yield logger
    logger.setLevel(logging.NOTSET)
    logger.disabled = False


@pytest.fixture
def keeping() -> type[Kept]:
    """The class of handlers that keep what they are given."""
    return Kept
