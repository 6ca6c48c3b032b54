"""Run times learned per kind of graph, from looks that only tell that a job ended since the look before.

A kind is a path from coarse to fine (`kind_of`): a kind of which little is known leans on the coarser one, and all of
them on a broad guess. Old observations fade, so that what has changed is learned anew.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2s
from math import exp, log, sqrt
from operator import mul

import msgspec

from bridge.core.durations import BINS, LOG_CENTRES, LOG_STEP, Durations, Hint
from bridge.core.progress import Lesson, ProgressMeaning, Sign

EVERY_KIND = ""
"""The coarsest kind: all jobs."""

_SEPARATOR = "/"
_DIGEST_BYTES = 6


def kind_of(node_classes: Iterable[str]) -> str:
    """Name the kind of a graph: a digest of the set of its node classes, then of how often each occurs."""
    counts = sorted(Counter(node_classes).items())
    coarse = "\n".join(name for name, _ in counts)
    fine = "\n".join(f"{name}\t{count}" for name, count in counts)
    return f"{_digest(coarse)}{_SEPARATOR}{_digest(fine)}"


def _digest(text: str) -> str:
    return blake2s(text.encode(errors="replace"), digest_size=_DIGEST_BYTES).hexdigest()


def _parent(kind: str) -> str:
    return kind.rpartition(_SEPARATOR)[0]


def _levels(kind: str) -> list[str]:
    """The kind and all coarser ones, the coarsest last."""
    levels = [kind]
    while levels[-1] != EVERY_KIND:
        levels.append(_parent(levels[-1]))
    return levels


RECORD_VERSION = 1
"""Changes with the bins of `durations` and with the signs of `progress`: numbers of others mean something else."""


class KindRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was learned of a kind, as it is kept.

    Args:
        version: of the meaning of the other fields.
        weights: observations by bin.
        progress: what signs of progress have taught, by number of the sign.
    """

    version: int = RECORD_VERSION
    weights: dict[int, float] = {}
    progress: dict[int, Lesson] = {}


class RunTimes:
    """What is known of how long kinds of jobs take.

    Args:
        memory: observations of a kind that count, more than 1; older ones fade away.
        guess: what is believed of a kind of which nothing is known.
        max_kinds: kinds remembered; the ones not asked for the longest are forgotten.
    """

    def __init__(self, *, memory: float = 100.0, guess: Durations | None = None, max_kinds: int = 1000) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._memory = memory
        self._guess = guess or _broad_guess()
        self._max_kinds = max_kinds
        self._kinds: OrderedDict[str, _Observed] = OrderedDict()
        self.changed: set[str] = set()

    def __len__(self) -> int:
        """How many kinds are known, coarser ones included."""
        return len(self._kinds)

    def of(self, kind: str) -> Durations:
        """What is to be expected of a job of this kind."""
        observed = self._kinds.get(kind)
        if observed is not None:
            self._kinds.move_to_end(kind)
            if observed.made is not None:
                return observed.made
        coarser = self._guess if kind == EVERY_KIND else self.of(_parent(kind))
        return coarser if observed is None else observed.make(coarser)

    def evidence(self, kind: str) -> float:
        """How many observations what is expected of this kind rests on, those of coarser kinds not counted."""
        observed = self._kinds.get(kind)
        return 0.0 if observed is None else observed.total

    def learn(self, kind: str, low: float, high: float) -> None:
        """A job of this kind has ended after more than `low` and at most `high` seconds; without effect if none can.

        Which of the bins between is told by what was expected, so that coarse looks do not blur what is known.
        """
        low = max(low, 0.0)
        if not low <= high:
            return
        first, parts = self.of(kind).between(low, high)
        total = sum(parts)
        shares = [part / total for part in parts] if total > 0.0 else [1.0 / len(parts)] * len(parts)
        for level in reversed(_levels(kind)):
            self._observed(level).add(first, shares, self._keep)
            self.changed.add(level)

    def hint(self, kind: str, sign: Sign, age: float) -> Hint | None:
        """What a sign of progress first seen at an age, in seconds, tells of the run time, if that is known."""
        for level in _levels(kind):
            observed = self._kinds.get(level)
            if observed is not None and observed.progress.evidence(sign) > 0.0:
                return observed.progress.hint(sign, age)
        return _UNKNOWN_PROGRESS.hint(sign, age)

    def learn_progress(self, kind: str, sightings: Iterable[tuple[Sign, float]], run_time: float) -> None:
        """Take in at which ages, in seconds, a job had shown which signs, now that its run time is known."""
        for sign, age in sightings:
            for level in reversed(_levels(kind)):
                self._observed(level).progress.learn(sign, age, run_time)
                self.changed.add(level)

    def export(self, kind: str) -> KindRecord:
        """What was learned of a kind, to be kept; an empty record if nothing is known."""
        observed = self._kinds.get(kind)
        if observed is None:
            return KindRecord()
        weights = {at: round(weight, 4) for at, weight in enumerate(observed.faded()) if weight >= _LEAST}
        return KindRecord(weights=weights, progress=observed.progress.export())

    def take_changed(self) -> dict[str, KindRecord]:
        """The records of the kinds that have changed since the last call."""
        records = {kind: self.export(kind) for kind in sorted(self.changed)}
        self.changed.clear()
        return records

    def adopt(self, kind: str, record: KindRecord) -> None:
        """Take over what was kept, or what another process knows, if it is more than is known here.

        What is damaged, or of another version, is ignored.
        """
        if record.version != RECORD_VERSION:
            return
        weights = {at: weight for at, weight in record.weights.items() if 0 <= at < BINS and _LEAST <= weight <= _MOST}
        if min(sum(weights.values()), self._memory) > self.evidence(kind):
            self._observed(kind).adopt(weights, record.progress, self._memory)

    def _observed(self, kind: str) -> "_Observed":
        observed = self._kinds.get(kind)
        if observed is None:
            observed = self._kinds[kind] = _Observed()
            if len(self._kinds) > self._max_kinds:
                forgotten, _ = self._kinds.popitem(last=False)
                self.changed.discard(forgotten)
        else:
            self._kinds.move_to_end(kind)
        return observed


_UNKNOWN_PROGRESS = ProgressMeaning()

# A distribution is made anew when so large a part of what it rests on is newer: that is most of the work of learning.
_REMAKE = 0.07
# Weights are added up in a unit that grows, and are set back to units of 1 before numbers become too large to add up.
_LARGEST_UNIT = 1e6
# What has faded to less than this is not kept, and what claims to be more was not written by us.
_LEAST, _MOST = 1e-4, 1e6


class _Observed:
    """Observations of one kind, and the distribution last made of them.

    Weights grow by `unit` instead of fading all at every observation: only their proportions count.
    """

    __slots__ = ("made", "progress", "total", "unit", "unmade", "weights")

    def __init__(self) -> None:
        self.weights = [0.0] * BINS
        self.unit = 1.0
        self.total = 0.0
        self.unmade = 0
        self.made: Durations | None = None
        self.progress = ProgressMeaning()

    def add(self, first: int, shares: Sequence[float], keep: float) -> None:
        """Take in one observation, spread over the bins from `first` on; the others fade to the part `keep`."""
        self.unit /= keep
        span, unit = slice(first, first + len(shares)), self.unit
        self.weights[span] = [known + share * unit for known, share in zip(self.weights[span], shares, strict=True)]
        self.total = self.total * keep + 1.0
        if self.unit > _LARGEST_UNIT:
            self.weights, self.unit = self.faded(), 1.0
        self.unmade += 1
        if self.unmade > self.total * _REMAKE:
            self.made = None

    def adopt(self, weights: Mapping[int, float], progress: Mapping[int, Lesson], memory: float) -> None:
        """Know this instead of what was known; in all no more than a memory's worth of it."""
        known = sum(weights.values())
        self.weights = [weights.get(at, 0.0) for at in range(BINS)]
        self.total = min(known, memory)
        self.unit = known / self.total
        self.made = None
        self.progress.adopt(progress)

    def faded(self) -> list[float]:
        """The weights as they count now."""
        scale = 1.0 / self.unit
        return [weight * scale for weight in self.weights]

    def make(self, coarser: Durations) -> Durations:
        """What is to be expected, given what is of the coarser kind."""
        if self.total == 0.0:
            return coarser
        self.made, self.unmade = _blend(self.faded(), self.total, coarser), 0
        return self.made


# What is believed of a kind of which nothing is known, in logarithms of seconds: two thirds of the jobs take between
# 5 and 75 s; and a little of everything, so that nothing is held to be impossible.
_GUESS_CENTRE, _GUESS_SPREAD = 3.0, 1.3
_GUESS_FLAT = 0.03


def _broad_guess() -> Durations:
    peak = [exp(-0.5 * ((at - _GUESS_CENTRE) / _GUESS_SPREAD) ** 2) for at in LOG_CENTRES]
    flat = _GUESS_FLAT * sum(peak) / BINS
    return Durations(weight + flat for weight in peak)


# Observations that what is expected of the coarser kind counts for.
_LEAN = 1.0


def _blend(weights: Sequence[float], total: float, coarser: Durations) -> Durations:
    """What was observed, smoothed by as much as so few observations need, and a little of what was expected."""
    smoothed = _smooth(weights, _bandwidth(weights, total))
    return Durations(seen + _LEAN * guess for seen, guess in zip(smoothed, coarser.weights, strict=True))


# Jobs of one kind mostly differ by about so much, as standard deviation of the logarithm: believed with the weight of
# so many observations, and never exceeded, since what differs more is made of several peaks.
_LIKELY_SPREAD, _LIKELY_WEIGHT = 0.4, 2.0

_LOG_CENTRES_SQUARED = tuple(centre * centre for centre in LOG_CENTRES)


def _bandwidth(weights: Sequence[float], total: float) -> float:
    """Width of the smoothing in logarithmic units (Silverman's rule)."""
    known = sum(weights)
    mean = sum(map(mul, weights, LOG_CENTRES)) / known
    square = sum(map(mul, weights, _LOG_CENTRES_SQUARED)) - mean * mean * known
    spread = sqrt((max(square, 0.0) + _LIKELY_WEIGHT * _LIKELY_SPREAD**2) / (total + _LIKELY_WEIGHT))
    return 0.9 * min(spread, _LIKELY_SPREAD) * exp(-0.2 * log(total))


# A bell is cut off where less than a thousandth of it is left.
_BELL_REACH = 3.5


def _smooth(weights: Sequence[float], bandwidth: float) -> list[float]:
    """Spread each weight over the bins around it, in the shape of a bell."""
    reach = max(1, int(_BELL_REACH * bandwidth / LOG_STEP))
    bell = [exp(-0.5 * (step * LOG_STEP / bandwidth) ** 2) for step in range(-reach, reach + 1)]
    scale = 1.0 / sum(bell)
    smoothed = [0.0] * (BINS + 2 * reach)
    for at, weight in enumerate(weights):
        if weight > _LEAST:
            part, span = weight * scale, slice(at, at + len(bell))
            smoothed[span] = [known + part * share for known, share in zip(smoothed[span], bell, strict=True)]
    return smoothed[reach:-reach]
