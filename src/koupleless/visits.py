"""The visits inside a biz: signed in and out, refused once the biz is leaving, and awaited until the last has left.

A request is a visit, and so is a call of a service. When the biz leaves, both may go on until the drain deadline. They
are told to end then, and their makers get an answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator


class Visit:
    """A request, or the body of a service, inside a biz; made for each one, and signed in and out by its maker.

    The fields begin as variables of the class, so that making a visit costs as little as making any object.
    """

    task: asyncio.Task[Any] | None = None
    """The task that runs the code of the biz, if one does."""
    is_aborted: bool = False
    """Whether the task was cancelled, to end the visit."""
    _cancels: int = 0
    _cancelled_before: int = 0

    def abort(self, inside: Visits) -> None:
        """Tell the visit to end. From any thread; a visit without a task is left alone."""
        if self.task is None:
            return
        try:
            self.task.get_loop().call_soon_threadsafe(self._cancel, inside)
        except RuntimeError:
            # The loop is closed, so the visit neither ends nor leaves by itself.
            inside.leave(self)

    def _cancel(self, inside: Visits) -> None:
        """Cancel the task, on its loop, while the visit is inside: afterwards the task does something else."""
        task = self.task
        if task is None or self not in inside:
            return
        if not self._cancels:
            self._cancelled_before = task.cancelling()
        self._cancels += 1
        self.is_aborted = True
        task.cancel("the module of the task is being uninstalled")

    def forgive(self) -> bool:
        """Take the cancellation of the task back, in the task; return whether nobody else has cancelled the task."""
        task = self.task
        if task is None:
            return True
        for _ in range(self._cancels):
            task.uncancel()
        return task.cancelling() <= self._cancelled_before


class Visits:
    """The visits of one biz: of its requests, or of calls of its services.

    A **plain** visit, such as the call of a function on a thread, cannot be interrupted. So plain visits are only
    counted, by the length of `plain`, and all visits inside at the call of `abort` are told to end by `is_aborted`,
    which they read on their way out. Their makers sign them in and out without a call::

        visits.plain.append(None)
        if visits.is_shut:  # see `leave_plain`
            ...
        visits.plain.pop()

    Lifetime: as one life of the biz; never opened again. Threads: `drain` and `abort` run on an event loop, which need
    not be the loop of the visits; the rest may be called from any thread. There is no lock: a visit signs in first and
    looks for `is_shut` afterwards, `shut` sets `is_shut` first and the waiter looks for visits afterwards, so that one
    of the two sees the other. The way out is the same, with signing out in the place of signing in.
    """

    __slots__ = ("_inside", "_waiters", "is_aborted", "is_shut", "plain")

    def __init__(self) -> None:
        self.is_shut = False
        self.is_aborted = False
        """Whether all visits inside were told to end."""
        self.plain: list[None] = []
        self._inside: set[Visit] = set()
        self._waiters: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def enter(self, visit: Visit) -> bool:
        """Sign in; return ``False``, and the visit is not inside, if the visits are shut."""
        self._inside.add(visit)
        if self.is_shut:
            self.leave(visit)
            return False
        return True

    def leave(self, visit: Visit) -> None:
        """Sign out. Idempotent."""
        self._inside.discard(visit)
        if self.is_shut:
            self._wake()

    def leave_plain(self) -> bool:
        """Sign a plain visit out; return whether the visit was told to end."""
        self.plain.pop()
        return self.left_plain()

    def left_plain(self) -> bool:
        """Note that a plain visit has signed out; return whether the visit was told to end."""
        if self.is_shut:
            self._wake()
        return self.is_aborted

    def _wake(self) -> None:
        if self._waiters and not self:
            for loop, left in tuple(self._waiters):
                if not loop.is_closed():
                    loop.call_soon_threadsafe(left.set)

    def shut(self) -> None:
        """Let nobody in any more. Visits inside stay."""
        self.is_shut = True

    async def drain(self, timeout_s: float) -> int:
        """Shut, and wait until the last visit has left, at most ``timeout_s``. Returns the number left."""
        import asyncio  # noqa: PLC0415 - not for a program that imports the public package alone

        self.shut()
        left = asyncio.Event()
        waiter = (asyncio.get_running_loop(), left)
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                while self:
                    await left.wait()
                    left.clear()
        except TimeoutError:
            pass  # not an error: the number of visits left is the answer
        finally:
            self._waiters.discard(waiter)
        return len(self)

    async def abort(self, timeout_s: float) -> int:
        """Tell all visits to end and wait for them to leave, at most ``timeout_s``. Returns the number left."""
        self.shut()
        self.is_aborted = True
        for visit in self:
            visit.abort(self)
        return await self.drain(timeout_s)

    def __iter__(self) -> Iterator[Visit]:
        return iter(tuple(self._inside))

    def __contains__(self, visit: object) -> bool:
        return visit in self._inside

    def __len__(self) -> int:
        return len(self._inside) + len(self.plain)

    def __bool__(self) -> bool:
        return bool(self._inside or self.plain)
