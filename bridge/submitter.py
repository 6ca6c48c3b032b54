"""ROLE worker, requests → TAMS jobs: who waits to be submitted, whose turn it is, and the POST itself."""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from bridge.core.line import Line
from bridge.core.partition import Post, Submit
from bridge.messages import NORMAL_PRIORITY, Answer, Failure, NotSent
from bridge.ports import Clock
from bridge.upstream import Upstream


class SubmitOwner(Protocol):
    """What the submitter needs of a partition's owner."""

    number: int

    def granted(self, request_id: str) -> None:
        """The job's turn has come; the owner answers with `Submitter.post` or with `Submitter.decline`."""

    def submitted(self, request_id: str, attempt: int, answer: Answer) -> None:
        """The POST has ended."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    owner: SubmitOwner
    request_id: str
    since: datetime


class Submitter:
    """The line of jobs that wait for TAMS, over all partitions of this worker.

    Within a priority, first come first served. Each step of priority counts as so much longer waiting, so that a job
    of a low one is overtaken by what comes within that time after it, and by nothing later.

    Args:
        upstream: the way to TAMS.
        clock: for leases.
        priority_step: how much longer waiting one step of priority is worth.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        clock: Clock,
        priority_step: timedelta = timedelta(minutes=1),
    ) -> None:
        self._upstream = upstream
        self._clock = clock
        self._priority_step = priority_step
        self._waiting: dict[Hashable, _Waiting] = {}
        self._ready = Line()
        self._later = Line()
        self.under_way = 0

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def offer(self, owner: SubmitOwner, submit: Submit) -> None:
        """A job waits for its turn; without effect if it already does."""
        key = (owner.number, submit.request_id)
        if key in self._waiting:
            return
        since = submit.since - (submit.priority - NORMAL_PRIORITY) * self._priority_step
        self._waiting[key] = _Waiting(owner, submit.request_id, since)
        if submit.not_before is None or submit.not_before <= self._clock.now():
            self._ready.put(key, since.timestamp())
        else:
            self._later.put(key, submit.not_before.timestamp())
        self._upstream.changed.set()

    def withdraw(self, owner: SubmitOwner, request_id: str) -> None:
        """A job needs no turn any more; without effect if it did not wait."""
        self._leave((owner.number, request_id))

    def withdraw_all(self, owner: SubmitOwner) -> None:
        """An owner has lost its partition."""
        for key in [key for key, waiting in self._waiting.items() if waiting.owner.number == owner.number]:
            self._leave(key)

    def is_ready(self) -> bool:
        """Whether a job waits that could be submitted now."""
        now = self._clock.now().timestamp()
        while self._later.first_at() <= now:
            key = self._later.pop()
            self._ready.put(key, self._waiting[key].since.timestamp())
        return len(self._ready) > 0 and self._has_room()

    def ready_in(self) -> float:
        """Seconds until the next waiting job may be submitted; infinity if none waits for its time."""
        return max(0.0, self._later.first_at() - self._clock.now().timestamp())

    def may_skip_the_line(self) -> bool:
        """Whether a job that has just come may have its turn at once: nobody waits, and a call may be made now."""
        return not self._waiting and self._has_room() and self._upstream.available_at() <= self._clock.monotonic()

    def grant_next(self) -> None:
        """Give the first in line its turn; only if `is_ready`, and with a call reserved."""
        waiting = self._waiting.pop(self._ready.pop())
        waiting.owner.granted(waiting.request_id)

    def reserve(self) -> None:
        """Take a call for a job whose turn it is; `decline` ends it, or `post` and then `settled`."""
        self._upstream.reserve()
        self.under_way += 1

    def decline(self) -> None:
        """A turn that was given is not used."""
        self.under_way -= 1
        self._upstream.release()

    def settled(self, answers: int) -> None:
        """What POSTs came to has been written down and acted on: until then their jobs count as under way."""
        if answers:
            self.under_way -= answers
            self._upstream.changed.set()

    def _leave(self, key: Hashable) -> None:
        if self._waiting.pop(key, None) is not None:
            self._ready.drop(key)
            self._later.drop(key)

    def _has_room(self) -> bool:
        return self._upstream.room(self.under_way) > 0

    async def post(self, owner: SubmitOwner, post: Post) -> None:
        """Create the job at TAMS, if its lease still stands; the owner calls `settled` for what it is then told."""
        if self._clock.now() >= post.lease_until:
            self._upstream.release()
            failure = Failure(code="lease_expired", message="the submit began too late", retryable=True)
            owner.submitted(post.request_id, post.attempt, NotSent(failure))
            return
        answer = await self._upstream.create(post.request_id, post.tams_request_id, post.params)
        owner.submitted(post.request_id, post.attempt, answer)
