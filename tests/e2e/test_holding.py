"""How a library is held: who decides, what the tables of ``arkctl`` say, and what is told of state that is shared.

The libraries are small distributions made here, which a base finds on its path as it finds installed ones.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from koupleless.artifact.manifest import Manifest, render_biz_toml
from koupleless.biz import BizId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.e2e.conftest import BaseProcess

TALLY: Final = """
NAMES = []
LIMIT = {limit}


class Full(Exception):
    pass


class Tally:
    kind = "plain"

    def __init__(self):
        self.names = []

    def add(self, name):
        if len(self.names) >= 2:
            raise Full(name)
        self.names.append(name)
        return len(self.names)
"""
REPORTS: Final = "import tally\n\n\ndef report():\n    return sorted(tally.NAMES)\n"
RELEASER: Final = """
distribution = "{name}"
share = "{share}"


def release(leaving):
    return 0
"""


def distribution(
    site: Path, name: str, version: str, files: dict[str, str], *, head: str = "", entry: str = ""
) -> None:
    """Install a distribution of pure Python into a directory, as pip does."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    for place, text in files.items():
        (site / place).parent.mkdir(parents=True, exist_ok=True)
        (site / place).write_text(text)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{head}")
    info.joinpath("WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    info.joinpath("entry_points.txt").write_text(entry)
    names = [*files, *(f"{info.name}/{each}" for each in ("METADATA", "WHEEL", "entry_points.txt", "RECORD"))]
    info.joinpath("RECORD").write_text("".join(f"{each},,\n" for each in names))


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the libraries are that bases and ``arkctl`` find here, for as long as these tests run."""
    site: Path = tmp_path_factory.mktemp("site")
    distribution(site, "tally", "1.0", {"tally/__init__.py": TALLY.format(limit=2)})
    needs = "Requires-Dist: tally>=1\n"
    distribution(site, "tally-reports", "1.3", {"tally_reports/__init__.py": REPORTS}, head=needs)
    for share in ("always", "copy"):
        name = f"said_{share}"
        files = {
            f"{name}/__init__.py": "NAMES = []\n",
            f"{name}/_koupleless.py": RELEASER.format(name=name.replace("_", "-"), share=share),
        }
        entry = f"[koupleless.releasers]\n{name} = {name}._koupleless\n"
        distribution(site, name.replace("_", "-"), "2.0", files, entry=entry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(site), prepend=":")  # for bases
        patch.syspath_prepend(str(site))  # for the commands, which run in this process
        patch.setenv("PIP_NO_INDEX", "1")  # nobody else's library of that name
        yield site


BASE: Final = """
import importlib

from fastapi import FastAPI

LIBRARIES = ("tally", "said_always", "said_copy")
for name in LIBRARIES:
    importlib.import_module(name).NAMES.append("base")
import tally
import tally_reports

app = FastAPI()


@app.get("/names")
def names():
    return {name: importlib.import_module(name).NAMES for name in LIBRARIES}


@app.get("/limit")
def limit():
    return [tally.LIMIT, tally.Tally.kind, tally_reports.report()]
"""


@pytest.fixture(scope="module")
def start(serve: Callable[..., BaseProcess], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BaseProcess]:
    """``start(settings)`` starts a base whose project has these settings."""

    def begin(settings: str) -> BaseProcess:
        place = tmp_path_factory.mktemp("base")
        (place / "holding.py").write_text(BASE)
        (place / "pyproject.toml").write_text(f"[tool.koupleless.base]\nname = 'holding'\n{settings}\n")
        return serve("holding:app", cwd=place)

    return begin


@pytest.fixture(scope="module")
def usual(start: Callable[[str], BaseProcess]) -> BaseProcess:
    """A base without a word on how it holds a library."""
    return start("")


@pytest.fixture(scope="module")
def sharing(start: Callable[[str], BaseProcess]) -> BaseProcess:
    """A base that shares what would be copied, and copies what would be shared."""
    return start('shared = ["tally", "tally-reports"]\nown = ["said-always"]')


@pytest.fixture
def base(usual: BaseProcess) -> Iterator[BaseProcess]:
    yield usual
    usual.clear()


@pytest.fixture
def base_that_shares(sharing: BaseProcess) -> Iterator[BaseProcess]:
    yield sharing
    sharing.clear()


MODULE: Final = """
import {library}
from fastapi import FastAPI

{library}.NAMES.append("{name}")
app = FastAPI()


@app.get("/")
def names():
    return {library}.NAMES
"""


def project(
    place: Path, name: str, *, settings: str = "", text: str | None = None, needs: Sequence[str] = ("tally",)
) -> Path:
    """A project that puts its name into a list of a library, and shows the list."""
    root = place / name
    root.mkdir(exist_ok=True)
    library = needs[0].replace("-", "_")
    root.joinpath(f"{name}.py").write_text(text or MODULE.format(library=library, name=name))
    head = f"[project]\nname = {name!r}\nversion = '1.0'\ndependencies = {[*needs, 'fastapi']!r}\n"
    root.joinpath("pyproject.toml").write_text(f"{head}[tool.koupleless.module]\nentry = '{name}:app'\n{settings}\n")
    return root


def row(said: str, library: str) -> str:
    """The line of a table that is about a distribution."""
    rows = [line for line in said.splitlines() if re.match(rf"\s*{library}(?![\w-])", line)]
    held = [line for line in rows if re.search(r"\b(shared|own copy|own version)\b", line)]
    assert len(held) == 1, f"one line for {library}: {held}\n{said}"
    return held[0]


def names(base: BaseProcess, library: str = "tally") -> list[str]:
    answer: list[str] = base.get("/names").json()[library]
    return answer


# --- who decides -----------------------------------------------------------------------------------------------------


def test_a_pure_python_library_is_an_own_copy_of_each_module(base: BaseProcess, tmp_path: Path) -> None:
    """Without any setting, the state of a library that nobody has looked at does not cross."""
    of_base = names(base)
    for name in ("one", "two"):
        base.deploy(project(tmp_path, name))
    assert [base.get("/one/").json(), base.get("/two/").json(), names(base)] == [["one"], ["two"], of_base]
    for name in ("one", "two"):
        assert "nothing left behind" in base.undeploy(name)
    assert names(base) == of_base


def test_a_module_may_share_a_library_with_its_base(base: BaseProcess, tmp_path: Path) -> None:
    """``shared`` of a module makes it use the Python modules of the base, while others keep their own."""
    base.deploy(project(tmp_path, "alone"))
    base.deploy(project(tmp_path, "open", settings='shared = ["tally"]'))
    assert base.get("/open/").json() == names(base)
    assert "open" in names(base)
    assert base.get("/alone/").json() == ["alone"]


def test_the_settings_of_the_base_count_where_a_module_says_nothing(
    base_that_shares: BaseProcess, tmp_path: Path
) -> None:
    """``shared`` and ``own`` of a base decide for its modules, and a module that says otherwise has its will."""
    base = base_that_shares
    base.deploy(project(tmp_path, "silent"))
    assert base.get("/silent/").json() == names(base)
    base.deploy(project(tmp_path, "wilful", settings='own = ["tally"]'))
    assert base.get("/wilful/").json() == ["wilful"]
    base.deploy(project(tmp_path, "copied", needs=["said-always"]))
    assert base.get("/copied/").json() == ["copied"]
    base.deploy(project(tmp_path, "insisting", needs=["said-always"], settings='shared=["said-always"]'))
    assert base.get("/insisting/").json() == names(base, "said_always")
    assert "insisting" in names(base, "said_always")
    assert "copied" not in names(base, "said_always")


def test_a_library_says_itself_how_it_is_held(base: BaseProcess, tmp_path: Path) -> None:
    """``share`` in the form of a releaser counts where neither module nor base says anything."""
    base.deploy(project(tmp_path, "said", needs=["said-always"]))
    assert base.get("/said/").json() == names(base, "said_always")
    base.deploy(project(tmp_path, "said", needs=["said-copy"]))
    assert base.get("/said/").json() == ["said"]
    assert names(base, "said_copy") == ["base"]


def test_a_family_is_never_held_by_halves(base_that_shares: BaseProcess, tmp_path: Path) -> None:
    """Who holds a library as an own copy gets own copies of those that import it, though they are shared."""
    text = "import tally_reports\n" + MODULE.format(library="tally", name="family")
    text += (
        "\n\n@app.get('/report')\ndef report():\n    return [tally_reports.report(), tally_reports.tally is tally]\n"
    )
    root = project(tmp_path, "family", settings='own = ["tally"]', text=text, needs=["tally", "tally-reports"])
    base = base_that_shares
    base.deploy(root)
    assert base.get("/family/report").json() == [["family"], True]
    assert base.get("/limit").json()[2] == sorted(names(base))
    shown = base.say("show", "family")
    assert "own copy" in row(shown, "tally")
    assert "own copy" in row(shown, "tally-reports")
    assert "tally" in row(shown, "tally-reports").partition("own copy")[2], "the reason is the library it imports"


@pytest.mark.parametrize("key", ["own", "shared"])
def test_a_name_where_names_belong_is_refused(base: BaseProcess, tmp_path: Path, key: str) -> None:
    """A text instead of a list of distributions is told with the name of the key, before anything is built."""
    said = base.say("build", project(tmp_path, "wrong", settings=f'{key} = "tally"'), fails=True)
    assert key in said
    assert "list" in said


# --- tables --------------------------------------------------------------------------------------------------------


def test_every_table_says_how_each_distribution_is_held_and_why(base: BaseProcess, tmp_path: Path) -> None:
    """Build, deploy and show name the distributions of a module with the way they are held and the reason."""
    root = project(
        tmp_path,
        "tabled",
        settings='shared = ["tally-reports", "tally"]',
        text="import said_always\nimport said_copy\n" + MODULE.format(library="tally", name="tabled"),
        needs=["tally", "said-copy", "said-always"],
    )
    tables = [
        base.say("build", root, "--out", tmp_path / "dist"),
        base.deploy(root),
        base.say("show", "tabled"),
    ]
    for said in tables:
        assert re.search(r"tally\s+1\.0\s+shared\s+\S.*module", row(said, "tally")), said
        assert re.search(r"said-copy\s+2\.0\s+own copy\s+\S", row(said, "said-copy")), said
        assert re.search(r"said-always\s+2\.0\s+shared\s+\S", row(said, "said-always")), said
        assert re.search(r"fastapi\s+\S+\s+shared\s+\S", row(said, "fastapi")), said
    root = project(tmp_path, "tabled")
    assert re.search(r"tally\s+1\.0\s+own copy\s+\S", row(base.deploy(root), "tally"))


def test_the_reason_may_be_a_setting_of_the_base(base_that_shares: BaseProcess, tmp_path: Path) -> None:
    """What a base has decided is told as the base's decision."""
    base_that_shares.deploy(project(tmp_path, "told"))
    said = base_that_shares.say("show", "told")
    assert re.search(r"tally\s+1\.0\s+shared\s+\S.*base", row(said, "tally"))


def test_a_version_that_an_artefact_brings_along_is_its_own(base: BaseProcess, tmp_path: Path) -> None:
    """Another version in the artefact is used, and stands in the table as such."""
    root = tmp_path / "bringing"
    distribution(root / "lib", "tally", "2.0", {"tally/__init__.py": TALLY.format(limit=5)})
    root.joinpath("bringing.py").write_text(MODULE.format(library="tally", name="bringing") + "LIMIT = tally.LIMIT\n")
    manifest = Manifest(id=BizId.of("bringing", "1"), entry="bringing:app", web_context_path="/bringing")
    root.joinpath("biz.toml").write_text(render_biz_toml(manifest))
    base.deploy(root)
    assert base.get("/bringing/").json() == ["bringing"]
    assert re.search(r"tally\s+2\.0\s+own version", row(base.say("show", "bringing"), "tally"))
    assert "nothing left behind" in base.undeploy("bringing")


# --- what is told ----------------------------------------------------------------------------------------------------


def test_changed_state_of_a_shared_library_is_told_at_install_and_in_the_report(
    start: Callable[[str], BaseProcess], tmp_path: Path
) -> None:
    """A list that a module appends to, and an attribute of a class that it sets, are named with what to do.

    A variable that it sets is its own, and nothing that every module sees.
    """
    base = start("")
    text = MODULE.format(library="tally", name="changing") + "tally.LIMIT = 9\ntally.Tally.kind = 'changed'\n"
    root = project(tmp_path, "changing", settings='shared = ["tally"]', text=text)
    said = base.deploy(root) + base.log.read_text()
    for what in ("tally.NAMES", "Tally.kind"):
        assert re.search(rf"changing\b.*(changed|added).*{re.escape(what)}.*shared", said), (what, said)
    assert 'own = ["tally"]' in said
    assert "tally.LIMIT" not in said
    assert base.get("/limit").json()[:2] == [2, "plain"]

    left = base.undeploy("changing")
    assert "nothing left behind" not in left
    assert "no code of the module is left" in left
    assert "tally.NAMES" in left
    assert base.get("/limit").json()[:2] == [2, "plain"], "plain data is put back"


def test_a_module_that_changes_nothing_of_a_shared_library_leaves_nothing_behind(
    base: BaseProcess, tmp_path: Path
) -> None:
    """A library may be shared and used without a word."""
    text = MODULE.format(library="tally", name="reading").replace('tally.NAMES.append("reading")\n', "")
    said = base.deploy(project(tmp_path, "reading", settings='shared = ["tally"]', text=text))
    assert "changed" not in said
    assert "every module sees" not in said
    assert base.get("/reading/").json() == names(base)
    assert "nothing left behind" in base.undeploy("reading")


PROVIDER: Final = """
import tally
from koupleless.service import offer


class Counter(tally.Tally):
    pass


class Maker:
    def make(self):
        return tally.Tally()

    def fail(self):
        raise tally.Full("no more")


offer(tally.Tally(), name="tally")
offer(Maker(), name="maker")


async def app(scope, receive, send):
    raise NotImplementedError
"""
CONSUMER: Final = """
import tally
from fastapi import FastAPI
from koupleless.service import use

app = FastAPI()
maker = use("maker", biz="{provider}")


@app.get("/instance")
def instance():
    return isinstance(maker.make(), tally.Tally)


@app.get("/caught")
def caught():
    try:
        maker.fail()
    except tally.Full:
        return "caught"
    except Exception as error:
        return f"in vain: {{type(error).__name__}}"
"""


@pytest.mark.parametrize("way", ["instance", "caught"])
def test_an_object_of_another_copy_is_told_by_name_with_what_to_do(base: BaseProcess, tmp_path: Path, way: str) -> None:
    """A check in vain, of an object or an exception of another holder's class, says which library to share."""
    provider, consumer = f"provider{way}", f"consumer{way}"
    base.deploy(project(tmp_path, provider, text=PROVIDER))
    base.deploy(project(tmp_path, consumer, text=CONSUMER.format(provider=provider)))
    assert base.get(f"/{consumer}/{way}").json() == {"instance": False, "caught": "in vain: Full"}[way]
    advice = [line for line in base.log.read_text().splitlines() if 'shared = ["tally"]' in line]
    assert any(provider in line or consumer in line for line in advice), "who, which library, and what to do"
    base.say("undeploy", consumer)
    assert "nothing left behind" in base.undeploy(provider)


def test_modules_that_share_a_library_know_each_others_objects(base: BaseProcess, tmp_path: Path) -> None:
    """With the advice followed on both sides, objects and exceptions are known to who gets them."""
    shared = 'shared = ["tally"]'
    base.deploy(project(tmp_path, "giving", text=PROVIDER, settings=shared))
    base.deploy(project(tmp_path, "taking", text=CONSUMER.format(provider="giving"), settings=shared))
    assert base.get("/taking/instance").json() is True
    assert base.get("/taking/caught").json() == "caught"
