"""ROLE worker, jobs → looks → events: which job is looked at next, and cancels."""

from collections import deque
from collections.abc import Coroutine, Hashable
from typing import Protocol

from bridge.core.polling import PollPolicy
from bridge.messages import Answer, Done, Missing, Refused, Seen
from bridge.ports import Clock
from bridge.upstream import Upstream

Key = tuple[int, str]
"""Partition and request id."""


class TrackOwner(Protocol):
    """What the tracker needs of a partition's owner."""

    number: int

    def looked(self, request_id: str, job_id: str, answer: Answer) -> None:
        """A look has ended."""

    def cancel_answered(self, request_id: str, job_id: str, answer: Answer) -> None:
        """TAMS has answered a cancel."""


class Tracker:
    """The jobs that TAMS holds for this worker.

    Args:
        upstream: the way to TAMS.
        policy: whom to look at next.
        clock: for the policy.
    """

    def __init__(self, upstream: Upstream, *, policy: PollPolicy, clock: Clock) -> None:
        self._upstream = upstream
        self._policy = policy
        self._clock = clock
        self._jobs: dict[Hashable, tuple[TrackOwner, str, str]] = {}
        self._cancels: deque[Key] = deque()
        self._to_cancel: set[Key] = set()

    def __len__(self) -> int:
        """How many jobs are tracked."""
        return len(self._jobs)

    def track(self, owner: TrackOwner, request_id: str, job_id: str) -> None:
        """Look at a job from now on; safe to repeat."""
        key = (owner.number, request_id)
        if key not in self._jobs:
            self._policy.add(key, now=self._clock.monotonic())
        self._jobs[key] = (owner, request_id, job_id)
        self._upstream.changed.set()

    def drop(self, owner: TrackOwner, request_id: str) -> None:
        """A job needs no more looks; safe to repeat."""
        key = (owner.number, request_id)
        if self._jobs.pop(key, None) is not None:
            self._policy.discard(key)
            self._to_cancel.discard(key)
            self._upstream.changed.set()

    def drop_all(self, owner: TrackOwner) -> None:
        """An owner has lost its partition."""
        for held_by, request_id, _ in [job for job in self._jobs.values() if job[0].number == owner.number]:
            self.drop(held_by, request_id)

    def cancel(self, owner: TrackOwner, request_id: str) -> None:
        """Ask TAMS to cancel a tracked job as soon as a call may be made; safe to repeat."""
        key = (owner.number, request_id)
        if key not in self._to_cancel:
            self._to_cancel.add(key)
            self._cancels.append(key)
            self._upstream.changed.set()

    def has_cancel(self) -> bool:
        """Whether a cancel waits."""
        while self._cancels and self._cancels[0] not in self._to_cancel:
            self._cancels.popleft()
        return bool(self._cancels)

    def has_look(self) -> bool:
        """Whether a look is worth a call now."""
        return self._policy.available_at() <= self._clock.monotonic()

    def look_in(self) -> float:
        """Seconds until a look is worth a call; infinity if there is none."""
        return self._policy.available_at() - self._clock.monotonic()

    def cancel_next(self) -> Coroutine[None, None, None]:
        """Send the first waiting cancel; only if `has_cancel`, and with a call reserved."""
        return self._cancel(self._cancels.popleft())

    def look_next(self) -> Coroutine[None, None, None]:
        """Look at the next job; only if `has_look`, and with a call reserved."""
        key = self._policy.take()
        return self._look(key, *self._jobs[key])

    async def _cancel(self, key: Key) -> None:
        owner, request_id, job_id = self._jobs[key]
        answer = await self._upstream.cancel(request_id, job_id)
        if key not in self._jobs:
            return
        if isinstance(answer, Done | Missing | Refused):  # stays in `_to_cancel`: told once while tracked
            self._policy.hurry(key, now=self._clock.monotonic())
            owner.cancel_answered(request_id, job_id, answer)
        else:
            self._cancels.append(key)

    async def _look(self, key: Hashable, owner: TrackOwner, request_id: str, job_id: str) -> None:
        answer = await self._upstream.look(request_id, job_id)
        self._policy.looked(key, answer.view if isinstance(answer, Seen) else None, now=self._clock.monotonic())
        owner.looked(request_id, job_id, answer)
