"""Sentry: whom a client of the base reports, and whose its threads are.

Each test is a base of its own: Sentry imports what changes the process for good, eventlet's hooks at ``fork`` among it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from tests.conftest import unmeasured

if importlib.util.find_spec("sentry_sdk") is None:
    pytest.skip("Sentry is not installed", allow_module_level=True)

BASE = '''
import sentry_sdk

from koupleless.context import entered
from koupleless.testing import loaded

OWN = """
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
told = []


def before_send(event, _):
    told.append(event["exception"]["values"][-1]["type"])
    return event


sentry_sdk.init(dsn="http://key@127.0.0.1:9/9", before_send=before_send, default_integrations=False)
'''

OWN_CLIENTS = """
with loaded(OWN, name="one") as one, loaded(PLAIN, name="two") as two:
    assert one.call("client") == "http://key@127.0.0.1:9/1"
    assert two.call("client") is None, "of a copy that nobody has configured"
    assert sentry_sdk.get_client().dsn == "http://key@127.0.0.1:9/9"
assert sentry_sdk.get_client().dsn == "http://key@127.0.0.1:9/9"
assert told == []
"""

REPORTED = """
with loaded(OWN, name="one") as one, loaded("VALUE = 1", name="none") as none:
    with entered(one._scope):
        assert not sentry_sdk.get_client().is_active()
        sentry_sdk.capture_exception(KeyError())
    assert told == []
    with entered(none._scope):  # which is the first for whom the client needs its thread
        sentry_sdk.capture_exception(LookupError())
    assert told == ["LookupError"]
    worker = sentry_sdk.get_client().transport._worker
    assert worker.is_alive
assert worker.is_alive
sentry_sdk.capture_exception(IndexError())
assert told == ["LookupError", "IndexError"]
"""


def run(script: str) -> None:
    command = [sys.executable, "-P", "-W", "ignore", "-c", BASE + script]
    done = subprocess.run(command, env=unmeasured(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_adapter_names_modules_and_methods_that_there_are() -> None:
    run("""
import importlib
from koupleless.adapters.sentry_sdk import _THREADS, follow

modules = {name: importlib.import_module(name) for name in follow}
for name, path in _THREADS.items():
    kind, _, method = path.partition(".")
    assert method in vars(getattr(modules[name], kind)), path
sentry_sdk.get_client().close()
""")


def test_a_module_finds_its_own_client_or_none() -> None:
    run(OWN_CLIENTS)


def test_the_base_reports_who_has_no_sentry_himself() -> None:
    """Its instruments run for modules too, and its thread, which is started first for one of them, stays."""
    run(REPORTED)
