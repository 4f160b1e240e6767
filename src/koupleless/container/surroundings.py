"""The objects and settings that a base gives to every biz alike. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from koupleless.health.watch import LoopWatch
from koupleless.isolation.libraries.holding import NOTHING, Wishes
from koupleless.state.environments import Environments
from koupleless.variables import Ground
from koupleless.view.logging.logbook import Logbook

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from koupleless.container.stage import Stage
    from koupleless.service.registry import Registry

GRACE_S: Final = 1.0
"""Seconds given to a step beyond its own deadline, to report the missed deadline."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Times, in seconds, that steps with code of a biz may take."""

    prepare_s: float = 300.0
    """For an artefact to be fetched, checked and unpacked: no code of the biz, but file systems may never answer."""
    start_s: float = 60.0
    """For the way from the first import to the end of the application's start-up."""
    drain_s: float = 30.0
    """For requests, WebSockets and streams in flight to end by themselves."""
    silence_s: float = 0.0
    """Between the decision to uninstall, which probes tell, and the end of requests: no limit, but a pause."""
    stop_s: float = 10.0
    """For the application's shutdown and stop hooks together; again for the services, and for threads and tasks."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The objects and settings that a base gives to every biz alike."""

    stage: Stage
    services: Registry
    deadlines: Deadlines = field(default_factory=Deadlines)
    ground: Ground = field(default_factory=Ground)
    profile: str = ""
    config_dirs: tuple[Path, ...] = ()
    logbook: Logbook = field(default_factory=Logbook)
    watch: LoopWatch = field(default_factory=LoopWatch)
    data_dir: Path | None = None
    """Directory with one data directory for each biz, by name; ``None`` if bizs have none."""
    environments: Environments = field(default_factory=Environments)
    """Kept values of the environment of bizs."""
    shared_config: Mapping[str, object] = field(default_factory=dict)
    wishes: Wishes = NOTHING
    """How bizs are to hold libraries of the base, unless the biz says how."""
    application: frozenset[str] = frozenset()
    """The distributions of the base's own application."""
    ends_threads: bool = True
    """Whether threads of a leaving biz that ignore their stop are asked in other ways, and interrupted."""
    counts: bool = True
    """Whether requests are counted, for metrics."""
