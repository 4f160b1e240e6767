"""The commands that need the book of a container: a module again, the version before, the list of modules, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koupleless.biz import BizName, BizState
from koupleless.container.terms import Installed, Place, Stored, Strategy
from koupleless.errors import BizNotFound, EndRefused, NoVersionBefore
from koupleless.wire.replies import ExportData, Recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.biz import BizId
    from koupleless.container.container import Container
    from koupleless.state.book import Wanted


class Keeping:
    """What an arklet does with the book of its container.

    Lifetime: of the operations. Threads: any number; calls block as long as the container blocks. ``end`` asks the
    process to end; ``None`` inside another server.
    """

    def __init__(self, container: Container, end: Callable[[], object] | None = None) -> None:
        self._container = container
        self._end = end

    def restart(self, biz: BizId) -> Installed:
        """Start a new life of a module from the same artefact, and move the traffic over; the old life drains.

        Other versions, and the choice of the version that answers, stay. Raises as `Container.install`; the old life
        goes on then.
        """
        standing = self._container.book.standing()
        wanted = standing.find(biz)
        if wanted is None:
            raise BizNotFound(biz)
        state = self._container.find(biz).state
        answers = state is BizState.ACTIVATED or (state is BizState.BROKEN and biz in standing.active)
        place = Place(wanted.order, answers=answers, is_again=True)
        return self._container.install(_stored(wanted), args=wanted.args, place=place)

    def rollback(self, name: str) -> tuple[BizId, Installed | None]:
        """Let the version answer that answered before the present one: by a switch, else by an install from the store.

        Returns the identity, and the result of an install. Raises ``NoVersionBefore``, and as `Container.install`.
        """
        standing = self._container.book.standing()
        before = standing.before_of(BizName(name))
        if before is None:
            raise NoVersionBefore(name)
        present = standing.find(before.id)
        if present is not None and present.is_like(before) and self._container.find(before.id).state.is_started:
            self._container.switch(before.id)
            return before.id, None
        strategy = Strategy.REPLACE
        return before.id, self._container.install(_stored(before), args=before.args, strategy=strategy)

    def export(self) -> ExportData:
        """List the modules that the base keeps, in the order of their installs."""
        standing = self._container.book.standing()
        return ExportData(
            base=self._container.base.id.name,
            modules=[_recorded(each, is_active=each.id in standing.active) for each in standing.modules],
            before=[_recorded(each, is_active=False) for each in standing.before],
        )

    def stop(self) -> None:
        """Ask the process to end in order. Raises ``EndRefused`` inside another server."""
        if self._end is None:
            raise EndRefused(self._container.base.id.name)
        self._end()


def _stored(wanted: Wanted) -> Stored:
    return Stored(wanted.id, wanted.digest, wanted.url)


def _recorded(wanted: Wanted, *, is_active: bool) -> Recorded:
    return Recorded(
        biz_name=wanted.id.name,
        biz_version=wanted.id.version,
        digest=wanted.digest,
        url=wanted.url,
        active=is_active,
        args=list(wanted.args),
        variables=list(wanted.variables),
    )
