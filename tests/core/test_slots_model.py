"""Workers that share the rate against chance: slow, lost and late records, pauses, kills, restarts, at any moment.

The model is TAMS: it knows when each call may have been counted, and allows only so many in any window.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from bridge.core.slot_table import SlotTable, read_record
from tests.core.slot_world import Caller, World

SLOTS = 5
MOST_CALLERS = 5
READ_BACK = 64
"""Short enough that newcomers begin in the middle of the log, long enough that a table is always there."""

PICK = st.integers(0, 99)
DEMAND = st.tuples(st.sampled_from([0, 1, 7, 300]), st.sampled_from([1, SLOTS]))
ANSWER_TIMES = st.sampled_from([0.0, 0.05, 0.3, 4.0])
RECORD_ENDS = ["lands", "is lost", "is in doubt"]
ACTS = ["reads", "reads one", "writes", "sends", "takes answers", *RECORD_ENDS]


class SharedRate(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(read_back=READ_BACK)
        self.late: list[bytes] = []
        self.tables = [SlotTable()]

    def _caller(self, pick: int) -> Caller:
        return self.world.callers[pick % len(self.world.callers)]

    # ---- processes

    @initialize(demands=st.lists(DEMAND, min_size=1, max_size=3))
    def begin(self, demands: list[tuple[int, int]]) -> None:
        for demand in demands:
            self.world.start(demand=demand)
        self.world.run(3.0, step=0.1)

    @precondition(lambda self: len(self.world.callers) < MOST_CALLERS)
    @rule(offset=st.sampled_from([0.0, -900.0, 12_345.678]), demand=DEMAND)
    def start(self, offset: float, demand: tuple[int, int]) -> None:
        self.world.start(offset=offset, demand=demand)

    @precondition(lambda self: self.world.callers)
    @rule(pick=PICK, how=st.sampled_from(["killed", "leaves"]), lands=st.booleans())
    def stop(self, pick: int, how: str, *, lands: bool) -> None:
        caller = self._caller(pick)
        written = self.world.leave(caller) if how == "leaves" else self.world.kill(caller)
        (self.world.log if lands else self.late).extend(written)

    @precondition(lambda self: self.world.callers)
    @rule(pick=PICK, demand=DEMAND)
    def want(self, pick: int, demand: tuple[int, int]) -> None:
        self._caller(pick).demand(*demand)

    # ---- time

    @precondition(lambda self: self.world.callers)
    @rule(
        seconds=st.sampled_from([0.2, 1.0, 3.0, 7.0]),
        delay=st.sampled_from([0.0, 0.1, 0.7]),
        asleep=st.sets(PICK, max_size=3),
        interrupted=st.sets(PICK, max_size=2),
        answer_time=ANSWER_TIMES,
    )
    def work(self, seconds: float, delay: float, asleep: set[int], interrupted: set[int], answer_time: float) -> None:
        """All that do not stand still do as they should; some are interrupted when they are about to make calls."""
        sleepers = [self._caller(pick) for pick in asleep]
        self.world.run(seconds, delay=delay, answer_time=answer_time, step=0.1, asleep=sleepers)
        if interrupted:
            self.world.time += 1.1
        for caller in {self._caller(pick).name: self._caller(pick) for pick in interrupted}.values():
            self.world.take_answers(caller)
            self.world.take_turns(caller)

    @rule(seconds=st.sampled_from([0.01, 0.2, 0.9, 1.1, 3.1, 5.2]))
    def wait(self, seconds: float) -> None:
        """Everything stands still."""
        self.world.time += seconds

    # ---- one process, one thing at a time

    @precondition(lambda self: self.world.callers)
    @rule(pick=PICK, acts=st.lists(st.sampled_from(ACTS), min_size=1, max_size=4), answer_time=ANSWER_TIMES)
    def act(self, pick: int, acts: list[str], answer_time: float) -> None:
        caller = self._caller(pick)
        for act in acts:
            match act:
                case "reads":
                    self.world.read(caller)
                case "reads one":
                    self.world.read(caller, 1)
                case "writes":
                    self.world.write(caller)
                case "sends":
                    self.world.send(caller, answer_time=answer_time)
                case "takes answers":
                    self.world.take_answers(caller)
                case _:
                    self._end_of_record(caller, act)

    def _end_of_record(self, caller: Caller, end: str) -> None:
        """A record in doubt may land at any time, though its writer has given up waiting."""
        if end == "is in doubt":
            self.late += [value for _, value in caller.outbox]
        self.world.land(caller, lost=end != "lands")

    @precondition(lambda self: self.late)
    @rule(pick=PICK)
    def land_late(self, pick: int) -> None:
        self.world.log.append(self.late.pop(pick % len(self.late)))

    # ---- what must hold

    @invariant()
    def no_window_of_tams_holds_more_calls_than_it_allows(self) -> None:
        assert self.world.most_in_a_window() <= SLOTS

    @invariant()
    def no_slot_is_used_by_two(self) -> None:
        assert sum(caller.holder.usable(now=self.world.now(caller)) for caller in self.world.callers) <= SLOTS

    @invariant()
    def everybody_makes_the_same_of_the_log_wherever_they_began(self) -> None:
        for offset in range(len(self.tables) - 1, len(self.world.log)):
            record = read_record(self.world.log[offset])
            assert record is not None
            self.tables.append(self.tables[-1].after(offset, record))
        for caller in self.world.callers:
            assert caller.holder.table in [None, self.tables[caller.holder.position]]

    @override
    def teardown(self) -> None:
        """Once all is calm, every slot has an owner who lives, and everybody with work makes calls."""
        if not self.world.callers:
            return
        for caller in self.world.callers:
            caller.demand(3, SLOTS)
        self.world.run(12.0, step=0.05)
        settled = self.world.time
        self.world.run(15.0, step=0.05)

        workers = {caller.holder.worker for caller in self.world.callers}
        for caller in self.world.callers:
            assert caller.holder.table is not None
            assert set(caller.holder.table.members) == workers
            assert caller.holder.table.free == 0
        calls = self.world.calls_since(settled)
        assert set(calls) == {caller.name for caller in self.world.callers}
        assert sum(calls.values()) >= 0.8 * SLOTS * 15
        assert self.world.most_in_a_window() <= SLOTS


TestSharedRate = SharedRate.TestCase
TestSharedRate.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
