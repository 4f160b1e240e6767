"""The OpenAPI document of an arklet, made from the table of commands, the table of pages and the types of the wire."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from koupleless.arklet.operations import COMMANDS
from koupleless.wire.envelope import Envelope
from koupleless.wire.replies import BizReply, OpsRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from koupleless.arklet.operations import Command
    from koupleless.arklet.pages.page import Route

PATH: Final = "/openapi.json"

_JSON: Final = "application/json"
_WORDS: Final = {"text/plain": {"type": "string"}}
_SCHEMAS: Final = "#/components/schemas/{name}"
_NAMED: Final = re.compile(r"\{(\w+)\}")
_REFUSED: Final = {
    401: "The request lacks the token.",
    403: "The request comes from a web page, or names a host unknown to the arklet.",
}
_SAID: Final = {
    200: "The answer.",
    404: "There is no such page.",
    500: "The page could not be made.",
    503: "Down, or not known to be up.",
}
_PAGELESS: Final = (404, 500)
_EMPTY: Final = {
    408: "The body did not come within a minute.",
    413: "The body is larger than 1 MiB.",
}


@functools.cache
def document(routes: tuple[Route, ...]) -> bytes:
    """The document as JSON, the same for every base of this version. The first call takes some milliseconds."""
    kinds = [Envelope, OpsRecord, BizReply, *(command.data for command in COMMANDS)]
    kinds += [route.kind for route in routes if route.kind is not None]
    replies, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMAS)
    requests, more = msgspec.json.schema_components([command.reads for command in COMMANDS], ref_template=_SCHEMAS)
    envelope, record, failed, *others = (_without_null(schema) for schema in replies)
    shown = iter(others[len(COMMANDS) :])
    paths: dict[str, dict[str, Any]] = {}
    for command, reads, data in zip(COMMANDS, requests, others, strict=False):
        reply = _reply(envelope, [data, failed, record] if command.may_run_later else [data, failed])
        paths[f"/{command.id}"] = {"post": _called(command, reads, reply)}
        if any(route.path == f"/{command.id}" for route in routes):
            paths[f"/{command.id}"]["get"] = _asked(f"/{command.id}", command.description, {200: {_JSON: reply}})
    for route in routes:
        schema = None if route.kind is None else next(shown)
        if route.path not in paths:
            paths[route.path] = {"get": _asked(route.path, route.summary, _answers(route, schema))}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "The arklet of a Koupleless base",
                "version": importlib.metadata.version("koupleless"),
                "description": "Commands are called by POST; their outcome is in the envelope, never in the status.",
            },
            "paths": paths,
            "components": {
                "schemas": {**more, **_without_null(components)},
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{}, {"token": []}],
        }
    )


def _called(command: Command, reads: Mapping[str, Any], reply: Mapping[str, Any]) -> dict[str, Any]:
    """The operation of a command."""
    return {
        "operationId": command.id,
        "summary": command.description,
        "description": inspect.getdoc(command.run) or "",
        "requestBody": {"content": {_JSON: {"schema": reads}}},
        "responses": _responses({200: {_JSON: reply}}, _REFUSED, {_JSON: {"$ref": _SCHEMAS.format(name="Envelope")}})
        | {str(status): {"description": said} for status, said in _EMPTY.items()},
    }


def _asked(path: str, summary: str, answers: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The operation of a page."""
    names = _NAMED.findall(path)
    operation: dict[str, Any] = {
        "operationId": "_".join(["get", *re.findall(r"\w+", path)]),
        "summary": summary,
        "responses": _responses(answers, _REFUSED, _WORDS),
    }
    if names:
        place = {"in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [{"name": name, **place} for name in names]
    return operation


def _answers(route: Route, schema: Any) -> dict[int, dict[str, Any]]:
    """The content of each answer of a page, by status."""
    found = {_JSON: schema} if schema is not None else {kind: {"type": "string"} for kind in route.texts}
    return {status: _WORDS if status in _PAGELESS else found for status in route.statuses}


def _responses(
    answers: Mapping[int, Mapping[str, Any]], refusals: Mapping[int, str], refused: Mapping[str, Any]
) -> dict[str, Any]:
    said = [(status, _SAID[status], content) for status, content in answers.items()]
    said += [(status, text, refused) for status, text in refusals.items()]
    return {
        str(status): {"description": text, "content": {kind: {"schema": schema} for kind, schema in content.items()}}
        for status, text, content in said
    }


def _reply(envelope: Any, data: Iterable[Any]) -> dict[str, Any]:
    """The schema of an envelope with data of one of the given schemas."""
    return {"allOf": [envelope, {"type": "object", "properties": {"data": {"anyOf": list(data)}}}]}


def _without_null(schema: Any) -> Any:
    """A schema of a reply: there, a member without a value is left out, and is never ``null``."""
    if isinstance(schema, list):
        return [_without_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _without_null(value) for key, value in schema.items() if key != "default" or value is not None}
    choices = [each for each in plain.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:
        del plain["anyOf"]
        return plain | choices[0]
    return plain | ({"anyOf": choices} if choices else {})
