"""How many jobs TAMS takes at once, learned from its refusals: it documents no cap, and answers 429 for two reasons.

A rate that is exceeded refuses looks as well as creates; a cap refuses creates alone. So a refused create counts as
the rate until a look gets through after it and the next create is refused again. Source: tams-api.md, "Limits and
money" (unknown: cap on concurrent jobs).
"""

_PROBE_S = 30.0
_PROBE_PART = 0.05


class InFlightCap:
    """The cap; all times are seconds on one monotonic clock.

    Args:
        limit: most jobs TAMS is to be given at once, whatever it would take.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._learned: int | None = None
        self._raise_at = float("inf")
        self._refused = False
        self._passed_since = False

    def room(self, in_flight: int, now: float) -> int:
        """How many more jobs TAMS may be given; a learned cap grows now and then, to see whether it still holds."""
        if self._learned is None:
            return self._limit - in_flight
        if now >= self._raise_at:
            self._learned += max(1, int(self._learned * _PROBE_PART))
            self._raise_at = now + _PROBE_S
        return min(self._learned, self._limit) - in_flight

    @property
    def learned(self) -> int | None:
        """The cap TAMS is believed to have; None if it has shown none."""
        return self._learned

    def other_call_passed(self) -> None:
        """A call that creates nothing was answered: the rate is not what stands in the way."""
        self._passed_since = self._refused

    def taken(self) -> None:
        """TAMS has taken a job."""
        self._refused = self._passed_since = False

    def refused(self, in_flight: int, now: float) -> bool:
        """TAMS has answered 429 to a create.

        Args:
            in_flight: jobs it holds for us.
            now: the monotonic clock.

        Returns:
            Whether the cap is the reason; if not, the rate has to be.
        """
        if not (self._refused and self._passed_since):
            self._refused = True
            return False
        self._passed_since = False
        self._learned = max(1, in_flight)
        self._raise_at = now + _PROBE_S
        return True
