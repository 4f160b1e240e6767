"""Start the modules of former times again: the modules in the book of a container, from the artefacts in the store.

The order is that of a batch: priority by priority, modules of one priority side by side as far as they wait. A module
that does not start is listed as broken, stays in the book, and keeps no other module from starting.
"""

from __future__ import annotations

import itertools
import logging
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final

from koupleless.container.terms import Place, Stored, Strategy
from koupleless.errors import ContainerClosed, KouplelessError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from concurrent.futures import Future

    from koupleless.biz import BizId
    from koupleless.container.container import Container
    from koupleless.state.book import Wanted

logger = logging.getLogger("koupleless.state")

THREADS: Final = 8
_PATIENCE_S: Final = 0.1
"""Seconds before another module is started beside modules that are still starting: starts that compute would only take
the interpreter from each other, and starts that wait for others leave the interpreter to them."""
_FIRST_PATIENCE_S: Final = 1.0
"""The same for the first module, which does work for all: libraries are looked at, and caches are filled."""


def replay(container: Container, *, has_successors: bool = False, wishes: Mapping[BizId, str] | None = None) -> None:
    """Bring back the modules in the book of ``container``, then try installs again that had not ended; open the book.

    Modules that are there already, the static ones, come in the place of all versions of their names. ``wishes`` are
    versions with their URLs that a controller wants: no other version of their names, and none from another URL, comes
    back. With ``has_successors``, and for a name of ``wishes``, the last version of a name without an active version
    answers. Called once, at the start, before commands are taken. Raises ``ContainerClosed`` if the base goes down
    meanwhile.
    """
    begin = time.perf_counter()
    book, static = container.book, {info.id.name for info in container.bizs()}
    standing, wishes = book.standing(), wishes or {}
    replaced = [each.id for each in (*standing.modules, *standing.pending) if each.id.name in static]
    for biz in replaced:
        logger.warning("%s is not started again: the settings of the base name another %s", biz, biz.name)
    wished = {biz.name for biz in wishes}
    unwished = [
        each.id
        for each in (*standing.modules, *standing.pending)
        if each.id.name in wished and wishes.get(each.id) != each.url
    ]
    for biz in unwished:
        logger.info("%s is not started again: the controller wants another %s", biz, biz.name)
    replaced += unwished
    wanted = [each for each in standing.modules if each.id not in replaced]
    active = _answering(wanted, standing.active, None if has_successors else wished)
    broken = _bring_back(container, wanted, active)
    book.open(without=replaced)
    for each in standing.pending:
        if each.id not in replaced:
            _try_again(container, each)
    if wanted:
        count, seconds = f"{len(wanted) - len(broken)} of {len(wanted)}", time.perf_counter() - begin
        said = f"; broken: {', '.join(map(str, broken))}" if broken else ""
        logger.info("%s modules serve again after %.1f s%s", count, seconds, said)


def _answering(wanted: list[Wanted], active: AbstractSet[BizId], succeeding: AbstractSet[str] | None) -> set[BizId]:
    """The versions that answer by name; the last one of a name without such a version, for names of ``succeeding``.

    ``None`` means all names.
    """
    answering = {each.id for each in wanted} & active
    names = {each.id.name for each in wanted} - {biz.name for biz in answering}
    if succeeding is not None:
        names &= succeeding
    return answering | {max((each.order, each.id) for each in wanted if each.id.name == name)[1] for name in names}


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

    broken: set[BizId | None] = set()
    with ThreadPoolExecutor(THREADS, "koupleless-replay") as pool:
        ordered = sorted(wanted, key=lambda each: each.priority)
        for _, group in itertools.groupby(ordered, key=lambda each: each.priority):
            running: set[Future[BizId | None]] = set()
            for each in group:
                young = pool.submit(start, each)
                running.add(young)
                wait({young}, _PATIENCE_S if each is not ordered[0] else _FIRST_PATIENCE_S)
                if len(running) == THREADS:
                    wait(running, return_when=FIRST_COMPLETED)
                ended = {future for future in running if future.done()}
                broken |= {future.result() for future in ended}
                running -= ended
            broken |= {future.result() for future in running}
    return [each.id for each in wanted if each.id in broken]


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
