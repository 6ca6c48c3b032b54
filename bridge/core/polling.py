"""When to look at which job.

`PollPolicy` is the seam: the tracker asks it whom to look at next and tells it what was seen. `LeastDelay` is the one
that is used: it looks where silence costs most. Source: design.md, "When to poll".

The cost of not having looked at a job is the delay to be expected of its end by now. Each job is due when that cost
reaches the price of a look; whoever is due first comes first, and the price follows what looks have been worth lately,
so that as many come due as the budget allows. That takes one calculation for each look, not one for each job and look.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from enum import StrEnum
from math import exp, log
from typing import Protocol

from bridge.core.expectations import Expectations, JobHistory, WatchedJob
from bridge.core.line import Line
from bridge.core.run_times import RunTimes
from bridge.messages import JobView

__all__ = ["NEVER", "JobHistory", "LeastDelay", "LookReason", "PollPolicy"]

NEVER = float("inf")
_AT_ONCE = float("-inf")


class PollPolicy(Protocol):
    """Chooses the next job to look at; all times are seconds on one monotonic clock."""

    def add(self, key: Hashable, history: JobHistory, *, now: float) -> None:
        """A job is to be looked at from now on; without effect if it already is."""

    def discard(self, key: Hashable) -> None:
        """A job needs no more looks; without effect if it is not known."""

    def hurry(self, key: Hashable, *, now: float) -> None:
        """Something is known to have happened to a job: look at it as soon as possible."""

    def available_at(self) -> float:
        """When the next look is worth a call; infinity if there is no job to look at."""

    def take(self, *, now: float) -> Hashable:
        """The job to look at now; it is not offered again before `looked`. Only after `available_at` has passed."""

    def looked(self, key: Hashable, view: JobView | None, *, now: float) -> None:
        """A look has ended; `view` is what was seen, None if nothing was. Without effect if none was under way."""

    def __len__(self) -> int:
        """How many jobs are tracked."""


class LookReason(StrEnum):
    """Why a look was made."""

    HURRY = "hurry"
    SILENCE = "silence"
    PRICE = "price"
    SPARE = "spare"


class _Place:
    """Where a job stands, and why."""

    __slots__ = ("due", "hurried", "job", "misses", "price", "under_look")

    def __init__(self, job: WatchedJob) -> None:
        self.job = job
        self.due = NEVER  # at once if it is hurried
        self.price = 0.0  # of a look, when `due` was worked out
        self.misses = 0  # looks in a row that showed nothing
        self.under_look = False
        self.hurried = False  # whether the look under way was


# One look of so many goes to the job that was silent the longest, if that was too long.
_SILENCE_TURNS = 8

# The price of a look, in seconds of delay: where it begins, and what it stays between, since it is multiplied.
_FIRST_PRICE, _LEAST_PRICE, _MOST_PRICE = 1.0, 1e-4, 1e5
# How far the price goes, in logarithms, towards what a look was worth; and how far off that may be, at the most.
_PRICE_GAIN, _LARGEST_STEP = 0.1, 3.0

# A job that came due when looks were cheaper by this factor is put back, unless it is worth the price of now; so many
# for one look, as each costs a calculation.
_OUTDATED, _PUT_BACK = 1.2, 3

# Jobs whose rest is over are put in line for the next look, so many for one look: after a start all rests end at once.
_WOKEN = 500

# The time between two looks: where it begins, in seconds, and how far it follows each.
_FIRST_GAP_S, _GAP_GAIN = 0.2, 0.02

# So many observations of a kind let a job wait for one round of all jobs longer than it would in turn: what rests on
# few is not to make anybody worse off than that.
_TRUSTED = 20.0

# Pauses after looks that showed nothing stop doubling after so many.
_DOUBLINGS = 10


class LeastDelay:
    """Looks where the delay to be expected is largest.

    Args:
        run_times: what is known of how long jobs run.
        waits: the same of how long they wait before they run, all kinds together.
        interval: seconds between two looks at one job, at the least, unless it is hurried.
        max_silence: seconds since it was last seen or added after which a job is looked at whatever is expected of it,
            as far as an eighth of all looks suffices: of those silent for longer, the n-th is among the next 8 n taken.
    """

    def __init__(self, run_times: RunTimes, waits: RunTimes, *, interval: float, max_silence: float) -> None:
        self._expectations = Expectations(run_times, waits)
        self._interval = interval
        self._longest_pause = max(max_silence, interval)
        self._price = _FIRST_PRICE
        self._gap = _FIRST_GAP_S
        self._taken_at = 0.0
        self._places: dict[Hashable, _Place] = {}
        self._resting = Line()  # too early to look at, by the time that this ends
        self._due = Line()  # free to be looked at, by the time that it is worth the price
        self._silent_since: OrderedDict[Hashable, float] = OrderedDict()  # nobody under look; the longest first
        self._since_silence_turn = 0
        self.looks: Counter[LookReason] = Counter()

    @property
    def price(self) -> float:
        """Delay to be expected of a job, in seconds, at which a look at it is worth a call."""
        return self._price

    @property
    def delay_estimate(self) -> float:
        """Seconds for which ends have gone unnoticed of late, as far as that can be known; 0 before the first end."""
        return self._expectations.delay_estimate

    def add(self, key: Hashable, history: JobHistory, *, now: float) -> None:
        """See `PollPolicy`."""
        if key in self._places:
            return
        place = self._places[key] = _Place(WatchedJob(history, now=now))
        self._plan(place)
        self._stand(key, place, free_at=place.job.seen_at + self._interval, now=now)

    def discard(self, key: Hashable) -> None:
        """See `PollPolicy`."""
        if self._places.pop(key, None) is not None:
            self._leave(key)

    def hurry(self, key: Hashable, *, now: float) -> None:  # noqa: ARG002  # at once is before any time
        """See `PollPolicy`; a job under look is looked at again right after."""
        place = self._places.get(key)
        if place is None:
            return
        place.due = _AT_ONCE
        if not place.under_look:
            self._resting.drop(key)
            self._due.put(key, place.due)

    def available_at(self) -> float:
        """See `PollPolicy`."""
        return _AT_ONCE if self._due else self._resting.first_at()

    def take(self, *, now: float) -> Hashable:
        """See `PollPolicy`."""
        self._gap += _GAP_GAIN * (min(max(now - self._taken_at, 0.0), self._interval) - self._gap)
        self._taken_at = now
        self._wake(now)
        key, reason = self._choose(now)
        self.looks[reason] += 1
        place = self._places[key]
        place.under_look = True
        place.hurried, place.due = place.due == _AT_ONCE, NEVER
        self._leave(key)
        return key

    def looked(self, key: Hashable, view: JobView | None, *, now: float) -> None:
        """See `PollPolicy`."""
        place = self._places.get(key)
        if place is None or not place.under_look:
            return
        place.under_look = False
        if view is None:
            place.misses += 1
        else:
            place.misses = 0
            self._expectations.saw(place.job, view, now)
        free_at = now + min(self._interval * 2 ** min(place.misses, _DOUBLINGS), self._longest_pause)
        if place.due == _AT_ONCE and not place.job.ended:
            free_at = now  # the look may have been answered before what has happened since it began
        elif place.hurried and view is None:
            place.due = _AT_ONCE
        else:
            self._plan(place)
        self._stand(key, place, free_at=free_at, now=now)

    def __len__(self) -> int:
        """See `PollPolicy`."""
        return len(self._places)

    def _wake(self, now: float) -> None:
        for _ in range(_WOKEN):
            if self._resting.first_at() > now:
                return
            key = self._resting.pop()
            self._due.put(key, self._places[key].due)

    def _choose(self, now: float) -> tuple[Hashable, LookReason]:
        self._since_silence_turn += 1
        if self._since_silence_turn >= _SILENCE_TURNS and self._longest_silence(now) >= self._longest_pause:
            self._since_silence_turn = 0
            return next(iter(self._silent_since)), LookReason.SILENCE
        key = self._first_due(now)
        place = self._places[key]
        if place.due == _AT_ONCE:
            return key, LookReason.HURRY
        self._learn_price(place.job, now)
        return key, LookReason.PRICE if place.due <= now else LookReason.SPARE

    def _longest_silence(self, now: float) -> float:
        return now - next(iter(self._silent_since.values()), NEVER)

    def _first_due(self, now: float) -> Hashable:
        for _ in range(_PUT_BACK):
            key = self._due.pop()
            place = self._places[key]
            if place.due == _AT_ONCE or place.due > now or self._price < place.price * _OUTDATED or not self._due:
                return key
            self._plan(place)
            if place.due <= now:
                return key
            self._due.put(key, place.due)
        return self._due.pop()

    def _stand(self, key: Hashable, place: _Place, *, free_at: float, now: float) -> None:
        self._silent_since[key] = now
        if free_at <= now:
            self._due.put(key, place.due)
        else:
            self._resting.put(key, free_at)

    def _leave(self, key: Hashable) -> None:
        self._resting.drop(key)
        self._due.drop(key)
        self._silent_since.pop(key, None)

    def _plan(self, place: _Place) -> None:
        """Work out when a job is due; in no case much later than if all were looked at in turn."""
        job = place.job
        place.price = self._price
        if job.ended:
            place.due = NEVER
            return
        place.due = self._expectations.due_at(job, self._price)
        if job.running_at is not None:
            rounds = 1.0 + self._expectations.evidence(job) / _TRUSTED
            place.due = min(place.due, job.seen_at + rounds * len(self._places) * self._gap)

    def _learn_price(self, job: WatchedJob, now: float) -> None:
        if job.ended:
            return
        worth = max(self._expectations.delay(job, now), _LEAST_PRICE)
        step = min(max(log(worth / self._price), -_LARGEST_STEP), _LARGEST_STEP)
        self._price = min(max(self._price * exp(_PRICE_GAIN * step), _LEAST_PRICE), _MOST_PRICE)
