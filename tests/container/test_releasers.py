"""A library that says itself how it is cleaned: found in the base's environment, told of every biz that leaves."""

from __future__ import annotations

import functools
import importlib
import sys
import threading

import pytest

from koupleless.adapters import releasers
from koupleless.artifact.build import Options, build_file, build_project
from koupleless.biz import BizId
from koupleless.container.starting import prepare
from koupleless.container.starting.prepare import words
from koupleless.errors import ManifestInvalid
from koupleless.isolation.libraries.known import Share

BIZ = BizId.parse("user:1.0.0")

LIBRARY = """
import functools
callbacks = []
"""

USER = """
import functools
import shelf

class Thing:
    def reach(self):
        return Thing

def callback():
    return Thing

shelf.callbacks += [callback, functools.partial(callback), Thing().reach, Thing()]
shelf.callbacks.append(print)
"""

RELEASER = """
import shelf
distribution = "shelf"
versions = ">=2,<4"
told = []

def release(leaving):
    told.append((leaving.name, leaving.version, repr(leaving)))
    kept = [callback for callback in shelf.callbacks if not leaving.owns(callback)]
    gone = len(shelf.callbacks) - len(kept)
    shelf.callbacks[:] = kept
    return gone
"""


def forget():
    """As in a process that has not looked for releasers yet."""
    for known in (releasers._find, prepare._words):
        known.cache_clear()


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """``environment(version, **modules)`` puts a distribution ``shelf`` with a releaser into the environment."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    before = set(sys.modules)
    forget()

    def install(version="2.1", *, points="shelf = shelf_releaser", is_recorded=False, **modules):
        info = place / f"shelf-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: shelf\nVersion: {version}\n")
        if is_recorded:
            (info / "RECORD").write_text("shelf.py,,\n")
        (info / "entry_points.txt").write_text(f"[koupleless.releasers]\n{points}\n")
        for name, source in {"shelf": LIBRARY, "shelf_releaser": RELEASER, **modules}.items():
            (place / f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    yield install
    forget()
    for name in set(sys.modules) - before:
        if name.startswith("shelf"):
            del sys.modules[name]


@pytest.fixture
def leave(world, tmp_path):
    """``leave()`` installs a module that uses the library, removes it, and returns the purge report."""
    source = tmp_path / "user.py"

    def run(text=USER):
        source.write_text(text)
        artefact = build_file(source, Options(out=tmp_path / "out")).path
        world.container.install(world.container.prepare(str(artefact)))
        return world.container.uninstall(BIZ)

    return run


def test_without_a_releaser_the_library_holds_the_module(environment, leave):
    environment(points="")

    report = leave()

    assert not report.clean
    assert "shelf" in report.summary()


def test_a_releaser_is_told_who_leaves_and_what_it_released_is_in_the_report(environment, leave):
    environment()

    report = leave()

    assert report.clean, report.summary()
    assert report.undone["releaser shelf"] == 4
    assert sys.modules["shelf_releaser"].told == [("user", "1.0.0", "<Leaving user:1.0.0>")]
    assert sys.modules["shelf"].callbacks == [print]


def test_a_releaser_is_loaded_once(environment, leave):
    environment()

    leave()
    first = sys.modules["shelf_releaser"]
    leave()

    assert sys.modules["shelf_releaser"] is first
    assert len(first.told) == 2


@pytest.mark.parametrize("version", ["1.9", "4.0"])
def test_a_releaser_for_other_versions_of_its_library_is_left_alone(environment, leave, version):
    environment(version)

    report = leave()

    assert "releaser shelf" not in report.undone
    assert sys.modules["shelf_releaser"].told == []


def test_a_releaser_for_a_library_that_is_not_there_is_left_alone(environment, leave):
    environment(shelf_releaser=RELEASER.replace('"shelf"', '"bookcase"'))

    assert not leave().clean
    assert sys.modules["shelf_releaser"].told == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise OSError('no shelf')", "cannot be used: OSError: no shelf"),
        ("distribution = 'shelf'", "cannot be used: AttributeError: the releaser has neither release nor share"),
        ("distribution = 'shelf'\nshare = 'often'", "ValueError: share is 'often', and may be one of 'always'"),
        ("share = 'always'", "cannot be used: AttributeError"),
        ("distribution = 'shelf'\nrelease = 3", "the function release is int, which cannot be called"),
        ("distribution = 'shelf'\nversions = 'two'\ndef release(leaving): ...", "cannot be used: InvalidSpecifier"),
        ("distribution = 'shelf'\ndef release(leaving): raise SystemExit(3)", "SystemExit: 3"),
        ("distribution = 'shelf'\ndef release(leaving): 1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_releaser_that_fails_is_told_in_the_report_and_stops_nothing(environment, leave, world, source, says):
    environment(shelf_releaser=source, shelf_second=RELEASER, points="a = shelf_releaser\nb = shelf_second")

    for _ in range(2):
        report = leave()

        (failure,) = report.failures
        assert failure.startswith("releaser a: ")
        assert says in failure
        assert report.undone["releaser b"] == 4
        assert report.held == ()
        assert world.states() == {}


def test_a_releaser_that_hangs_is_left_behind_at_the_deadline(environment, make_world, tmp_path):
    environment(
        shelf_releaser="import threading\ndistribution = 'shelf'\ngo_on = threading.Event()\n"
        "def release(leaving): go_on.wait(60)",
        shelf_second=RELEASER,
        points="a = shelf_releaser\nb = shelf_second",
    )
    world = make_world(stop_s=0.3)
    source = tmp_path / "user.py"
    source.write_text(USER)
    artefact = build_file(source, Options(out=tmp_path / "out")).path
    world.container.install(world.container.prepare(str(artefact)))

    report = world.container.uninstall(BIZ)

    assert report.failures == ("releaser a: TimeoutError: did not return in time",)
    assert report.undone["releaser b"] == 4
    assert report.held == ()
    sys.modules["shelf_releaser"].go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("releaser a"):
            thread.join(30)


@pytest.mark.parametrize("result", ["None", "True", "-1", "'four'"])
def test_what_is_no_count_is_not_counted(environment, leave, result):
    environment(shelf_releaser=RELEASER.replace("return gone", f"return {result}"))

    report = leave()

    assert report.clean, report.summary()
    assert "releaser shelf" not in report.undone


def test_metadata_that_cannot_be_read_is_told_and_stops_nothing(leave, monkeypatch):
    @functools.cache
    def broken():
        raise OSError("the disk is gone")

    monkeypatch.setattr(releasers, "_find", broken)

    report = leave("x = 1")

    assert report.failures == ("releasers cannot be listed: OSError: the disk is gone",)


SHARING = """
distribution = "Shelf"
versions = ">=2,<4"
share = {share!r}
"""


@pytest.mark.parametrize("share", ["always", "copy"])
def test_a_library_says_how_it_is_held(environment, leave, share):
    environment(shelf_releaser=SHARING.format(share=share), is_recorded=True)
    report = leave()

    assert report.clean is (share == "copy"), report.summary()  # what it keeps of the module is its own, or all's
    assert words()("shelf") is Share(share)


def test_what_a_library_says_comes_before_what_was_tested(environment):
    environment(shelf_releaser="distribution = 'fastapi'\nshare = 'copy'\n")
    assert [words()("fastapi"), words()("starlette"), words()("unknown")] == [Share.COPY, Share.ALWAYS, None]


@pytest.mark.parametrize("version", ["1.9", "4.0"])
def test_it_speaks_for_its_versions(environment, version):
    environment(version, shelf_releaser=SHARING.format(share="always"))
    assert words()("shelf") is None


def test_a_library_that_can_never_be_shared_is_not(environment, world, tmp_path):
    environment(shelf_releaser=SHARING.format(share="never"))
    project = tmp_path / "asking"
    project.mkdir()
    (project / "asking.py").write_text("import shelf\n")
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'asking'\nversion = '1.0'\n[tool.koupleless.module]\nentry = 'asking'\nshared = ['shelf']\n"
    )
    artefact = build_project(project, Options(out=tmp_path / "out")).path
    with pytest.raises(ManifestInvalid, match="by its own word, shelf can never be shared"):
        world.container.prepare(str(artefact))


def test_one_that_cannot_be_used_is_told_and_ignored(environment, caplog):
    environment(shelf_releaser="raise OSError('no shelf')")
    assert [words()("shelf"), words()("fastapi")] == [None, Share.ALWAYS]
    assert "releaser shelf cannot be used: OSError: no shelf" in caplog.text
    words()
    assert caplog.text.count("cannot be used") == 1


@pytest.mark.parametrize(("module", "is_called"), [("shelf", True), ("shelf_absent", False)])
def test_a_releaser_is_called_only_if_the_base_has_imported_its_module(environment, leave, module, is_called):
    environment(shelf_releaser=f"{RELEASER}\nmodule = {module!r}\n")

    for number in (1, 2):
        report = leave()

        assert report.clean is is_called
        assert len(sys.modules["shelf_releaser"].told) == number * is_called
        sys.modules["shelf"].callbacks[:] = [print]


def test_a_releaser_may_count_by_names_of_its_own(environment, leave):
    counting = 'return {"shelf callback": gone, "shelf page": 0, "shelf wonder": "many", 3: 4}'
    environment(shelf_releaser=RELEASER.replace("return gone", counting))

    report = leave()

    assert {kind: count for kind, count in report.undone.items() if "shelf" in str(kind)} == {"shelf callback": 4}
    assert report.clean
