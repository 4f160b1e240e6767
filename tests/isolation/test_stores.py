"""What code may store into things that are not its own, by its bytecode."""

from __future__ import annotations

import textwrap
import weakref
from typing import TYPE_CHECKING

import pytest

from koupleless.isolation.linking import stores
from koupleless.isolation.linking.stores import Stored, Stores, may_store, stores_of

if TYPE_CHECKING:
    from types import CodeType


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
    assert stores_of(compiled(source)) == (frozenset(), frozenset(), False, frozenset())
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
    assert found.containers == {("lib", "LIST")}


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
    assert {name for _, name in stores_of(compiled(source)).containers} == names


HELD = {
    "of a module": "import linecache\nlinecache.cache['a'] = 1",
    "in a function": "import linecache\ndef f(name):\n    linecache.cache[name] = 1",
    "of a module under another name": "import linecache as lines\ndef f():\n    lines.cache.pop('a')",
    "imported inside": "def f():\n    import linecache\n    linecache.cache['a'] = 1",
    "imported inside under another name": "def f():\n    import linecache as lines\n    lines.cache['a'] = 1",
    "imported by its name": "from linecache import cache\ncache['a'] = 1",
    "imported under another name": "from linecache import cache as known\nknown['a'] = 1",
    "with everything": "from linecache import *\ncache['a'] = 1",
    "found in sys.modules": "import sys\nm = sys.modules['linecache']\nm.cache['a'] = 1",
    "imported by a call": "from importlib import import_module as get\nm = get('linecache')\nm.cache['a'] = 1",
    "below a package": "import pkg.linecache\npkg.linecache.cache['a'] = 1",
    "of a package": "from pkg import linecache\nlinecache.cache['a'] = 1",
    "where the import may fail": "try:\n    import linecache\nexcept ImportError:\n    linecache = None\n"
    "def f():\n    linecache.cache['a'] = 1",
}
NOT_HELD = {
    "of something else": "import linecache, lib\nlib.cache['a'] = 1",
    "of an imported class": "import linecache\nfrom lib import Client\nClient.cache['a'] = 1",
    "of a module of the code's own": "import linecache\nfrom . import lines\nlines.cache['a'] = 1",
    "of what an attribute holds": "import linecache\ndef f(request):\n    request.app.cache['a'] = 1",
    "of nothing that is mentioned": "def f(client):\n    client.cache['a'] = 1",
    "of another name": "import linecache\nlinecache.lines['a'] = 1",
    "imported under that name": "from lib import table as cache\nimport linecache\ncache['a'] = 1",
}


def held(source: str) -> bool:
    stored = Stored()
    stored.note(compiled(source))
    assert not stored.has_container("cache", frozenset({"other"}))
    return stored.has_container("cache", frozenset({"linecache"}))


@pytest.mark.parametrize("source", HELD.values(), ids=list(HELD))
def test_a_container_of_a_certain_module(source: str) -> None:
    assert held(source)


@pytest.mark.parametrize("source", NOT_HELD.values(), ids=list(NOT_HELD))
def test_a_container_of_that_name_of_something_else(source: str) -> None:
    assert not held(source)


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


def test_code_that_several_execute_is_read_once_and_forgotten_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(code: CodeType) -> Stores:
        read.append(code.co_filename)
        return stores_of(code)

    monkeypatch.setattr(stores, "stores_of", counted)
    code, other = compiled("import lib\nlib.a = 1"), compiled("import lib\nlib.a = 1")
    several = [Stored() for _ in range(3)]
    for stored in several:
        stored.note(code)
    several[0].note(other)  # equal, and not the same
    assert [stored.has_attribute("a") for stored in several] == [True] * 3
    assert len(read) == 2
    known, gone = len(stores._read), weakref.ref(code)
    del code
    assert gone() is None
    assert len(stores._read) == known - 1
