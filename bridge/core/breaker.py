"""When to leave a failing upstream alone, and when to knock again."""

from datetime import timedelta

from bridge.core.schedule import BackOff


class Breaker:
    """Opens after failures in a row, then lets single probes through until one succeeds.

    Args:
        threshold: failures in a row that open it.
        back_off: pauses between probes.

    All times are seconds on one monotonic clock.
    """

    def __init__(self, *, threshold: int, back_off: BackOff) -> None:
        self._threshold = threshold
        self._back_off = back_off
        self._failures = 0
        self._trips = 0
        self._retry_at: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """True while only probes may pass."""
        return self._retry_at is not None

    def available_at(self) -> float:
        """The earliest time a call may be made; infinity while a probe is under way."""
        if self._retry_at is None:
            return float("-inf")
        return float("inf") if self._probing else self._retry_at

    def begin(self) -> None:
        """A call is being made; only after `available_at` has passed."""
        self._probing = self.is_open

    def abandoned(self) -> None:
        """A call that had begun was never made, or told nothing: another may probe."""
        self._probing = False

    def succeeded(self) -> None:
        """The upstream answered sensibly."""
        self._failures, self._trips, self._retry_at, self._probing = 0, 0, None, False

    def failed(self, *, now: float, chance: float, at_once: bool = False) -> None:
        """The upstream did not answer, or cannot work; calls that went out before it opened do not count again.

        Args:
            now: the monotonic clock.
            chance: uniform in [0, 1), for the jitter.
            at_once: open without waiting for more failures.
        """
        if self.is_open and not self._probing:
            return
        self._failures += 1
        self._probing = False
        if self.is_open or at_once or self._failures >= self._threshold:
            self._trips += 1
            self._retry_at = now + self._back_off.pause(self._trips, chance) / timedelta(seconds=1)
