"""What goes wrong for users: every fault gets a clear error, changes nothing, and loses no running module."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import itertools
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.conftest import free_port, until
from tests.e2e.conftest import BaseProcess

from koupleless.artifact.build import Options, build_file, build_project
from koupleless.cli.commands import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BIZS = Path(__file__).parent.parent / "bizs"
START_TIMEOUT = 2
MEBIBYTE = 1 << 20

VICTIM = """
ANSWER = {answer!r}


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [ANSWER.encode()]
"""

HANGING = """
import pathlib
import time

pathlib.Path({started!r}).touch()
while not pathlib.Path({released!r}).exists():
    time.sleep(0.02)


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"at last"]
"""


# --- a base with a healthy module, and how it is spoken to ------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("place")
    settings = f'[base]\nstart-timeout = {START_TIMEOUT}\nfetch-timeout = 6\nstore-dir = "{directory}/store"\n'
    (directory / "koupleless.toml").write_text(settings)
    (directory / "warm.py").write_text("import fastapi\n\napp = fastapi.FastAPI()\n")
    return directory


@pytest.fixture(scope="module")
def base(serve: Callable[..., BaseProcess], place: Path) -> BaseProcess:
    """It has imported what ``hello`` needs, which may take longer than a start may here."""
    process = serve("warm:app", cwd=place)
    process.deploy(BIZS / "hello-1.0")
    return process


@pytest.fixture(autouse=True)
def unharmed(base: BaseProcess) -> Iterator[None]:
    """The list of modules is what it was, record for record, and ``hello`` answers and was never started again."""
    before = modules(base)
    assert [entry["bizName"] for entry in before] == ["hello"]
    yield
    assert base.popen.poll() is None, base.log.read_text()
    after = modules(base)
    for entry in after:  # so that one failure is one failure, and not that of all later tests
        if entry["bizName"] != "hello":
            ask(base, "uninstallBiz", {key: entry[key] for key in ("bizName", "bizVersion")})
    reply = base.get("/hello/")
    assert reply.status_code == 200, reply.text
    assert reply.json()["life"] == ["started"]
    assert after == before


@pytest.fixture
def files(place: Path) -> Callable[[], list[str]]:
    """What there is, above all in the store."""
    return lambda: sorted(str(path) for path in place.rglob("*"))


@pytest.fixture
def kept(files: Callable[[], list[str]]) -> Iterator[None]:
    """Nothing is left in the store, and nothing fell out of it."""
    before = files()
    yield
    assert files() == before


def post(base: BaseProcess, command: str, body: bytes, **headers: str) -> httpx.Response:
    url = f"http://127.0.0.1:{base.arklet_port}/{command}"
    return httpx.post(url, content=body, headers=headers, timeout=150, trust_env=False, verify=False)


def ask(base: BaseProcess, command: str, body: object) -> dict[str, Any]:
    reply = post(base, command, json.dumps(body).encode())
    assert reply.status_code == 200
    decoded: dict[str, Any] = reply.json()
    return decoded


def modules(base: BaseProcess) -> list[dict[str, Any]]:
    reply = ask(base, "queryAllBiz", {})
    assert reply["code"] == "SUCCESS"
    return sorted(reply["data"], key=lambda entry: (entry["bizName"], entry["bizVersion"]))


def install(base: BaseProcess, url: str | Path, name: str, version: str = "1.0.0", **more: object) -> dict[str, Any]:
    place = url if isinstance(url, str) else url.as_uri()
    return ask(base, "installBiz", {"bizName": name, "bizVersion": version, "bizUrl": place, **more})


def said(reply: Mapping[str, Any]) -> str:
    """What a client shows of a refusal: see section 1.3, the controller shows only ``message``."""
    assert reply["code"] in {"FAILED", "CMD_PROCESS_INTERNAL_ERROR"}, reply
    data = reply.get("data") or {}
    return f"{reply['message']} {data.get('code', '')} {data.get('message', '')}"


def expect(text: str, *patterns: str) -> None:
    for pattern in patterns:
        assert re.search(pattern, text, re.IGNORECASE | re.DOTALL), f"{pattern!r} is not said in: {text}"


def run(base: BaseProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "koupleless", *arguments, "--port", str(base.arklet_port)]
    return subprocess.run(command, cwd=base.cwd, capture_output=True, text=True, timeout=150, check=False)


def uninstall(base: BaseProcess, name: str, version: str = "1.0.0") -> None:
    assert ask(base, "uninstallBiz", {"bizName": name, "bizVersion": version})["code"] == "SUCCESS"


# --- artefacts, whole and damaged -------------------------------------------------------------------------------------


def built(directory: Path, name: str, source: str = "", *, path: str | None = None) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{name}.py"
    file.write_text(source or VICTIM.format(answer=name))
    artefact = build_file(file, Options(out=directory)).path
    if path is None:
        return artefact
    files = contents(artefact)
    head = files["biz.toml"].decode().replace(f'web-context-path = "/{name}"', f'web-context-path = "{path}"')
    manifest = files["META-INF/MANIFEST.MF"].decode()
    files["META-INF/MANIFEST.MF"] = manifest.replace(f"path: /{name}", f"path: {path}").encode()
    return pack(artefact, {**files, "biz.toml": head.encode()})


def contents(artefact: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(artefact) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(artefact: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(artefact, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return artefact


def sealed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same, its digests right: what is wrong with it then is not that."""
    head = files["biz.toml"].decode().partition("[files]")[0]
    table = [
        f"{json.dumps(name)} = {hashlib.sha256(content).hexdigest()!r}\n"
        for name, content in files.items()
        if name not in {"biz.toml", "META-INF/MANIFEST.MF"}
    ]
    return {**files, "biz.toml": (head + "[files]\n" + "".join(table)).encode()}


def truncated(artefact: Path) -> Path:
    artefact.write_bytes(artefact.read_bytes()[: artefact.stat().st_size // 2])
    return artefact


def empty(artefact: Path) -> Path:
    artefact.write_bytes(b"")
    return artefact


def damaged(artefact: Path) -> Path:
    with zipfile.ZipFile(artefact) as archive:
        info = archive.getinfo("victim.py")
    data = bytearray(artefact.read_bytes())
    middle = info.header_offset + 30 + len("victim.py") + info.compress_size // 2
    data[middle] ^= 0xFF
    artefact.write_bytes(data)
    return artefact


def changed(artefact: Path) -> Path:
    files = contents(artefact)
    return pack(artefact, {**files, "victim.py": files["victim.py"] + b"# changed\n"})


def with_more(artefact: Path) -> Path:
    return pack(artefact, {**contents(artefact), "stowaway.py": b""})


def with_less(artefact: Path) -> Path:
    files = contents(artefact)
    del files["victim.py"]
    return pack(artefact, files)


def with_two_of_a_name(artefact: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(artefact, "a") as archive:
        archive.writestr("victim.py", b"raise SystemExit('never')\n")
    return artefact


def climbing(artefact: Path) -> Path:
    return pack(artefact, sealed({**contents(artefact), "../../climbed.py": b""}))


def climbing_inside(artefact: Path) -> Path:
    return pack(artefact, sealed({**contents(artefact), "deep/../../../climbed.py": b""}))


def absolute(artefact: Path) -> Path:
    return pack(artefact, sealed({**contents(artefact), str(artefact.parent / "absolute.py"): b""}))


def with_link(artefact: Path) -> Path:
    files = sealed({**contents(artefact), "link.py": b"/etc/passwd"})
    pack(artefact, {name: content for name, content in files.items() if name != "link.py"})
    with zipfile.ZipFile(artefact, "a") as archive:
        info = zipfile.ZipInfo("link.py")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, files["link.py"])
    return artefact


def bomb(artefact: Path) -> Path:
    return pack(artefact, sealed({**contents(artefact), "zeros.bin": bytes(400 * MEBIBYTE)}))


def lying_bomb(artefact: Path) -> Path:
    """One whose headers give the big file's size as 100 bytes."""
    pack(artefact, sealed({**contents(artefact), "zeros.bin": bytes(100 * MEBIBYTE)}))
    size, small = (100 * MEBIBYTE).to_bytes(4, "little"), (100).to_bytes(4, "little")
    data = artefact.read_bytes()
    assert data.count(size) == 2, "once beside the file, once in the central directory"
    artefact.write_bytes(data.replace(size, small))
    return artefact


def of_too_many(artefact: Path) -> Path:
    with zipfile.ZipFile(artefact, "a") as archive:
        for number in range(210_000):
            archive.writestr(zipfile.ZipInfo(f"empty/{number}"), b"")
    return artefact


DAMAGE: list[tuple[Callable[[Path], Path], str]] = [
    (truncated, r"\bzip|archive|artefact|truncated"),
    (empty, r"\bzip|archive|artefact|empty"),
    (damaged, r"victim\.py"),
    (changed, r"victim\.py.*(digest|sha256|match)|(digest|sha256|match).*victim\.py"),
    (with_more, r"stowaway\.py"),
    (with_less, r"victim\.py"),
    (with_two_of_a_name, r"victim\.py"),
    (climbing, r"\.\./\.\./climbed\.py"),
    (climbing_inside, r"climbed\.py"),
    (absolute, r"absolute\.py"),
    (with_link, r"link\.py.*link|link.*link\.py"),
    (bomb, r"zeros\.bin|ratio|bytes|\bM[i]?B\b"),
    (lying_bomb, r"zeros\.bin"),
    (of_too_many, r"\d+ (entries|files)|entries|too many"),
]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(("damage", "words"), DAMAGE, ids=[damage.__name__ for damage, _ in DAMAGE])
def test_a_damaged_or_hostile_archive_is_refused_before_anything_is_unpacked(
    base: BaseProcess, tmp_path: Path, damage: Callable[[Path], Path], words: str
) -> None:
    artefact = damage(built(tmp_path, "victim"))
    beside = sorted(tmp_path.parent.iterdir()), sorted(tmp_path.iterdir())
    peak = memory_peak(base)

    reply = install(base, artefact.as_uri(), "victim")

    expect(said(reply), words)
    assert "Traceback" not in said(reply), "what is wrong is in the archive, not in anybody's code"
    assert (sorted(tmp_path.parent.iterdir()), sorted(tmp_path.iterdir())) == beside
    assert memory_peak(base) - peak < 64 * MEBIBYTE
    assert base.get("/victim/").status_code == 404


def memory_peak(base: BaseProcess) -> int:
    status = Path(f"/proc/{base.popen.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("damage", [truncated, changed, climbing, with_link], ids=lambda damage: damage.__name__)
def test_arkctl_says_what_is_wrong_with_an_archive_and_fails(
    base: BaseProcess, tmp_path: Path, damage: Callable[[Path], Path]
) -> None:
    done = run(base, "deploy", str(damage(built(tmp_path, "victim"))))

    assert done.returncode in {1, 2}, done
    assert done.stdout == ""
    expect(done.stderr, r"(^|\n)error: ", r"victim|climbed|link\.py|zip|archive")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("kept")
def test_a_digest_in_the_url_is_compared(base: BaseProcess, tmp_path: Path) -> None:
    artefact = built(tmp_path, "victim")
    wrong = hashlib.sha256(b"another").hexdigest()

    expect(said(install(base, f"{artefact.as_uri()}#sha256={wrong}", "victim")), r"sha256|digest")
    expect(said(install(base, f"{artefact.as_uri()}#sha256=12", "victim")), r"sha256|digest")


def test_with_the_right_digest_in_the_url_it_is_installed(base: BaseProcess, tmp_path: Path) -> None:
    artefact = built(tmp_path, "victim")
    right = hashlib.sha256(artefact.read_bytes()).hexdigest()

    assert install(base, f"{artefact.as_uri()}#sha256={right}", "victim")["code"] == "SUCCESS"
    assert base.get("/victim/").text == "victim"
    uninstall(base, "victim")


@pytest.mark.usefixtures("kept")
def test_all_mistakes_of_a_manifest_are_reported_at_once(base: BaseProcess, tmp_path: Path) -> None:
    files = contents(built(tmp_path, "victim"))
    wrong = files["biz.toml"].decode()
    for good, bad in [
        ('entry = "victim:app"', 'entry = "no entry"'),
        ("priority = 100", 'priority = "soon"'),
        ('isolation = "namespace"', 'isolation = "moon"'),
    ]:
        assert good in wrong
        wrong = wrong.replace(good, bad)
    artefact = pack(tmp_path / "victim-1.0.0-ark-biz.zip", {**files, "biz.toml": wrong.encode()})

    for text in [said(install(base, artefact.as_uri(), "victim")), run(base, "deploy", str(artefact)).stderr]:
        expect(text, "no entry", "priority", "moon")


def test_all_mistakes_of_a_project_are_reported_at_once(base: BaseProcess, tmp_path: Path) -> None:
    project = tmp_path / "victim"
    write_project(project, "victim:app", VICTIM.format(answer="x"))
    with (project / "pyproject.toml").open("a") as file:
        file.write('priority = "soon"\nisolation = "moon"\nweb-context-path = 5\n')

    done = run(base, "deploy", str(project))

    assert done.returncode == 2
    expect(done.stderr, "priority", "isolation|moon", "web-context-path")


def test_another_identity_than_the_one_asked_for_is_refused(
    base: BaseProcess, tmp_path: Path, files: Callable[[], list[str]]
) -> None:
    """What was verified stays in the store, as that of a module that left does, and nothing is added each time."""
    artefact = built(tmp_path, "victim")
    kept = []
    for _ in range(2):
        reply = install(base, artefact.as_uri(), "somebody")
        assert reply["code"] == "FAILED"
        expect(said(reply), "victim:1.0.0", "somebody:1.0.0")
        kept.append(files())

    assert kept[0] == kept[1]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("damage", [truncated, changed, with_link], ids=lambda damage: damage.__name__)
def test_nothing_is_removed_for_an_install_that_cannot_succeed(
    base: BaseProcess, tmp_path: Path, damage: Callable[[Path], Path]
) -> None:
    """Section 12.9: the strategy removes every version of the name first in the original. Here ``hello`` stays."""
    artefact = build_project(BIZS / "hello-1.1", Options(out=tmp_path)).path
    damage(built(tmp_path / "v", "victim")).replace(artefact)
    for url in (artefact.as_uri(), (tmp_path / "missing-ark-biz.zip").as_uri()):
        said(install(base, url, "hello", "1.1", installStrategy="uninstallThenInstall"))


# --- entries that do not work -----------------------------------------------------------------------------------------


def write_project(directory: Path, entry: str, source: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{directory.name}.py").write_text(source)
    (directory / "pyproject.toml").write_text(
        f'[project]\nname = "{directory.name}"\nversion = "1.0.0"\n\n[tool.koupleless.module]\nentry = "{entry}"\n'
    )
    return directory


@pytest.mark.parametrize(
    ("entry", "source", "words"),
    [
        ("nowhere.main:app", "", ["nowhere"]),
        ("victim:app", "", ["app", "victim"]),
        ("victim:inner.app", "inner = object()", ["app", "victim"]),
        ("victim:app", "app = 42", ["app", "callable|application|int"]),
        ("victim:make()", "def make(): return 42", ["make", "callable|application|int"]),
        ("victim:make()", "def make(): raise RuntimeError('no key')", ["RuntimeError: no key", r"victim\.py"]),
        ("victim:app", "def app(:", ["SyntaxError", r"victim\.py"]),
        ("victim:app", "import sys\nsys.exit('I am done')", ["SystemExit|sys.exit", "I am done"]),
        ("victim:app", "raise KeyboardInterrupt", ["KeyboardInterrupt"]),
        ("victim:app", "import no_such_thing", ["no_such_thing", "victim"]),
        ("victim:app", "def f(): f()\nf()", ["RecursionError", r"victim\.py"]),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(
    base: BaseProcess, tmp_path: Path, entry: str, source: str, words: list[str]
) -> None:
    done = run(base, "deploy", str(write_project(tmp_path / "victim", entry, source)))

    assert done.returncode in {1, 2, 3}, done
    expect(done.stderr, r"(^|\n)error: ", *words)
    assert base.get("/victim/").status_code == 404
    assert_only_frames_of_the_user(done.stderr)


RAISING = """
import victim_parts.deep
"""
DEEP = """
import json


def configure():
    try:
        json.loads("{")
    except ValueError as error:
        raise RuntimeError("no database at 10.0.0.1") from error


configure()
"""


def test_code_that_raises_at_import_shows_its_own_traceback_and_nothing_of_ours(
    base: BaseProcess, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "victim", "victim:app", RAISING)
    (project / "victim_parts").mkdir()
    (project / "victim_parts" / "__init__.py").write_text("")
    (project / "victim_parts" / "deep.py").write_text(DEEP)

    done = run(base, "deploy", str(project))

    assert done.returncode == 1
    expect(
        done.stderr,
        r"victim\.py\", line 2, in <module>\n    import victim_parts\.deep",
        r"victim_parts/deep\.py\", line 12, in <module>\n    configure\(\)",
        r"victim_parts/deep\.py\", line 9, in configure",
        r"json/decoder\.py",
        r"JSONDecodeError: .*direct cause.*RuntimeError: no database at 10\.0\.0\.1",
    )
    assert_only_frames_of_the_user(done.stderr)


def test_the_envelope_carries_the_same(base: BaseProcess, tmp_path: Path) -> None:
    artefact = built(tmp_path, "victim", DEEP)

    reply = install(base, artefact.as_uri(), "victim")

    assert reply["code"] == "CMD_PROCESS_INTERNAL_ERROR"
    expect(reply["message"], "^Internal Error: .*no database at 10.0.0.1")
    expect(reply["errorStackTrace"], r"victim\.py\", line 9, in configure", "RuntimeError: no database")
    assert_only_frames_of_the_user(reply["errorStackTrace"])


def assert_only_frames_of_the_user(text: str) -> None:
    files = re.findall(r'File "([^"]+)"', text)
    ours = [file for file in files if "/koupleless/" in file or file.startswith("<frozen")]
    assert ours == [], text


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """``hanging(name)``: a module that is not through its import until the test releases it."""

    def make(name: str) -> Path:
        marks = {mark: str(tmp_path / mark) for mark in ("started", "released")}
        return built(tmp_path, name, HANGING.format(**marks))

    yield make
    (tmp_path / "released").touch()


@pytest.mark.parametrize("where", ["lifespan", "call"])
def test_a_module_that_hangs_in_its_start_is_given_up_at_the_deadline(
    base: BaseProcess, tmp_path: Path, where: str
) -> None:
    if where == "lifespan":
        name, version, artefact = "hanging", "1.0", build_project(BIZS / "hanging-1.0", Options(out=tmp_path)).path
    else:
        source = "import threading\nimport koupleless\ndef main(): koupleless_ended.wait()\n"
        source = source.replace("import koupleless\n", f"koupleless_ended = threading.Event()\n{TIMER}")
        project = write_project(tmp_path / "waiting", "waiting:main", source)
        name, version, artefact = "waiting", "1.0.0", build_project(project, Options(out=tmp_path)).path
    begin = time.monotonic()

    text = said(install(base, artefact.as_uri(), name, version))

    assert START_TIMEOUT <= time.monotonic() - begin < START_TIMEOUT + 5
    expect(text, f"{name}:{version}", "start", rf"\b{START_TIMEOUT}(\.0)? s")


# The thread of a start that was given up must end some day, or the process of the base would not.
TIMER = "timer = threading.Timer(15, koupleless_ended.set)\ntimer.daemon = True\ntimer.start()\n"


def test_an_import_that_hangs_is_given_up_interrupted_and_can_be_tried_again(
    base: BaseProcess, tmp_path: Path, hanging: Callable[[str], Path]
) -> None:
    artefact = hanging("sluggish")
    before = modules(base)

    expect(said(install(base, artefact.as_uri(), "sluggish")), "sluggish:1.0.0", "start", rf"\b{START_TIMEOUT}(\.0)? s")

    assert modules(base) == before
    assert base.get("/sluggish/").status_code == 404
    (tmp_path / "released").touch()
    assert install(base, artefact.as_uri(), "sluggish")["code"] == "SUCCESS", "it can be tried again"
    assert base.get("/sluggish/").text == "at last"
    uninstall(base, "sluggish")


def test_the_base_is_responsive_while_a_start_hangs(
    base: BaseProcess, tmp_path: Path, hanging: Callable[[str], Path]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(install, base, hanging("sluggish").as_uri(), "sluggish")
        until((tmp_path / "started").exists)
        took: list[float] = []
        while not reply.done() and len(took) < 20:
            begin = time.monotonic()
            assert ask(base, "health", {})["code"] == "SUCCESS"
            assert base.get("/hello/").status_code == 200
            took.append(time.monotonic() - begin)
        assert len(took) >= 5
        assert sorted(took)[len(took) // 2] < START_TIMEOUT / 4
        said(reply.result())


# --- identities and paths ---------------------------------------------------------------------------------------------


def test_a_path_that_another_module_has_is_refused_and_the_owner_named(base: BaseProcess, tmp_path: Path) -> None:
    artefact = built(tmp_path, "squatter", path="/hello")

    expect(said(install(base, artefact.as_uri(), "squatter")), "/hello", r"hello:1\.0")
    done = run(base, "deploy", str(artefact))

    assert done.returncode == 1
    expect(done.stderr, "/hello", r"hello:1\.0", "suggestion: ")
    assert base.get("/hello/").json()["hello"] == "world"


@pytest.mark.usefixtures("kept")
def test_the_same_identity_twice_is_a_repetition(base: BaseProcess, tmp_path: Path) -> None:
    artefact = build_project(BIZS / "hello-1.0", Options(out=tmp_path)).path

    reply = install(base, artefact.as_uri(), "hello", "1.0")
    done = run(base, "deploy", str(artefact), "--strategy", "install-only")

    assert (reply["code"], reply["message"]) == ("FAILED", "install biz not success!")
    assert reply["data"]["code"] == "REPEAT_BIZ"
    assert reply["data"]["message"] == "Biz: hello:1.0 has been installed or registered."
    assert done.returncode == 1
    expect(
        done.stderr, r"hello:1\.0 was not installed: it has been installed", "suggestion: .*version.*--strategy replace"
    )


@pytest.mark.parametrize(
    ("command", "text"),
    [("uninstallBiz", "Uninstall biz: hello:9.9 not found."), ("switchBiz", "Switch biz: hello:9.9 not found.")],
)
@pytest.mark.usefixtures("kept")
def test_a_version_that_is_not_there_is_not_found(base: BaseProcess, command: str, text: str) -> None:
    reply = ask(base, command, {"bizName": "hello", "bizVersion": "9.9"})
    done = run(base, {"uninstallBiz": "undeploy", "switchBiz": "switch"}[command], "hello:9.9")

    assert reply["code"] == "FAILED"
    assert reply["data"]["code"] == "NOT_FOUND_BIZ"
    assert reply["data"]["message"] == text
    assert done.returncode == 1
    expect(done.stderr, r"hello:9\.9 is not installed; installed: hello:1\.0")
    assert "Traceback" not in done.stderr


def test_undeploying_what_is_not_there_can_be_tolerated(base: BaseProcess) -> None:
    assert run(base, "undeploy", "hello:9.9", "--ignore-not-found").returncode == 0
    assert run(base, "undeploy", "nobody", "--ignore-not-found").returncode == 0
    assert run(base, "undeploy", "nobody").returncode == 1


# --- the disk is full, the base is killed -----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def own_base(directory: Path, store: Path) -> BaseProcess:
    directory.mkdir(parents=True, exist_ok=True)
    settings = f'[base]\nstart-timeout = 30\nstore-dir = "{store}"\n'
    (directory / "koupleless.toml").write_text(settings)
    return BaseProcess([], cwd=directory, log=directory / "log")


def test_a_full_disk_stops_an_install_and_nothing_else(tmp_path: Path, small_disk: Path) -> None:
    big = built(tmp_path, "big")
    noise = {f"noise/{number}": os.urandom(MEBIBYTE) for number in range(8)}
    pack(big, sealed({**contents(big), **noise}))
    small = built(tmp_path, "small")
    process = own_base(tmp_path / "own", small_disk / "store")
    try:
        process.deploy(BIZS / "hello-1.0")
        before, used = modules(process), in_use(small_disk)
        for _ in range(3):  # what a failure would leave adds up
            expect(said(install(process, big.as_uri(), "big")), "no space")
            assert in_use(small_disk) <= used + 64 * 1024, "what was unpacked is removed"
        done = run(process, "deploy", str(big))
        assert done.returncode == 1
        expect(done.stderr, "no space")
        assert "Traceback" not in done.stderr
        assert modules(process) == before
        assert process.get("/hello/").json()["life"] == ["started"]
        assert install(process, small.as_uri(), "small")["code"] == "SUCCESS"
        assert process.get("/small/").text == "small"
    finally:
        process.end()


def in_use(disk: Path) -> int:
    figures = os.statvfs(disk)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


@pytest.mark.parametrize("phase", ["download", "unpack", "import"])
def test_a_base_that_was_killed_during_an_install_starts_again_on_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: Web, phase: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    marks = {mark: str(tmp_path / mark) for mark in ("started", "released")}
    victim = built(tmp_path, "victim", HANGING.format(**marks) if phase == "import" else "")
    if phase == "unpack":
        noise = {f"noise/{number}": os.urandom(8192) for number in range(6000)}
        pack(victim, sealed({**contents(victim), **noise}))
    store = tmp_path / "store"
    process = own_base(tmp_path / "killed", store)
    process.deploy(BIZS / "hello-1.0")
    there = {path for path in store.rglob("*") if path.is_dir()}
    urls = {"download": f"{web.url}/drip/victim-1.0.0-ark-biz.zip"}
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(install, process, urls.get(phase, victim.as_uri()), "victim")
        if phase == "download":
            until(lambda: web.sent > 3)
        elif phase == "unpack":
            until(lambda: sum("noise" in path.name for path in store.rglob("*") if path not in there) > 0)
        else:
            until(Path(marks["started"]).exists)
        process.end(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):  # nothing was answered: it was in the middle of it
            reply.result()
    Path(marks["released"]).touch()

    shapes = []
    for directory in (store, tmp_path / "fresh"):
        process = own_base(tmp_path / directory.name / ".." / f"again-{directory.name}", directory)
        try:
            assert modules(process) == []
            assert install(process, victim.as_uri(), "victim")["code"] == "SUCCESS"
            assert process.get("/victim/").text in {"victim", "at last"}
            process.deploy(BIZS / "hello-1.0")
            assert process.get("/hello/").status_code == 200
        finally:
            process.end()
        shapes.append(sorted(shape(path.relative_to(directory)) for path in directory.rglob("*")))
    assert shapes[0] == shapes[1], "the store is what it would be without the accident"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_base_that_was_killed_leaves_nothing_in_temporary_places_after_the_next_start(
    serve: Callable[..., BaseProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    killed = serve("--module", str(BIZS / "hello-1.0"))
    assert killed.get("/hello/").status_code == 200
    killed.end(signal.SIGKILL)
    left = {path.name for path in place.iterdir()}
    assert {name.rpartition("-")[0] for name in left} >= {"koupleless-store", "arkctl-run"}
    again = serve("--module", str(BIZS / "hello-1.0"))
    assert again.get("/hello/").status_code == 200
    assert not left & {path.name for path in place.iterdir()}
    again.end()

    assert list(place.iterdir()) == []


def shape(path: Path) -> str:
    """With the names that are made up left out."""
    return re.sub(r"(?<=sessions/)[^/]+", "*", str(path))


# --- the wire ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("command", ["installBiz", "uninstallBiz", "switchBiz"])
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"bizName":"hello","bizVersion":"1.0"',
        b'{"bizName":"hello","bizVersion":"1.0"} more',
        b'{"bizName":"hello","bizVersion":"1.0",}',
        b"{'bizName':'hello','bizVersion':'1.0'}",
        b'{"bizName":"hello","bizVersion":"1.0","x":NaN}',
        b'{"bizName":"hello","bizVersion":"1.0\xff"}',
        b'[{"bizName":"hello","bizVersion":"1.0"}]',
        b'"hello"',
        b"1",
        b"true",
        b"   ",
        b'{"bizName":"hello","bizVersion":"1.0","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ],
    ids=lambda body: repr(body[:45]),
)
def test_malformed_json_is_answered_at_once(base: BaseProcess, command: str, body: bytes) -> None:
    begin = time.monotonic()

    reply = post(base, command, body)

    assert time.monotonic() - begin < 2
    assert reply.status_code == 200
    assert reply.json()["code"] == "CMD_PROCESS_INTERNAL_ERROR"
    expect(reply.json()["message"], "^Internal Error: .*(json|object|nested|utf-8)")
    assert "baseIdentity" not in reply.json()


def body_of(size: int) -> bytes:
    head, tail = b'{"bizName":"hello","bizVersion":"9.9","x":"', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


def test_a_body_over_one_mebibyte_is_too_large_and_one_of_just_that_is_not(base: BaseProcess) -> None:
    assert post(base, "uninstallBiz", body_of(MEBIBYTE)).json()["data"]["code"] == "NOT_FOUND_BIZ"
    reply = post(base, "uninstallBiz", body_of(MEBIBYTE + 1))
    assert reply.status_code == 413
    assert reply.headers["content-length"] == "0"
    assert reply.content == b""


def test_a_chunked_body_over_the_limit_is_too_large_as_well(base: BaseProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", base.arklet_port, timeout=20)
    chunks = iter([body_of(MEBIBYTE), b" "])
    connection.request("POST", "/uninstallBiz", body=chunks, encode_chunked=True)
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (413, b"")
    connection.close()


def test_a_body_that_never_ends_neither_fills_the_memory_nor_takes_for_ever(base: BaseProcess) -> None:
    peak = memory_peak(base)
    with socket.create_connection(("127.0.0.1", base.arklet_port), timeout=20) as raw:
        raw.sendall(b"POST /installBiz HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        sent, answer = 0, b""
        with contextlib.suppress(OSError):
            for _ in range(1600):  # 100 MiB
                raw.sendall(chunk)
                sent += 1
            answer = raw.recv(100)
    assert sent < 1600 or b"413" in answer
    assert memory_peak(base) - peak < 16 * MEBIBYTE


def test_half_a_request_disturbs_nobody(base: BaseProcess) -> None:
    halves = [socket.create_connection(("127.0.0.1", base.arklet_port), timeout=20) for _ in range(20)]
    try:
        for half in halves:
            half.sendall(b'POST /installBiz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{"bizName":')
        begin = time.monotonic()
        assert ask(base, "health", {})["code"] == "SUCCESS"
        assert time.monotonic() - begin < 2
    finally:
        for half in halves:
            half.close()


# --- URLs -------------------------------------------------------------------------------------------------------------


class Web:
    """A server of this machine with many ways to disappoint."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.sent = 0
        self.files: dict[str, Path] = {}
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):  # the other side has had enough
                    web.answer(self)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        kind = request.path.split("/")[1]
        send: Callable[[], object] = {
            "silent": self._silence,
            "status": lambda: self._whole(request, int(request.path.split("/")[2]), b"no", "text/plain"),
            "html": lambda: self._whole(request, 200, b"<!doctype html><title>Please log in</title>", "text/html"),
            "short": lambda: self._stream(request, [b"PK\x03\x04", b"x"], length=10_000),
            "drip": lambda: self._stream(request, self._drops(), length=1_000_000),
            "endless": lambda: self._stream(request, self._endless()),
            "loop": lambda: self._moved(request, request.path),
            "local": lambda: self._moved(request, self.files["local"].as_uri()),
            "file": lambda: self._whole(request, 200, self.files[request.path].read_bytes(), "application/zip"),
        }[kind]
        send()

    def _silence(self) -> None:
        self.stop.wait()

    def _endless(self) -> Iterator[bytes]:
        yield b"PK\x03\x04"
        yield from itertools.repeat(bytes(MEBIBYTE))

    def _drops(self) -> Iterator[bytes]:
        while not self.stop.wait(0.2):
            yield b"P"

    def _whole(self, request: http.server.BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _moved(self, request: http.server.BaseHTTPRequestHandler, where: str) -> None:
        request.send_response(302)
        request.send_header("Location", where)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _stream(self, request: http.server.BaseHTTPRequestHandler, parts: Any, length: int = 0) -> None:
        request.send_response(200)
        if length:
            request.send_header("Content-Length", str(length))
        request.end_headers()
        for part in parts:
            if self.stop.is_set():
                return
            request.wfile.write(part)
            request.wfile.flush()
            self.sent += 1


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/status/404/x", ["404"]),
        ("/status/500/x", ["500"]),
        ("/status/204/x", ["zip|archive|artefact|empty|204"]),
        ("/html/x", ["html|zip|archive|artefact"]),
        ("/short/x", ["10000|incomplete|short|closed|ended|broke|expected|missing"]),
        ("/loop/x", ["redirect"]),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
def test_a_url_with_something_else_behind_it_is_refused(
    base: BaseProcess, web: Web, path: str, words: list[str], named: bool
) -> None:
    url = f"{web.url}{path}"
    reply = install(base, url, "victim") if named else ask(base, "installBiz", {"bizUrl": url})

    expect(said(reply), re.escape(f"{web.url}{path}"), *words)
    assert "Traceback" not in said(reply)


@pytest.mark.usefixtures("kept")
def test_a_web_server_cannot_send_the_base_to_a_file_of_its_own_machine(
    base: BaseProcess, web: Web, tmp_path: Path
) -> None:
    web.files["local"] = built(tmp_path, "victim")

    expect(said(install(base, f"{web.url}/local/x", "victim")), "file:|redirect")


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:{port}/x-ark-biz.zip", ["refused", "127.0.0.1:{port}"]),
        ("http://nowhere.invalid/x-ark-biz.zip", ["nowhere.invalid"]),
        ("ftp://127.0.0.1/x-ark-biz.zip", ["ftp"]),
        ("data:application/zip;base64,UEs=", ["data"]),
        ("http://", ["http://|url|host"]),
        ("http://127.0.0.1:port/x", ["port|url"]),
        ("file:///nowhere/x-ark-biz.zip", ["/nowhere/x-ark-biz.zip", "no such file"]),
        ("file:///dev/zero", ["/dev/zero"]),
        ("file:///", ["file:///| / "]),
        ("   ", ["bizUrl should not be blank"]),
    ],
)
def test_a_url_that_leads_nowhere_is_named(base: BaseProcess, url: str, words: list[str]) -> None:
    port = str(free_port())
    reply = install(base, url.replace("{port}", port), "victim")

    expect(said(reply), *(word.replace("{port}", port) for word in words))
    assert "Traceback" not in said(reply)


@pytest.mark.usefixtures("kept")
def test_a_download_without_end_is_cut(base: BaseProcess, web: Web) -> None:
    peak = memory_peak(base)

    # By its size, or on a busy machine by the time it takes.
    expect(said(install(base, f"{web.url}/endless/x", "victim")), r"more than the \d+ allowed bytes|within \d+ s")

    assert memory_peak(base) - peak < 128 * MEBIBYTE


@pytest.mark.usefixtures("kept")
def test_a_url_that_answers_slowly_or_not_at_all_is_given_up_and_nobody_waits_for_it(
    base: BaseProcess, web: Web
) -> None:
    with ThreadPoolExecutor(3) as pool:
        told = pool.submit(run, base, "deploy", f"{web.url}/silent/told-1.0.0-ark-biz.zip")
        silent = pool.submit(install, base, f"{web.url}/silent/x", "silent")
        drip = pool.submit(install, base, f"{web.url}/drip/x", "drip")
        until(lambda: web.sent > 3)
        begin = time.monotonic()
        assert ask(base, "health", {})["code"] == "SUCCESS"
        assert time.monotonic() - begin < 1
        expect(said(silent.result()), "/silent/x", r"time|within \d+ s")
        expect(said(drip.result()), "/drip/x", r"time|within \d+ s")
        done = told.result()
    assert done.returncode == 1, f"the base is there, and refused; arkctl must not give up before it: {done.stderr}"
    expect(done.stderr, "/silent/told", r"time|within \d+ s")


def test_an_artefact_behind_a_good_url_is_installed(base: BaseProcess, web: Web, tmp_path: Path) -> None:
    web.files["/file/victim-1.0.0-ark-biz.zip"] = built(tmp_path, "victim")

    assert install(base, f"{web.url}/file/victim-1.0.0-ark-biz.zip", "victim")["code"] == "SUCCESS"
    assert base.get("/victim/").text == "victim"
    uninstall(base, "victim")


# --- many at once, many in a row --------------------------------------------------------------------------------------


def test_eight_different_modules_are_installed_at_once(base: BaseProcess, tmp_path: Path) -> None:
    names = [f"crowd_{number}" for number in range(8)]
    artefacts = [built(tmp_path / name, name) for name in names]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda one: install(base, one[0].as_uri(), one[1]), zip(artefacts, names, strict=True)))
        assert [reply["code"] for reply in replies] == ["SUCCESS"] * 8
        assert [base.get(f"/{name}/").text for name in names] == names
        assert len(modules(base)) == 9
        list(pool.map(lambda name: uninstall(base, name), names))
    assert [base.get(f"/{name}/").status_code for name in names] == [404] * 8


@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
def test_of_eight_installs_of_one_identity_exactly_one_wins(base: BaseProcess, tmp_path: Path, named: bool) -> None:
    artefact = built(tmp_path, "single", "import time\ntime.sleep(0.3)\n" + VICTIM.format(answer="one"))
    body = {"bizUrl": artefact.as_uri(), **({"bizName": "single", "bizVersion": "1.0.0"} if named else {})}
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(base, "installBiz", body), range(8)))

    assert [reply["code"] for reply in replies].count("SUCCESS") == 1
    for reply in replies:
        if reply["code"] != "SUCCESS":
            expect(said(reply), "single:1.0.0", "conflict, exist unfinished command|REPEAT_BIZ")
    assert base.get("/single/").text == "one"
    uninstall(base, "single")


def test_of_eight_modules_for_one_path_exactly_one_wins(base: BaseProcess, tmp_path: Path) -> None:
    names = [f"rival_{number}" for number in range(8)]
    artefacts = [built(tmp_path / name, name, path="/prize") for name in names]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda one: install(base, one[0].as_uri(), one[1]), zip(artefacts, names, strict=True)))

    winners = [name for name, reply in zip(names, replies, strict=True) if reply["code"] == "SUCCESS"]
    assert len(winners) == 1, replies
    for reply in replies:
        if reply["code"] != "SUCCESS":
            expect(said(reply), "/prize")
    assert base.get("/prize/").text == winners[0]
    uninstall(base, winners[0])


def test_thirty_deployments_in_a_row_each_serve_what_was_saved_last(
    base: BaseProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All answers have the same length, so neither size nor time of a file tells old bytecode from new."""
    project = write_project(tmp_path / "changing", "changing:app", VICTIM.format(answer="").replace("ANSWER = ''", ""))
    source = project / "changing.py"
    source.write_text("from changing_parts.answer import ANSWER\n" + source.read_text())
    (project / "changing_parts").mkdir()
    (project / "changing_parts" / "__init__.py").write_text("")
    for number in range(100, 130):
        (project / "changing_parts" / "answer.py").write_text(f'ANSWER = "{number}"\n')
        assert main(["deploy", str(project), "--port", str(base.arklet_port)]) == 0, capsys.readouterr().err
        assert base.get("/changing/").text == str(number)
    assert [entry["bizVersion"] for entry in modules(base) if entry["bizName"] == "changing"] == ["1.0.0"]
    uninstall(base, "changing")


# --- strangers ------------------------------------------------------------------------------------------------------


def test_idle_connections_take_no_descriptors_from_the_application(
    serve: Callable[..., BaseProcess], tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        (tmp_path / "here.py").write_text(VICTIM.format(answer="here"))
        base = serve("here:app", cwd=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        with contextlib.ExitStack() as stack:
            for number in range(1100):
                for port in (base.port, base.arklet_port):
                    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
                    connection.sendall((b"", b"POST /health HTTP/1.1\r\nHo")[number % 2])
                if number % 100 == 99:
                    assert base.get("/").text == "here"
                    assert base.ask("queryAllBiz") == []
            taken = len(list(Path(f"/proc/{base.popen.pid}/fd").iterdir()))
            base.deploy(BIZS / "hello-1.0")
            assert base.get("/hello/").status_code == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert taken < 1024 * 0.8
    log = base.log.read_text()
    assert "Traceback" not in log
    assert len([line for line in log.splitlines() if "connections" in line]) <= 2
