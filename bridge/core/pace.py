"""How much of the rate it was promised a worker really uses: less for a while once TAMS has found it too fast.

Halved, back to nine tenths of what was too much within seconds, and then slowly on: where TAMS admits less than the
settings say, a 429 a minute or so is the price of using most of it. Source: issue 4; the shape is that of congestion
control, which meets the same question.
"""

_LEAST = 1 / 16
_QUICK_TO = 0.9
_QUICK_S = 10.0
_SLOW_PER_S = 0.1 / 60.0
_SAME_S = 2.0
_NEVER = float("-inf")


class Pace:
    """The part of the rate in use; all times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._too_fast = 1.0
        self._from = 1.0
        self._at = _NEVER

    def factor(self, now: float) -> float:
        """The part, above 0 and at most 1."""
        if self._at == _NEVER:
            return 1.0
        passed = now - self._at
        quick = _QUICK_TO * self._too_fast
        if passed < _QUICK_S:
            return self._from + (quick - self._from) * passed / _QUICK_S
        return min(1.0, quick + self._too_fast * _SLOW_PER_S * (passed - _QUICK_S))

    def throttled(self, now: float) -> None:
        """TAMS has found us too fast; what it says of calls made before we slowed down is no news."""
        if now - self._at < _SAME_S:
            return
        self._too_fast = max(self.factor(now), _LEAST)
        self._from = max(self._too_fast / 2, _LEAST)
        self._at = now
