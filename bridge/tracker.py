"""ROLE worker, jobs → looks → events: which job is looked at next, and cancels."""

from collections.abc import Coroutine, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from bridge.core.line import Line
from bridge.core.polling import JobHistory, PollPolicy
from bridge.core.schedule import BackOff
from bridge.messages import Answer, Done, JobRecord, Missing, Refused, Seen
from bridge.ports import Clock
from bridge.upstream import Upstream

Key = tuple[int, str]
"""Partition and request id."""


_NO_JITTER = 1.0  # what many cancels at once need is a rate, and they have one
_CANCEL = BackOff(initial=timedelta(seconds=1), limit=timedelta(minutes=1))


@dataclass(slots=True, eq=False)
class _TrackedJob:
    owner: "TrackOwner"
    request_id: str
    job_id: str
    cancels: int = 0  # that were tried
    looked_at: float | None = None  # when TAMS last answered with it, on the monotonic clock


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
        cancel_pause: before a cancel that TAMS did not take is tried again; one that fails for ever must not use up
            the calls, or the probes, of all others.
    """

    def __init__(
        self, upstream: Upstream, *, policy: PollPolicy, clock: Clock, cancel_pause: BackOff = _CANCEL
    ) -> None:
        self._upstream = upstream
        self._policy = policy
        self._clock = clock
        self._cancel_pause = cancel_pause
        self._jobs: dict[Hashable, _TrackedJob] = {}
        self._cancels = Line()
        self._to_cancel: set[Hashable] = set()
        self._looked_at: dict[int, dict[str, float]] = {}  # partition → job id: of partitions that were closed

    def __len__(self) -> int:
        """How many jobs are tracked."""
        return len(self._jobs)

    def track(self, owner: TrackOwner, job_id: str, record: JobRecord) -> None:
        """Look at a job from now on; safe to repeat.

        Args:
            owner: who is told what looks come to.
            job_id: TAMS' id of the job.
            record: the job as it stands.
        """
        key = (owner.number, record.request_id)
        tracked = self._jobs.get(key)
        if tracked is not None and tracked.job_id == job_id:
            return
        self.drop(owner, record.request_id)
        looked_at = self._looked_at.get(owner.number, {}).pop(job_id, None)
        self._policy.add(key, self._history(record, looked_at), now=self._clock.monotonic())
        self._jobs[key] = _TrackedJob(owner, record.request_id, job_id, looked_at=looked_at)
        self._upstream.held = len(self._jobs)
        self._upstream.changed.set()

    def drop(self, owner: TrackOwner, request_id: str) -> None:
        """A job needs no more looks; safe to repeat."""
        key = (owner.number, request_id)
        if self._jobs.pop(key, None) is not None:
            self._policy.discard(key)
            self._to_cancel.discard(key)
            self._cancels.drop(key)
            self._upstream.held = len(self._jobs)
            self._upstream.changed.set()

    def drop_all(self, owner: TrackOwner) -> None:
        """An owner has lost its partition, or gives it up.

        When its jobs were looked at is remembered: most often the group gives the partition back at once, together with
        those of another worker, whose jobs would else have to wait until all that were looked at just now were again.
        """
        jobs = [job for job in self._jobs.values() if job.owner.number == owner.number]
        self._looked_at[owner.number] = {job.job_id: job.looked_at for job in jobs if job.looked_at is not None}
        for job in jobs:
            self.drop(job.owner, job.request_id)

    def cancel(self, owner: TrackOwner, request_id: str) -> None:
        """Ask TAMS to cancel a tracked job as soon as a call may be made; safe to repeat."""
        key = (owner.number, request_id)
        if key not in self._to_cancel:
            self._to_cancel.add(key)
            self._cancels.put(key, self._clock.monotonic())
            self._upstream.changed.set()

    def has_cancel(self) -> bool:
        """Whether a cancel waits whose time has come."""
        return self._cancels.first_at() <= self._clock.monotonic()

    def cancel_in(self) -> float:
        """Seconds until a cancel may be sent; infinity if none waits."""
        return self._cancels.first_at() - self._clock.monotonic()

    def has_look(self) -> bool:
        """Whether a look is worth a call now."""
        return self._policy.available_at() <= self._clock.monotonic()

    def look_in(self) -> float:
        """Seconds until a look is worth a call; infinity if there is none."""
        return self._policy.available_at() - self._clock.monotonic()

    def cancel_next(self) -> Coroutine[None, None, None]:
        """Send the first waiting cancel; only if `has_cancel`, and with a call reserved."""
        key = self._cancels.pop()
        return self._cancel(key, self._jobs[key])

    def look_next(self) -> Coroutine[None, None, None]:
        """Look at the next job; only if `has_look`, and with a call reserved."""
        key = self._policy.take(now=self._clock.monotonic())
        return self._look(key, self._jobs[key])

    async def _cancel(self, key: Hashable, job: _TrackedJob) -> None:
        answer = await self._upstream.cancel(job.request_id, job.job_id)
        if self._jobs.get(key) is not job:
            return
        if isinstance(answer, Done | Missing | Refused):  # stays in `_to_cancel`: told once while tracked
            self._policy.hurry(key, now=self._clock.monotonic())
            job.owner.cancel_answered(job.request_id, job.job_id, answer)
        else:
            job.cancels += 1
            pause = self._cancel_pause.pause(job.cancels, _NO_JITTER)
            self._cancels.put(key, self._clock.monotonic() + pause / timedelta(seconds=1))
            self._upstream.changed.set()

    async def _look(self, key: Hashable, job: _TrackedJob) -> None:
        answer = await self._upstream.look(job.request_id, job.job_id)
        if self._jobs.get(key) is job:
            now = self._clock.monotonic()
            if isinstance(answer, Seen):
                job.looked_at = now
            self._policy.looked(key, answer.view if isinstance(answer, Seen) else None, now=now)
        job.owner.looked(job.request_id, job.job_id, answer)

    def _history(self, record: JobRecord, looked_at: float | None) -> JobHistory:
        """The record's times on the policy's clock, which is another one in every process.

        A record tells of changes alone; `looked_at` is when this process last saw that there was none.
        """
        now = self._clock.now()
        monotonic = self._clock.monotonic()

        def ago(time: datetime) -> float:
            return monotonic - max((now - time).total_seconds(), 0.0)

        submitted_at = ago(record.submitted_at or record.accepted_at)
        changed_at = ago(record.seen_at) if record.seen_at else submitted_at
        return JobHistory(
            kind=record.kind,
            submitted_at=submitted_at,
            seen_at=changed_at if looked_at is None else max(changed_at, looked_at),
            running_at=ago(record.running_at) if record.running_at else None,
            queue_rank=record.queue_rank,
            progress=record.progress,
        )
