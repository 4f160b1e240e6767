"""``/actuator/health`` and ``/actuator/info`` in the shape of the original, with the quirks of the latter mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from koupleless.arklet.pages.meters import meters
from koupleless.arklet.pages.page import Page
from koupleless.health.readiness import Status, first_of, worst
from koupleless.wire.replies import BizHealth

if TYPE_CHECKING:
    from koupleless.container.container import Container
    from koupleless.health.checks import Outcome
    from koupleless.health.readiness import ModuleHealth, Readiness


class Component(msgspec.Struct, frozen=True):
    """One part of the health of base and modules."""

    status: Status
    details: dict[str, Any]


class Overall(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of ``/actuator/health``."""

    status: Status
    components: dict[str, Component] | None = None
    """Left out for callers who are not trusted."""


class Info(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of ``/actuator/info``."""

    ark_biz_info: list[BizHealth]
    ark_plugin_info: list[dict[str, Any]]
    """Empty: a Python base has no plugins."""


def health(readiness: Readiness, container: Container, *, is_trusted: bool) -> Page:
    """The health of base and modules with all details; of all that, the status alone for callers not trusted.

    503 for down or out of service. Calls the checks of modules, and takes time.
    """
    modules, states, start_up = readiness.modules(), readiness.states(), readiness.start_up()
    composite = worst(one.status for one in modules.values())
    status = first_of([composite, start_up, Status.UP])
    http = 503 if status in (Status.DOWN, Status.OUT_OF_SERVICE) else 200
    if not is_trusted:
        return Page.of_json(Overall(status), http)
    base = str(container.base.id)
    details: dict[str, tuple[Status, dict[str, Any]]] = {
        "compositeAllBiz": (composite, {str(biz): _module(one) for biz, one in modules.items()}),
        "baseStartUp": (
            start_up,
            {
                base: {"status": readiness.base.value},
                **{str(biz): {"status": one.value} for biz, one in states.items()},
            },
        ),
        "metrics": (Status.UP, {"metrics": meters()}),
        "probeAvailabilityStateIndicator": (
            Status.UP,
            {
                "baseAvailability": _availability(is_alive=readiness.is_alive(), is_ready=readiness.is_ready()),
                "bizAvailability": {
                    str(biz): _availability(is_alive=True, is_ready=one is Status.UP) for biz, one in states.items()
                },
            },
        ),
    }
    return Page.of_json(Overall(status, {name: Component(*said) for name, said in details.items()}), http)


def info(container: Container) -> Page:
    """The base and all modules, by priority."""
    bizs = sorted((container.base, *container.bizs()), key=lambda one: one.priority)
    return Page.of_json(Info([BizHealth.of(biz) for biz in bizs], []))


def _module(health: ModuleHealth) -> dict[str, Any]:
    return {"status": health.status.value, "details": {name: _check(one) for name, one in health.checks.items()}}


def _check(outcome: Outcome) -> dict[str, Any]:
    status = Status.UP if outcome.is_up else Status.DOWN
    return {"status": {"status": status.value}, "details": dict(outcome.details)}


def _availability(*, is_alive: bool, is_ready: bool) -> dict[str, Any]:
    return {
        "livenessState": "CORRECT" if is_alive else "BROKEN",
        "readinessState": "ACCEPTING_TRAFFIC" if is_ready else "REFUSING_TRAFFIC",
        "healthy": is_alive and is_ready,
    }
