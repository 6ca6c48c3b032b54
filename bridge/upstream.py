"""ROLE worker, the way to TAMS: every call passes here, under one rate, one breaker and one cap on calls under way."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from bridge.core.breaker import Breaker
from bridge.core.budget import RateBudget
from bridge.core.in_flight import InFlightCap
from bridge.messages import Ambiguous, Answer, Failure, NotSent, TryLater, Unauthorized
from bridge.ports import Surroundings, Tams

_CREATE = "create"
_SLOT_LOST = Failure(
    code="rate_slot_lost", message="this worker's part of the rate went to others before the call", retryable=True
)


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """How TAMS is doing, as seen from here.

    Args:
        reachable: False while only probes are made.
        authorized: False once TAMS has refused our credentials, until it accepts them.
        problem: what the last failure said.
    """

    reachable: bool
    authorized: bool
    problem: str | None


class Upstream:
    """Calls to TAMS, paced.

    A call is made in two steps: `reserve`, when `available_at` has passed, and then exactly one of `create`, `look`,
    `cancel` (which end the reservation themselves) or `release`.

    `held` is set by who tracks them: how many jobs TAMS holds for this worker.

    Args:
        tams: the port.
        budget: the rate.
        breaker: opens when TAMS fails.
        cap: how many jobs TAMS takes at once.
        concurrency: most calls under way at once.
        throttled_pause: of all calls after a 429 that does not say how long.
        surroundings: time, randomness and who is told.
    """

    def __init__(  # noqa: PLR0913  everything it works with, by name
        self,
        tams: Tams,
        *,
        budget: RateBudget,
        breaker: Breaker,
        cap: InFlightCap,
        concurrency: int,
        throttled_pause: timedelta = timedelta(seconds=1),
        surroundings: Surroundings,
    ) -> None:
        self._tams = tams
        self._budget = budget
        self._breaker = breaker
        self._cap = cap
        self._concurrency = concurrency
        self._throttled_pause = throttled_pause
        self._clock = surroundings.clock
        self._chance = surroundings.chance
        self._telemetry = surroundings.telemetry
        self._under_way = 0
        self._unauthorized = False
        self._problem: str | None = None
        self.held = 0
        self.changed = asyncio.Event()

    def health(self) -> UpstreamHealth:
        """How TAMS is doing."""
        return UpstreamHealth(not self._breaker.is_open, not self._unauthorized, self._problem)

    def available_at(self) -> float:
        """When the next call may be made, on the monotonic clock; infinity if that depends on calls under way."""
        if self._under_way >= self._concurrency:
            return float("inf")
        return max(self._budget.available_at(now=self._clock.monotonic()), self._breaker.available_at())

    def room(self, under_way: int) -> int:
        """How many more jobs TAMS may be given, beside those it holds and the submits under way."""
        return self._cap.room(self.held + under_way, self._clock.monotonic())

    def reserve(self) -> None:
        """Take the right to make one call."""
        self._budget.take()
        self._breaker.begin()
        self._under_way += 1

    def release(self) -> None:
        """Give back a right that was not used."""
        self._breaker.abandoned()
        self._ended(sent_at=None)

    async def create(self, request_id: str, tams_request_id: str, params: bytes) -> Answer:
        """Create a job."""
        return await self._call(_CREATE, request_id, partial(self._tams.create, tams_request_id, params))

    async def look(self, request_id: str, job_id: str) -> Answer:
        """Read a job."""
        return await self._call("look", request_id, partial(self._tams.look, job_id))

    async def cancel(self, request_id: str, job_id: str) -> Answer:
        """Ask for a job to be canceled."""
        return await self._call("cancel", request_id, partial(self._tams.cancel, job_id))

    async def _call(self, call: str, request_id: str, send: Callable[[], Awaitable[Answer]]) -> Answer:
        sent_at = self._clock.monotonic()
        if not self._budget.may_send(now=sent_at):
            self.release()
            return NotSent(_SLOT_LOST)
        answer: Answer | None = None
        try:
            answer = await send()
            return answer
        finally:
            if answer is None:
                self._breaker.abandoned()
            else:
                self._learn(call, answer)
                self._telemetry.called(call, request_id, answer, self._clock.monotonic() - sent_at)
            self._ended(sent_at=sent_at)

    def _learn(self, call: str, answer: Answer) -> None:
        now, before = self._clock.monotonic(), self.health()
        creates = call == _CREATE
        match answer:
            case Unauthorized(failure):
                self._unauthorized, self._problem = True, failure.message
                self._breaker.failed(now=now, chance=self._chance.random(), at_once=True)
            case NotSent(failure) | Ambiguous(failure):
                self._problem = failure.message
                self._breaker.failed(now=now, chance=self._chance.random())
            case TryLater(failure, retry_after, throttled):
                if throttled:
                    self._breaker.abandoned()
                else:
                    self._problem = failure.message
                    self._breaker.failed(now=now, chance=self._chance.random())
                if throttled and not creates:
                    self._cap.other_call_refused()
                if not (creates and throttled and self._cap.refused(self.held, now)):
                    pause = (retry_after or self._throttled_pause) / timedelta(seconds=1)
                    self._budget.throttled(pause, too_fast=throttled, now=now)
            case _:
                self._unauthorized, self._problem = False, None
                self._breaker.succeeded()
                if creates:
                    self._cap.taken()
                else:
                    self._cap.other_call_passed()
        self._tell_of_change(before, self.health())

    def _tell_of_change(self, before: UpstreamHealth, after: UpstreamHealth) -> None:
        if before.authorized and not after.authorized:
            self._telemetry.upstream("unauthorized", after.problem or "")
        elif before.reachable and not after.reachable:
            self._telemetry.upstream("unreachable", after.problem or "")
        elif after.reachable and not before.reachable:
            self._telemetry.upstream("reachable", "")

    def _ended(self, *, sent_at: float | None) -> None:
        self._under_way -= 1
        self._budget.give_back(sent_at=sent_at, now=self._clock.monotonic())
        self.changed.set()
