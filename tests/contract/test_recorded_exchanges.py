"""All 148 exchanges recorded from a Java base, in their order, against ours.

Compared are the status, the keys at every depth, the types, and the values: of ``code``, ``data.code``, ``bizState``,
``reason``, ``webContextPath``, and of every other text, number and flag that is the same in every run and not Java's.
Where ours differs on purpose, `DEVIATIONS` or `EVERYWHERE` says why; what is listed and does not differ fails.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests import interface
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXCHANGES: Final = [
    json.loads(line) for line in (Path(__file__).parent / "recorded.jsonl").read_text(encoding="utf-8").splitlines()
]
INTERNAL: Final = "CMD_PROCESS_INTERNAL_ERROR"
TIMEOUT_S: Final = 20.0

# --- what differs everywhere ---------------------------------------------------------------------------------------

EVERYWHERE: Final = {
    "bizState and state in upper case": "one spelling on both transports; every known consumer accepts it",
    "mainClass, bizUrl, bizTempWorkDir, classPath, threadName": "name Java classes and files; ours are Python's",
    "declaredMode": "our stand-ins declare no libraries, so they may take any from the base",
    "messages with Java classes and exceptions": "clear error texts instead",
    "purgeReport in the data of an uninstall": "leaving is a result to check; original clients ignore it",
    "errorType in a reply to a failure": "source and type of the error; original clients ignore it",
    "libraries in the data of an install": "how each library is held; original clients ignore it",
    "envBiz in the list of commands": "kept variables of a module; original clients ask for none",
    "queryLogs in the list of commands": "logs of modules; original clients ask for none",
    "restartBiz, rollbackBiz, exportBizs, stopBase": "commands more; original clients do not call them",
    "residents in the data of health": "libraries that stay, in whatever process this is; there may be none",
    "pluginListInfo is empty": "a Python base has no ark plugins; what it shares are libraries",
    "cancelBiz in the list of commands": "cancels an install; original clients have no such command",
    "liveBiz in the list of commands": "lets pages reload by themselves; original clients have no such command",
    "commandBiz in the list of commands": "runs a command as a module; original clients have no such command",
    "queryLibraries in the list of commands": "a command more; original clients do not call it",
    "consoleBiz in the list of commands": "runs code inside a module; original clients have no such command",
    "throwable": "the same shape, with Python's frames",
}
COMMANDS_OF_OURS: Final = {
    *("cancelBiz", "commandBiz", "envBiz", "liveBiz", "queryLibraries", "queryLogs"),
    *("restartBiz", "rollbackBiz", "exportBizs", "stopBase", "consoleBiz"),
}
OURS_ALONE: Final = {"errorType", "libraries", "purgeReport", "residents"}
NAMES_JAVA: Final = {"mainClass", "bizUrl", "bizTempWorkDir", "classPath", "threadName", "declaredMode"}
JAVA: Final = re.compile(r"\bjava\.|com\.alipay|Exception|zip END header|no protocol|Cannot invoke")

# --- what differs in single exchanges ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instead:
    """What is expected instead of what was recorded, and why."""

    why: str
    reply: dict[str, Any] | None = None
    """The whole reply; ``None`` keeps the recorded one."""
    message: str | None = None
    """A pattern for the envelope's message."""
    text: str | None = None
    entries: dict[str, Any] | None = None
    """Entries of ``bizUrlToResponse`` that replace the recorded ones."""
    record_message: str | None = None
    """The message of a record of a background run."""


def _error(why: str, pattern: str) -> Instead:
    return Instead(why, reply={"code": INTERNAL, "errorStackTrace": "${trace}", "message": "${text}"}, message=pattern)


HANGS: Final = "the original never answers; nobody should have to wait for nothing"
STRICT: Final = "the original's parser takes what is not JSON; ours is strict"
BROKEN: Final = "every entry of a batch carries one element of bizInfos: the original controller crashes without"
_NOT_JSON = r"Internal Error: the body (is not JSON: .+|must be a JSON object)"

DEVIATIONS: Final = {
    "006-help-head": Instead("a reply to HEAD has no body; the original sends one", text=""),
    **{
        name: _error(HANGS, _NOT_JSON)
        for name in (
            "023-json-garbage", "025-json-array-empty", "026-json-string", "030-json-blank", "035-json-two-objects",
            "036-json-trailing-garbage", "043-json-malformed-install",
        )
    },
    "031-json-trailing-comma": _error(STRICT, _NOT_JSON),
    "033-json-unquoted-key": _error(STRICT, _NOT_JSON),
    **{
        name: Instead(
            "a bare text for a list counts as nothing given; the original forgets the rest of the query, too",
            reply={
                "baseIdentity": "${identity}",
                "code": "SUCCESS",
                "data": {"healthData": {"cpu": "${any}", "jvm": "${any}"}},
            },
        )
        for name in ("065-health-empty-metrics-string", "151-health-installed-metrics-string")
    },
    "071-health-empty-biz-modulename": Instead(
        "moduleName is the documented spelling of the filter: read, not ignored",
        reply={"baseIdentity": "${identity}", "code": "FAILED", "message": "can not find biz"},
    ),
    "078-install-emptybody": _error("no input is an empty input", "Internal Error: bizUrl should not be blank"),
    "182-uninstall-emptybody": _error("no input is an empty input", "Internal Error: bizName should not be blank"),
    "098-install-no-ark-manifest-noname": _error(
        "all mistakes of a manifest are reported", r"Internal Error: .* mistakes: .*Biz Name must not be empty!.*"
    ),
    "121-install-duplicate-missing-file": Instead(
        "a missing file does not hide that the biz is installed",
        reply={
            "baseIdentity": "${identity}",
            "code": "FAILED",
            "data": {
                "code": "REPEAT_BIZ",
                "elapsedSpace": "${int}",
                "message": "Biz: biz1-web-single-host:0.0.1-SNAPSHOT has been installed or registered.",
            },
            "message": "install biz not success!",
        },
    ),
    "163-install-second-version": Instead(
        "two versions of one name may have one path: the active one answers on it",
        reply={
            "baseIdentity": "${identity}",
            "code": "SUCCESS",
            "data": {"bizInfos": "${any}", "code": "SUCCESS", "elapsedSpace": "${int}", "message": "${text}"},
        },
    ),
    "210-batch-async-no-id": _error(
        "the reason instead of null", "Internal Error: requestId should not be blank when async is true"
    ),
    "212-batch-one-dup": Instead(
        BROKEN,
        entries={
            "file://${files}/copy01.jar": {
                "bizInfos": "${any}",
                "code": "REPEAT_BIZ",
                "message": "Biz: copy01:1.0.0 has been installed or registered.",
            }
        },
    ),
    "220-batch-not-a-jar": Instead(
        "a bad archive has its entry, and the others are installed",
        reply={
            "baseIdentity": "${identity}",
            "code": "FAILED",
            "data": {
                "bizUrlToResponse": {
                    "file://${files}/notajar.jar": {"bizInfos": "${any}", "code": "FAILED", "message": "${text}"}
                },
                "code": "FAILED",
                "elapsedSpace": "${int}",
                "message": "batch install failed",
            },
            "message": "install biz not success!",
        },
    ),
    "214-batch-broken": Instead(
        BROKEN,
        entries={"file://${files}/broken-plain.jar": {"bizInfos": "${any}", "code": "FAILED", "message": "${text}"}},
    ),
    "239-ops-args": Instead(
        "values of variables may be secrets, and a record is shown to everybody who asks",
        reply={
            "baseIdentity": "${identity}",
            "code": "SUCCESS",
            "data": {
                "arkBizMeta": {
                    "args": ["a"],
                    "async": True,
                    "bizName": "plain-ok",
                    "bizUrl": "file://${files}/plain-ok.jar",
                    "bizVersion": "1.0.0",
                    "envs": {"k": "***"},
                    "installStrategy": "installOnly",
                    "requestId": "r-5",
                },
                "elapsedTime": "${int}",
                "endTime": "${int}",
                "endTimestamp": "${int}",
                "requestId": "r-5",
                "startTime": "${int}",
                "startTimestamp": "${int}",
                "status": "SUCCEEDED",
                "threadName": "${text}",
            },
        },
    ),
    "245-ops-switch-unknown": Instead(
        "a record keeps data.code, which the original loses",
        record_message="switch biz not success! NOT_FOUND_BIZ: Switch biz: nope:1 not found.",
    ),
}  # fmt: skip

# --- what happened in the gaps between the numbers, as far as the recorded replies show it --------------------------


def _biz(command: str, identity: str, file: str | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    name, _, version = identity.partition(":")
    url = {} if file is None else {"bizUrl": f"file://${{files}}/{file}"}
    return command, {"bizName": name, "bizVersion": version, **url, **more}


BIZ1: Final = "biz1-web-single-host:0.0.1-SNAPSHOT"
BIZ2: Final = "biz2-web-single-host:0.0.1-SNAPSHOT"


def _copy(number: int) -> tuple[str, dict[str, Any]]:
    return _biz("installBiz", f"copy{number:02}:1.0.0", f"copy{number:02}.jar")


def _in_background(request_id: str) -> dict[str, Any]:
    return {"async": True, "requestId": request_id}


BEFORE: Final = {
    "109-queryAllBiz-after-broken": [_biz("installBiz", BIZ2, "biz2-ark-biz.jar")],
    "118-install-duplicate": [_biz("installBiz", BIZ1, "biz1-ark-biz.jar")],
    "123-queryAllBiz-two": [_copy(1)],
    "128-uninstall-plain": [_biz("installBiz", "plain-ok:1.0.0", "plain-ok.jar")],
    "131-install-strategy-unknown": [_biz("installBiz", "plain-ok:1.0.0", "plain-ok.jar")],
    "138-health-installed-all": [_copy(2), _copy(4)],
    "164-install-second-version-ctx": [_biz("uninstallBiz", "biz1-web-single-host:0.0.2")],  # see 163
    "204-queryAllBiz-clean": [
        _biz("uninstallBiz", "biz1-web-single-host:0.0.2"),
        _biz("uninstallBiz", "copy02:1.0.0"),
        _biz("uninstallBiz", "plain-ok:1.0.0"),
    ],
    "212-batch-one-dup": [_copy(1), _copy(2)],
    "237-ops-broken": [_biz("installBiz", "broken-plain:1.0.0", "broken-plain.jar", **_in_background("r-4"))],
    "239-ops-args": [
        _biz("installBiz", "plain-ok:1.0.0", "plain-ok.jar", args=["a"], envs={"k": "v"}, **_in_background("r-5"))
    ],
    "247-ops-batch": [
        ("batchInstallBiz", {"bizList": [_copy(9)[1]], **_in_background("r-9")}),
    ],
}
RUN_IS_OVER: Final = {
    "230-ops-done", "235-ops-missing-file", "237-ops-broken", "239-ops-args", "245-ops-switch-unknown", "247-ops-batch",
}  # fmt: skip
"""Asked once the run had ended; the other records were caught on their way, at a different point every time."""
OVER_BEFORE: Final = {"250-install-concurrent-a": "r-6"}
"""A run in the background that had ended before an exchange whose reply shows all bizs."""
DURING_INSTALL: Final = {"250-install-concurrent-a": "255-health-during-install"}
"""An exchange that lasted until another one was over."""

# --- sending -------------------------------------------------------------------------------------------------------


class Replay:
    def __init__(self, recorded: Any) -> None:
        self.recorded = recorded

    def fill(self, text: str) -> str:
        return text.replace("${files}", str(self.recorded.files)).replace("${server}", self.recorded.server)

    def send(self, exchange: dict[str, Any]) -> tuple[int, bytes]:
        headers = dict(exchange["headers"])
        lines = [f"{exchange['method']} {exchange['path']} HTTP/1.1", f"Host: 127.0.0.1:{self.recorded.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        body = self._body(exchange)
        if body is not None and "Transfer-Encoding" not in headers:
            length = 2 if exchange["id"] == "048-pipelined" else len(body)
            lines.append(f"Content-Length: {length}")
        head = "\r\n".join([*lines, "", ""]).encode()
        with socket.create_connection(("127.0.0.1", self.recorded.port), timeout=TIMEOUT_S) as connection:
            if "Expect" in headers:
                connection.sendall(head)
                assert connection.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
                connection.sendall(body or b"")
            else:
                connection.sendall(head + (body or b""))
            raw = b"".join(iter(lambda: connection.recv(65536), b""))
        answer, _, content = raw.partition(b"\r\n\r\n")
        return int(answer.split()[1]), content

    def _body(self, exchange: dict[str, Any]) -> bytes | None:
        body = exchange["body"]
        if body is None:
            return None
        if re.fullmatch(r"<\d+ bytes>", body):
            size = int(body[1:-7])
            if exchange["status"] == 413:
                return b"%x\r\n" % size + b"a" * size + b"\r\n0\r\n\r\n"
            return b'{"a":"' + b"a" * (size - 8) + b'"}'
        return self.fill(body).encode()

    def command(self, command: str, body: dict[str, Any]) -> dict[str, Any]:
        exchange = {
            "id": "", "method": "POST", "path": f"/{command}", "headers": [], "body": json.dumps(body), "status": 200,
        }  # fmt: skip
        reply: dict[str, Any] = json.loads(self.send(exchange)[1])
        return reply

    def await_run(self, request_id: str) -> None:
        def has_ended() -> bool:
            return self.command("queryBizOps", {"requestId": request_id})["data"]["status"] in ("SUCCEEDED", "FAILED")

        until(has_ended, TIMEOUT_S, otherwise=f"{request_id} has not ended")

    def await_install(self) -> None:
        def has_begun() -> bool:
            return any(biz["bizState"] == "RESOLVED" for biz in self.command("queryAllBiz", {})["data"])

        until(has_begun, TIMEOUT_S, otherwise="the install has not begun")


# --- comparing -----------------------------------------------------------------------------------------------------

_KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "${int}": lambda value: type(value) is int,
    "${number}": lambda value: type(value) in (int, float),
    "${text}": lambda value: isinstance(value, str) and value != "",
    "${trace}": lambda value: isinstance(value, str) and value != "",
    "${identity}": lambda value: value == "10.1.2.3",
    "${any}": bool,
}


def differences(old: Any, new: Any, fill: Callable[[str], str], at: str = "$") -> Iterator[str]:
    key = at.rpartition(".")[2]
    if isinstance(old, str) and old in _KINDS:
        if not _KINDS[old](new):
            yield f"{at}: {new!r} is no {old}"
    elif type(old) is not type(new):
        yield f"{at}: {new!r} instead of {old!r}"
    elif isinstance(old, dict):
        yield from _dict_differences(old, new, fill, at)
    elif isinstance(old, list) and key not in NAMES_JAVA:
        yield from _list_differences(key, old, new, fill, at)
    elif not _is_same(key, fill(old) if isinstance(old, str) else old, new):
        yield f"{at}: {new!r} instead of {old!r}"


def _is_same(key: str, old: Any, new: Any) -> bool:
    if key in NAMES_JAVA:
        return True
    if key in ("bizState", "state"):
        return bool(new == old.upper())
    return _says_the_same(old, new) if isinstance(old, str) else bool(old == new)


def _dict_differences(old: dict[str, Any], new: dict[str, Any], fill: Callable[[str], str], at: str) -> Iterator[str]:
    old = {fill(name): value for name, value in old.items()}
    ours = new.keys() - OURS_ALONE
    yield from (f"{at}.{name} is missing" for name in old.keys() - ours)
    yield from (f"{at}.{name} is too much" for name in ours - old.keys())
    for name in old.keys() & ours:
        yield from differences(old[name], new[name], fill, f"{at}.{name}")


def _list_differences(key: str, old: list[Any], new: list[Any], fill: Callable[[str], str], at: str) -> Iterator[str]:
    if key == "pluginListInfo":
        if new != []:
            yield f"{at}: there are no plugins"
        return
    new = [each for each in new if not (isinstance(each, dict) and each.get("id") in COMMANDS_OF_OURS)]
    if key != "bizStateRecords":  # the only list whose order tells something
        old, new = (sorted(items, key=_sort_key) for items in (old, new))
    if len(old) != len(new):
        yield f"{at}: {len(new)} elements instead of {len(old)}"
    for index, (first, second) in enumerate(zip(old, new, strict=False)):
        yield from differences(first, second, fill, f"{at}[{index}]")


def _sort_key(item: Any) -> str:
    return f"{item.get('id')} {item.get('bizName')} {item.get('bizVersion')}" if isinstance(item, dict) else str(item)


_OWN_WORDS: Final = re.compile(r"(Internal Error: )?(refresh biz info from jar failed: )?")
_SHAPES: Final = {"${int}": r"-?\d+", "${time}": r"\d\d:\d\d:\d\d,\d{3}"}


def _says_the_same(old: str, new: str) -> bool:
    if JAVA.search(old):  # what stands before the Java part is the arklet's own text
        own = _OWN_WORDS.match(old)
        return own is not None and new.startswith(own[0]) and len(new) > len(own[0])
    parts = re.split(r"(\$\{[a-z]+\})", old)
    return re.fullmatch("".join(_SHAPES.get(part, re.escape(part)) for part in parts), new) is not None


def _throwable_differences(thrown: Any, at: str) -> Iterator[str]:
    if not isinstance(thrown, dict) or not {"@type", "message", "localizedMessage", "stackTrace"} <= thrown.keys():
        yield f"{at}: {thrown!r} is no throwable"
    elif not all(
        {"className", "fileName", "lineNumber", "methodName", "nativeMethod"} <= frame.keys()
        for frame in thrown["stackTrace"]
    ):
        yield f"{at}.stackTrace has other members"


def _is_unfinished_run(exchange: dict[str, Any]) -> bool:
    data = exchange["reply"].get("data") if exchange.get("reply") else None
    return isinstance(data, dict) and "arkBizMeta" in data and exchange["id"] not in RUN_IS_OVER


def _settled(data: dict[str, Any]) -> dict[str, Any]:
    """The members of a record that do not depend on how far the run has got."""
    names = ("arkBizMeta", "requestId", "startTime", "startTimestamp", "elapsedTime", "endTimestamp")
    return {name: data[name] for name in names}


def judge(exchange: dict[str, Any], status: int, content: bytes, fill: Callable[[str], str]) -> list[str]:
    """Every difference between an exchange and what came back."""
    found = [] if status == exchange["status"] else [f"status {status} instead of {exchange['status']}"]
    if exchange.get("reply") is None:
        text = exchange.get("text")
        return found if content.decode() == text else [*found, f"{content!r} instead of {text!r}"]
    old, new = exchange["reply"], json.loads(content)
    if re.search(rb"\s|null", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", content)):
        found.append("the JSON is not compact, or has null members")
    if _is_unfinished_run(exchange):
        old, new = ({**reply, "data": _settled(reply["data"])} for reply in (old, new))
    elif isinstance(old.get("data"), dict) and "throwable" in old["data"]:
        found += _throwable_differences(new["data"].get("throwable"), "$.data.throwable")
        old, new = ({**reply, "data": {**reply["data"], "throwable": {}}} for reply in (old, new))
    return found + list(differences(old, new, fill))


def expected(exchange: dict[str, Any]) -> dict[str, Any]:
    """The exchange with what is different on purpose put in."""
    deviation = DEVIATIONS.get(exchange["id"])
    if deviation is None:
        return exchange
    changed = {**exchange, "status": exchange["status"] or 200}
    if deviation.text is not None:
        changed["text"] = deviation.text
    if deviation.reply is not None:
        changed["reply"] = deviation.reply
    if deviation.entries:
        data = exchange["reply"]["data"]
        entries = {**data["bizUrlToResponse"], **deviation.entries}
        changed["reply"] = {**exchange["reply"], "data": {**data, "bizUrlToResponse": entries}}
    if deviation.record_message is not None:
        data = {**exchange["reply"]["data"], "message": deviation.record_message}
        changed["reply"] = {**exchange["reply"], "data": data}
    return changed


# --- the test ------------------------------------------------------------------------------------------------------


class Verdict:
    """What a replay found."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.wrong: dict[str, list[str]] = {}
        self.not_deviating: list[str] = []

    def check(self, exchange: dict[str, Any], status: int, content: bytes) -> None:
        name, fill = exchange["id"], self.replay.fill
        found = judge(expected(exchange), status, content, fill)
        deviation = DEVIATIONS.get(name)
        if deviation is not None and deviation.message is not None:
            message = json.loads(content)["message"]
            if not re.fullmatch(deviation.message, message):
                found.append(f"the message {message!r} is not {deviation.message!r}")
        elif deviation is not None and not judge(exchange, status, content, fill):
            self.not_deviating.append(name)
        if exchange["method"] == "POST" and "post" in interface.document()["paths"].get(exchange["path"], ()):
            media = "application/json" if content else ""
            found += interface.mistakes("POST", exchange["path"], status, media, content)
        if found:
            self.wrong[name] = [*found, content.decode()[:2000]]


class Lasting:
    """An exchange that is on its way while others are sent."""

    def __init__(self, replay: Replay, exchange: dict[str, Any]) -> None:
        self.exchange = exchange
        self._result: tuple[int, bytes] | None = None
        self._replay = replay
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self) -> None:
        self._result = self._replay.send(self.exchange)

    def result(self) -> tuple[int, bytes]:
        self._thread.join(TIMEOUT_S)
        assert self._result is not None, "it has not been answered"
        return self._result


def test_the_recorded_exchanges_give_the_same_replies(recorded: Any) -> None:
    replay = Replay(recorded)
    verdict = Verdict(replay)
    lasting: dict[str, Lasting] = {}
    for exchange in EXCHANGES:
        name = exchange["id"]
        for command, body in BEFORE.get(name, []):
            done = replay.command(command, body)
            assert done["code"] == "SUCCESS", (name, command, done)
        if name in RUN_IS_OVER:
            replay.await_run(json.loads(exchange["body"])["requestId"])
        if name in OVER_BEFORE:
            replay.await_run(OVER_BEFORE[name])
        if name in DURING_INSTALL:
            lasting[DURING_INSTALL[name]] = Lasting(replay, exchange)
            replay.await_install()
            continue
        verdict.check(exchange, *replay.send(exchange))
        if name in lasting:
            recorded.gate.touch()
            verdict.check(lasting[name].exchange, *lasting[name].result())

    assert not verdict.wrong, json.dumps(verdict.wrong, indent=1)
    assert not verdict.not_deviating, "listed as deviations, but they are none"


def test_the_recordings_are_complete_and_every_deviation_is_of_one_of_them() -> None:
    names = {exchange["id"] for exchange in EXCHANGES}

    assert len(EXCHANGES) == 148
    assert DEVIATIONS.keys() | BEFORE.keys() | RUN_IS_OVER | OVER_BEFORE.keys() | DURING_INSTALL.keys() <= names
    assert all(deviation.why for deviation in DEVIATIONS.values())


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ({"code": "SUCCESS"}, {"code": "FAILED"}, "$.code: 'FAILED' instead of 'SUCCESS'"),
        ({"data": {"bytes": "${int}"}}, {"data": {"bytes": 1.0}}, "$.data.bytes: 1.0 is no ${int}"),
        ({"a": 1}, {}, "$.a is missing"),
        ({}, {"a": 1}, "$.a is too much"),
        ({"bizState": "activated"}, {"bizState": "BROKEN"}, "$.bizState: 'BROKEN' instead of 'activated'"),
        ({"webContextPath": "biz1"}, {"webContextPath": "/biz2"}, "$.webContextPath: '/biz2' instead of 'biz1'"),
        ({"reason": "Created"}, {"reason": "Started"}, "$.reason: 'Started' instead of 'Created'"),
        ({"data": [{"id": "a"}]}, {"data": []}, "$.data: 0 elements instead of 1"),
        ({"message": "${int} ms"}, {"message": "x ms"}, "$.message: 'x ms' instead of '${int} ms'"),
        ({"a": True}, {"a": 1}, "$.a: 1 instead of True"),
        ({"mainClass": "x.Y"}, {"mainClass": None}, "$.mainClass: None instead of 'x.Y'"),
    ],
)  # fmt: skip
def test_the_comparison_sees_differences(old: Any, new: Any, at: str) -> None:
    assert list(differences(old, new, lambda text: text)) == [at]
