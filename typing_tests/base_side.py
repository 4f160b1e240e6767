"""The types that code of a base sees: `koupleless.base`, and where a base fits in servers and frameworks."""

from __future__ import annotations

from typing import assert_type
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from uvicorn import Config

from koupleless import KouplelessError
from koupleless.base import Base, serve
from koupleless.settings.base import BaseSettings


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """The smallest application that a base takes."""
    start_response("204 No Content", [])
    return []


# --- made of any application, or of none -------------------------------------------------------------------------

base = Base(Starlette(), name="shop")
assert_type(base, Base)
assert_type(Base(), Base)
assert_type(Base(Flask("shop")), Base)
assert_type(Base(plain, settings=BaseSettings(name="shop"), owns_process=True, application="shop.main"), Base)

Base(Starlette(), "shop")  # type: ignore[call-arg]  # all but the application goes by its name
Base(Starlette(), name=3)  # type: ignore[arg-type]  # a name is a text


# --- an ASGI application in all places that take one -------------------------------------------------------------

of_starlette: ASGIApp = base
config = Config(base, lifespan="on")
mount = Mount("/modules", app=base)


# --- its parts, as far as they are public ------------------------------------------------------------------------

assert_type(base.settings, BaseSettings)
assert_type(base.settings.name, str)
assert_type(serve(Starlette(), BaseSettings(), application="shop.main"), int)


def start(app: object) -> int:
    """Serve, and tell of a failure as `arkctl serve` does."""
    try:
        return serve(app, base.settings)
    except KouplelessError as error:
        assert_type(str(error), str)
        return 1
