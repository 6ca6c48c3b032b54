"""What is expected of a job that TAMS holds, from what looks have told of it and of others before.

A job first waits, then runs. While it waits, it may begin to run at any of a few moments, all equally likely; how long
it runs is known as a distribution, for its kind. Both are learned from looks, and so is what the queue rank and the
progress mean that they show. Source: design.md, "When to poll".
"""

from dataclasses import dataclass

from bridge.core.durations import Durations, Hint
from bridge.core.progress import Sign, signs_of
from bridge.core.queue_speed import QueueSpeed
from bridge.core.run_times import EVERY_KIND, RunTimes
from bridge.messages import JobView, TamsStatus

_WAITING = frozenset({TamsStatus.CREATED, TamsStatus.PENDING, TamsStatus.WAITING, "DEFAULT"})
_ENDED = frozenset({TamsStatus.SUCCESS, TamsStatus.FAILED, TamsStatus.CANCELED})

# What a clock or TAMS says beyond these is not meant: seconds (30 years), and places in a queue.
_LONGEST_AGO_S = 1e9
_LAST_RANK = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHistory:
    """What is known of a job when it begins to be tracked; times in seconds on the policy's clock.

    Args:
        kind: of its graph, see `run_times.kind_of`.
        submitted_at: when TAMS took it.
        seen_at: when it was last known not to have ended.
        running_at: when it was first seen running, if it was.
        queue_rank: its place in the queue at `seen_at`, if it had one.
        progress: 0 to 1, then.
    """

    kind: str
    submitted_at: float
    seen_at: float
    running_at: float | None = None
    queue_rank: int | None = None
    progress: float = 0.0


class WatchedJob:
    """What has been seen of one job.

    Args:
        history: what was known before; times that are no times, or are to come, count as `now`.
        now: seconds on the policy's clock.
    """

    __slots__ = (
        "ended",
        "hint",
        "kind",
        "nodes",
        "progress",
        "rank",
        "running_at",
        "seen_at",
        "sightings",
        "submitted_at",
        "waited_until",
    )

    def __init__(self, history: JobHistory, *, now: float) -> None:
        self.kind = history.kind
        self.submitted_at = _past(history.submitted_at, now)
        self.seen_at = max(_past(history.seen_at, now), self.submitted_at)
        self.running_at: float | None = None
        self.waited_until = self.seen_at
        if history.running_at is not None:
            self.running_at = max(_past(history.running_at, now), self.submitted_at)
            self.seen_at = max(self.seen_at, self.running_at)
        self.rank = _rank(history.queue_rank)
        self.progress = history.progress
        self.nodes = 0
        self.hint: Hint | None = None
        self.sightings: dict[int, tuple[Sign, float]] = {}
        self.ended = False

    @property
    def running_for(self) -> float:
        """The age of its run when it was last seen; 0 if it waited."""
        return 0.0 if self.running_at is None else self.seen_at - self.running_at


def _past(at: float, now: float) -> float:
    return max(now - _LONGEST_AGO_S, min(now, at))  # in this order what is no number counts as now


def _rank(shown: int | None) -> int | None:
    return None if shown is None else min(max(shown, 0), _LAST_RANK)


# A sign that was seen later may be so much vaguer, by the spread of what it speaks for, and still tell more.
_VAGUER = 1.5


def _better(before: Hint | None, now: Hint | None) -> Hint | None:
    """The later hint, as it knows more, unless it is much vaguer."""
    if before is None or now is None:
        return before or now
    return now if now.spread <= _VAGUER * before.spread else before


# Of the moments at which a waiting job may begin to run, these parts have passed: two tell a spread, and cost little.
_PARTS = (1 / 4, 3 / 4)

# Once so large a part of its kind would have ended, a job is not like them, and what is known of them says little.
_OVERDUE = 0.9

# A run is taken to last so long at least: nothing ends in no time.
_SHORTEST_RUN_S = 0.01

# An end counts for so much in the estimate of the delay: about the last fifty are what it tells of.
_LATEST_END = 0.02


class Expectations:
    """When jobs will have ended, as far as can be known.

    Args:
        run_times: what is known of how long jobs run; what looks tell is added.
        waits: the same of how long they wait before they run, all kinds together.
    """

    def __init__(self, run_times: RunTimes, waits: RunTimes) -> None:
        self._run_times = run_times
        self._waits = waits
        self._queue_speed = QueueSpeed()
        self._newest_at = float("-inf")
        self._newest_rank: int | None = None
        self._has_ranks = False
        self._ends = 0
        self.delay_estimate = 0.0
        """Seconds for which ends have gone unnoticed of late, as far as that is known; 0 before the first."""

    def due_at(self, job: WatchedJob, price: float) -> float:
        """When the delay to be expected of a job's end comes to `price`, in seconds, unless it is looked at."""
        if job.running_at is not None:
            return job.running_at + self._run_time(job).next_look(job.running_for, price)
        return self._run_time(job).next_look_from(self._starts(job), price)

    def delay(self, job: WatchedJob, now: float) -> float:
        """Delay to be expected of a job's end by now, in seconds."""
        run_time = self._run_time(job)
        if job.running_at is not None:
            return run_time.delay(job.running_for, now - job.running_at)
        starts = self._starts(job)
        return sum(run_time.silence(now - start) for start in starts) / len(starts)

    def evidence(self, job: WatchedJob) -> float:
        """How many observations that rests on; none once a job goes on longer than nearly all of its kind."""
        overdue = self._run_times.of(job.kind).done_by(job.running_for) > _OVERDUE
        return 0.0 if overdue else self._run_times.evidence(job.kind)

    def saw(self, job: WatchedJob, view: JobView, now: float) -> None:
        """Learn from what a look has shown."""
        self._saw_place(job, view)
        if view.status in _ENDED:
            self._saw_ended(job, view, now)
        elif view.status in _WAITING:
            self._saw_waiting(job, view, now)
        else:
            self._saw_running(job, view, now)
        job.seen_at = max(job.seen_at, now)

    def _run_time(self, job: WatchedJob) -> Durations:
        return self._run_times.of(job.kind).given(job.hint)

    def _starts(self, job: WatchedJob) -> list[float]:
        """Moments at which a waiting job may begin to run, all equally likely."""
        waited = job.seen_at - job.submitted_at
        starts = [job.submitted_at + wait for wait in self._waits.of(EVERY_KIND).quantiles(waited, _PARTS)]
        rank = job.rank if job.seen_at > job.submitted_at else self._newest_rank
        if rank is not None:
            starts += [job.seen_at + wait for wait in self._queue_speed.waits(rank, _PARTS)]
        return starts

    def _saw_place(self, job: WatchedJob, view: JobView) -> None:
        """What the newest job has shown of the queue is what those submitted after it may find there."""
        rank = _rank(view.queue_rank) if view.status in _WAITING else 0
        self._has_ranks = self._has_ranks or view.queue_rank is not None
        if self._has_ranks and job.submitted_at >= self._newest_at:
            self._newest_at, self._newest_rank = job.submitted_at, rank

    def _saw_waiting(self, job: WatchedJob, view: JobView, now: float) -> None:
        rank = _rank(view.queue_rank)
        if rank is not None and job.rank is not None:
            self._queue_speed.saw(job.rank - rank, now - job.seen_at, now)
        job.rank = rank
        job.waited_until = now
        job.running_at = job.hint = None  # where it ran before, TAMS has begun anew
        job.progress, job.nodes = 0.0, 0
        job.sightings.clear()

    def _saw_running(self, job: WatchedJob, view: JobView, now: float) -> None:
        if job.running_at is None:
            if job.rank is not None:
                self._queue_speed.saw(job.rank + 1, now - job.seen_at, now)
            job.running_at = self._began(job, now)
            self._waits.learn(EVERY_KIND, job.waited_until - job.submitted_at, now - job.submitted_at)
        age = now - job.running_at
        progress = 0.0 if view.progress == job.progress else view.progress
        nodes = 0 if view.finished_nodes == job.nodes else view.finished_nodes
        for sign in signs_of(progress, nodes):
            job.sightings[sign.number] = (sign, age)
            job.hint = _better(job.hint, self._run_times.hint(job.kind, sign, age))
        job.progress, job.nodes = view.progress, view.finished_nodes

    def _saw_ended(self, job: WatchedJob, view: JobView, now: float) -> None:
        if job.ended:
            return
        job.ended = True
        if view.status == TamsStatus.CANCELED:
            return
        if job.running_at is None:
            job.running_at = self._began(job, now)
        low, high = max(job.running_for, 0.0), max(now - job.running_at, _SHORTEST_RUN_S)
        low = min(low, high)
        run_time = self._run_time(job).mean_between(low, high)
        self._ends += 1
        self.delay_estimate += (high - run_time - self.delay_estimate) * max(1.0 / self._ends, _LATEST_END)
        self._run_times.learn(job.kind, low, high)
        self._run_times.learn_progress(job.kind, job.sightings.values(), run_time)

    def _began(self, job: WatchedJob, now: float) -> float:
        """When a job has begun to run that no longer waits."""
        low, high = job.waited_until - job.submitted_at, now - job.submitted_at
        return job.submitted_at + self._waits.of(EVERY_KIND).mean_between(low, high)
