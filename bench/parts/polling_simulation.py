"""A worker and TAMS as discrete events: the bridge's own budget, turns and policies, and time that jumps.

A call is answered at once, so that delays are those of the choice alone. Submits and looks take turns as in the worker.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from bench.parts.polling_policies import Fate, MakePolicy
from bench.parts.polling_workloads import Job, Slots, Workload
from bridge.core.budget import RateBudget, Turn, Turns
from bridge.core.polling import JobHistory
from bridge.messages import NOTHING, JobView, TamsStatus

CALLS_PER_S = 5.0
WARM_S = 600.0
HORIZON_S = 2400.0
LATEST_S = 1200.0
"""How long after the horizon the last news may come; what has not come by then counts as so late."""


@dataclass(slots=True)
class Outcome:
    """What became of a trace.

    Args:
        ended_at: when jobs ended, in seconds from the start; only those that ended by the horizon.
        delays: how long it took to find out, for each of them.
        jobs, looks: how many there were.
        silence: the longest time a job was not looked at.
    """

    ended_at: list[float] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    jobs: int = 0
    looks: int = 0
    silence: float = 0.0


class Simulation:
    """One trace under one policy.

    Args:
        workload: what the jobs are.
        jobs: the trace, in order of arrival; it should go on for as long as looks are made.
        make: makes the policy.
        slots: what they run on.
        horizon: ends after this do not count, in seconds.
    """

    def __init__(
        self,
        workload: Workload,
        jobs: Sequence[Job],
        make: MakePolicy,
        *,
        slots: Slots,
        horizon: float = HORIZON_S,
    ) -> None:
        self._workload = workload
        self._jobs = jobs
        self._fates: dict[Hashable, Fate] = {}
        self._policy = make(workload, self._fates)
        self._budget = RateBudget(CALLS_PER_S)
        self._turns = Turns()
        self._slots = slots
        self._horizon = horizon
        self._seen_at: dict[Hashable, float] = {}
        self._submitted = 0
        self._unseen = 0
        self._now = 0.0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Go through the trace until all that ended by the horizon is known."""
        while self._now < self._horizon or (self._unseen and self._now < self._horizon + LATEST_S):
            if not self._call():
                self._now = max(self._next(), self._now + 1e-6)
        for key, seen_at in self._seen_at.items():
            self.outcome.silence = max(self.outcome.silence, self._now - seen_at)
            self._count(self._fates[key].ends_at)
        return self.outcome

    def _call(self) -> bool:
        if self._budget.available_at() > self._now:
            return False
        turn = self._turns.choose(
            cancel=False, submit=self._arrival() <= self._now, look=self._policy.available_at() <= self._now
        )
        if turn is None:
            return False
        self._budget.take()
        self._budget.give_back(sent_at=self._now, now=self._now)
        if turn is Turn.SUBMIT:
            self._submit()
        else:
            self._look()
        return True

    def _next(self) -> float:
        return max(self._budget.available_at(), min(self._arrival(), self._policy.available_at()))

    def _arrival(self) -> float:
        return self._jobs[self._submitted].arrives_at if self._submitted < len(self._jobs) else float("inf")

    def _submit(self) -> None:
        key, job, now = self._submitted, self._jobs[self._submitted], self._now
        starts_at = self._slots.place(job.run_s, now=now)
        fate = Fate(job=job, submitted_at=now, starts_at=starts_at, ends_at=starts_at + job.run_s)
        self._fates[key] = fate
        self._seen_at[key] = now
        self._unseen += fate.ends_at <= self._horizon
        self._submitted += 1
        self.outcome.jobs += 1
        self._policy.add(key, JobHistory(kind=job.kind, submitted_at=now, seen_at=now), now=now)

    def _look(self) -> None:
        key, now = self._policy.take(now=self._now), self._now
        fate = self._fates[key]
        self.outcome.looks += 1
        self.outcome.silence = max(self.outcome.silence, now - self._seen_at[key])
        self._seen_at[key] = now
        self._policy.looked(key, self._view(fate), now=now)
        if now >= fate.ends_at:
            self._policy.discard(key)
            del self._fates[key], self._seen_at[key]
            self._count(fate.ends_at)

    def _view(self, fate: Fate) -> JobView:
        now = self._now
        if now >= fate.ends_at:
            return _view(TamsStatus.SUCCESS)
        if now < fate.starts_at:
            return _view(TamsStatus.WAITING, rank=self._slots.rank(fate.starts_at, now=now))
        return _view(TamsStatus.RUNNING, progress=self._progress(fate))

    def _progress(self, fate: Fate) -> float:
        power, shown = fate.job.power, self._workload.progress
        if power is None or shown is None:
            return 0.0
        return math.floor(math.pow((self._now - fate.starts_at) / fate.job.run_s, power) / shown.step) * shown.step

    def _count(self, ended_at: float) -> None:
        if ended_at <= self._horizon:
            self._unseen -= 1
            self.outcome.ended_at.append(ended_at)
            self.outcome.delays.append(self._now - ended_at)


def _view(status: TamsStatus, *, rank: int | None = None, progress: float = 0.0) -> JobView:
    return JobView(
        job_id="1",
        status=status,
        queue_rank=rank,
        progress=progress,
        finished_nodes=0,
        failure=None,
        document=NOTHING,
    )
