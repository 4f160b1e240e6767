"""What an entry object is taken for."""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette

from koupleless.router.face import FaceKind, face_of, kind_of
from koupleless.router.wsgi import WsgiApp

if TYPE_CHECKING:
    from collections.abc import Callable


async def asgi(scope: Any, receive: Any, send: Any) -> Any:
    """An ASGI application."""


def wsgi(environ: Any, start_response: Any) -> Any:
    return []


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """An ASGI application."""

    async def method(self, scope: Any, receive: Any, send: Any) -> Any:
        """An ASGI application."""


class Wsgi:
    def __call__(self, environ: Any, start_response: Any) -> Any:
        return []


class AsgiClass:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        """As Starlette's endpoints are: what is made is awaited."""

    def __await__(self) -> Any:
        yield


class Wrapper:
    async def __call__(self, *args: Any, **kwargs: Any) -> None:
        """As a decorator makes them."""


class WsgiWrapper:
    def __call__(self, *args: Any, **kwargs: Any) -> list[bytes]:
        return []


def start() -> None:
    """A start function."""


async def astart(verbose: bool = False) -> None:
    """A start function."""


def main(*args: str) -> None:
    """A start function."""


def returns_awaitable(scope: Any, receive: Any, send: Any) -> Any:
    return asgi(scope, receive, send)


async def configured(setting: Any, scope: Any, receive: Any, send: Any) -> Any:
    """An ASGI application once the setting is given."""


@functools.wraps(asgi)
def decorated(*args: Any) -> Any:
    return asgi(*args)


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        (asgi, FaceKind.ASGI),
        (Asgi(), FaceKind.ASGI),
        (Asgi().method, FaceKind.ASGI),
        (AsgiClass, FaceKind.ASGI),
        (Wrapper(), FaceKind.ASGI),
        (decorated, FaceKind.ASGI),
        (returns_awaitable, FaceKind.ASGI),
        (functools.partial(configured, 1), FaceKind.ASGI),
        (functools.partial(functools.partial(configured), 1), FaceKind.ASGI),
        (wsgi, FaceKind.WSGI),
        (Wsgi(), FaceKind.WSGI),
        (WsgiWrapper(), FaceKind.WSGI),
        (functools.partial(wsgi), FaceKind.WSGI),
        (start, FaceKind.START),
        (astart, FaceKind.START),
        (main, FaceKind.START),
        (functools.partial(main, "a"), FaceKind.START),
        (Wsgi, FaceKind.START),
    ],
)
def test_a_callable_is_known_by_the_arguments_it_takes(entry: Any, kind: FaceKind) -> None:
    assert kind_of(entry) is kind


def django_application(kind: str) -> Any:
    from django.conf import settings  # type: ignore[import-untyped]
    from django.core.handlers.asgi import ASGIHandler  # type: ignore[import-untyped]
    from django.core.handlers.wsgi import WSGIHandler  # type: ignore[import-untyped]

    if not settings.configured:
        settings.configure()
    return ASGIHandler() if kind == "asgi" else WSGIHandler()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (FastAPI, FaceKind.ASGI),
        (Starlette, FaceKind.ASGI),
        (lambda: Flask("x"), FaceKind.WSGI),
        (lambda: django_application("asgi"), FaceKind.ASGI),
        (lambda: django_application("wsgi"), FaceKind.WSGI),
    ],
)
def test_the_applications_of_frameworks_are_known(make: Callable[[], Any], kind: FaceKind) -> None:
    assert kind_of(make()) is kind


@pytest.mark.parametrize("entry", [None, types, 42, "app", {}, object()])
def test_what_cannot_be_called_has_no_face(entry: object) -> None:
    face = face_of(entry, name="x:1")

    assert (face.kind, face.asgi, face.start, face.close) == (FaceKind.NONE, None, None, None)


def test_a_face_holds_what_the_container_needs_of_it() -> None:
    assert face_of(asgi, name="x:1").asgi is asgi
    assert face_of(start, name="x:1").start is start
    bridged = face_of(wsgi, name="x:1")
    assert isinstance(bridged.asgi, WsgiApp)
    assert bridged.close == bridged.asgi.close


class Asgi2:
    def __init__(self, scope: Any) -> None:
        """The first call."""

    async def __call__(self, receive: Any, send: Any) -> None:
        """The second."""


def asgi2(scope: Any) -> Any:
    return None


@pytest.mark.parametrize("entry", [Asgi2, asgi2])
def test_an_application_that_is_called_twice_is_refused_with_the_remedy(entry: Any) -> None:
    with pytest.raises(TypeError, match=r"ASGI 2 .*guarantee_single_callable"):
        face_of(entry, name="x:1")


async def async_two(environ: Any, start_response: Any) -> None:
    """Neither."""


def one(config: Any) -> None:
    """Neither."""


def keyword(*, config: Any) -> None:
    """Neither."""


def four(a: Any, b: Any, c: Any, d: Any) -> None:
    """Neither."""


@pytest.mark.parametrize("entry", [async_two, one, keyword, four])
def test_a_callable_of_another_shape_is_refused_with_what_it_takes(entry: Any) -> None:
    with pytest.raises(TypeError, match="neither an ASGI application") as caught:
        face_of(entry, name="x:1")
    assert "factory" in str(caught.value)


def test_compiled_code_that_hides_its_arguments_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match="wrap it in a function"):
        face_of(iter, name="x:1")
