"""Start the modules of former times again: the modules in the book of a container, from the artefacts in the store.

The order is that of a batch: priority by priority, all modules of one priority at the same time. A module that does not
start is listed as broken, stays in the book, and keeps no other module from starting.
"""

from __future__ import annotations

import itertools
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from koupleless.container.terms import Place, Stored, Strategy
from koupleless.errors import ContainerClosed, KouplelessError

if TYPE_CHECKING:
    from koupleless.biz import BizId
    from koupleless.container.container import Container
    from koupleless.state.book import Standing, Wanted

logger = logging.getLogger("koupleless.state")

THREADS: Final = 8


def replay(container: Container, *, has_successors: bool = False) -> None:
    """Bring back the modules in the book of ``container``, then try installs again that had not ended; open the book.

    Modules that are there already, the static ones, come in the place of all versions of their names. With
    ``has_successors`` the last version of a name without an active version answers. Called once, at the start, before
    commands are taken. Raises ``ContainerClosed`` if the base goes down meanwhile.
    """
    begin = time.perf_counter()
    book, static = container.book, {info.id.name for info in container.bizs()}
    standing = book.standing()
    replaced = [each.id for each in (*standing.modules, *standing.pending) if each.id.name in static]
    for biz in replaced:
        logger.warning("%s is not started again: the settings of the base name another %s", biz, biz.name)
    wanted = [each for each in standing.modules if each.id not in replaced]
    active = _answering(standing, has_successors=has_successors)
    broken = _bring_back(container, wanted, active)
    book.open(without=replaced)
    for each in standing.pending:
        if each.id not in replaced:
            _try_again(container, each)
    if wanted:
        count, seconds = f"{len(wanted) - len(broken)} of {len(wanted)}", time.perf_counter() - begin
        said = f"; broken: {', '.join(map(str, broken))}" if broken else ""
        logger.info("%s modules serve again after %.1f s%s", count, seconds, said)


def _answering(standing: Standing, *, has_successors: bool) -> set[BizId]:
    """The versions that answer by name."""
    active = set(standing.active)
    if has_successors:
        names = {each.id.name for each in standing.modules} - {biz.name for biz in active}
        active |= {max((each.order, each.id) for each in standing.modules if each.id.name == name)[1] for name in names}
    return active


def _bring_back(container: Container, wanted: list[Wanted], active: set[BizId]) -> list[BizId]:
    """Start modules, each in its former place; returns the broken ones."""

    def start(each: Wanted) -> BizId | None:
        place = Place(each.order, answers=each.id in active, is_kept=True)
        try:
            container.install(Stored(each.id, each.digest, each.url), args=each.args, place=place)
        except ContainerClosed:
            raise
        except KouplelessError:
            return each.id  # the container has told, and lists the module with the reason
        return None

    broken: list[BizId | None] = []
    with ThreadPoolExecutor(THREADS, "koupleless-replay") as pool:
        ordered = sorted(wanted, key=lambda each: each.priority)
        for _, group in itertools.groupby(ordered, key=lambda each: each.priority):
            broken += pool.map(start, group)
    return [biz for biz in broken if biz is not None]


def _try_again(container: Container, pending: Wanted) -> None:
    """Do an install that had not ended with the last process; given up if the install fails."""
    logger.info("the install of %s had not ended when the base did, and is tried again", pending.id)
    try:
        source = Stored(pending.id, pending.digest, pending.url)
        container.install(source, args=pending.args, strategy=Strategy(pending.strategy))
    except ContainerClosed:
        raise
    except (KouplelessError, ValueError) as error:
        container.book.forget(pending.id)
        logger.warning("the install of %s is given up: %s", pending.id, error)
