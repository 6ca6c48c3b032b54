"""How long to wait before trying again."""

from dataclasses import dataclass
from datetime import timedelta

_LARGEST_EXPONENT = 30
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOff:
    """Exponential back-off with full-range jitter in its upper half.

    Args:
        initial: pause after the first failure, before jitter.
        limit: longest pause, before jitter.
    """

    initial: timedelta
    limit: timedelta

    def pause(self, failures: int, chance: float) -> timedelta:
        """Pause after the given number of failures in a row.

        Args:
            failures: at least 1.
            chance: uniform in [0, 1); spreads the pause over half of it to all of it.
        """
        exponent = min(max(failures - 1, 0), _LARGEST_EXPONENT)
        seconds = min(self.initial / _SECOND * (1 << exponent), self.limit / _SECOND)
        return timedelta(seconds=seconds * (0.5 + chance / 2))
