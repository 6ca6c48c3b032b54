"""How many calls a second may go to TAMS, and whose turn it is to make one.

TAMS counts every call of an account together. A call takes a slot; the slot is free again one window after TAMS has
surely counted the call, so no window of TAMS' own, wherever it begins, holds more calls than there are slots.
"""

import heapq
from enum import Enum

from bridge.core.pace import Pace

COUNTED_AFTER = 0.1
"""Seconds after which a call that was sent is taken to have been counted, if no answer has said so before."""


class RateBudget:
    """A rate as slots that are taken and given back.

    It begins with every slot. Where several workers share the rate, `bridge.core.slots` takes all of them away first
    (`forfeit`), and then says which are this worker's own (`gain`), which others wait for (`owe`, `give_up`), and until
    when that is known (`renew`).

    Args:
        rate: calls a second over all workers; 0 for no limit.
        burst: most calls at once; as many as the rate has in a second if not given.

    `slots` is how many there are in all, `window` the seconds from one call of a slot to its next.
    All times are seconds on one monotonic clock.
    """

    def __init__(self, rate: float, *, burst: int | None = None) -> None:
        self._rate = rate
        self.slots = max(1, int(rate) if burst is None else burst)
        self.window = _window(rate, self.slots)
        self._busy = 0
        self._free = [float("-inf")] * self.slots
        self._closed_until = float("-inf")
        self._pace = Pace()
        self._laid_by: list[float] = []  # free times of slots that are to be given up
        self._owed = 0
        self._unbacked = 0  # calls taken with slots that were forfeited, for which none has been gained since
        self._not_before = float("-inf")
        self._valid_until = float("inf")

    def gain(self, count: int, *, free_from: float) -> None:
        """So many more slots are this worker's own, and free from then on."""
        backed = min(count, self._unbacked)
        if backed:
            self._unbacked -= backed
            self._not_before = max(self._not_before, free_from)
        for _ in range(count - backed):
            heapq.heappush(self._free, free_from)

    def owe(self, count: int) -> None:
        """So many slots are to be given up: those that are free first are laid by, and used no more."""
        self._owed = count
        while len(self._laid_by) < count and self._free:
            self._laid_by.append(heapq.heappop(self._free))
        while len(self._laid_by) > count:
            heapq.heappush(self._free, self._laid_by.pop())

    def gives_up_at(self) -> float:
        """When the next slot that was laid by is free, and so may be given up; infinity if there is none."""
        return min(self._laid_by, default=float("inf"))

    def give_up(self, *, now: float) -> int:
        """Let those slots go that were laid by and are free; whoever gets them may use them at once.

        Returns:
            How many.
        """
        kept = [free_at for free_at in self._laid_by if free_at > now]
        given = len(self._laid_by) - len(kept)
        self._laid_by = kept
        self._owed -= given
        return given

    def forfeit(self) -> None:
        """No slot is this worker's own any more; calls that were taken and not sent must not be, see `may_send`."""
        self._owed = 0
        self._free, self._laid_by = [], []
        self._unbacked = self._busy

    def renew(self, until: float) -> None:
        """The slots are known to be this worker's own until then; no call is made later."""
        self._valid_until = until

    def may_send(self, *, now: float) -> bool:
        """Whether a call that was taken may still go out; to be asked right before it does.

        If not, give it back with `sent_at=None`.
        """
        return not self._rate or (self._unbacked == 0 and self._not_before <= now < self._valid_until)

    def available_at(self, *, now: float = float("-inf")) -> float:
        """The earliest time, from `now` on, a call may be made.

        Infinity when every slot is taken by a call under way, or while they are not known to be ours. That may also
        become so until the time given: whoever has waited for it asks again.
        """
        if not self._rate:
            return self._closed_until
        usable = self._usable()
        left_alone = max(0, usable - max(1, int(usable * self._pace.factor(now))))
        if len(self._free) <= left_alone or now >= self._valid_until:
            return float("inf")
        free_at = heapq.nsmallest(left_alone + 1, self._free)[-1]
        return max(free_at, self._closed_until, self._not_before, now)

    def in_use(self, *, now: float) -> int:
        """How many slots have a call under way, or had one within the last window."""
        return self._busy + sum(1 for free_at in (*self._free, *self._laid_by) if free_at > now)

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
        usable = self._usable()
        self._busy -= 1
        if self._unbacked:
            self._unbacked -= 1
            return
        window = self.window / min(1.0, usable * self._pace.factor(now))
        free_at = now if sent_at is None else min(now, sent_at + COUNTED_AFTER) + window
        free_at = max(free_at, self._not_before)
        if len(self._laid_by) < self._owed:
            self._laid_by.append(free_at)
        else:
            heapq.heappush(self._free, free_at)

    def _usable(self) -> int:
        return len(self._free) + self._busy - self._unbacked

    def throttled(self, pause: float, *, too_fast: bool, now: float) -> None:
        """TAMS wants no call for `pause` seconds, and fewer for a while if it finds us too fast.

        Fewer means that some slots are left alone, so that fewer calls are made at once, too; only the last one is
        used less often.
        """
        if too_fast:
            self._pace.throttled(now)
        self._closed_until = max(self._closed_until, now + pause)


def _window(rate: float, slots: int) -> float:
    """Seconds from one call of a slot to its next: whole bursts a second, as a part of one would exceed the rate."""
    if not rate:
        return 1.0
    return 1.0 / (rate // slots) if rate >= slots else slots / rate


_ROUNDING = 1e-9


class Turn(Enum):
    """What a call is for."""

    CANCEL = "cancel"
    SUBMIT = "submit"
    LOOK = "look"


class Turns:
    """Shares the budget between cancels, submits and looks: cancels first, the other two by shares while both wait.

    Args:
        submit_share: of the calls made while jobs wait to be submitted and jobs wait to be looked at, above 0 and
            below 1: those that submit.
    """

    def __init__(self, *, submit_share: float = 0.5) -> None:
        self._submit_share = submit_share
        self._saved = 1.0 - submit_share  # so that the first turn is a submit's

    def choose(self, *, cancel: bool, submit: bool, look: bool) -> Turn | None:
        """Whose turn it is.

        Args:
            cancel, submit, look: whether such a call waits.
        """
        if cancel:
            return Turn.CANCEL
        if submit and look:
            self._saved += self._submit_share
            if self._saved < 1.0 - _ROUNDING:
                return Turn.LOOK
            self._saved -= 1.0
        if submit:
            return Turn.SUBMIT
        return Turn.LOOK if look else None
