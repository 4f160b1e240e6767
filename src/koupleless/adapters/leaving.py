"""The leaving biz as releasers and adapters see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koupleless.ownership.belonging import Survey


class Leaving:
    """The biz that leaves, as seen by a releaser. Keeps no object of the biz alive."""

    __slots__ = ("_survey", "life", "name", "version")

    def __init__(self, survey: Survey) -> None:
        self.name: str = survey.biz.name
        self.version: str = survey.biz.version
        self.life: int = survey.life
        """The number of the life that ends: bizs of several containers may have one name and version."""
        self._survey = survey

    def owns(self, thing: object) -> bool:
        """Whether ``thing`` belongs to the biz, or has a part that does and without which ``thing`` could not be.

        True for a function, class or Python module of the biz, an instance of such a class, a suspended generator; and
        for a wrapper around one of these: a bound method, a partial, a closure, a tuple, a generic alias. False for
        lists, dictionaries and objects of the base into which the biz was put. Runs no code of ``thing``.
        """
        return self._survey.reaches(thing)

    def __repr__(self) -> str:
        return f"<Leaving {self.name}:{self.version}>"
