"""The line in front of one endpoint: what may be sent next, and when.

Nothing in here knows of other endpoints, so none can wait for another. A delivery is in line from its order to its end;
while its POST is under way it keeps its place. All times are seconds on one monotonic clock.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from math import ceil

from bridge.core.breaker import Breaker
from bridge.webhook_messages import Endpoint, Ordering

_NEVER = float("inf")
_ALWAYS = float("-inf")
_STALE_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How fast an endpoint wants its deliveries.

    Args:
        max_in_flight: most POSTs under way at once.
        rate: most POSTs a second; None for no limit.
        ordering: whether deliveries of one job wait for each other.
    """

    max_in_flight: int
    rate: float | None
    ordering: Ordering


def limits_of(endpoint: Endpoint) -> QueueLimits:
    """What an endpoint says of itself."""
    return QueueLimits(max_in_flight=endpoint.max_in_flight, rate=endpoint.rate, ordering=endpoint.ordering)


@dataclass(slots=True)
class _Place:
    job: str
    sequence: int
    due: float
    in_flight: bool = False
    offer: int = 0


@dataclass(slots=True)
class _Line:
    """Deliveries of one job, the earliest event first: it alone may be sent, and only while none is under way."""

    waiting: list[tuple[int, str]] = field(default_factory=list)
    under_way: int = 0


class EndpointQueue:
    """The deliveries of one endpoint that have not ended.

    Args:
        limits: see there.
        breaker: opens when the endpoint fails.
    """

    def __init__(self, limits: QueueLimits, *, breaker: Breaker) -> None:
        self.limits = limits
        self.is_open = True
        self.breaker = breaker
        self.in_flight = 0
        self._failures_in_row = 0
        self._places: dict[str, _Place] = {}
        self._lines: dict[str, _Line] = {}
        self._ready: list[tuple[float, int, str]] = []
        self._offers = 0
        self._resume_at = 0.0
        self._mended_at = 0.0
        self._begun: deque[float] = deque()

    def __len__(self) -> int:
        """How many deliveries have not ended."""
        return len(self._places)

    def is_under_way(self, delivery_id: str) -> bool:
        """Whether the POST of a delivery has begun and not ended."""
        place = self._places.get(delivery_id)
        return place is not None and place.in_flight

    def add(self, delivery_id: str, *, job: str, sequence: int, due: float) -> None:
        """Put a delivery in line; without effect if it already is."""
        if delivery_id not in self._places:
            place = self._places[delivery_id] = _Place(job, sequence, due)
            self._wait(delivery_id, place)

    def follow(self, limits: QueueLimits) -> None:
        """Keep to changed limits; what is under way counts as if it had begun under them."""
        was, self.limits = self.limits, limits
        if was.ordering is limits.ordering:
            return
        self._lines.clear()
        if limits.ordering is Ordering.JOB:
            for place in self._places.values():
                self._lines.setdefault(place.job, _Line()).under_way += place.in_flight
        for delivery_id, place in self._places.items():
            if not place.in_flight:
                self._wait(delivery_id, place)

    def remove(self, delivery_id: str) -> None:
        """A delivery has ended; without effect if it is not in line."""
        place = self._places.pop(delivery_id, None)
        if place is None:
            return
        self.in_flight -= place.in_flight
        line = self._lines.get(place.job)
        if line is None:
            return
        if place.in_flight:
            line.under_way -= 1
        else:
            line.waiting.remove((place.sequence, delivery_id))
            heapq.heapify(line.waiting)
        if line.waiting:
            self._offer_first(line)
        elif not line.under_way:
            del self._lines[place.job]

    def put_back(self, delivery_id: str, *, due: float) -> None:
        """An attempt that `take` began has ended, and another will follow, not before `due`."""
        place = self._places[delivery_id]
        place.due, place.in_flight = due, False
        self.in_flight -= 1
        line = self._lines.get(place.job)
        if line is not None:
            line.under_way -= 1
        self._wait(delivery_id, place)

    def available_at(self) -> float:
        """When the next POST may begin; infinity while that depends on others under way, or on the user."""
        if not self.is_open or self.in_flight >= self._cap():
            return _NEVER
        while self._ready and not self._is_next(self._ready[0]):
            heapq.heappop(self._ready)
        if not self._ready:
            return _NEVER
        paused = max(self._resume_at, self._mended_at)
        return max(self._ready[0][0], paused, self._slot(), self.breaker.available_at())

    def take(self, now: float) -> str:
        """The delivery to send now; only after `available_at` has passed, and followed by `put_back` or `remove`."""
        delivery_id = heapq.heappop(self._ready)[2]
        place = self._places[delivery_id]
        place.in_flight = True
        self.in_flight += 1
        line = self._lines.get(place.job)
        if line is not None:
            heapq.heappop(line.waiting)
            line.under_way += 1
        self.breaker.begin()
        if self.limits.rate is not None:
            self._use_slot(self.limits.rate, now)
        return delivery_id

    def succeeded(self) -> None:
        """The receiver took a delivery."""
        self._failures_in_row = 0
        self.breaker.succeeded()

    def failed(self, *, now: float, chance: float, at_once: bool = False) -> None:
        """The receiver failed: fewer POSTs at once until it works again, and only probes if it goes on failing.

        Args:
            now: the monotonic clock.
            chance: uniform in [0, 1), for the jitter.
            at_once: only probes from now on.
        """
        self._failures_in_row += 1
        self.breaker.failed(now=now, chance=chance, at_once=at_once)

    def told_nothing(self) -> None:
        """A POST says nothing of whether the receiver works."""
        self.breaker.abandoned()

    def pause(self, until: float) -> None:
        """Send nothing before then: the receiver has asked for it, or is to be spared."""
        self._resume_at = max(self._resume_at, until)

    def hold(self, until: float) -> None:
        """Send nothing before then, or before `mended`: it could not work, for a reason that lies with us."""
        self._mended_at = max(self._mended_at, until)

    def mended(self) -> None:
        """What it was held for may be mended; a pause of the receiver's is not cut short."""
        self._mended_at = 0.0

    def resume(self) -> None:
        """The user wants POSTs again: what spoke against the endpoint is forgotten."""
        self._resume_at = self._mended_at = 0.0
        self.succeeded()

    def is_moving(self, now: float) -> bool:
        """Whether what waits here will soon have gone: the endpoint may be sent to, and takes what it is sent."""
        return self.is_open and not self._failures_in_row and max(self._resume_at, self._mended_at) <= now

    def waiting_before(self, job: str, sequence: int) -> list[str]:
        """Deliveries of a job in line before this event whose POST is not under way; only with `Ordering.JOB`."""
        line = self._lines.get(job)
        return [delivery_id for earlier, delivery_id in line.waiting if earlier < sequence] if line else []

    def _cap(self) -> int:
        return max(1, self.limits.max_in_flight >> self._failures_in_row)

    def _slot(self) -> float:
        """When the rate allows another POST."""
        if self.limits.rate is None:
            return _ALWAYS
        most, seconds = _span(self.limits.rate)
        return self._begun[-most] + seconds if len(self._begun) >= most else _ALWAYS

    def _use_slot(self, rate: float, now: float) -> None:
        _, seconds = _span(rate)
        while self._begun and self._begun[0] + seconds <= now:
            self._begun.popleft()
        self._begun.append(now)

    def _wait(self, delivery_id: str, place: _Place) -> None:
        if self.limits.ordering is Ordering.NONE:
            self._offer(delivery_id, place)
            return
        line = self._lines.setdefault(place.job, _Line())
        heapq.heappush(line.waiting, (place.sequence, delivery_id))
        self._offer_first(line)

    def _offer_first(self, line: _Line) -> None:
        if not line.under_way:
            delivery_id = line.waiting[0][1]
            self._offer(delivery_id, self._places[delivery_id])

    def _offer(self, delivery_id: str, place: _Place) -> None:
        """Only the latest offer of a delivery holds; the others are cleared away once they are too many."""
        self._offers += 1
        place.offer = self._offers
        heapq.heappush(self._ready, (place.due, place.offer, delivery_id))
        if len(self._ready) > 2 * len(self._places) + _STALE_KEPT:
            self._ready = [entry for entry in self._ready if self._holds(entry)]
            heapq.heapify(self._ready)

    def _holds(self, entry: tuple[float, int, str]) -> bool:
        _, offer, delivery_id = entry
        place = self._places.get(delivery_id)
        return place is not None and place.offer == offer

    def _is_next(self, entry: tuple[float, int, str]) -> bool:
        delivery_id = entry[2]
        if not self._holds(entry):
            return False
        line = self._lines.get(self._places[delivery_id].job)
        return line is None or (not line.under_way and line.waiting[0][1] == delivery_id)


def _span(rate: float) -> tuple[int, float]:
    """How many POSTs a rate allows within how many seconds, whole ones: 5 a second, or one in 2.5 s for 0.4."""
    most = ceil(rate)
    return most, most / rate
