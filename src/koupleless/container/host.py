"""A container and all that a base has around a container, but no server and no arklet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from koupleless.artifact.store import Store
from koupleless.biz import BizId
from koupleless.container.container import Container
from koupleless.container.stage import Stage
from koupleless.container.starting.prepare import Preparation
from koupleless.container.surroundings import Surroundings
from koupleless.descriptions import BizInfo
from koupleless.router.asgi import Front
from koupleless.service.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from koupleless.container.terms import Rules
    from koupleless.router.types import ASGIApp

BASE: Final = BizId.of("base", "1.0.0")


@dataclass(frozen=True, slots=True)
class Host:
    """A base without a server: bizs are installed into `container`, and requests are passed to `front` by hand.

    Lifetime: `container` is closed by the caller, and with it everything else.
    """

    container: Container
    front: Front
    stage: Stage
    services: Registry
    store: Store

    @classmethod
    def make(
        cls,
        store: Path,
        *,
        rules: Rules | None = None,
        app: ASGIApp | None = None,
        services: Registry | None = None,
        **around: Any,
    ) -> Self:
        """Make a host with a store at ``store``, in front of the application ``app`` of the base.

        ``services`` is the registry of the base, by default a new one; ``around`` are further fields of `Surroundings`.
        """
        front, stage, kept = Front(app), Stage(), Store(store)
        services = services or Registry()
        container = Container(
            base=BizInfo.of_base(BASE),
            front=front,
            preparation=Preparation(kept),
            around=Surroundings(stage=stage, services=services, **around),
            rules=rules,
        )
        return cls(container, front, stage, services, kept)
