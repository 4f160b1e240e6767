"""How libraries are held: who decides, and families that are never held by halves."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType

import pytest

from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.libraries.holding import Holding, Speakers, Wishes, conflicts, decide
from koupleless.isolation.libraries.installed.index import Index
from koupleless.isolation.libraries.known import SHARE, Share

SHARED, COPY, OWN = Holding.SHARED, Holding.COPY, Holding.OWN


@pytest.fixture
def index(write):
    """``index({"web": ["core"]})`` has distributions that require others; a name that ends in ``+`` is compiled."""

    def make(requirements):
        files: dict[str, str] = {}
        for text, requires in requirements.items():
            name = text.rstrip("+")
            module = f"{name}{EXTENSION_SUFFIXES[0]}" if text.endswith("+") else f"{name}.py"
            lines = "".join(f"Requires-Dist: {one}\n" for one in requires)
            files |= {
                module: "",
                f"{name}-1.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{lines}\nText.\n",
                f"{name}-1.dist-info/RECORD": f"{module},,\n",
            }
        return Index([str(write(files))])

    return make


def held(index, **speakers):
    words = speakers.pop("words", {})
    return {name: one.holding for name, one in decide(index, Speakers(words=words.get, **speakers)).items()}


def test_code_that_nobody_has_looked_at_is_copied_and_compiled_code_is_shared(index):
    assert held(index({"pure": [], "fast+": []})) == {"pure": COPY, "fast": SHARED}


def test_the_first_that_speaks_decides(index):
    there = index({"lib": []})
    words = {"lib": Share.ALWAYS}
    assert held(there, words=words) == {"lib": SHARED}
    assert held(there, words=words, base=Wishes.of(own=["Lib"])) == {"lib": COPY}
    assert held(there, words=words, base=Wishes.of(own=["Lib"]), module=Wishes.of(shared=["LIB"])) == {"lib": SHARED}
    assert held(there, words=words, module=Wishes.of(own=["lib"]), brought=frozenset({"lib"})) == {"lib": OWN}


def test_what_a_shared_library_requires_is_shared_with_it(index):
    there = index(
        {"web": ["core>=1 ; python_version > '3'", "more; extra == 'x'"], "core": ["deep"], "deep": [], "more": []}
    )
    assert held(there, words={"web": Share.ALWAYS}) == {"web": SHARED, "core": SHARED, "deep": SHARED, "more": COPY}


def test_what_compiled_code_requires_is_shared_with_it(index):
    assert held(index({"fast+": ["half"], "half": []})) == {"fast": SHARED, "half": SHARED}


def test_a_wish_to_share_counts_for_what_is_required_whatever_that_says_of_itself(index):
    there = index({"web": ["core"], "core": ["deep"], "deep": []})
    words = {"core": Share.COPY}
    assert held(there, words=words, base=Wishes.of(shared=["web"])) == {"web": SHARED, "core": SHARED, "deep": SHARED}
    wishes = {"base": Wishes.of(shared=["web"], own=["core"])}
    assert held(there, words=words, **wishes) == {"web": COPY, "core": COPY, "deep": COPY}


def test_an_own_copy_draws_along_what_requires_it(index):
    there = index({"web": [], "plugin": ["web"], "theme": ["plugin"], "other": []})
    words = dict.fromkeys(("web", "plugin", "theme", "other"), Share.ALWAYS)
    found = decide(there, Speakers(words=words.get, module=Wishes.of(own=["web"])))
    assert {name: one.holding for name, one in found.items()} == {
        "web": COPY, "plugin": COPY, "theme": COPY, "other": SHARED,
    }  # fmt: skip
    assert found["theme"].reason == "the library requires plugin, of which the module has an own copy"


def test_a_family_is_whole_also_where_the_base_wants_half_of_it_shared(index):
    there = index({"web": [], "plugin": ["web"]})
    assert held(there, base=Wishes.of(shared=["web", "plugin"])) == {"web": SHARED, "plugin": SHARED}
    assert held(there, base=Wishes.of(shared=["web", "plugin"]), module=Wishes.of(own=["web"])) == {
        "web": COPY, "plugin": COPY,
    }  # fmt: skip


def test_what_the_base_wants_shared_is_drawn_along_by_an_import_that_no_metadata_tell(write, monkeypatch):
    root = write(
        {
            "web.py": "",
            "web-1.dist-info/METADATA": "Name: web\nVersion: 1\n",
            "web-1.dist-info/RECORD": "web.py,,\n",
            "half.py": "from web import thing\n",
            "half-1.dist-info/METADATA": "Name: half\nVersion: 1\n",
            "half-1.dist-info/RECORD": "half.py,,\n",
        }
    )
    wishes = {"base": Wishes.of(shared=["web", "half"]), "module": Wishes.of(own=["web"])}
    assert held(Index([str(root)]), **wishes) == {"web": COPY, "half": SHARED}, "the base has not loaded it"
    monkeypatch.setitem(sys.modules, "half", ModuleType("half"))
    assert held(Index([str(root)]), **wishes) == {"web": COPY, "half": COPY}


def test_an_own_version_draws_along_what_requires_it_also_where_the_base_does_not_have_it(index):
    there = index({"plugin": ["web"]})
    words = {"plugin": Share.ALWAYS}
    assert held(there, words=words) == {"plugin": SHARED}
    assert held(there, words=words, brought=frozenset({"web"})) == {"plugin": COPY}


def test_what_the_module_brings_draws_along_what_names_it_in_an_extra(index):
    there = index(
        {
            "models": ["mail>=2 ; extra == 'email'", "checker ; extra == 'test'"],
            "web": ["models"],
            "checked": ["mail ; python_version < '3' and extra == \"mail\""],
            "other": [],
        }
    )
    words = dict.fromkeys(("models", "web", "checked", "other"), Share.ALWAYS)
    assert held(there, words=words, brought=frozenset({"checker"})) == dict.fromkeys(words, SHARED)
    found = decide(there, Speakers(words=words.get, brought=frozenset({"mail"})))
    assert {name: one.holding for name, one in found.items()} == {**dict.fromkeys(words, COPY), "other": SHARED}
    assert found["models"].reason == "the library can use mail, of which the module has an own version"
    assert found["web"].reason == "the library requires models, of which the module has an own copy"


def test_compiled_code_is_not_drawn_along(index):
    there = index({"web": [], "fast+": ["web"]})
    assert held(there, module=Wishes.of(own=["web"])) == {"web": COPY, "fast": SHARED}


def test_the_application_of_the_base_is_shared_and_what_it_requires_is_not(index):
    there = index({"shop": ["web"], "web": []})
    assert held(there, application=frozenset({"shop"})) == {"shop": SHARED, "web": COPY}


def test_a_library_that_can_never_be_shared_is_not_shared_on_demand(index):
    there = index({"lib": []})
    words = {"lib": Share.NEVER}
    wish = Wishes.of(shared=["lib"])
    assert held(there, words=words, module=wish) == {"lib": COPY}
    assert "can never be shared" in " ".join(conflicts(there, Speakers(words=words.get, module=wish)))


def test_wishes_that_cannot_be_met_are_told_with_a_remedy(index):
    there = index({"fast+": [], "lib": []})
    own = Speakers(module=Wishes.of(own=["fast", "absent", "lib"]))
    absent, fast = conflicts(there, own)
    assert absent.startswith('own = ["absent"]: the base does not have absent')
    assert 'bring = ["fast"]' in fast
    both = Speakers(module=Wishes.of(shared=["lib"]), brought=frozenset({"lib"}))
    assert "brings lib along" in " ".join(conflicts(there, both))
    assert conflicts(there, Speakers(module=Wishes.of(own=["lib"]))) == ()


def test_no_library_that_is_always_shared_requires_one_that_is_always_copied():
    there = base_index()
    for name, share in SHARE.items():
        if share is Share.ALWAYS and name in there.versions:
            assert decide(there, Speakers())[name].holding is SHARED, decide(there, Speakers())[name]
