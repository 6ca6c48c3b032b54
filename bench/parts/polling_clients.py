"""Exponential back-off as it is mostly met: every job is polled by code of its own, and none knows of the others.

Whoever is due calls. Beyond the rate TAMS answers 429, which a client takes like any other answer that is not the end:
it waits longer still. That is what adds up; `heeds_429=False` is the kinder variant in which a refused call is repeated
after the same pause.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from bench.parts.polling_policies import BACK_OFF
from bench.parts.polling_simulation import CALLS_PER_S, HORIZON_S, LATEST_S, Outcome
from bench.parts.polling_workloads import Job, Slots

FIRST_PAUSE_S = 1.0
SUBMIT_AGAIN_S = (0.5, 1.0)


@dataclass(slots=True, eq=False)
class _Client:
    job: Job
    pause: float = FIRST_PAUSE_S
    ends_at: float | None = None
    called_at: float = 0.0


class Clients:
    """One trace, each job in the hands of a client of its own.

    Args:
        jobs: the trace.
        slots: what they run on.
        heeds_429: whether a refused look makes the next pause longer, too.
        horizon: ends after this do not count, in seconds.
    """

    def __init__(self, jobs: Sequence[Job], *, slots: Slots, heeds_429: bool, horizon: float = HORIZON_S) -> None:
        self._slots = slots
        self._heeds_429 = heeds_429
        self._horizon = horizon
        self._chance = Random(1)
        self._admitted: deque[float] = deque()
        self._order = len(jobs)
        self._calls = [(job.arrives_at, number, _Client(job)) for number, job in enumerate(jobs)]
        self._unseen = 0
        self.outcome = Outcome()
        self.refused = 0

    def run(self) -> Outcome:
        """Go through the trace until all that ended by the horizon is known."""
        now = 0.0
        while self._calls and (now < self._horizon or (self._unseen and now < self._horizon + LATEST_S)):
            now, _, client = heapq.heappop(self._calls)
            if client.ends_at is None:
                self._submit(client, now)
            else:
                self._look(client, client.ends_at, now)
        for _, _, client in self._calls:
            if client.ends_at is not None:
                self._count(client, client.ends_at, now)
        return self.outcome

    def _submit(self, client: _Client, now: float) -> None:
        if not self._admit(now):
            self._again(client, now + self._chance.uniform(*SUBMIT_AGAIN_S))
            return
        client.ends_at = self._slots.place(client.job.run_s, now=now) + client.job.run_s
        client.called_at = now
        self.outcome.jobs += 1
        self._unseen += client.ends_at <= self._horizon
        self._again(client, now + client.pause)

    def _look(self, client: _Client, ends_at: float, now: float) -> None:
        admitted = self._admit(now)
        if admitted:
            self.outcome.looks += 1
            if now >= ends_at:
                self._count(client, ends_at, now)
                return
            self.outcome.silence = max(self.outcome.silence, now - client.called_at)
            client.called_at = now
        if admitted or self._heeds_429:
            client.pause *= BACK_OFF
        self._again(client, now + client.pause)

    def _count(self, client: _Client, ends_at: float, now: float) -> None:
        self.outcome.silence = max(self.outcome.silence, now - client.called_at)
        if ends_at <= self._horizon:
            self._unseen -= 1
            self.outcome.ended_at.append(ends_at)
            self.outcome.delays.append(now - ends_at)

    def _admit(self, now: float) -> bool:
        while self._admitted and self._admitted[0] <= now - 1.0:
            self._admitted.popleft()
        if len(self._admitted) >= CALLS_PER_S:
            self.refused += 1
            return False
        self._admitted.append(now)
        return True

    def _again(self, client: _Client, at: float) -> None:
        self._order += 1
        heapq.heappush(self._calls, (at, self._order, client))
