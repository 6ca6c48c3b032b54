"""How many calls a second may go to TAMS, and whose turn it is to make one.

TAMS counts every call of an account together. A call takes a slot; the slot is free again one window after TAMS has
surely counted the call, so no window of TAMS' own, wherever it begins, holds more calls than there are slots.
"""

import heapq
from enum import Enum

COUNTED_AFTER = 0.1
"""Seconds after which a call that was sent is taken to have been counted, if no answer has said so before."""


class RateBudget:
    """A rate as slots that are taken and given back.

    Args:
        rate: calls a second over all workers; 0 for no limit.
        burst: most calls at once; as many as the rate has in a second if not given.

    All times are seconds on one monotonic clock.
    """

    def __init__(self, rate: float, *, burst: int | None = None) -> None:
        self._rate = rate
        self._burst = max(1, int(rate) if burst is None else burst)
        self._window = 1.0
        self._size = 0
        self._busy = 0
        self._free: list[float] = []
        self._closed_until = float("-inf")
        self.set_share(1.0, now=float("-inf"))

    def set_share(self, share: float, *, now: float) -> None:
        """Use only this part (0 to 1) of the rate; the rest belongs to other workers.

        A part of the rate is spent evenly, not in bursts, since bursts of several workers would add up. A slot that is
        gained was another worker's until now, and is free after a second; of those that are lost, the freest go first.
        """
        rate = self._rate * share
        self._size = self._burst if share == 1.0 else 1
        if share == 1.0 and rate >= self._size:
            self._window = 1.0 / (
                rate // self._size
            )  # whole bursts a second, as a part of one would go beyond the rate
        else:
            self._window = self._size / rate if rate else 1.0
        while len(self._free) + self._busy < self._size:
            heapq.heappush(self._free, now + 1.0)
        while len(self._free) + self._busy > self._size and self._free:
            heapq.heappop(self._free)
        if share == 0.0:
            self._size, self._free = 0, []

    def available_at(self) -> float:
        """The earliest time a call may be made; infinity when every slot is taken by a call under way."""
        if not self._rate:
            return self._closed_until
        return max(self._free[0], self._closed_until) if self._free else float("inf")

    def take(self) -> None:
        """Use a slot; only after `available_at` has passed."""
        if self._rate:
            heapq.heappop(self._free)
            self._busy += 1

    def give_back(self, *, sent_at: float | None, now: float) -> None:
        """Return a slot.

        Args:
            sent_at: when the call went out; None if it never did.
            now: when its answer came, or when it was given up.
        """
        if not self._rate:
            return
        self._busy -= 1
        if len(self._free) + self._busy < self._size:
            heapq.heappush(self._free, now if sent_at is None else min(now, sent_at + COUNTED_AFTER) + self._window)

    def throttled(self, pause: float, *, now: float) -> None:
        """TAMS found us too fast: make no call for `pause` seconds."""
        self._closed_until = max(self._closed_until, now + pause)


class Turn(Enum):
    """What a call is for."""

    CANCEL = "cancel"
    SUBMIT = "submit"
    LOOK = "look"


class Turns:
    """Shares the budget between cancels, submits and looks: cancels first, the other two in turn while both wait."""

    def __init__(self) -> None:
        self._last = Turn.LOOK

    def choose(self, *, cancel: bool, submit: bool, look: bool) -> Turn | None:
        """Whose turn it is.

        Args:
            cancel, submit, look: whether such a call waits.
        """
        if cancel:
            return Turn.CANCEL
        if submit and look:
            self._last = Turn.LOOK if self._last is Turn.SUBMIT else Turn.SUBMIT
            return self._last
        if submit:
            return Turn.SUBMIT
        return Turn.LOOK if look else None
