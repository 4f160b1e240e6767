"""Prediction of how a built biz will hold its libraries, in a base with the packages of this interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koupleless.container.starting.prepare import words
from koupleless.isolation.libraries.distributions import base_index
from koupleless.isolation.libraries.holding import Holding, Speakers, Wishes, decide
from koupleless.wire.replies import Library

if TYPE_CHECKING:
    from koupleless.artifact.build import Built


def libraries_of(built: Built) -> list[Library]:
    """All distributions needed by the artefact, in alphabetical order: packed or not, how held, and why.

    For distributions left out of the artefact, the base is assumed to have those of the running interpreter.
    """
    manifest, report = built.manifest, built.report
    speakers = Speakers(
        module=Wishes.of(manifest.own, manifest.shared),
        brought=frozenset(each.name for each in report.packed),
        words=words(),
    )
    holdings = decide(base_index(), speakers)
    libraries = []
    for each in report.decisions:
        held = None if each.is_packed else holdings.get(each.name)
        if each.is_packed:
            how, why = Holding.OWN.value, f"packed: {each.reason}"
        elif held is None:
            how, why = Holding.SHARED.value, each.reason
        else:
            how, why = held.holding.value, f"{each.reason}; {held.reason}"
        libraries.append(Library(name=each.name, version=each.version, held=how, reason=why))
    return libraries
