"""The wishes of the author of a Deployment about batches, in annotations; and the sizes of the batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from koupleless.controller import names

if TYPE_CHECKING:
    from collections.abc import Mapping

GATE: Final = names.ROLLOUT + "batch"
"""The scheduling gate of Pods that wait for their batch."""
BATCHES: Final = names.ROLLOUT + "batches"
BETA: Final = names.ROLLOUT + "beta"
CONFIRM: Final = names.ROLLOUT + "confirm"
CONFIRMED: Final = names.ROLLOUT + "confirmed"
PAUSE: Final = names.ROLLOUT + "pause-seconds"
UNDO: Final = names.ROLLOUT + "undo-in-batches"

_WORDS: Final = {"true": True, "false": False}


class Senseless(ValueError):
    """An annotation without sense; the text names the annotation."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The wishes about the batches of one Deployment."""

    count: int = 1
    """The number of batches."""
    has_beta: bool = False
    """Whether the first batch is one Pod, and waits for a confirmation."""
    confirms: bool = False
    """Whether each batch but the last waits for a confirmation."""
    pause_s: int = 0
    """Seconds between a batch and the next."""
    undoes_in_batches: bool = False
    """Whether a rollback to a revision that all bases had is made in batches, too."""
    confirmed: int = 0
    """The number of the last batch confirmed by the author."""

    @classmethod
    def of(cls, annotations: Mapping[str, str]) -> Self:
        """Read annotations. Raises `Senseless`."""
        has_beta = _flag(annotations, BETA)
        return cls(
            count=max(_number(annotations, BATCHES, 1), 2 if has_beta else 1),
            has_beta=has_beta,
            confirms=_flag(annotations, CONFIRM),
            pause_s=_number(annotations, PAUSE, 0),
            undoes_in_batches=_flag(annotations, UNDO),
            confirmed=_number(annotations, CONFIRMED, 0),
        )

    def limits(self, replicas: int) -> tuple[int, ...]:
        """Return the number of new Pods at the end of each batch; the last is ``replicas``.

        A batch has an equal part of all replicas, rounded up, and the last the rest, as in the first generation of the
        original controller. Batches without a Pod are left out.
        """
        count = min(self.count, replicas)
        if count <= 1:
            return (replicas,)
        size = -(-replicas // count)
        found = [1 if self.has_beta else size]
        while found[-1] < replicas:
            found.append(replicas if len(found) == count - 1 else min(found[-1] + size, replicas))
        return tuple(found)

    def awaits_confirmation(self, batch: int) -> bool:
        """Whether the end of a batch, counted from 1, waits for a confirmation that has not come yet."""
        return (self.confirms or (self.has_beta and batch == 1)) and self.confirmed < batch


def _flag(annotations: Mapping[str, str], name: str) -> bool:
    text = annotations.get(name, "false")
    if text not in _WORDS:
        raise Senseless(f"{name} is {text[:40]!r}, and not true or false")
    return _WORDS[text]


def _number(annotations: Mapping[str, str], name: str, default: int) -> int:
    text = annotations.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):  # noqa: PLR2004 - more than any cluster has
        raise Senseless(f"{name} is {text[:40]!r}, and no number")
    return int(text)
