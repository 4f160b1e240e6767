"""PyYAML: constructors, representers and resolvers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

yaml = pytest.importorskip("yaml")

if TYPE_CHECKING:
    from tests.adapters.conftest import Fleet

MODULE = """
import re
import yaml

class Point:
    pass

def construct(loader, node):
    return "{name} " + node.value

yaml.add_constructor("!name", construct, yaml.SafeLoader)
yaml.add_constructor("!name", construct)
yaml.CSafeLoader.add_constructor("!name", construct)
yaml.SafeLoader.add_multi_constructor("!many:", lambda loader, suffix, node: "{name} " + suffix)
yaml.SafeDumper.add_representer(set, lambda dumper, value: dumper.represent_scalar("!set", "{name}"))
yaml.SafeDumper.add_multi_representer(Point, lambda dumper, value: dumper.represent_scalar("!point", "{name}"))
yaml.SafeLoader.add_implicit_resolver("!{name}", re.compile(r"^[$]\\d+$"), ["$"])
yaml.SafeLoader.add_constructor("!{name}", lambda loader, node: ["{name}", node.value])

class Tagged(yaml.YAMLObject):
    yaml_tag = "!tagged"
    yaml_loader = [yaml.SafeLoader]

def load(text, loader="SafeLoader"):
    return yaml.load(text, getattr(yaml, loader))

def dump():
    return yaml.safe_dump([set(), Point()])

def tagged():
    return type(yaml.safe_load("!tagged {{a: 1}}")) is Tagged
"""


def fails(text: str) -> bool:
    try:
        yaml.safe_load(text)
    except yaml.constructor.ConstructorError:
        return True
    return False


def test_tags_are_each_module_s_own(fleet: Fleet) -> None:
    one, two = (fleet.start(name, MODULE.format(name=name)) for name in ("one", "two"))
    for name, module in (("one", one), ("two", two)):
        assert module.call("load", "!name x") == f"{name} x"
        assert module.call("load", "!name x", "FullLoader") == f"{name} x"
        assert module.call("load", "!name x", "CSafeLoader") == f"{name} x"
        assert module.call("load", "!many:y z") == f"{name} y"
        assert module.call("load", "[$5, 5]") == [[name, "$5"], 5]
        assert module.call("dump") == f"- !set '{name}'\n- !point '{name}'\n"
        assert module.call("tagged")
    assert all(map(fails, ["!name x", "!many:y z", "!tagged {a: 1}"]))
    assert yaml.safe_load("$5") == "$5"
    again = fleet.start("one", MODULE.format(name="newer"))
    assert [again.call("load", "!name x"), two.call("load", "!name x")] == ["newer x", "two x"]
    fleet.stop("two")
    assert again.call("load", "[$5]") == [["newer", "$5"]]
    fleet.stop("one")
    assert fails("!name x")


def test_what_the_application_of_the_base_adds_is_its_own(fleet: Fleet) -> None:
    before = dict(yaml.SafeLoader.yaml_constructors)
    own = "yaml_constructors" in vars(yaml.SafeLoader)
    yaml.SafeLoader.add_constructor("!base", lambda loader, node: "base " + node.value)
    try:
        one = fleet.start("one", MODULE.format(name="one"))
        yaml.SafeLoader.add_constructor("!later", lambda loader, node: "later " + node.value)
        two = fleet.start("two", MODULE.format(name="two"))
        for module in (one, two):
            for tag in ("!base", "!later"):
                with pytest.raises(yaml.constructor.ConstructorError, match=f"constructor for the tag '{tag}'"):
                    module.call("load", f"{tag} x")
        assert [yaml.safe_load("!base x"), yaml.safe_load("!later x")] == ["base x", "later x"]
        assert [one.call("load", "!name x"), two.call("load", "!name x")] == ["one x", "two x"]
        fleet.stop("one", "two")
        assert [yaml.safe_load("!base x"), fails("!name x")] == ["base x", True]
        assert type(vars(yaml.SafeLoader)["yaml_constructors"]) is dict
    finally:
        if own:
            yaml.SafeLoader.yaml_constructors = before
        else:
            del yaml.SafeLoader.yaml_constructors


def test_resolvers_that_a_module_takes_out_are_there_for_others(fleet: Fleet) -> None:
    yes = """
import yaml
for first in "yYnNoO":
    yaml.SafeLoader.yaml_implicit_resolvers[first] = [
        (tag, pattern) for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers[first] if not tag.endswith(":bool")
    ]
def load(text): return yaml.safe_load(text)
"""
    one = fleet.start("one", yes)
    two = fleet.start("two", "import yaml\nload = yaml.safe_load")
    assert [one.call("load", "yes"), two.call("load", "yes"), yaml.safe_load("yes")] == ["yes", True, True]


def test_the_tables_are_the_base_s_when_all_have_left(fleet: Fleet) -> None:
    def tables() -> dict[str, object]:
        kinds = (yaml.SafeLoader, yaml.resolver.Resolver, yaml.constructor.SafeConstructor, yaml.dumper.SafeDumper)
        return {
            f"{kind.__name__}.{name}": (type(value), re.sub("0x[0-9a-f]+", "", repr(value)))
            for kind in kinds
            for name, value in vars(kind).items()
            if name.startswith(("yaml_", "add_"))
        }

    before = tables()
    fleet.start("one", MODULE.format(name="one"))
    fleet.stop("one")
    assert tables() == before
