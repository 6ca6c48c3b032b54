"""What the progress TAMS shows tells of a job's run time, learned per kind.

Progress need not be linear, nor show the whole of the work, and a number of finished nodes says nothing before it is
known when they are finished. So what is learned, for each sign, is by how much run times differ from what the sign
says by itself, as logarithms.
"""

from collections.abc import Iterator, Mapping
from math import log
from typing import NamedTuple

from bridge.core.durations import Hint


class Sign(NamedTuple):
    """What a look showed of how far a job is.

    Args:
        number: of the sign; all jobs of a kind show the same ones.
        done: the part of the work that it says is done, above 0 to 1; 1 if it does not say.
    """

    number: int
    done: float


# Progress means something else in each fifth of the way; beyond so many finished nodes, one more says nothing new.
_PARTS = 5
_MOST_NODES = 20


def signs_of(progress: float, finished_nodes: int) -> Iterator[Sign]:
    """The signs that a look has shown.

    Args:
        progress: 0 to 1; 0 says nothing.
        finished_nodes: how many of the graph's nodes are done; 0 says nothing.
    """
    if progress > 0.0:
        done = min(max(progress, _LEAST_PROGRESS), 1.0)
        yield Sign(min(int(done * _PARTS), _PARTS - 1), done)
    if finished_nodes > 0:
        yield Sign(_PARTS - 1 + min(finished_nodes, _MOST_NODES), 1.0)


# A progress of almost nothing tells almost nothing: divisors are not smaller.
_LEAST_PROGRESS = 0.005
# No run takes less or more, in seconds, whatever clocks say.
_SHORTEST_S, _LONGEST_S = 0.001, 1e9
# What is believed of progress to begin with: that it is about linear, with the weight of a few observations.
_GUESSED_SPREAD, _GUESSED_WEIGHT = 0.35, 3.0
# No sign tells the end more exactly: it comes in steps, and looks come late.
_LEAST_SPREAD = 0.04
# Observations that count, about; older ones fade away.
_MEMORY = 100.0
_KEEP = 1.0 - 1.0 / _MEMORY
# Nothing sensible lies farther off, in logarithms: a factor of 10,000.
_FARTHEST = 9.2

Lesson = tuple[float, float, float]
"""What one sign has taught: observations, the mean of the logarithms, and the sum of their squares around it."""

_NOTHING: Lesson = (0.0, 0.0, 0.0)


class ProgressMeaning:
    """By how much run times differ from what signs say."""

    __slots__ = ("_lessons",)

    def __init__(self) -> None:
        self._lessons: dict[int, Lesson] = {}

    def evidence(self, sign: Sign) -> float:
        """How many observations of a sign there are."""
        return self._lessons.get(sign.number, _NOTHING)[0]

    def hint(self, sign: Sign, age: float) -> Hint | None:
        """The run time that a sign first seen at an age (seconds) speaks for; none where that is not known."""
        weight, mean, square = self._lessons.get(sign.number, _NOTHING)
        if sign.number >= _PARTS and weight < _GUESSED_WEIGHT:
            return None
        spread = ((square + _GUESSED_WEIGHT * _GUESSED_SPREAD**2) / (weight + _GUESSED_WEIGHT)) ** 0.5
        return Hint(_said(sign, age) + mean * weight / (weight + 1.0), max(spread, _LEAST_SPREAD))

    def learn(self, sign: Sign, age: float, run_time: float) -> None:
        """A job that had shown this sign at this age (seconds) has run for `run_time` seconds."""
        weight, mean, square = self._lessons.get(sign.number, _NOTHING)
        off = max(_log_of(run_time), _log_of(age)) - _said(sign, age)
        ahead = min(max(off, -_FARTHEST), _FARTHEST) - mean
        weight = weight * _KEEP + 1.0
        self._lessons[sign.number] = (weight, mean + ahead / weight, square * _KEEP + ahead * ahead * (1 - 1 / weight))

    def export(self) -> dict[int, Lesson]:
        """What was learned, by number of the sign, to be kept."""
        return {
            number: (round(weight, 3), round(mean, 4), round(square, 4))
            for number, (weight, mean, square) in sorted(self._lessons.items())
        }

    def adopt(self, lessons: Mapping[int, Lesson]) -> None:
        """Take over what was kept; what is damaged is left out."""
        self._lessons = {number: lesson for number, lesson in lessons.items() if _sound(number, lesson)}


def _said(sign: Sign, age: float) -> float:
    return _log_of(age) - log(sign.done)


def _log_of(seconds: float) -> float:
    return log(min(max(_SHORTEST_S, seconds), _LONGEST_S))  # in this order what is no number counts as the shortest


def _sound(number: int, lesson: Lesson) -> bool:
    weight, mean, square = lesson
    return (
        0 <= number < _PARTS + _MOST_NODES
        and 0.0 < weight <= _MEMORY
        and abs(mean) <= _FARTHEST
        and 0.0 <= square <= _MEMORY * _FARTHEST**2
    )
