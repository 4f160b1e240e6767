"""The account of libraries that came into the base because a biz needed them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

from koupleless.isolation.libraries import resident
from koupleless.isolation.libraries.holding import Speakers, Wishes
from koupleless.isolation.libraries.resident import Arrivals

from .test_distributions import wheel

if TYPE_CHECKING:
    from koupleless.descriptions import Resident

DEEP = wheel("based-deep", "2.0", {"based_deep/__init__.py": "grow('deep')\n", "based_deep/more.py": "grow('more')\n"})
TOP = wheel("based-top", "1.0", {"based_top.py": "import based_deep\ngrow('top')\n"}, requires=("based-deep",))
OTHER = wheel("based-other", "3.0", {"based_other.py": ""})
SIZES = {"deep": 5_000_000, "more": 2_000_000, "top": 1_000_000}
SHARED = Speakers(base=Wishes.of(shared=["based-top", "based-deep", "based-other"]))


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Arrivals:
    """An empty account, in a process that grows as the modules say."""
    made, size = Arrivals(), [100_000_000]

    def grow(what: str) -> None:
        size[0] += SIZES[what]

    for place in ("libraries.resident", "imports", "finding.base", "finding.finder"):
        monkeypatch.setattr(f"koupleless.isolation.{place}.arrivals", made)
    monkeypatch.setattr(resident, "resident_bytes", lambda: size[0])
    monkeypatch.setattr("builtins.grow", grow, raising=False)
    return made


def named(account: Arrivals) -> dict[str, Resident]:
    return {one.name: one for one in account.listing() if one.name.startswith("based")}


def test_each_library_has_its_part_of_what_one_import_brings(account, base, biz):
    base({**TOP, **DEEP})
    namespace = biz({"app.py": "import based_top"}, identity="shop:1.0", speakers=SHARED)
    assert not account
    namespace.import_module("app")
    assert account
    found = named(account)
    assert list(found) == ["based-deep", "based-top"], "the largest first"
    top, deep = found["based-top"], found["based-deep"]
    assert (top.version, top.size_bytes, top.modules) == ("1.0", 1_000_000, 1)
    assert (deep.version, deep.size_bytes, deep.modules) == ("2.0", 5_000_000, 1)
    assert top.users == deep.users == ("shop:1.0",)
    biz({"app.py": "import based_deep.more"}, speakers=SHARED).import_module("app")
    assert (named(account)["based-deep"].size_bytes, named(account)["based-deep"].modules) == (7_000_000, 2)


def test_what_code_of_the_base_imports_while_it_works_for_a_biz_counts_too(account, base, biz):
    base({**TOP, **DEEP, "based_late.py": "def late():\n    import based_top\n    return based_top\n"})
    library = importlib.import_module("based_late")
    biz({"app.py": "import based_late\nbased_late.late()"}, speakers=SHARED).import_module("app")
    assert library.late().__name__ == "based_top"
    assert set(named(account)) == {"based-top", "based-deep"}


def test_what_the_base_imports_itself_is_none_of_it(account, base, biz):
    base({**TOP, **DEEP, **OTHER})
    biz({"app.py": "import based_other"}, speakers=SHARED).import_module("app")
    importlib.import_module("based_top")
    biz({"app.py": "import based_top"}, speakers=SHARED).import_module("app")
    assert set(named(account)) == {"based-other"}


def test_an_own_copy_is_none_of_it(account, base, biz):
    base({**TOP, **DEEP})
    biz({"app.py": "import based_top"}).import_module("app")
    assert named(account) == {}


def test_a_library_is_idle_once_the_last_that_may_use_it_has_left(account, base, biz):
    base({**TOP, **DEEP})
    first = biz({"app.py": "import based_top"}, identity="one:1.0", speakers=SHARED)
    second = biz({"app.py": "import based_deep"}, identity="two:1.0", speakers=SHARED)
    for namespace in (first, second):
        namespace.import_module("app")
    assert named(account)["based-deep"].users == ("one:1.0", "two:1.0")
    first.drop()
    found = named(account)
    assert [found[name].is_idle for name in ("based-top", "based-deep")] == [True, False]
    assert [one.name for one in account.idle() if one.name.startswith("based")] == ["based-top"]
    assert found["based-deep"].users == ("two:1.0",)
    second.drop()
    assert named(account)["based-deep"].is_idle
    assert named(account)["based-deep"].users == ()


def test_an_import_that_fails_leaves_what_came_on_the_account(account, base, biz):
    base({**DEEP, **wheel("based-top", "1.0", {"based_top.py": "import based_deep\nraise ValueError('no')\n"})})
    with pytest.raises(ValueError, match="no"):
        biz({"app.py": "import based_top"}, speakers=SHARED).import_module("app")
    assert set(named(account)) == {"based-deep"}


def test_modules_that_have_left_are_forgotten(account, base, biz):
    base({**TOP, **DEEP})
    biz({"app.py": "import based_top"}, speakers=SHARED).import_module("app")
    account.forget(["based_top"])
    assert set(named(account)) == {"based-deep"}
