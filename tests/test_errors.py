"""Errors travel: to another process, as a pool sends what its workers raise, and into copies."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Final

import pytest

from koupleless import errors
from koupleless.biz import BizId, BizState

if TYPE_CHECKING:
    from koupleless.errors import KouplelessError

HELLO: Final = BizId.parse("hello:1")

ONE_OF_EACH: Final[tuple[KouplelessError, ...]] = (
    errors.ArchiveRefused("a.zip", "it is no archive"),
    errors.BizBusy(HELLO, "installBiz"),
    errors.BizGone(HELLO, name="json"),
    errors.DigestMismatch("a.zip", expected="1", actual="2"),
    errors.EndRefused("shop"),
    errors.IllegalMove(HELLO, BizState.RESOLVED, BizState.ACTIVATED),
    errors.ManifestInvalid("biz.toml", ["one", "two"]),
    errors.ModuleRefused("No module named 'x'", name="x", biz=HELLO, advice="declare it"),
    errors.NoVersionBefore("shop"),
    errors.PathTaken(HELLO, "/hello", BizId.parse("other:1")),
    errors.ServiceError("100003", "no such biz"),
    errors.StartFailed(HELLO, "did not start: ValueError", traceback="line 1"),
    errors.StartTimeout(HELLO, 3.0),
    errors.StateHeld("/var/lib/base", 7),
    errors.StateUnwritable("the install of hello:1", "no space left on device"),
)


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_its_way(error: KouplelessError) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert (str(other), vars(other), getattr(other, "name", None)) == (
            str(error),
            vars(error),
            getattr(error, "name", None),
        )
