"""When to look at which job.

`PollPolicy` is the seam: the tracker asks it whom to look at next and tells it what was seen. `FairTurns` is the plain
one: whoever has waited longest, and nobody more often than once an interval.
"""

import heapq
from collections.abc import Hashable
from typing import Protocol

from bridge.messages import JobView

_UNDER_LOOK = float("inf")


class PollPolicy(Protocol):
    """Chooses the next job to look at; all times are seconds on one monotonic clock."""

    def add(self, key: Hashable, *, now: float) -> None:
        """A job is to be looked at from now on; without effect if it already is."""

    def discard(self, key: Hashable) -> None:
        """A job needs no more looks; without effect if it is not known."""

    def hurry(self, key: Hashable, *, now: float) -> None:
        """Something is known to have happened to a job: look at it as soon as possible."""

    def available_at(self) -> float:
        """When the next look is worth a call; infinity if there is no job to look at."""

    def take(self) -> Hashable:
        """The job to look at now; it is not offered again before `looked`. Only after `available_at` has passed."""

    def looked(self, key: Hashable, view: JobView | None, *, now: float) -> None:
        """A look has ended; `view` is what was seen, None if nothing was."""

    def __len__(self) -> int:
        """How many jobs are tracked."""


class FairTurns:
    """Looks at all jobs in turn.

    Args:
        interval: seconds between two looks at one job, at the least.
    """

    def __init__(self, *, interval: float) -> None:
        self._interval = interval
        self._due: dict[Hashable, float] = {}
        self._queue: list[tuple[float, int, Hashable]] = []
        self._hurried: set[Hashable] = set()
        self._order = 0

    def add(self, key: Hashable, *, now: float) -> None:
        """See `PollPolicy`; the first look comes one interval after this."""
        if key not in self._due:
            self._schedule(key, now + self._interval)

    def discard(self, key: Hashable) -> None:
        """See `PollPolicy`."""
        self._due.pop(key, None)
        self._hurried.discard(key)

    def hurry(self, key: Hashable, *, now: float) -> None:
        """See `PollPolicy`; a job under look is looked at again right after."""
        due = self._due.get(key, now)
        if due == _UNDER_LOOK:
            self._hurried.add(key)
        elif due > now:
            self._schedule(key, now)

    def available_at(self) -> float:
        """See `PollPolicy`."""
        while self._queue and self._due.get(self._queue[0][2]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else float("inf")

    def take(self) -> Hashable:
        """See `PollPolicy`."""
        key = heapq.heappop(self._queue)[2]
        self._due[key] = _UNDER_LOOK
        return key

    def looked(self, key: Hashable, view: JobView | None, *, now: float) -> None:
        """See `PollPolicy`; what was seen makes no difference here."""
        del view
        if key in self._due:
            self._schedule(key, now if key in self._hurried else now + self._interval)
            self._hurried.discard(key)

    def __len__(self) -> int:
        """See `PollPolicy`."""
        return len(self._due)

    def _schedule(self, key: Hashable, due: float) -> None:
        self._due[key] = due
        self._order += 1
        heapq.heappush(self._queue, (due, self._order, key))
