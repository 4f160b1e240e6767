"""Jinja: default filters, tests, globals and policies, bare templates, the sandbox's limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.defaults
import jinja2.filters
import jinja2.sandbox

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

DEFAULTS: Any = jinja2.defaults

MODULE = """
import jinja2, jinja2.defaults, jinja2.ext, jinja2.filters, jinja2.sandbox, jinja2.tests

jinja2.defaults.DEFAULT_FILTERS["shout"] = lambda text: text + " {name}"
jinja2.filters.FILTERS["upper"] = lambda text: "{name} upper"
jinja2.tests.TESTS["mine"] = lambda value: value == "{name}"
jinja2.defaults.DEFAULT_NAMESPACE["who"] = lambda: "{name}"
jinja2.defaults.DEFAULT_POLICIES["json.dumps_kwargs"]["indent"] = {indent}
jinja2.sandbox.MAX_RANGE = {indent}

class Extension(jinja2.ext.Extension):
    pass

def render(text):
    return jinja2.Template(text).render()

def in_environment(text):
    return jinja2.Environment().from_string(text).render()

def extended():
    environment = jinja2.Template("x", extensions=[Extension]).environment
    return [type(one).__module__ for one in environment.extensions.values()]

def mark():
    jinja2.Template("x").environment.globals["mark"] = "{name}"
    return jinja2.Template("{{{{ mark }}}}").render()

def is_allowed(length):
    try:
        return jinja2.sandbox.SandboxedEnvironment().from_string("{{{{ range(%d)|length }}}}" % length).render()
    except OverflowError:
        return False
"""


def test_defaults_are_each_module_s_own(fleet: Fleet) -> None:
    before = dict(DEFAULTS.DEFAULT_FILTERS)
    one = fleet.start("one", MODULE.format(name="one", indent=1))
    two = fleet.start("two", MODULE.format(name="two", indent=2))
    for render in ("render", "in_environment"):
        for name, indent, module in (("one", 1, one), ("two", 2, two)):
            assert module.call(render, "{{ 'x'|shout }} {{ 'a'|upper }}") == f"x {name} {name} upper"
            assert module.call(render, "{{ who() }} {{ 'one' is mine }}") == f"{name} {name == 'one'}"
            assert module.call(render, "{{ [1]|tojson }}") == f"[\n{' ' * indent}1\n]"
    assert [one.call("mark"), two.call("mark"), jinja2.Template("{{ mark }}").render()] == ["one", "two", ""]
    assert one.call("extended") == ["one"]
    assert [one.call("is_allowed", 2), two.call("is_allowed", 2)] == [False, "2"]
    assert jinja2.Template("{{ 'a'|upper }} {{ [1]|tojson }}").render() == "A [1]"
    assert dict(DEFAULTS.DEFAULT_FILTERS) == before
    assert jinja2.sandbox.MAX_RANGE == 100000

    again = fleet.start("one", MODULE.format(name="newer", indent=3))
    assert [again.call("render", "{{ who() }}"), two.call("render", "{{ who() }}")] == ["newer", "two"]
    fleet.stop("one", "two")
    assert type(DEFAULTS.DEFAULT_FILTERS) is type(DEFAULTS.DEFAULT_POLICIES["json.dumps_kwargs"]) is dict
    assert jinja2.filters.FILTERS is DEFAULTS.DEFAULT_FILTERS
    assert DEFAULTS.DEFAULT_POLICIES["json.dumps_kwargs"] == {"sort_keys": True}


def test_settings_of_the_base_are_what_modules_start_with_and_its_code_is_not(fleet: Fleet) -> None:
    plain = """
    import jinja2
    def names(): return "based" in jinja2.Environment().filters, "upper" in jinja2.Environment().filters
    def trimmed(): return jinja2.Environment().policies["truncate.leeway"]
    """
    DEFAULTS.DEFAULT_FILTERS["based"] = lambda text: text + " of the base"
    DEFAULTS.DEFAULT_POLICIES["truncate.leeway"] = 7
    try:
        one = fleet.start("one", MODULE.format(name="one", indent=1))
        two = fleet.start("two", plain)
        assert [one.call("render", "{{ 'x'|shout }}"), two.call("names"), two.call("trimmed")] == [
            "x one",
            (False, True),
            7,
        ]
        assert jinja2.Environment().from_string("{{ 'x'|based }}").render() == "x of the base"
    finally:
        fleet.stop_all()
        del DEFAULTS.DEFAULT_FILTERS["based"]
        DEFAULTS.DEFAULT_POLICIES["truncate.leeway"] = 5
    assert "based" not in DEFAULTS.DEFAULT_FILTERS
