"""The means to see registrations: functions replaced for the process, and calls when a biz comes and leaves.

A recorder puts a function of its own, by `Patches`, in the place of a function that registers something. The recorder's
function passes straight through while the base is running (one call of a context variable). Otherwise the function
writes the registration, with its undo, into the `Ledger` of the biz that is running, as a registration of one of the
`kinds`. `koupleless.recorders.door` puts all recorders in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koupleless.late import when_imported
from koupleless.ownership.ledger import leavers, openers
from koupleless.replacing import MISSING, Replacement

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from koupleless.ownership.ledger import Ledger


class Patches:
    """Attributes replaced by functions of ours, and the way back.

    Remembers, beyond an exit stack, a function of ours that stays at `restore` because foreign code calls it from the
    same place: a later `replace` does not put in a second one, which would record everything twice.
    """

    def __init__(self) -> None:
        self._applied: list[Replacement] = []
        self._awaited: list[Callable[[], None]] = []
        self._called: list[tuple[list[Callable[[Ledger], object]], Callable[[Ledger], object]]] = []
        self._restored: list[Callable[[], object]] = []

    @classmethod
    def until(cls, undo: contextlib.ExitStack) -> Patches:
        """Make patches that are restored when ``undo`` is closed."""
        patches = cls()
        undo.callback(patches.restore)
        return patches

    def replace(self, holder: object, name: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(original)`` in the place of an attribute of a Python module, class or instance, if present."""
        original = getattr(holder, name, MISSING)
        if original is not MISSING and not any(applied.is_at(holder, name) for applied in self._applied):
            self._applied.append(Replacement(holder, name, make(original)))

    def when_imported(self, name: str, install: Callable[[Patches, Any], object]) -> None:
        """Call ``install(patches, module)`` now if the base has the Python module, else as soon as it is imported.

        So no library is imported on a recorder's behalf, and a late library is not missed. ``patches`` belong to the
        Python module: they are restored when the Python module leaves the base, and together with the patches here.
        """
        own = Patches()

        def put_in(module: Any) -> Callable[[], None]:
            install(own, module)
            return own.restore

        self._awaited.append(when_imported(name, put_in))

    def when_opened(self, opened: Callable[[Ledger], object]) -> None:
        """Call ``opened(ledger)`` for each biz, before any code of the biz runs."""
        openers.append(opened)
        self._called.append((openers, opened))

    def when_leaving(self, leaving: Callable[[Ledger], object]) -> None:
        """Call ``leaving(ledger)`` for each biz before its registrations are undone; ``leaving`` may record more."""
        leavers.append(leaving)
        self._called.append((leavers, leaving))

    def when_restored(self, restored: Callable[[], object]) -> None:
        """Call ``restored()`` once, when everything was put back."""
        self._restored.append(restored)

    def restore(self) -> None:
        """Put back every attribute still with our value, the last first."""
        while self._awaited:
            self._awaited.pop()()
        while self._called:
            callbacks, callback = self._called.pop()
            callbacks.remove(callback)
        self._applied = [applied for applied in reversed(self._applied) if not applied.take_back()][::-1]
        while self._restored:
            self._restored.pop()()
