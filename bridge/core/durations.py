"""How long something takes, as a distribution over bins whose widths grow with the time: what is known, and questions.

The one question that matters is the cost of silence: the delay to be expected of news that may have come since the last
look, `∫ (F(s) - F(b)) / (1 - F(b)) ds` from the last look `b` to now, with `F` for `done_by`.
Source: design.md, "When to poll".
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import exp, log, sqrt
from operator import add, mul, neg

# Steps of an eighth are finer than jobs of one kind repeat themselves, and few enough to be gone through at each end.
_SHORTEST_S, _LONGEST_S = 0.05, 50_000.0
_GROWTH = 1.12

EDGES: tuple[float, ...] = (
    0.0,
    *(_SHORTEST_S * _GROWTH**step for step in range(int(log(_LONGEST_S / _SHORTEST_S) / log(_GROWTH)) + 1)),
)
"""Bin `i` reaches from `EDGES[i]` to `EDGES[i + 1]`, in seconds."""

BINS = len(EDGES) - 1
LOG_STEP = log(_GROWTH)
LOG_CENTRES: tuple[float, ...] = tuple(log((low + high) / 2) for low, high in pairwise(EDGES))
_WIDTHS = tuple(high - low for low, high in pairwise(EDGES))
_HALF_WIDTHS_FROM_THE_END = tuple(width / 2 for width in reversed(_WIDTHS))


def bin_of(seconds: float) -> int:
    """The bin a duration falls in; what is longer than all of them falls in the last."""
    return min(max(bisect_right(EDGES, seconds) - 1, 0), BINS - 1)


_NUMBERS = range(BINS + 1)


@dataclass(frozen=True, slots=True)
class Hint:
    """What a look told about a duration besides that it is not over: it is near `exp(centre)` seconds.

    Args:
        centre: logarithm of the duration in seconds.
        spread: standard deviation of that logarithm, more than 0.
    """

    centre: float
    spread: float


# A hint may mean nothing, as progress may stand still while a job goes on: so much weight stays where it was.
_DOUBT = 0.02
# Farther off than so many standard deviations, only the doubt is left.
_HINT_REACH = 4.0

# A probability that differs from none by no more than rounding may.
_NONE = 1e-12

# Newton's method comes from above and halves the distance at worst: five steps leave about 1 % of the price.
_NEWTON_STEPS = 5


class Durations:
    """A distribution of durations, made once and asked many times.

    Within a bin all durations are equally likely. What has outlasted every bin that has any weight is expected to end
    within an eighth of its age.

    Args:
        weights: one for each bin, none below 0, in all more than 0; need not add up to 1.
    """

    __slots__ = ("_alive", "_left", "_weights")

    def __init__(self, weights: Iterable[float]) -> None:
        given = list(weights)
        scale = 1.0 / sum(given)
        self._weights = [weight * scale for weight in given]
        # Summed up from the end, since there small numbers matter: they are what chances are divided by.
        alive = list(accumulate(reversed(self._weights), initial=0.0))
        areas = map(mul, map(add, alive, alive[1:]), _HALF_WIDTHS_FROM_THE_END)
        self._left: list[float] = list(accumulate(areas, initial=0.0))[::-1]
        self._alive = alive[::-1]

    @property
    def weights(self) -> Sequence[float]:
        """Probability of each bin."""
        return self._weights

    def done_by(self, seconds: float) -> float:
        """Probability of a duration of at most `seconds`."""
        alive, _ = self._from(seconds)
        return max(1.0 - alive, 0.0)

    def silence(self, seconds: float) -> float:
        """Expected time since the end, in seconds, at `seconds` after the beginning: the area under `done_by`."""
        _, left = self._from(seconds)
        return max(seconds - self._left[0] + left, 0.0)

    def quantiles(self, after: float, parts: Sequence[float]) -> list[float]:
        """Durations that a fraction of those longer than `after` seconds stays below, for each fraction in `parts`."""
        alive, _ = self._from(after)
        if alive <= _NONE:
            return [after + part * _tail(after) for part in parts]
        return [max(self._outlived_by((1.0 - part) * alive), after) for part in parts]

    def mean_between(self, low: float, high: float) -> float:
        """Mean of the durations from `low` to `high` seconds; their middle if there are none."""
        alive_low, left_low = self._from(low)
        alive_high, left_high = self._from(high)
        ended = alive_low - alive_high
        if ended <= _NONE:
            return (low + high) / 2
        mean = low + (left_low - left_high - alive_high * (high - low)) / ended
        return min(max(mean, low), high)

    def between(self, low: float, high: float) -> tuple[int, list[float]]:
        """The first bin that reaches into the time from `low` to `high`, and the probability there of it and the next.

        Args:
            low, high: seconds, 0 or more, `low` not above `high`.
        """
        low, high = min(low, EDGES[-1]), min(high, EDGES[-1])
        first, last = bin_of(low), bin_of(high)
        parts = self._weights[first : last + 1]
        before = self._weights[first] * (low - EDGES[first]) / _WIDTHS[first]
        after = self._weights[last] * (EDGES[last + 1] - high) / _WIDTHS[last]
        parts[0] = max(parts[0] - before, 0.0)
        parts[-1] = max(parts[-1] - after, 0.0)
        return first, parts

    def given(self, hint: Hint | None) -> "Durations":
        """What is to be expected after a hint."""
        if hint is None:
            return self
        reach = _HINT_REACH * hint.spread
        first = bisect_left(LOG_CENTRES, hint.centre - reach)
        last = bisect_right(LOG_CENTRES, hint.centre + reach)
        weights = [weight * _DOUBT for weight in self._weights]
        for number in range(first, last):
            off = (LOG_CENTRES[number] - hint.centre) / hint.spread
            weights[number] += self._weights[number] * exp(-0.5 * off * off)
        return Durations(weights)

    def delay(self, seen: float, age: float) -> float:
        """Delay to be expected at `age` of an end that had not come when the job was `seen`, in seconds."""
        since = max(age - seen, 0.0)
        alive, left_then = self._from(seen)
        if alive <= _NONE:
            tail = _tail(seen)
            return since * since / tail / 2 if since < tail else since - tail / 2
        _, left_now = self._from(age)
        return max(since - (left_then - left_now) / alive, 0.0)

    def next_look(self, seen: float, price: float) -> float:
        """The age at which silence since the last look has come to cost `price`.

        Args:
            seen: age at the last look, when the end had not come, in seconds.
            price: delay to be expected, in seconds, that is worth a look; more than 0.
        """
        alive, left = self._from(seen)
        if alive <= _NONE:
            tail = _tail(seen)
            return seen + (sqrt(2 * price * tail) if price < tail / 2 else price + tail / 2)
        worth = alive * (seen + price) + left
        last = bisect_left(_NUMBERS, worth, lo=bin_of(seen) + 1, key=lambda at: alive * EDGES[at] + self._left[at])
        low = max(seen, EDGES[last - 1])
        alive_low, left_low = self._from(low)
        missing = max(worth - alive * low - left_low, 0.0)
        if last > BINS:
            return low + missing / alive
        density = self._weights[last - 1] / _WIDTHS[last - 1]
        return min(low + _time_for(missing, alive - alive_low, density), EDGES[last])

    def next_look_from(self, starts: Sequence[float], price: float) -> float:
        """The moment at which silence has come to cost `price`, about what may begin at any of some moments.

        Args:
            starts: moments in seconds, all equally likely, none of them past at the last look.
            price: as for `next_look`.
        """
        target = price * len(starts)
        at = min(starts) + self.next_look(0.0, target)
        for _ in range(_NEWTON_STEPS):
            silence = done = 0.0
            for start in starts:
                alive, left = self._from(at - start)
                done += 1.0 - alive
                silence += at - start - self._left[0] + left
            at -= (silence - target) / max(done, _NONE)
        return at

    def _from(self, seconds: float) -> tuple[float, float]:
        """Probability of a duration of more than `seconds`, and the area under that from there on."""
        if seconds <= 0.0:
            return 1.0, self._left[0] - seconds
        if not seconds < EDGES[-1]:
            return 0.0, 0.0
        following = bisect_right(EDGES, seconds)
        to_edge = EDGES[following] - seconds
        alive_then = self._alive[following]
        alive = alive_then + self._weights[following - 1] * to_edge / _WIDTHS[following - 1]
        return alive, self._left[following] + (alive + alive_then) / 2 * to_edge

    def _outlived_by(self, alive: float) -> float:
        """The duration that is outlived with this probability, below 1."""
        following = max(bisect_left(self._alive, -alive, key=neg), 1)
        weight = self._weights[following - 1]
        back = (alive - self._alive[following]) / weight if weight else 0.0
        return EDGES[following] - min(back, 1.0) * _WIDTHS[following - 1]


def _tail(seen: float) -> float:
    """Seconds within which something so old is expected to end, when nothing better is known."""
    return max(seen, _SHORTEST_S) * (_GROWTH - 1.0)


def _time_for(area: float, done: float, density: float) -> float:
    """Solve `done · x + density · x² / 2 = area` for x, not below 0."""
    root = done + sqrt(done * done + 2 * density * area)
    return 2 * area / root if root > 0.0 else 0.0
