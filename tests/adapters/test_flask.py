"""Flask and blinker: signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import blinker
import flask

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import blinker
import flask

app = flask.Flask("{name}")
heard = []

@flask.request_started.connect
def started(sender, **_):
    heard.append("started " + sender.name)

@flask.template_rendered.connect_via(flask.signals.ANY if hasattr(flask.signals, "ANY") else blinker.ANY)
def rendered(sender, **_):
    heard.append("rendered " + sender.name)

@blinker.signal("named").connect
def named(sender):
    heard.append("named " + sender)

@app.get("/")
def index():
    return flask.render_template_string("hello")

def requested():
    heard.clear()
    app.test_client().get("/")
    blinker.signal("named").send("{name}")
    return [*heard], bool(flask.request_started.receivers), "named" in blinker.base.default_namespace

def silenced():
    flask.request_started.disconnect(started)
    heard.clear()
    app.test_client().get("/")
    return [*heard], bool(flask.request_started.receivers)
"""


def test_receivers_hear_their_own_application(fleet: Fleet) -> None:
    heard: list[str] = []

    def of_base(sender: flask.Flask, **_: object) -> None:
        heard.append(sender.name)

    flask.request_started.connect(of_base)
    base = flask.Flask("base")
    base.add_url_rule("/", view_func=lambda: "base")
    one, two = (fleet.start(name, MODULE.format(name=name)) for name in ("one", "two"))
    for name, module in (("one", one), ("two", two)):
        assert module.call("requested") == ([f"started {name}", f"rendered {name}", f"named {name}"], True, True)
    base.test_client().get("/")
    assert "named" not in blinker.base.default_namespace
    assert heard == ["base"]
    again = fleet.start("one", MODULE.format(name="newer"))
    assert again.call("requested")[0][0] == "started newer"
    assert two.call("silenced") == (["rendered two"], False)
    assert again.call("requested")[0][0] == "started newer"
    fleet.stop_all()
    base.test_client().get("/")
    assert heard == ["base", "base"]
    assert type(flask.request_started) is blinker.NamedSignal
    flask.request_started.disconnect(of_base)


def test_a_signal_of_the_base_s_own_code_reaches_modules(fleet: Fleet, monkeypatch) -> None:
    saved = blinker.Namespace().signal("saved")
    monkeypatch.setattr(flask, "saved", saved, raising=False)  # somewhere where modules find it
    one = fleet.start("one", "import flask\nheard = []\n@flask.saved.connect\ndef on(sender): heard.append(sender)\n"
                             "def told(): return heard\n")  # fmt: skip
    saved.send("base")
    assert one.call("told") == ["base"]
    fleet.stop_all()
    assert saved.receivers == {}
