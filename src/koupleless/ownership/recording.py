"""The means to see registrations: functions replaced for the process, and calls when a biz comes and leaves.

A recorder puts a function of its own, by `Patches`, in the place of a function that registers something. The recorder's
function passes straight through while the base is running (one call of a context variable). Otherwise the function
writes the registration, with its undo, into the `Ledger` of the biz that is running, as a registration of one of the
`kinds`. `koupleless.recorders.door` puts
all recorders in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from koupleless.late import when_imported
from koupleless.ownership.ledger import leavers, openers

if TYPE_CHECKING:
    from collections.abc import Callable

    from koupleless.ownership.ledger import Ledger

_MISSING: Final = object()


class Patches:
    """Attributes replaced by functions of ours, and the way back.

    An attribute replaced since by foreign code is left alone at `restore`, because the foreign function calls ours;
    ours stays in the chain, passes through, and is not put in a second time by a later `replace`.
    """

    def __init__(self) -> None:
        self._applied: list[tuple[object, str, object, object]] = []
        self._awaited: list[Callable[[], None]] = []
        self._called: list[tuple[list[Callable[[Ledger], object]], Callable[[Ledger], object]]] = []
        self._restored: list[Callable[[], object]] = []

    def replace(self, holder: object, name: str, make: Callable[[Any], Any]) -> None:
        """Put ``make(original)`` in the place of an attribute of a Python module, class or instance, if present."""
        original = getattr(holder, name, _MISSING)
        if original is _MISSING or any(held is holder and called == name for held, called, _, _ in self._applied):
            return
        before = vars(holder).get(name, _MISSING)
        after = make(original)
        setattr(holder, name, after)
        self._applied.append((holder, name, before, after))

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
        kept = []
        for patch in reversed(self._applied):
            holder, name, before, after = patch
            if vars(holder).get(name, _MISSING) is not after:
                kept.append(patch)
            elif before is _MISSING:
                delattr(holder, name)
            else:
                setattr(holder, name, before)
        self._applied = kept[::-1]
        while self._restored:
            self._restored.pop()()
