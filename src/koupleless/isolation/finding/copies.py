"""Own copies: libraries of the base that one biz executes for itself, from files of the base.

`holding.decide` says which libraries these are. Of a shared library, some Python modules may be copied all the same
(`known.PORTIONS`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from koupleless.isolation.libraries import distributions
from koupleless.isolation.libraries.holding import Held, Holding, Speakers, decide
from koupleless.isolation.libraries.known import PORTIONS
from koupleless.isolation.system import base_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec

    from koupleless.isolation.finding.files import Files
    from koupleless.isolation.libraries.installed.index import Index


class _Copied(NamedTuple):
    """The part of a Python module, and of Python modules below, that the biz is to execute from files of the base."""

    is_any: bool
    """Whether the biz executes any portion."""
    is_whole: bool
    """Whether the biz executes all Python modules below, as far as there are files of the base."""


_NOTHING = _Copied(is_any=False, is_whole=False)


class Copies:
    """The own copies of one biz. Lifetime and threads: as the linker's."""

    def __init__(self, files: Files, speakers: Speakers | None) -> None:
        """``speakers`` decide which libraries of the base are own copies; ``None`` means no library."""
        self._files = files
        self._speakers = speakers
        self._holdings: tuple[Index, Mapping[str, Held]] | None = None
        self._known: dict[str, _Copied] = {}

    def holdings(self) -> Mapping[str, Held]:
        """How the biz holds each distribution of the base, by normalised name; empty if nobody has decided."""
        index = distributions.base_index()
        if self._holdings is None or self._holdings[0] is not index:
            speakers = self._speakers
            if speakers is not None:
                brought = frozenset(filter(index.relations.concern, self._files.index.versions))
                speakers = replace(speakers, brought=brought) if brought else speakers
            self._holdings = index, {} if speakers is None else decide(index, speakers)
            self._known.clear()
        return self._holdings[1]

    def is_copied(self, name: str) -> bool:
        """Whether the biz has an own copy of a Python module; of a namespace package, of any portion."""
        return self._judged(name).is_any

    def is_whole(self, name: str) -> bool:
        """Whether the biz has an own copy of a package with all Python modules below."""
        return self._judged(name).is_whole

    def _judged(self, name: str) -> _Copied:
        if self._speakers is None:
            return _NOTHING
        known = self._known.get(name)
        if known is None:
            holdings = self.holdings()  # may clear the copies known so far
            index = distributions.base_index() if self._holdings is None else self._holdings[0]
            held = [(owner, holdings.get(owner)) for owner in index.owners(name)]
            is_any = any(_is_copied(name, owner, how) for owner, how in held)
            top = self._known.get(name.partition(".")[0])
            is_any = is_any and ((top is not None and top.is_any) or not distributions.is_stdlib(name))
            is_whole = is_any and any(how is not None and how.holding is Holding.COPY for _, how in held)
            self._known[name] = known = _Copied(is_any, is_whole)
        return known

    def find(self, name: str) -> ModuleSpec | None:
        """Find the spec of a Python module for the biz to execute from files of the base; ``None`` if there is none."""
        return self.find_of_base(name) if self.is_copied(name) else None

    def find_of_base(self, name: str) -> ModuleSpec | None:
        """Find a Python module in files of the base."""
        return self._files.find(name, self._portions_of_base(name.rpartition(".")[0]))

    def _portions_of_base(self, name: str) -> Sequence[str]:
        """Return the base's directories of Python modules below a package; of top-level ones for an empty name."""
        if not name:
            return base_path()
        spec = self.find_of_base(name)
        return [] if spec is None else spec.submodule_search_locations or []

    def forget(self) -> None:
        """Decide on each Python module again."""
        self._known.clear()


def _is_copied(name: str, owner: str, held: Held | None) -> bool:
    if held is None or held.holding is Holding.OWN:
        return False
    portions = PORTIONS.get(owner)
    return held.holding is Holding.COPY or (portions is not None and portions.fullmatch(name) is not None)
