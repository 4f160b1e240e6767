"""Controllers for the tests of announcements."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from tests.controllers import controller_on

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from tests.controllers import FakeController


@pytest.fixture
def controllers() -> Iterator[Callable[..., FakeController]]:
    """``controllers(port=0, tls=None)`` starts one."""
    with contextlib.ExitStack() as stack:

        def start(port: int = 0, tls: ssl.SSLContext | None = None) -> FakeController:
            return stack.enter_context(controller_on(port, tls=tls))

        yield start


@pytest.fixture
def controller(controllers: Callable[..., FakeController]) -> FakeController:
    return controllers()
