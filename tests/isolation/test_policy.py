"""Whose module a name is to be, decided without touching anything."""

from __future__ import annotations

import pytest

from koupleless.isolation.policy import Policy, Provenance, Side, Verdict, covers

ARCHIVE = Provenance(location="/base/lib.zip/thing.py", in_directory=False)
DIRECTORY = Provenance(location="/base/app/thing.py")
REQUESTS = Provenance(owners=(("requests", "2.30.0"),))


def provider(name):
    raise AssertionError(name)


def first_verdict(policy: Policy, name: str) -> Verdict:
    """The verdict that does not depend on what the biz brought; there has to be one."""
    verdict = policy.before_own(name)
    assert verdict is not None
    return verdict


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b", "a.bc", False),
        ("a.b.*", "a.b", True),
        ("a.b.*", "a.b.c.d", True),
        ("a.b.*", "a.bc", False),
        ("a.*", "a", True),
        ("a.*", "b", False),
    ],
)
def test_patterns_end_at_dots(pattern, name, expected):
    assert covers(pattern, name) is expected


@pytest.mark.parametrize("name", ["json", "json.decoder", "sys", "_io", "koupleless", "koupleless.context"])
def test_what_the_process_must_own(name):
    assert first_verdict(Policy(exports={name: provider}), name).side is Side.PROCESS


def test_other_names_are_not_decided_beforehand():
    assert Policy().before_own("requests") is None
    assert Policy().before_own("jsonschema") is None


def test_exports_come_before_the_bizs_own_and_the_most_exact_wins():
    def exact(name):
        raise AssertionError(name)

    policy = Policy(exports={"shared.*": provider, "shared.api": exact, "shared.api.*": provider})
    assert first_verdict(policy, "shared.model").provider is provider
    assert first_verdict(policy, "shared.api").provider is exact
    assert first_verdict(policy, "shared.api").side is Side.EXPORT
    assert policy.before_own("sharedx") is None


def test_deny_rules_suppress_exports_and_nothing_else():
    policy = Policy(exports={"shared.*": provider}, deny=("shared.secret.*", "json", "requests"))
    assert policy.before_own("shared.secret.x") is None
    assert first_verdict(policy, "shared.api").side is Side.EXPORT
    assert first_verdict(policy, "json").side is Side.PROCESS
    assert policy.of_base("requests", REQUESTS).side is Side.BASE


@pytest.mark.parametrize("provenance", [ARCHIVE, DIRECTORY, REQUESTS])
def test_without_declarations_the_base_gives_everything(provenance):
    policy = Policy()
    assert policy.of_base("thing", provenance).side is Side.BASE
    assert not policy.asks_provenance


def test_declared_mode_goes_by_distribution():
    policy = Policy(declared=frozenset({"Flask_Cors", "requests"}))
    assert policy.asks_provenance
    assert policy.of_base("requests", REQUESTS).side is Side.BASE
    assert policy.of_base("flask_cors", Provenance(owners=(("flask-cors", "4"),))).side is Side.BASE
    verdict = policy.of_base("yaml", Provenance(owners=(("pyyaml", "6"),)))
    assert verdict.side is Side.REFUSED
    assert "distribution 'pyyaml', which this biz does not declare" in verdict.reason
    assert "add 'pyyaml' to its declared libraries" in verdict.reason


def test_a_portion_that_several_own_is_allowed_by_any_of_them():
    policy = Policy(declared=frozenset({"b"}))
    assert policy.of_base("google", Provenance(owners=(("a", "1"), ("b", "1")))).side is Side.BASE


def test_declared_mode_keeps_the_bases_own_code_private():
    policy = Policy(declared=frozenset({"requests"}))
    verdict = policy.of_base("thing", DIRECTORY)
    assert verdict.side is Side.REFUSED
    assert "the base's own code (/base/app/thing.py)" in verdict.reason
    assert "add 'thing' to its declared libraries" in verdict.reason
    assert policy.of_base("thing", ARCHIVE).side is Side.BASE
    assert Policy(declared=frozenset({"thing"})).of_base("thing.sub", DIRECTORY).side is Side.BASE


def test_our_own_distribution_counts_as_declared():
    policy = Policy(declared=frozenset({"requests"}))
    assert policy.of_base("helper", Provenance(owners=(("koupleless", "0.1"),))).side is Side.BASE


def test_a_requirement_that_the_base_does_not_satisfy_is_refused():
    policy = Policy(requirements=("requests>=3", "requests<5", "nonsense ===", "other>9; python_version<'3'"))
    assert policy.asks_provenance
    verdict = policy.of_base("requests", REQUESTS)
    assert verdict.side is Side.REFUSED
    assert "the base has requests 2.30.0, which does not satisfy requests<5,>=3" in verdict.reason
    assert "bring requests along" in verdict.reason
    assert policy.of_base("requests", Provenance(owners=(("requests", "4.0rc1"),))).side is Side.BASE
    assert policy.of_base("other", Provenance(owners=(("other", "1"),))).side is Side.BASE
    assert policy.of_base("thing", DIRECTORY).side is Side.BASE
