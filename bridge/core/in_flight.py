"""How many jobs TAMS takes at once, learned from its refusals: it documents no cap, and answers 429 for two reasons.

A rate that is exceeded refuses looks as well as creates; a cap refuses creates alone. So refused creates count as the
rate, and slow it down, until three of them in a row had looks get through between them; a cap that was shown once is
known when it is met again. Source: tams-api.md, "Limits and money" (unknown: cap on concurrent jobs).
"""

_PROBE_S = 10.0
_PROBE_PART = 0.1
_SUSPICIONS = 2  # refusals with a look let through after each, before the next one counts as the cap's


class InFlightCap:
    """The cap; all times are seconds on one monotonic clock.

    Args:
        limit: most jobs TAMS is to be given at once, whatever it would take.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._learned: int | None = None
        self._shown: int | None = None  # jobs in flight when it was last refused for its sake
        self._raise_at = float("inf")
        self._suspicions = 0
        self._is_fresh = False  # no other call has been answered since the last refusal

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
        if self._is_fresh:
            self._is_fresh = False
            self._suspicions += 1

    def other_call_refused(self) -> None:
        """A call that creates nothing was answered 429: the rate stands in everybody's way."""
        self._is_fresh, self._suspicions = False, 0

    def taken(self) -> None:
        """TAMS has taken a job."""
        self._is_fresh, self._suspicions = False, 0

    def refused(self, in_flight: int, now: float) -> bool:
        """TAMS has answered 429 to a create.

        Args:
            in_flight: jobs it holds for us.
            now: the monotonic clock.

        Returns:
            Whether the cap is the reason; if not, the rate has to be.
        """
        was_shown_before = self._shown is not None and in_flight >= self._shown
        if self._suspicions < _SUSPICIONS and not was_shown_before:
            self._is_fresh = True
            return False
        self._is_fresh, self._suspicions = False, 0
        self._shown = self._learned = max(1, in_flight)
        self._raise_at = now + _PROBE_S
        return True
