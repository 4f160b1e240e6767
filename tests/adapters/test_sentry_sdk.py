"""Sentry: whom a client of the base reports, and whose its threads are."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

from koupleless.context import entered

sentry_sdk = pytest.importorskip("sentry_sdk")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.adapters.conftest import Fleet

OWN = """
import warnings

warnings.simplefilter("ignore")  # Sentry imports eventlet, where that is installed

import sentry_sdk

sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", default_integrations=False)

def client():
    return sentry_sdk.get_client().dsn
"""
PLAIN = """
import sentry_sdk

def client():
    return sentry_sdk.get_client().dsn
"""
NONE = "VALUE = 1"


@pytest.fixture
def told() -> Iterator[list[str]]:
    """The errors that the base's client sends; it has one for the length of a test."""
    sent: list[str] = []

    def before_send(event: Any, _: Any) -> Any:
        sent.append(event["exception"]["values"][-1]["type"])
        return event

    warnings.simplefilter("ignore")  # as in the module above; of this test alone
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/9", before_send=before_send, default_integrations=False)
    yield sent
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


def test_a_module_finds_its_own_client_or_none(fleet: Fleet, told: list[str]) -> None:
    of_base = sentry_sdk.get_client().dsn
    one, two = fleet.start("one", OWN), fleet.start("two", PLAIN)
    assert one.call("client") == "http://key@127.0.0.1:9/1"
    assert two.call("client") is None, "of a copy that nobody has configured"
    assert sentry_sdk.get_client().dsn == of_base
    fleet.stop("one", "two")
    assert sentry_sdk.get_client().dsn == of_base
    assert told == []


def test_the_base_reports_who_has_no_sentry_himself(fleet: Fleet, told: list[str]) -> None:
    """Its instruments run for modules too, and its thread, which is started first for one of them, stays."""
    one, none = fleet.start("one", OWN), fleet.start("none", NONE)
    with entered(one._scope):
        assert not sentry_sdk.get_client().is_active()
        sentry_sdk.capture_exception(KeyError())
    assert told == []
    with entered(none._scope):
        sentry_sdk.capture_exception(LookupError())
    assert told == ["LookupError"]
    worker = sentry_sdk.get_client().transport._worker
    fleet.stop("one", "none")
    assert worker.is_alive
    sentry_sdk.capture_exception(IndexError())
    assert told == ["LookupError", "IndexError"]
