"""Answers of an arklet, checked against the OpenAPI document of the arklet."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema_rs

from koupleless.arklet.pages import openapi
from koupleless.arklet.pages.pages import ROUTES


@functools.cache
def document() -> Any:
    """The document, read."""
    return json.loads(openapi.document(ROUTES))


def mistakes(method: str, path: str, status: int, content_type: str, body: bytes) -> list[str]:
    """Everything in an answer that the document does not have; ``path`` is spelled as in the document."""
    responses = document()["paths"][path][method.lower()]["responses"]
    if str(status) not in responses:
        return [f"{method} {path}: status {status} is not documented"]
    media = content_type.partition(";")[0]
    content = responses[str(status)].get("content", {})
    if media not in content:
        return [] if not content and not body else [f"{method} {path}: {media!r} is not documented for {status}"]
    value = json.loads(body) if media == "application/json" else body.decode()
    check = _validator(path, method.lower(), str(status), media)
    return [f"{method} {path} {error.instance_path}: {error.message}" for error in check.iter_errors(value)]


@functools.cache
def _validator(path: str, method: str, status: str, media: str) -> jsonschema_rs.Draft202012Validator:
    """A validator that also finds members without documentation: clients may meet more, ours are all documented."""
    schema = document()["paths"][path][method]["responses"][status]["content"][media]["schema"]
    named = document()["components"]["schemas"]
    closed = {
        name: {**each, "additionalProperties": False} if "properties" in each else each for name, each in named.items()
    }
    return jsonschema_rs.Draft202012Validator({"components": {"schemas": closed}, "allOf": [schema]})
