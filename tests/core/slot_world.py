"""Workers that share a rate through a log, in a world where a test decides what is slow, lost, paused or killed."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from bridge.core.budget import COUNTED_AFTER, RateBudget
from bridge.core.slots import READ_BACK, SlotHolder

ROUNDING_S = 1e-6
STEP_S = 0.01


@dataclass(slots=True, eq=False)
class Call:
    """A call as TAMS may see it, in true time.

    Args:
        worker: whose.
        earliest, latest: between when TAMS counts it.
        answered: when its answer comes.
    """

    worker: str
    earliest: float
    latest: float
    answered: float


@dataclass(slots=True, eq=False)
class Caller:
    """A worker process.

    Args:
        name: its name.
        holder, budget: what is tested.
        offset: what its clock is ahead of true time.
        has_work: whether it makes calls.
        turns: calls it has taken and not sent yet.
        flying: calls it has sent that are not answered yet.
        outbox: records it has written that are not in the log yet, each with the true time it was written at.
    """

    name: str
    holder: SlotHolder
    budget: RateBudget
    offset: float
    has_work: bool = False
    turns: int = 0
    flying: list[Call] = field(default_factory=list)
    outbox: list[tuple[float, bytes]] = field(default_factory=list)

    def demand(self, load: int, wanted: int) -> None:
        """Work comes, or goes."""
        self.holder.set_demand(load, wanted)
        self.has_work = load > 0


@dataclass(slots=True)
class World:
    """The log, TAMS and true time.

    Args:
        rate: calls a second that TAMS allows.
        read_back: how far before the log's end a newcomer begins.
    """

    rate: float = 5
    read_back: int = READ_BACK
    time: float = 1_000.0
    log: list[bytes] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    started: int = 0

    def start(self, *, offset: float = 0.0, demand: tuple[int, int] = (0, 0)) -> Caller:
        """A new process begins to read."""
        self.started += 1
        name = f"w{self.started}"
        budget = RateBudget(self.rate)
        caller = Caller(name, SlotHolder(name, budget), budget, offset)
        caller.demand(*demand)
        self.begin(caller)
        self.callers.append(caller)
        return caller

    def begin(self, caller: Caller) -> None:
        caller.holder.begin(max(0, len(self.log) - self.read_back), now=self.now(caller))

    def kill(self, caller: Caller) -> list[bytes]:
        """It is gone; what it has written may land later, or not."""
        self.callers.remove(caller)
        return [value for _, value in caller.outbox]

    def leave(self, caller: Caller) -> list[bytes]:
        """It stops as it should; what was under way before its last word lands before it."""
        last_word = caller.holder.leave()
        written = self.kill(caller)
        return [*written, last_word] if last_word is not None else written

    def now(self, caller: Caller) -> float:
        return self.time + caller.offset

    def read(self, caller: Caller, most: int | None = None) -> None:
        position = caller.holder.position
        end = len(self.log) if most is None else position + most
        for offset in range(position, min(end, len(self.log))):
            caller.holder.read(offset, self.log[offset], now=self.now(caller))

    def write(self, caller: Caller) -> None:
        """As the adapter does: one record at a time."""
        if not caller.outbox and (value := caller.holder.write(now=self.now(caller))) is not None:
            caller.outbox.append((self.time, value))

    def land(self, caller: Caller, *, after: float = 0.0, lost: bool = False) -> None:
        """The record under way comes into the log, if it was written so long ago; or does not."""
        if caller.outbox and caller.outbox[0][0] <= self.time - after:
            _, value = caller.outbox.pop(0)
            if not lost:
                self.log.append(value)

    def take_turns(self, caller: Caller) -> None:
        """Take all calls that may be made now."""
        while caller.budget.available_at(now=self.now(caller)) <= self.now(caller):
            caller.budget.take()
            caller.turns += 1

    def send(self, caller: Caller, *, answer_time: float, counted: float = 1.0) -> None:
        """Send all calls that were taken; those that may not be sent any more are given back.

        Args:
            caller: whose.
            answer_time: how long each answer takes.
            counted: when TAMS counts them, between sending (0) and the latest moment possible (1).
        """
        for _ in range(caller.turns):
            if not caller.budget.may_send(now=self.now(caller)):
                caller.budget.give_back(sent_at=None, now=self.now(caller))
                continue
            latest = self.time + min(answer_time, COUNTED_AFTER) * counted
            call = Call(caller.name, self.time, latest, self.time + answer_time)
            caller.flying.append(call)
            self.calls.append(call)
        caller.turns = 0

    def take_answers(self, caller: Caller) -> None:
        for call in [call for call in caller.flying if call.answered <= self.time]:
            caller.flying.remove(call)
            caller.budget.give_back(sent_at=call.earliest + caller.offset, now=self.now(caller))

    def run(
        self,
        seconds: float,
        *,
        delay: float = 0.02,
        answer_time: float = 0.05,
        step: float = STEP_S,
        asleep: Collection[Caller] = (),
    ) -> None:
        """Let all processes run as they should for a while; those with work call whenever they may.

        Args:
            seconds: how long.
            delay: until a record is in the log, in seconds.
            answer_time: of TAMS.
            step: how finely time passes.
            asleep: who stands still meanwhile; what they have written comes into the log, though.
        """
        for _ in range(round(seconds / step)):
            self.time += step
            for caller in self.callers:
                self.land(caller, after=delay)
                if caller not in asleep:
                    self.work(caller, answer_time=answer_time)

    def work(self, caller: Caller, *, answer_time: float = 0.0) -> None:
        """Everything that a process does; it calls before it reads, as one that stood still may."""
        self.take_answers(caller)
        if caller.has_work:
            self.take_turns(caller)
        self.send(caller, answer_time=answer_time)
        self.read(caller)
        self.write(caller)

    # ---- what TAMS saw

    def most_in_a_window(self) -> int:
        """The most calls that one window of TAMS may hold: as late as possible up to its start, then as early."""
        window = max(1, int(self.rate)) / self.rate
        earliest = sorted(call.earliest for call in self.calls)
        latest = sorted(call.latest for call in self.calls)
        return max(
            (bisect_left(earliest, start + window - ROUNDING_S) - bisect_left(latest, start) for start in latest),
            default=0,
        )

    def calls_since(self, time: float) -> Counter[str]:
        return Counter(call.worker for call in self.calls if call.earliest >= time)
