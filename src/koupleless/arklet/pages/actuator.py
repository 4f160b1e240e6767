"""``/actuator/health`` and ``/actuator/info`` in the shape of the original, with the quirks of the latter mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koupleless.arklet.pages.meters import meters
from koupleless.arklet.pages.page import Page
from koupleless.health.readiness import Status, first_of, worst

if TYPE_CHECKING:
    from koupleless.container.container import Container
    from koupleless.health.checks import Outcome
    from koupleless.health.readiness import ModuleHealth, Readiness


def health(readiness: Readiness, container: Container, *, is_trusted: bool) -> Page:
    """The health of base and modules with all details; of all that, the status alone for callers not trusted.

    503 for down or out of service. Calls the checks of modules, and takes time.
    """
    modules, states, start_up = readiness.modules(), readiness.states(), readiness.start_up()
    composite = worst(one.status for one in modules.values())
    status = first_of([composite, start_up, Status.UP])
    http = 503 if status in (Status.DOWN, Status.OUT_OF_SERVICE) else 200
    if not is_trusted:
        return Page.of_json({"status": status.value}, http)
    base = str(container.base.id)
    components = {
        "compositeAllBiz": {
            "status": composite.value,
            "details": {str(biz): _module(one) for biz, one in modules.items()},
        },
        "baseStartUp": {
            "status": start_up.value,
            "details": {
                base: {"status": readiness.base.value},
                **{str(biz): {"status": one.value} for biz, one in states.items()},
            },
        },
        "metrics": {"status": Status.UP.value, "details": {"metrics": meters()}},
        "probeAvailabilityStateIndicator": {
            "status": Status.UP.value,
            "details": {
                "baseAvailability": _availability(is_alive=readiness.is_alive(), is_ready=readiness.is_ready()),
                "bizAvailability": {
                    str(biz): _availability(is_alive=True, is_ready=one is Status.UP) for biz, one in states.items()
                },
            },
        },
    }
    return Page.of_json({"status": status.value, "components": components}, http)


def info(container: Container) -> Page:
    """The base and all modules, by priority."""
    bizs = sorted((container.base, *container.bizs()), key=lambda one: one.priority)
    described = [
        {
            "bizName": one.id.name,
            "bizVersion": one.id.version,
            "bizState": one.state.value,
            "webContextPath": one.web_context_path,
        }
        for one in bizs
    ]
    return Page.of_json({"arkBizInfo": described, "arkPluginInfo": []})


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
