"""The record of a rollout, in an annotation of the Deployment: restarts of the controller lose nothing."""

from __future__ import annotations

import contextlib
from typing import Final, Self

import msgspec

from koupleless.controller import names

STATE: Final = names.ROLLOUT + "state"
PROGRESS: Final = names.ROLLOUT + "progress"
"""The progress in words, for users."""
UNCONFIRMED: Final = names.ROLLOUT + "unconfirmed"
"""The number of the batch that waits for a confirmation, written by the controller for scripts."""
_PROVEN: Final = 10
"""The number of revisions remembered, as of ReplicaSets by default."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record of the last rollout of a Deployment.

    The Pods are recorded before they are let through, in a write that fails after any other change of the Deployment.
    Hence two controllers never let through more than a batch between them.
    """

    revision: str = ""
    """The number of the rollout."""
    batch: int = 1
    is_over: bool = False
    """Whether the last batch was let through: new Pods of the revision wait no more."""
    pods: tuple[str, ...] = ()
    """The Pods let through, by the end of their names; empty once the rollout is over."""
    since: float = 0
    """The time at which the batch was ready, in seconds since the epoch; 0 before."""
    proven: tuple[str, ...] = ()
    """The hashes of the templates of revisions that all bases had, the newest last."""

    @classmethod
    def of(cls, text: str) -> Self:
        """Read an annotation; a text that was changed by hand beyond recognition is no record."""
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            return msgspec.json.decode(text, type=cls)
        return cls()

    def text(self) -> str:
        """Return the annotation."""
        return msgspec.json.encode(self).decode()

    def proved(self, template: str) -> Self:
        """Return the record at the end of a rollout."""
        others = [one for one in self.proven if one != template]
        proven = (*others, template)[-_PROVEN:]
        return msgspec.structs.replace(self, is_over=True, pods=(), since=0, proven=proven)
