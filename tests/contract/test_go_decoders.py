"""Replies must decode with the types that the original arkctl and module-controller, written in Go, declare.

Go's decoder ignores unknown members and takes missing ones and ``null``, but a wrong type anywhere in the declared part
fails the whole reply. The decoder here does the same, with the declarations copied from theirs.
"""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[Any, str], None]


class WrongType(Exception):
    pass


def _plain(name: str, check: Callable[[Any], bool]) -> Shape:
    def decode(value: Any, at: str) -> None:
        if value is not None and not check(value):
            raise WrongType(f"{at}: {value!r} is no {name}")

    return decode


STRING = _plain("string", lambda value: isinstance(value, str))
BOOL = _plain("bool", lambda value: isinstance(value, bool))
INT = _plain("int64", lambda value: type(value) is int and -(2**63) <= value < 2**63)
FLOAT = _plain("float64", lambda value: type(value) in (int, float))
ANY = _plain("anything", lambda value: True)


def array(item: Shape) -> Shape:
    def decode(value: Any, at: str) -> None:
        if value is None:
            return
        if not isinstance(value, list):
            raise WrongType(f"{at}: {value!r} is no array")
        for index, element in enumerate(value):
            item(element, f"{at}[{index}]")

    return decode


def mapping(item: Shape) -> Shape:
    def decode(value: Any, at: str) -> None:
        if value is None:
            return
        if not isinstance(value, dict):
            raise WrongType(f"{at}: {value!r} is no object")
        for key, element in value.items():
            item(element, f"{at}.{key}")

    return decode


def struct(**members: Shape) -> Shape:
    return struct_of(members)


def struct_of(members: dict[str, Shape]) -> Shape:
    folded = {name.casefold(): shape for name, shape in members.items()}  # Go matches names without case

    def decode(value: Any, at: str) -> None:
        mapping(ANY)(value, at)
        for key, element in (value or {}).items():
            if key.casefold() in folded:
                folded[key.casefold()](element, f"{at}.{key}")

    return decode


def envelope(data: Shape) -> Shape:
    return struct(code=STRING, message=STRING, errorStackTrace=STRING, data=data)


STATE_RECORD = struct(changeTime=INT, state=STRING, reason=STRING, message=STRING)
BIZ = struct(
    bizName=STRING, bizVersion=STRING, bizState=STRING, mainClass=STRING, webContextPath=STRING,
    bizStateRecords=array(STATE_RECORD),
)  # fmt: skip
STRINGS = array(STRING)
BIZ_DETAILS = struct_of(
    dict.fromkeys(("bizName", "bizVersion", "bizState", "mainClass", "webContextPath"), STRING)
    | dict.fromkeys((
            "denyImportPackages", "denyImportPackageNodes", "denyImportPackageStems", "denyImportClasses",
            "denyImportResources", "injectPluginDependencies", "injectExportPackages", "declaredLibraries",
            "denyPrefixImportResourceStems", "denySuffixImportResourceStems",
        ), STRINGS)
    | dict.fromkeys(("urls", "pluginUrls", "bizStateRecords"), array(ANY))
    | {"priority": INT, "attributes": mapping(STRING), "declaredCacheMap": mapping(BOOL)}
)  # fmt: skip
INSTALL_DATA = struct(code=STRING, message=STRING, elapsedSpace=INT, bizInfos=array(BIZ_DETAILS))
BATCH_DATA = struct(code=STRING, message=STRING, elapsedSpace=INT, bizUrlToResponse=mapping(INSTALL_DATA))
MASTER_BIZ = struct(bizName=STRING, bizState=STRING, bizVersion=STRING, webContextPath=STRING)
JVM = struct_of(
    {"java version": STRING, "java home": STRING}
    | dict.fromkeys((
            "loaded class count", "unload class count", "total class count",
            "java used metaspace", "java committed metaspace", "java max metaspace",
        ), INT)
    | dict.fromkeys((
            "total memory(M)", "max memory(M)", "free memory(M)", "run time(s)",
            "init heap memory(M)", "used heap memory(M)", "committed heap memory(M)", "max heap memory(M)",
            "init non heap memory(M)", "used non heap memory(M)", "committed non heap memory(M)",
            "max non heap memory(M)",
        ), FLOAT)
)  # fmt: skip
CPU = struct_of(
    {"count": INT, "type": STRING}
    | dict.fromkeys(("total used (%)", "user used (%)", "system used (%)", "free (%)"), FLOAT)
)
HEALTH = struct(healthData=struct(jvm=JVM, cpu=CPU, masterBizInfo=MASTER_BIZ, bizListInfo=array(MASTER_BIZ)))

INSTALL: Final = envelope(INSTALL_DATA)
BATCH: Final = envelope(BATCH_DATA)
QUERY: Final = envelope(array(BIZ))
HEALTH_REPLY: Final = envelope(HEALTH)


@pytest.fixture
def call(recorded: Any) -> Callable[..., Any]:
    """``call(command, **body)`` is a decoded reply; ``FILES`` in a URL stands for the artefacts."""

    def ask(command: str, **body: Any) -> Any:
        text = json.dumps(body).replace("FILES", f"file://{recorded.files}")
        request = urllib.request.Request(f"http://127.0.0.1:{recorded.port}/{command}", text.encode())
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.status == 200
            return json.loads(response.read())

    return ask


NAMED: Final = {"bizName": "copy01", "bizVersion": "1.0.0"}


def test_replies_to_install_uninstall_and_switch_decode(call: Callable[..., Any]) -> None:
    replies = [
        call("installBiz", **NAMED, bizUrl="FILES/copy01.jar"),
        call("installBiz", **NAMED, bizUrl="FILES/copy01.jar"),
        call("installBiz", bizUrl="FILES/notajar.jar"),
        call("installBiz", bizName="x", bizVersion="1", bizUrl="FILES/copy02.jar"),
        call("installBiz", bizUrl="FILES/broken-plain.jar"),
        call("installBiz"),
        call("switchBiz", **NAMED),
        call("switchBiz", bizName="nope", bizVersion="1"),
        call("uninstallBiz", **NAMED),
        call("uninstallBiz", **NAMED),
        call("uninstallBiz", bizName="base", bizVersion="1.0.0"),
    ]

    for index, reply in enumerate(replies):
        INSTALL(reply, f"reply {index}")
    assert [reply["code"] for reply in replies] == [
        "SUCCESS", "FAILED", "CMD_PROCESS_INTERNAL_ERROR", "FAILED", "CMD_PROCESS_INTERNAL_ERROR",
        "CMD_PROCESS_INTERNAL_ERROR", "SUCCESS", "FAILED", "SUCCESS", "FAILED", "FAILED",
    ]  # fmt: skip
    assert replies[9]["data"]["code"] == "NOT_FOUND_BIZ"  # arkctl's first deployment of a module hangs on it
    assert replies[0]["data"]["bizInfos"][0]["bizState"].upper() == "ACTIVATED"


@pytest.mark.parametrize("body", [NAMED, {**NAMED, "bizUrl": "https://repo.example/copy01.zip"}])
def test_the_controller_in_go_does_not_recurse_when_a_module_is_not_there(recorded: Any, body: dict[str, str]) -> None:
    agent = {"User-Agent": "go-resty/2.11.0 (https://github.com/go-resty/resty)"}
    codes = []
    for headers in (agent, {}):
        url = f"http://127.0.0.1:{recorded.port}/uninstallBiz"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            reply = json.load(answer)
        INSTALL(reply, "reply")
        codes.append((reply["code"], reply["data"]["code"]))
    assert codes == [("SUCCESS", "NOT_FOUND_BIZ"), ("FAILED", "NOT_FOUND_BIZ")]  # which arkctl in Go takes both


def test_replies_to_a_batch_decode_and_every_entry_has_its_biz(call: Callable[..., Any]) -> None:
    call("installBiz", bizUrl="FILES/copy01.jar")
    urls = [f"FILES/{name}.jar" for name in ("copy01", "copy02", "broken-plain")]
    reply = call("batchInstallBiz", bizList=[{"bizUrl": url} for url in urls])

    BATCH(reply, "reply")
    BATCH(call("batchInstallBiz", bizList=[]), "reply")
    BATCH(call("batchInstallBiz"), "reply")
    for entry in reply["data"]["bizUrlToResponse"].values():
        assert entry["bizInfos"][0]["bizName"]


def test_replies_to_queries_decode(call: Callable[..., Any]) -> None:
    QUERY(call("queryAllBiz"), "reply")
    call("installBiz", bizUrl="FILES/copy01.jar")
    reply = call("queryAllBiz", HostName="127.0.0.1", Port=1238)

    QUERY(reply, "reply")
    assert [biz["bizName"] for biz in reply["data"]] == ["copy01"]


def test_replies_to_health_decode(call: Callable[..., Any]) -> None:
    for query in ({}, {"type": "system"}, {"type": "biz"}, {"type": "biz", "bizName": "nope"}, {"type": "foo"}):
        HEALTH_REPLY(call("health", **query), "reply")
    data = call("health")["data"]["healthData"]

    assert data["masterBizInfo"]["bizState"].upper() == "ACTIVATED"  # anything else kills the node
    assert data["jvm"]["java max metaspace"] == -1
    assert len(data["jvm"]) == 20


@pytest.mark.parametrize(
    ("shape", "reply"),
    [
        (INSTALL, {"code": 200}),
        (INSTALL, {"message": ["x"]}),
        (INSTALL, {"errorStackTrace": {}}),
        (INSTALL, {"data": "text"}),
        (INSTALL, {"data": []}),
        (INSTALL, {"data": {"code": 1}}),
        (INSTALL, {"data": {"message": 1}}),
        (INSTALL, {"data": {"elapsedSpace": 1.5}}),
        (INSTALL, {"data": {"elapsedSpace": "1"}}),
        (INSTALL, {"data": {"bizInfos": {}}}),
        (INSTALL, {"data": {"bizInfos": [{"priority": "100"}]}}),
        (INSTALL, {"data": {"bizInfos": [{"attributes": {"a": 1}}]}}),
        (INSTALL, {"data": {"bizInfos": [{"declaredCacheMap": {"a": 1}}]}}),
        (INSTALL, {"data": {"bizInfos": [{"denyImportPackages": "a"}]}}),
        (INSTALL, {"data": {"bizInfos": [{"denyImportClasses": [1]}]}}),
        (INSTALL, {"data": {"bizInfos": [{"bizStateRecords": {}}]}}),
        (INSTALL, {"data": {"bizInfos": [{"bizname": 1}]}}),
        (QUERY, {"data": {}}),
        (QUERY, {"data": [{"bizStateRecords": [{"changeTime": "2024-06-10"}]}]}),
        (QUERY, {"data": [{"bizStateRecords": [{"changeTime": 1.5}]}]}),
        (QUERY, {"data": [{"bizStateRecords": [{"reason": 1}]}]}),
        (HEALTH_REPLY, {"data": {"healthData": {"cpu": {"count": 4.0}}}}),
        (HEALTH_REPLY, {"data": {"healthData": {"jvm": {"loaded class count": 1.5}}}}),
        (HEALTH_REPLY, {"data": {"healthData": {"jvm": {"java version": 3.11}}}}),
        (BATCH, {"data": {"bizUrlToResponse": []}}),
    ],
)
def test_the_decoder_is_as_strict_as_gos(shape: Shape, reply: Any) -> None:
    with pytest.raises(WrongType):
        shape(reply, "reply")


@pytest.mark.parametrize(
    "reply", [{}, {"data": None, "code": None}, {"news": [1], "data": {"code": "x", "purgeReport": {}}}]
)
def test_the_decoder_is_as_lenient_as_gos(reply: Any) -> None:
    INSTALL(reply, "reply")
