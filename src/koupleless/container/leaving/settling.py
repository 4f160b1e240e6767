"""Removes shared libraries after the last user has left, or names the libraries that stay, with their size."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from koupleless.container.leaving.idle import Idle
from koupleless.container.leaving.memory import page_out, returned_if_much
from koupleless.container.stage import DeadlineMissed
from koupleless.context import as_base
from koupleless.errors import in_words
from koupleless.isolation.libraries.departure import taken_out, unimportable
from koupleless.isolation.libraries.resident import arrivals
from koupleless.isolation.linking.linker import linker_of
from koupleless.late import parted
from koupleless.ownership.collect import LAST_RESORT_S, collect_all
from koupleless.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koupleless.container.stage import Stage
    from koupleless.context import Scope
    from koupleless.descriptions import Resident

_log: Final = logging.getLogger("koupleless")
_turns: Final = Turns(5.0)


class Settling:
    """Libraries without a user after a biz has left. Made before the biz leaves; `stays` is set afterwards."""

    def __init__(self, stage: Stage, scope: Scope) -> None:
        self._stage = stage
        self._of_others = arrivals.unused_by(linker_of(scope))
        """Libraries that the biz cannot use: whether these have other users does not matter."""
        self.stays: tuple[Resident, ...] = ()

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Remove the libraries without a user after the body, in which the biz leaves, and return much free memory."""
        with returned_if_much():
            yield
            if self._without_user():
                self._settle()
                self.stays = self._without_user()
        page_out(arrivals.directories(self.stays))

    def _without_user(self) -> tuple[Resident, ...]:
        return arrivals.idle(but_for=self._of_others)

    def _settle(self) -> None:
        """Remove unused libraries, on a thread that may be left behind: removing runs finalisers."""
        try:
            self._stage.run(_let_go_in_turn, name="settle libraries", timeout_s=_SETTLED_S)
        except DeadlineMissed as error:
            _log.warning("libraries that nobody uses could not be removed: %s", error)


_SETTLED_S: Final = 20.0


def _let_go_in_turn() -> None:
    with as_base(), _turns.one():
        _let_go()


def _let_go() -> None:
    """Remove the pure-Python libraries without a user and without a holder."""
    libraries = arrivals.modules_of(arrivals.idle())
    of_all = [name for names in libraries.values() for name in names]
    try:
        with unimportable(of_all), parted(of_all) as was_followed, taken_out(of_all) as modules:
            if was_followed:  # by classes and functions with references to the library, and to each other
                collect_all(pause_s=LAST_RESORT_S)
            present = {library: [name for name in names if name in modules] for library, names in libraries.items()}
            own = {
                library: {name: modules[name] for name in names if modules[name].__name__ == name}
                for library, names in present.items()
            }
            idle = Idle(own, kept=Counter(map(id, modules.values())))
            del own
            free = idle.find_free()
            gone = [name for library in free for name in present[library]]
            for name in gone:
                del modules[name]
            left = idle.free(free)
    except Exception as error:  # noqa: BLE001 - it looks at objects of anybody's making; what stays is listed
        _log.warning("libraries that nobody uses could not be removed: %s", in_words(error))
        return
    arrivals.forget(gone)
    if left:
        _log.warning("%d Python modules of %s were removed and live on", left, ", ".join(sorted(free)))
