"""How fast TAMS' queue moves, learned from the ranks that looks have shown."""

from collections.abc import Sequence
from math import exp
from statistics import NormalDist

# Queues change their speed with the load of the whole of TAMS: what was seen minutes ago says little.
_MEMORY_S = 60.0
# What is believed to begin with: a place in four seconds, with the weight of one place seen to be gained.
_GUESSED_RANKS, _GUESSED_S = 1.0, 4.0
# How much the speed varies of itself, as standard deviation of the logarithm.
_OWN_SPREAD = 0.2

_NORMAL = NormalDist()


class QueueSpeed:
    """Ranks a second, of late; all jobs stand in one queue, so each look that shows a rank tells of it."""

    def __init__(self) -> None:
        self._ranks = 0.0
        self._seconds = 0.0
        self._at = float("-inf")

    @property
    def ranks_per_s(self) -> float:
        """The speed, beginning from a guess; more than 0."""
        return (self._ranks + _GUESSED_RANKS) / (self._seconds + _GUESSED_S)

    def saw(self, ranks: int, seconds: float, now: float) -> None:
        """A job has moved up by so many places within so many seconds; one that was overtaken tells of no move."""
        keep = exp(-max(now - self._at, 0.0) / _MEMORY_S)
        self._ranks = self._ranks * keep + max(ranks, 0)
        self._seconds = self._seconds * keep + max(seconds, 0.0)
        self._at = now

    def waits(self, rank: int, parts: Sequence[float]) -> list[float]:
        """Seconds until a job at this rank (0 or more) runs that are not exceeded with each probability in `parts`.

        The ranks before it go one by one, so many of them are more certain than few.
        """
        spread = (_OWN_SPREAD**2 + 1.0 / (rank + 1)) ** 0.5
        expected = (rank + 1) / self.ranks_per_s
        return [expected * exp(spread * _NORMAL.inv_cdf(part)) for part in parts]
