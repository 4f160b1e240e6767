"""What the base provides and what travels: the decision, the words for it, and pip doing the fetching."""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from koupleless.artifact.build import Options, build_project, build_requirement
from koupleless.artifact.building.pip import Pip
from koupleless.artifact.building.remembered import RememberingPip
from koupleless.artifact.building.requirements import BaseFacts, lack, unsatisfied
from koupleless.artifact.building.slim import Decision, Report, choose
from koupleless.artifact.cached.cache import Cache
from koupleless.artifact.manifest import Manifest
from koupleless.biz import BizId
from koupleless.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WEB = BaseFacts(
    {"Flask": "3.0.0", "werkzeug": "3.0.1", "click": "8.1", "broken": "1", "uvicorn": "0.30", "koupleless": "0.1"},
    {
        "flask": ["werkzeug>=3", "click", 'asgiref; extra == "async"', 'colorama; sys_platform == "never"'],
        "broken": ["missing>=2"],
        "werkzeug": ["flask"],
    },
)


def left_out(report: Report) -> list[Decision]:
    return [decision for decision in report.decisions if not decision.is_packed]


class TestLack:
    @pytest.mark.parametrize(
        "text", ["flask", "FLASK>=2", "flask>=3,<4", "click==8.1", "koupleless>=99", "flask; python_version > '3'"]
    )
    def test_what_the_base_satisfies(self, text: str) -> None:
        assert lack(Requirement(text), WEB) is None

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("django", "the base does not have the distribution"),
            ("flask<3", "<3 is needed, the base has 3.0.0"),
            ("flask[async]", "lacks its requirement asgiref (the base does not have the distribution)"),
            ("broken", "lacks its requirement missing"),
            ("flask @ https://x/y.whl", "an address of its own"),
        ],
    )
    def test_what_it_does_not_is_said_with_the_reason(self, text: str, words: str) -> None:
        assert words in (lack(Requirement(text), WEB) or "")

    def test_a_lack_is_found_from_each_distribution_of_a_circle_in_any_order(self) -> None:
        needs = {"a": ["b", "missing"], "b": ["a"], "c": ["b"]}
        for order in itertools.permutations("abc"):
            base = BaseFacts(dict.fromkeys("abc", "1"), needs)
            for name in order:
                assert "missing" in (lack(Requirement(name), base) or ""), order

    def test_what_the_base_needs_itself_is_read_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        base = BaseFacts({"web": "1", "core": "2"}, {"web": ["core>=2"], "core": ["web"]})
        find = base._find

        def counted(name: str) -> tuple[str, tuple[str, ...]] | None:
            asked.append(name)
            return find(name)

        monkeypatch.setattr(base, "_find", counted)
        assert lack(Requirement("web"), base) is None
        asked.clear()
        assert lack(Requirement("core>=1"), base) is None
        assert asked == ["core"], "its version has to fit each time, and nothing else is looked at"
        assert lack(Requirement("core>=3"), base) == ">=3 is needed, the base has 2"
        assert lack(Requirement("web[extra]"), base) is None

    def test_a_pre_release_in_the_base_counts(self) -> None:
        assert lack(Requirement("flask>=3"), BaseFacts({"flask": "3.1.0rc1"})) is None

    def test_the_running_interpreter_can_be_asked(self) -> None:
        base = BaseFacts.of_environment()
        assert lack(Requirement("pytest"), base) is None
        assert base.version_of("no-such-distribution") is None
        assert base.requires_of("no-such-distribution") == ()
        assert base.versions()["pytest"] == pytest.__version__


class TestUnsatisfied:
    MANIFEST = Manifest(id=BizId.of("a", "1"), entry="a", web_context_path="/a")

    def test_a_base_that_has_everything_owes_nothing(self) -> None:
        assert unsatisfied(replace(self.MANIFEST, requirements=("flask>=3",)), WEB) == ()

    def test_what_is_missing_is_said_once_each(self) -> None:
        manifest = replace(
            self.MANIFEST, requirements=("django", "flask<3", "six"), provided=("django",), packed=("six==1.17",)
        )
        assert unsatisfied(manifest, WEB) == (
            "django: the base does not have the distribution",
            "flask<3: <3 is needed, the base has 3.0.0",
        )

    def test_what_was_left_out_is_asked_of_the_next_base_too(self) -> None:
        assert unsatisfied(replace(self.MANIFEST, provided=("werkzeug>=99",)), WEB) != ()


class TestGatherWithoutPip:
    def test_a_base_that_has_everything_needs_no_pip(self, tmp_path: Path) -> None:
        report = gather("p", ["flask>=2", "koupleless"], tmp_path, facts=WEB, python="/nowhere/python")
        assert [(decision.name, decision.reason) for decision in left_out(report)] == [
            ("click", "the base has the distribution, needed by flask"),
            ("flask", "the base has the distribution, which satisfies >=2, needed by werkzeug"),
            ("koupleless", "every biz gets the base's own"),
            ("werkzeug", "the base has the distribution, which satisfies >=3, needed by flask"),
        ]
        assert report.provided == ("flask>=2",)
        assert report.packed == ()

    def test_an_interpreter_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(BuildFailed, match="cannot run /nowhere/python"):
            gather("p", ["django"], tmp_path, facts=WEB, python="/nowhere/python")


@pytest.fixture
def fake_pip(tmp_path: Path) -> Path:
    """An interpreter whose pip knows a small index, refuses what contradicts its constraints, and writes a log."""
    index = {
        "ext": ("1.0", ["flask<3", "dep"]),
        "free": ("2.0", ["flask>=2", "dep[x]"]),
        "flask": ("2.3", ["werkzeug>=2"]),
        "werkzeug": ("2.9", []),
        "dep": ("5.0", ['only-x; extra == "x"']),
        "only-x": ("6.0", []),
    }
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nINDEX = {json.dumps(index)}\nLOG = {str(tmp_path / 'log')!r}\n"
        + textwrap.dedent("""
            import json, re, sys
            from pathlib import Path
            arguments = sys.argv[3:]
            with open(LOG, "a") as log:
                print(json.dumps(arguments), file=log)
            value = lambda flag: arguments[arguments.index(flag) + 1]
            if "--target" in arguments:
                into = Path(value("--target"))
                for pin in arguments[arguments.index("--target") + 2:]:
                    name, version = pin.split("==")
                    info = into / f"{name.replace('-', '_')}-{version}.dist-info"
                    info.mkdir(parents=True)
                    (into / "bin").mkdir(exist_ok=True)
                    (into / "bin" / name).write_text("#!/tmp/python")
                    (into / f"{name}.py").write_text("x = 1")
                    (into / "__pycache__").mkdir(exist_ok=True)
                    for noise in ("INSTALLER", "REQUESTED", "direct_url.json"):
                        (info / noise).write_text("noise")
                    (info / "METADATA").write_text("Name: " + name)
                    rows = [f"../../bin/{name}", f"{name}.py", f"{info.name}/REQUESTED", f"{info.name}/METADATA"]
                    (info / "RECORD").write_text("".join(f"{row},,\\n" for row in rows))
                sys.exit()
            constraints = dict(re.findall(r"(?m)^([\\w-]+)==(.+)$", Path(value("--constraint")).read_text()))
            wanted = arguments[arguments.index("--constraint") + 2:]
            found, pending = {}, [re.match(r"[\\w-]+", text)[0] for text in wanted]
            while pending:
                name = pending.pop()
                if name not in INDEX:
                    sys.exit(f"ERROR: No matching distribution found for {name}")
                if name == "flask" and "flask" in constraints and "ext" in found:
                    sys.exit("ERROR: ResolutionImpossible")
                if name not in found:
                    found[name] = INDEX[name]
                    pending += [re.match(r"[\\w-]+", text)[0] for text in INDEX[name][1]]
            report = [
                {"metadata": {"name": name, "version": constraints.get(name, version), "requires_dist": needs}}
                for name, (version, needs) in found.items()
            ]
            Path(value("--report")).write_text(json.dumps({"install": report}))
        """)
    )
    program.chmod(0o755)
    return program


def gather(
    project: str,
    requirements: Sequence[str],
    into: Path,
    *,
    facts: BaseFacts | None,
    always: frozenset[str] = frozenset(),
    python: str,
) -> Report:
    """Decide, and install the packed distributions below ``into``."""
    report = choose(requirements, RememberingPip(project, python, Cache(None)), facts=facts, always=always)
    Pip(project, python).install([one.pin for one in report.resolved], into)
    return report


class TestGather:
    def packed(self, fake_pip: Path, into: Path, *requirements: str, facts: BaseFacts | None = WEB) -> dict[str, str]:
        report = gather("p", requirements, into, facts=facts, python=str(fake_pip))
        return {decision.name: decision.reason for decision in report.packed}

    def calls(self, fake_pip: Path) -> list[list[str]]:
        return [json.loads(line) for line in (fake_pip.parent / "log").read_text().splitlines()]

    def test_a_pip_that_is_killed_leaves_no_temporary_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program, place = tmp_path / "python", tmp_path / "temporary"
        program.write_text('#!/bin/sh\nmkdir "$TMPDIR/pip-unpack"\necho begun > "$0.begun"\nkill -9 $$\n')
        program.chmod(0o755)
        place.mkdir()
        monkeypatch.setenv("TMPDIR", str(place))
        monkeypatch.setattr("tempfile.tempdir", str(place))
        with pytest.raises(BuildFailed):
            gather("p", ["free"], tmp_path / "into", facts=WEB, python=str(program))
        assert (tmp_path / "python.begun").exists()
        assert list(place.iterdir()) == []

    def test_only_what_the_base_lacks_travels(self, fake_pip: Path, tmp_path: Path) -> None:
        report = gather("p", ["free", "flask"], tmp_path / "into", facts=WEB, python=str(fake_pip))
        assert {decision.name for decision in report.packed} == {"free", "dep", "only-x"}
        assert {decision.name for decision in left_out(report)} == {"flask", "werkzeug", "click"}
        assert report.provided == ("flask>=2",)
        (dep,) = [decision for decision in report.packed if decision.name == "dep"]
        assert dep.reason == "the base does not have the distribution, needed by free"

    def test_what_contradicts_the_base_travels_in_its_own_version(self, fake_pip: Path, tmp_path: Path) -> None:
        packed = self.packed(fake_pip, tmp_path / "into", "ext")
        assert packed["flask"] == "<3 is needed, the base has 3.0.0, needed by ext"
        assert "werkzeug" not in packed, "the base's satisfies >=2"
        assert len(self.calls(fake_pip)) == 3, "with the base's versions, without them, and installing"

    def test_one_library_travels_without_the_rest_whoever_needs_it(self, fake_pip: Path, tmp_path: Path) -> None:
        report = gather("p", ["flask"], tmp_path / "into", facts=WEB, always=frozenset({"flask"}), python=str(fake_pip))
        assert [(one.name, one.reason) for one in report.packed] == [("flask", "the module asks for an own version")]
        assert {decision.name for decision in left_out(report)} >= {"werkzeug"}
        unneeded = gather("p", [], tmp_path / "more", facts=WEB, always=frozenset({"dep"}), python=str(fake_pip))
        assert [one.name for one in unneeded.packed] == ["dep"]

    def test_standalone_packs_everything(self, fake_pip: Path, tmp_path: Path) -> None:
        packed = self.packed(fake_pip, tmp_path / "into", "free", facts=None)
        assert set(packed) == {"free", "flask", "werkzeug", "dep", "only-x"}

    def test_what_pip_notes_about_its_own_run_is_removed(self, fake_pip: Path, tmp_path: Path) -> None:
        self.packed(fake_pip, tmp_path / "into", "free")
        names = {path.relative_to(tmp_path / "into").as_posix() for path in (tmp_path / "into").rglob("*")}
        assert "free.py" in names
        assert not {name for name in names if name.split("/")[-1] in {"bin", "__pycache__", "REQUESTED", "INSTALLER"}}
        record = (tmp_path / "into" / "free-2.0.dist-info" / "RECORD").read_text()
        assert record == "free-2.0.dist-info/METADATA,,\nfree.py,,\n"

    def test_what_pip_says_reaches_the_user(self, fake_pip: Path, tmp_path: Path) -> None:
        with pytest.raises(BuildFailed, match="No matching distribution found for nothing") as caught:
            self.packed(fake_pip, tmp_path / "into", "nothing")
        assert "ERROR" in caught.value.output

    def test_an_interpreter_without_pip_is_said(self, tmp_path: Path) -> None:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\necho '{program}: No module named pip' >&2\nexit 1\n")
        program.chmod(0o755)
        with pytest.raises(BuildFailed, match="has no pip; install pip with"):
            self.packed(program, tmp_path / "into", "free")

    def test_a_settings_file_of_pip_cannot_turn_the_target_away(
        self, fake_pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
        self.packed(fake_pip, tmp_path / "into", "free")
        assert (tmp_path / "into" / "free.py").exists()
        assert not (tmp_path / "elsewhere").exists()


@pytest.mark.network
class TestWithTheIndex:
    def test_an_application_of_the_index_becomes_an_artefact(self, tmp_path: Path) -> None:
        options = Options(out=tmp_path / "one")
        built = build_requirement("iniconfig==2.0.0", entry="iniconfig:IniConfig", options=options)
        assert str(built.manifest.id) == "iniconfig:2.0.0"
        assert built.path.name == "iniconfig-2.0.0-ark-biz.zip"
        assert "lib/iniconfig/__init__.py" in built.manifest.files
        assert built.manifest.packed == ("iniconfig==2.0.0",)
        again = build_requirement(
            "iniconfig==2.0.0", entry="iniconfig:IniConfig", options=Options(out=tmp_path / "two")
        )
        assert again.path.read_bytes() == built.path.read_bytes()

    def test_a_project_brings_the_version_it_needs(self, tmp_path: Path) -> None:
        (tmp_path / "app.py").write_text("import iniconfig\n\ndef app(): ...\n")
        (tmp_path / "pyproject.toml").write_text(
            '[project]\nname="a"\nversion="1"\ndependencies=["iniconfig<2"]\n'
            '[tool.koupleless.module]\nentry="app:app"\n'
        )
        built = build_project(tmp_path, Options(base=BaseFacts({"iniconfig": "2.0.0"})))
        (decision,) = built.report.packed
        assert decision.version.startswith("1.")
        assert decision.reason == "<2 is needed, the base has 2.0.0"

    def test_a_version_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(BuildFailed, match="No matching distribution") as caught:
            build_requirement("iniconfig==99.99", entry="a:b", options=Options(out=tmp_path))
        assert "iniconfig==99.99" in caught.value.output
