"""What code may store into things that are not its own, by its bytecode."""

from __future__ import annotations

import textwrap

import pytest

from koupleless.isolation.stores import Stored, may_store, stores_of


def compiled(source: str):
    return compile(textwrap.dedent(source), "app.py", "exec")


OWN = {
    "an attribute of self": "class K:\n    def f(self, a):\n        self.a = a",
    "one that is added to": "class K:\n    def f(self, a):\n        self.a += a\n        self.b.c -= 1",
    "of what self has": "class K:\n    def f(self):\n        self.a.b.c = 1",
    "of self in a function inside": "class K:\n    def f(self):\n        def g(): self.a = 1\n        return g",
    "of the class": "class K:\n    @classmethod\n    def f(cls):\n        cls.a = 1",
    "of what was just made": "def f():\n    made = K()\n    made.a = 1\n    made.b.c = 2\n    return made",
    "an item of a local": "def f():\n    found = {}\n    found['a'] = 1\n    found.update(b=2)",
    "a list of self": "class K:\n    def f(self):\n        self.names.append(1)\n        self.table['a'] = 1",
    "what the module has made": (
        "app = FastAPI()\napp.state.x = 1\nTABLE: dict[str, int] = {}\n"
        "class K: pass\nK.a = 1\ndef f():\n    TABLE['a'] = 1\n    f.calls += 1\n    app.state.y = K.b = 2"
    ),
    "nothing": "import a\nprint(a.b.c)\nx = a.d",
}


@pytest.mark.parametrize("source", OWN.values(), ids=list(OWN))
def test_what_is_the_codes_own_is_none_of_it(source: str) -> None:
    assert stores_of(compiled(source)) == (frozenset(), frozenset(), False)
    assert not may_store(compiled(source))


OTHER = {
    "a module": ("import lib\nlib.a = 1", {"a"}),
    "below a module": ("import lib.x\nlib.x.K.a = lib.x.K.b = 1", {"a", "b"}),
    "deleted": ("import lib\ndel lib.K.a", {"a"}),
    "added to": ("import lib\ndef f():\n    lib.count += 1", {"count"}),
    "an argument": ("def patch(kind):\n    kind.a = 1", {"a"}),
    "a local of an unknown origin": ("import lib\ndef f():\n    kind = lib.K\n    kind.a = 1", {"a"}),
    "a module that was imported by a call": (
        "from importlib import import_module\ndef f():\n    lib = import_module('lib')\n    lib.a = 1",
        {"a"},
    ),
    "in a class inside a function": (
        "import lib\ndef f():\n    class K:\n        def g(self):\n            lib.a = 1",
        {"a"},
    ),
    "by another name": ("import lib\nK = lib.K\nK.a = 1\ndef f():\n    K.b = 1", {"a", "b"}),
    "what was made, or imported": ("try:\n    from lib import K\nexcept ImportError:\n    K = make()\nK.a = 1", {"a"}),
    "with an annotation": ("import lib\nlib.a: int = 3", {"a"}),
}


@pytest.mark.parametrize(("source", "names"), OTHER.values(), ids=list(OTHER))
def test_what_belongs_to_others_is_found_by_name(source: str, names: set[str]) -> None:
    assert stores_of(compiled(source)).attributes == names
    assert may_store(compiled(source))


def test_names_beyond_one_byte_are_found() -> None:
    many = "import lib\n" + "\n".join(f"v{number} = lib.a{number}" for number in range(400))
    found = stores_of(compiled(f"{many}\nlib.late = 1\nlib.deep.later = 2\nlib.LIST.append(1)\nself = lib\n"))
    assert found.attributes == {"late", "later"}
    assert found.containers == {"LIST"}


CONTAINERS = {
    "an item of one in a module": ("import lib\nlib.TABLE['a'] = 1", {"TABLE"}),
    "an item of an imported one": ("from lib import TABLE\nTABLE['a'] = 1", {"TABLE"}),
    "in a function": ("import lib\ndef f(key):\n    lib.TABLE[key] = 1", {"TABLE"}),
    "by a method": (
        "import lib\nlib.NAMES.append(1)\nlib.K.known.add(2)\nlib.TABLE.update(a=1)",
        {"NAMES", "known", "TABLE"},
    ),
}


@pytest.mark.parametrize(("source", "names"), CONTAINERS.values(), ids=list(CONTAINERS))
def test_containers_of_others_are_found_by_name(source: str, names: set[str]) -> None:
    assert stores_of(compiled(source)).containers == names


def test_where_the_name_does_not_show_the_texts_that_may_be_one_are_taken() -> None:
    found = stores_of(compiled("import lib\nsetattr(lib, 'timeout', 1)\npatch('lib.api.get', 'not a name')"))
    assert found.is_opaque
    assert {"timeout", "get"} <= found.attributes
    assert "not a name" not in found.attributes


def test_an_owner_is_told_once_before_its_first_code_that_may_store() -> None:
    told: list[str] = []
    stored = Stored(lambda: told.append("begun"))
    stored.note(compiled("import lib\nprint(lib)"))
    assert not stored
    assert told == []
    stored.note(compiled("import lib\nlib.a = 1"))
    stored.note(compiled("import lib\nlib.b = 1"))
    assert stored
    assert told == ["begun"]
    assert [stored.has_attribute(name) for name in "abc"] == [True, True, False]


def test_code_that_cannot_be_looked_at_may_store_anything() -> None:
    told: list[str] = []
    stored = Stored()
    stored.when_first(lambda: told.append("begun"))
    stored.suspect()
    stored.suspect()
    assert told == ["begun"]
    assert stored.has_attribute("anything")
    assert not stored.has_container("anything")
