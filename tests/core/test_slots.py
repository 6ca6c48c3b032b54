"""How workers share the rate: each by itself, and all together in a world without failures."""

from itertools import pairwise

import msgspec
import pytest

from bridge.core.budget import COUNTED_AFTER, RateBudget
from bridge.core.slot_table import Expire, Leave, Member, Report, SlotTable
from bridge.core.slots import SlotHolder, SlotTimes
from tests.core.slot_world import Caller, World

NEVER = float("inf")
START = 1_000.0
BUSY = (50, 5)
IDLE = (0, 0)


class Desk:
    """One worker, and a log that it alone writes, unless a test does."""

    def __init__(self, *, load: int = 0) -> None:
        self.now = START
        self.log: list[bytes | None] = []
        self.budget = RateBudget(5)
        self.holder = SlotHolder("me", self.budget)
        self.holder.set_demand(load, 5)

    def begin(self, position: int = 0) -> None:
        self.holder.begin(position, now=self.now)

    def append(self, record: Report | Leave | Expire) -> None:
        """Somebody writes."""
        self.log.append(msgspec.json.encode(record))

    def write(self) -> Report | Leave | Expire | None:
        """Write what there is to write; it is in the log at once."""
        value = self.holder.write(now=self.now)
        if value is None:
            return None
        self.log.append(value)
        return msgspec.json.decode(value, type=Report | Leave | Expire)

    def read(self) -> None:
        for offset in range(self.holder.position, len(self.log)):
            self.holder.read(offset, self.log[offset], now=self.now)

    def join(self) -> None:
        self.begin()
        self.write()
        self.read()

    def wait(self, seconds: float, *, step: float = 0.5) -> None:
        """Time passes, and it does what it has to."""
        end = self.now + seconds
        while self.now < end:
            self.now += step
            self.write()
            self.read()

    @property
    def usable(self) -> int:
        return self.holder.usable(now=self.now)

    @property
    def table(self) -> SlotTable:
        assert self.holder.table is not None
        return self.holder.table


def report(worker: str, number: int = 1, **fields: object) -> Report:
    """What another worker writes."""
    given = {"slots": 5, "load": 0, "wanted": 5, "released": 0, "uptime_ms": 0, "position": 0, "table": None}
    return msgspec.convert({"type": "report", "worker": worker, "number": number, **given, **fields}, type=Report)


# ---- a worker alone


def test_nothing_is_usable_before_its_own_report_was_read_back() -> None:
    desk = Desk(load=1)
    desk.begin()
    assert desk.usable == 0

    desk.write()
    assert desk.usable == 0
    desk.read()

    assert desk.usable == 5


def test_worker_that_has_not_begun_has_nothing_to_write() -> None:
    desk = Desk(load=1)

    assert desk.write() is None
    assert desk.holder.next_at(now=desk.now) == NEVER


def test_first_slots_are_free_a_window_after_the_last_call_of_who_may_have_had_them() -> None:
    desk = Desk(load=1)

    desk.join()

    assert desk.budget.available_at() == START + 1.0 + COUNTED_AFTER


def test_worker_alone_writes_a_record_a_second() -> None:
    desk = Desk(load=1)
    desk.join()

    desk.wait(10.0, step=0.1)

    assert 10 <= len(desk.log) <= 12
    assert desk.usable == 5


def test_it_says_when_it_wants_to_write_next() -> None:
    desk = Desk(load=1)
    desk.join()

    assert desk.holder.next_at(now=desk.now) == START + 1.0
    desk.now = START + 0.9
    assert desk.write() is None
    desk.now = START + 1.0
    assert isinstance(desk.write(), Report)


def test_no_call_is_made_once_its_last_report_is_too_old() -> None:
    """Others may take it for dead soon."""
    desk = Desk(load=1)
    desk.join()

    desk.now = START + 2.9
    assert desk.usable == 5
    assert desk.budget.may_send(now=desk.now)
    desk.now = START + 3.0
    assert desk.usable == 0
    assert not desk.budget.may_send(now=desk.now)


def test_age_of_a_report_counts_from_before_it_was_written() -> None:
    """However late it is read back."""
    desk = Desk(load=1)
    desk.begin()
    desk.write()
    desk.now += 2.0
    desk.read()

    desk.now = START + 2.9
    assert desk.usable == 5
    desk.now = START + 3.0
    assert desk.usable == 0


def test_it_wants_to_be_asked_when_its_last_report_becomes_too_old() -> None:
    desk = Desk(load=1)
    desk.join()
    desk.now = START + 2.5
    desk.write()

    assert desk.holder.next_at(now=desk.now) == START + 3.0
    assert desk.holder.next_at(now=START + 3.0) == START + 3.5


def test_calls_go_on_once_kafka_answers_again() -> None:
    desk = Desk(load=1)
    desk.join()
    desk.now += 60.0
    assert desk.usable == 0

    desk.write()
    desk.read()

    assert desk.usable == 5


def test_after_leaving_it_makes_no_call_and_takes_nothing() -> None:
    desk = Desk(load=1)
    desk.join()
    desk.budget.take()
    worker = desk.holder.worker

    value = desk.holder.leave()

    assert value is not None
    assert msgspec.json.decode(value, type=Leave) == Leave(worker=worker)
    assert not desk.budget.may_send(now=desk.now)
    desk.now += 1.0
    assert desk.write() is None
    desk.append(report("other"))
    desk.read()
    assert desk.usable == 0
    assert desk.holder.next_at(now=desk.now) == NEVER


def test_worker_that_nobody_has_heard_of_leaves_without_a_word() -> None:
    desk = Desk()
    desk.begin()

    assert desk.holder.leave() is None


# ---- two workers


def test_slots_are_given_up_when_another_is_to_have_them_and_they_are_free() -> None:
    desk = Desk(load=1)
    desk.join()
    desk.now = START + 2.0
    desk.write()
    desk.read()
    for _ in range(4):
        desk.budget.take()
        desk.budget.give_back(sent_at=desk.now, now=desk.now)
    desk.append(report("other", load=1))

    desk.read()

    assert desk.usable in {2, 3}
    written = desk.write()
    assert isinstance(written, Report)
    assert written.released == 1
    assert desk.write() is None
    assert desk.holder.next_at(now=desk.now) == START + 3.0


def test_it_wants_to_be_asked_when_a_slot_that_others_wait_for_is_free() -> None:
    desk = Desk(load=1)
    desk.join()
    desk.now = START + 2.0
    desk.write()
    desk.read()
    for _ in range(5):
        desk.budget.take()
        desk.budget.give_back(sent_at=desk.now - 0.5, now=desk.now - 0.5)
    desk.append(report("other", load=1))

    desk.read()

    assert desk.holder.next_at(now=desk.now) == START + 2.5


def test_slots_that_were_given_up_may_be_used_by_another_at_once() -> None:
    world = World()
    giver, taker = world.start(), world.start()
    world.run(2.0)

    taker.demand(*BUSY)
    world.run(0.1)

    assert taker.holder.usable(now=world.now(taker)) == 5
    assert giver.holder.usable(now=world.now(giver)) == 0
    assert world.calls_since(world.time - 0.1)["w2"] == 5


def test_slots_of_who_left_are_used_a_window_after_its_last_call() -> None:
    world = World()
    leaver, stayer = world.start(demand=BUSY), world.start(demand=BUSY)
    world.run(10.0)

    world.log += world.leave(leaver)
    world.read(stayer)

    assert stayer.holder.usable(now=world.now(stayer)) == 5
    for _ in range(5):
        stayer.budget.take() if stayer.budget.available_at() < world.time + 1.05 else None
    assert stayer.budget.available_at() == world.time + 1.0 + COUNTED_AFTER


def test_slots_of_who_was_killed_come_back_when_it_was_silent_for_long_enough() -> None:
    world = World()
    victim, other = world.start(demand=BUSY), world.start(demand=BUSY)
    world.run(10.0)
    world.kill(victim)

    world.run(4.0)
    assert other.holder.usable(now=world.now(other)) < 5
    world.run(1.2)
    assert other.holder.usable(now=world.now(other)) == 5


def test_who_was_taken_for_dead_begins_again_under_another_name() -> None:
    desk = Desk(load=1)
    desk.join()
    before = desk.holder.worker
    desk.append(Expire(worker=before, last=0))

    desk.read()
    assert desk.usable == 0
    assert desk.holder.worker != before

    written = desk.write()
    assert isinstance(written, Report)
    assert written.worker == desk.holder.worker
    desk.read()
    assert desk.usable == 5
    assert desk.budget.available_at() == START + 1.0 + COUNTED_AFTER


def test_record_written_under_the_old_name_does_not_speak_for_the_new() -> None:
    """It was under way when its writer was taken for dead: what it gives up was another life's."""
    desk = Desk(load=1)
    desk.join()
    before = desk.holder.worker
    desk.append(Expire(worker=before, last=0))
    desk.append(report(before, 2, load=1))
    desk.append(report(before, 3, load=1, released=5))

    desk.read()

    assert desk.usable == 0


def test_silence_is_told_by_name_of_the_last_record_and_not_again_at_once() -> None:
    desk = Desk(load=1)
    desk.join()
    desk.append(report("dead", load=1))
    desk.read()
    desk.wait(4.5)
    assert "dead" in desk.table.members

    desk.now = START + 5.0
    while isinstance(written := desk.write(), Report):
        pass
    assert written == Expire(worker="dead", last=1)
    assert desk.write() is None
    desk.read()
    assert set(desk.table.members) == {desk.holder.worker}


def test_it_wants_to_be_asked_when_another_has_been_silent_for_too_long() -> None:
    desk = Desk()
    desk.join()
    desk.append(report("silent"))
    desk.read()
    desk.now = START + 4.9
    desk.write()
    desk.read()
    while desk.write() is not None:
        desk.read()

    assert desk.holder.next_at(now=desk.now) == START + 5.0


def test_who_stood_still_takes_nobody_for_dead() -> None:
    """It has not read what they have written meanwhile."""
    desk = Desk(load=1)
    desk.join()
    desk.append(report("other", load=1))
    desk.read()
    desk.now += 60.0

    written = [desk.write(), desk.write()]

    assert not any(isinstance(record, Expire) for record in written)


def test_work_that_comes_is_told_at_once() -> None:
    desk = Desk()
    desk.join()
    assert desk.write() is None

    desk.holder.set_demand(3, 5)

    assert desk.holder.next_at(now=desk.now) == desk.now
    written = desk.write()
    assert isinstance(written, Report)
    assert written.load == 3
    assert desk.write() is None


def test_work_that_ends_is_told_with_the_next_report() -> None:
    desk = Desk(load=1)
    desk.join()

    desk.holder.set_demand(0, 0)

    assert desk.write() is None


# ---- where a newcomer begins


def member(last: int, held: int = 5) -> Member:
    return Member(held=held, load=1, wanted=5, released=0, uptime_ms=0, last=last)


def test_newcomer_in_the_middle_begins_with_the_first_table_of_its_part_of_the_log() -> None:
    """One as of an earlier record is of no use: what came between was not read."""
    desk = Desk()
    desk.log = [None] * 10
    desk.begin(10)
    stale, table = SlotTable(slots=5, members={"x": member(9)}), SlotTable(slots=5, members={"a": member(10)})
    desk.append(report("a", 7, position=9, table=stale, load=1))
    desk.append(report("a", 8, position=11, load=1))
    desk.append(report("a", 9, position=11, table=table, load=1))

    desk.read()

    assert desk.table.members["a"].last == 12
    assert set(desk.table.members) == {"a"}


def test_records_before_the_table_that_is_found_are_in_it_already() -> None:
    desk = Desk()
    desk.log = [None] * 10
    desk.begin(10)
    desk.append(Leave(worker="a"))
    desk.append(report("a", load=1, position=11, table=SlotTable(slots=5, members={"a": member(9)})))

    desk.read()

    assert desk.table.members["a"].held == 5


def test_worker_that_is_only_known_from_the_table_found_is_taken_for_dead_as_well() -> None:
    """A worker was killed, and the next one begins long after."""
    desk = Desk(load=1)
    desk.log = [None] * 10
    desk.begin(10)
    ghost, other = member(8), member(9, held=0)
    table = SlotTable(slots=5, members={"ghost": ghost, "other": other})
    desk.append(report("other", load=1, position=10, table=table))
    desk.read()

    desk.wait(7.0)

    assert set(desk.table.members) == {desk.holder.worker}
    assert desk.usable == 5


def test_newcomer_makes_of_a_table_and_of_what_followed_what_the_others_do() -> None:
    world = World(read_back=30)
    for number in range(4):
        world.start(demand=(number, 5))
    world.run(30.0)
    old = world.callers[0]

    newcomer = world.start(demand=BUSY)
    world.run(10.0)

    assert len(world.log) > 100
    assert newcomer.holder.table == old.holder.table
    assert newcomer.holder.usable(now=world.now(newcomer)) >= 1


def test_newcomer_writes_nothing_before_it_knows_the_table() -> None:
    desk = Desk(load=1)
    desk.log = [None] * 10
    desk.begin(10)
    search = SlotTimes().search

    desk.now = START + search - 0.1
    assert desk.write() is None
    assert desk.holder.next_at(now=desk.now) == START + search


def test_newcomer_that_finds_no_table_for_long_begins_with_none() -> None:
    """Everybody who knew it is gone, and with them, after some days, all they wrote."""
    desk = Desk(load=1)
    desk.log = [None] * 10
    desk.begin(10)
    desk.append(report("long gone", load=1))
    desk.read()

    desk.now = START + SlotTimes().search
    desk.write()
    desk.read()
    assert set(desk.table.members) == {"long gone", desk.holder.worker}

    desk.wait(7.0)
    assert set(desk.table.members) == {desk.holder.worker}
    assert desk.usable == 5


def test_table_found_while_its_own_first_report_was_under_way_is_used() -> None:
    desk = Desk(load=1)
    desk.log = [None] * 10
    desk.begin(10)
    desk.now = START + SlotTimes().search
    desk.append(report("a", 7, position=10, table=SlotTable(slots=5, members={"a": member(9)}), load=1))
    desk.write()

    desk.read()

    assert desk.table.members["a"].held == 5
    assert desk.usable == 0


def test_log_that_was_made_anew_is_begun_again() -> None:
    """Nothing of the old one counts."""
    desk = Desk(load=1)
    desk.join()
    desk.wait(3.0)
    before = desk.holder.worker

    desk.log = []
    desk.begin()

    assert desk.usable == 0
    desk.write()
    desk.read()
    assert set(desk.table.members) == {desk.holder.worker}
    assert desk.holder.worker != before


@pytest.mark.parametrize("offset", [0, 7])
def test_record_that_is_not_the_next_begins_again(offset: int) -> None:
    """Some were deleted before they were read, or the log is another one."""
    desk = Desk(load=1)
    desk.join()
    desk.wait(1.0)
    assert desk.usable == 5

    desk.holder.read(offset, msgspec.json.encode(report("other")), now=desk.now)

    assert desk.usable == 0
    assert desk.holder.position == offset + 1


def test_who_reads_a_table_that_contradicts_its_own_begins_again() -> None:
    """One of the two is wrong, and neither knows which."""
    desk = Desk(load=1)
    desk.join()
    position = desk.holder.position
    desk.append(report("other", position=position, table=SlotTable(slots=5, members={"other": member(0)})))

    desk.read()

    assert desk.usable == 0
    assert desk.holder.table is None
    assert desk.holder.position == len(desk.log)


def test_contradiction_found_while_catching_up_begins_again_behind_all_that_was_read() -> None:
    """Two that lived apart, as the table that is found comes last and two others before it disagree."""
    desk = Desk(load=1)
    desk.log = [None] * 10
    desk.begin(10)
    early, late = SlotTable(slots=5, members={"a": member(9)}), SlotTable(slots=5, members={"b": member(9)})
    desk.now = START + SlotTimes().search
    desk.append(report("a", 2, position=9, table=early))
    desk.append(report("b", 3, position=9, table=late))
    desk.write()
    desk.append(report("b", 4, position=11, table=late))
    desk.append(report("b", 5, position=11))

    desk.read()

    assert desk.holder.table is None
    assert desk.holder.position == len(desk.log)


def test_records_that_are_none_are_passed_over() -> None:
    desk = Desk(load=1)
    desk.join()
    desk.log += [None, b"gossip"]

    desk.read()

    assert desk.usable == 5
    assert desk.holder.position == 3


LATER = b'{"type": "report", "worker": "new", "version": 2}'


def test_who_reads_a_record_of_later_rules_makes_no_call_from_then_on() -> None:
    """Those who know them share the rate among themselves; two tables of the same slots would be twice the rate."""
    desk = Desk(load=1)
    desk.join()
    desk.wait(3.0)
    assert desk.usable == 5
    assert not desk.holder.gives_way(now=desk.now)

    desk.log.append(LATER)
    desk.read()

    assert desk.usable == 0
    assert desk.budget.available_at(now=desk.now) == NEVER
    assert desk.holder.gives_way(now=desk.now)


def test_it_gives_way_for_as_long_as_records_of_later_rules_come() -> None:
    """And for as long as a newcomer searches, it writes nothing itself: that it lives is of no interest to them."""
    desk = Desk(load=1)
    desk.join()
    for _ in range(10):
        desk.log.append(LATER)
        written = len(desk.log)
        desk.wait(5.0)
        assert (desk.usable, len(desk.log)) == (0, written)

    desk.wait(SlotTimes().search + 3.0)

    assert desk.usable == 5
    assert not desk.holder.gives_way(now=desk.now)


def test_no_table_from_before_is_believed_after_giving_way() -> None:
    """It may have been written by somebody who had not read yet that there are others."""
    desk = Desk(load=1)
    desk.join()
    desk.log.append(LATER)
    desk.append(report("slow", position=0, table=SlotTable(slots=5, members={"slow": member(1)})))

    desk.read()

    assert desk.holder.table is None
    assert desk.usable == 0


def test_every_few_records_carry_a_table_though_some_are_lost() -> None:
    desk = Desk(load=1)
    desk.join()
    for _ in range(20):
        desk.wait(1.0)
        desk.now += 0.6
        lost = desk.holder.write(now=desk.now)
        del lost
    carrying = [
        offset
        for offset, value in enumerate(desk.log)
        if msgspec.json.decode(value or b"null", type=Report).table is not None
    ]

    assert carrying[0] == 0
    assert all(4 <= later - earlier <= 5 for earlier, later in pairwise(carrying))


# ---- all together


def steady(world: World, seconds: float) -> dict[str, int]:
    """Let them find their shares; then the calls of each in the time given."""
    world.run(15.0)
    since = world.time
    world.run(seconds)
    return dict(world.calls_since(since))


def test_three_loaded_workers_use_nine_tenths_of_the_rate() -> None:
    world = World()
    for number in range(3):
        world.start(demand=BUSY, offset=number * 1e5)

    calls = steady(world, 60.0)

    assert sum(calls.values()) >= 0.92 * 5 * 60
    assert max(calls.values()) <= 1.1 * min(calls.values())
    assert world.most_in_a_window() <= 5


def test_one_loaded_worker_beside_idle_ones_uses_nine_tenths_of_the_rate() -> None:
    world = World()
    for demand in (IDLE, BUSY, IDLE):
        world.start(demand=demand)

    calls = steady(world, 60.0)

    assert set(calls) == {"w2"}
    assert calls["w2"] >= 0.92 * 5 * 60


def test_eight_workers_with_five_slots_make_even_progress() -> None:
    world = World()
    for _ in range(8):
        world.start(demand=BUSY)

    calls = steady(world, 60.0)

    assert sum(calls.values()) >= 0.9 * 5 * 60
    assert max(calls.values()) <= 1.3 * min(calls.values())
    assert world.most_in_a_window() <= 5


def test_none_of_eight_workers_waits_long_for_its_turn() -> None:
    world = World()
    for _ in range(8):
        world.start(demand=BUSY)
    steady(world, 60.0)

    for caller in world.callers:
        sent = [call.earliest for call in world.calls if call.worker == caller.name and call.earliest > START + 15]
        assert max(later - earlier for earlier, later in pairwise(sent)) < 8.0


def test_sharing_costs_no_more_than_one_worker_alone_loses_by_itself() -> None:
    alone = World()
    alone.start(demand=BUSY)
    shared = World()
    for _ in range(3):
        shared.start(demand=BUSY)

    assert sum(steady(shared, 60.0).values()) >= 0.99 * sum(steady(alone, 60.0).values())


@pytest.mark.parametrize(("rate", "workers"), [(0.5, 3), (2.5, 2), (20.0, 3)])
def test_other_rates_are_kept_and_used_too(rate: float, workers: int) -> None:
    """Of a rate with a fraction, only the whole part is used."""
    world = World(rate=rate)
    for _ in range(workers):
        world.start(demand=(50, 20))

    calls = steady(world, 120.0)

    assert sum(calls.values()) >= 0.9 * max(int(rate), rate if rate < 1 else 0) * 120
    assert world.most_in_a_window() <= max(1, int(rate))


def test_work_that_comes_to_an_idle_worker_gets_its_first_call_within_a_window() -> None:
    world = World()
    idle = world.start(demand=IDLE)
    for _ in range(2):
        world.start(demand=BUSY)
    world.run(15.3)
    since = world.time

    idle.demand(1, 1)
    world.run(3.0)

    first = min(call.earliest for call in world.calls if call.worker == idle.name)
    assert first - since <= 1.2


def test_worker_that_stops_hands_its_part_on_within_two_seconds() -> None:
    world = World()
    first, _ = world.start(demand=BUSY), world.start(demand=BUSY)
    world.run(15.0)

    world.log += world.leave(first)
    world.run(1.5)
    since = world.time
    world.run(10.0)

    assert sum(world.calls_since(since).values()) >= 0.9 * 5 * 10
    assert world.most_in_a_window() <= 5


def test_handing_on_takes_few_records() -> None:
    """Three workers write three a second to say that they live; what moves between them must not add much."""
    world = World()
    for _ in range(3):
        world.start(demand=BUSY)
    world.run(15.0)
    before = len(world.log)

    world.run(60.0)

    assert len(world.log) - before <= 60 * 4


def holders(world: World) -> list[int]:
    return [caller.holder.usable(now=world.now(caller)) for caller in world.callers]


def test_process_that_stood_still_makes_no_call_when_it_wakes() -> None:
    world = World()
    sleeper: Caller = world.start(demand=BUSY)
    world.start(demand=BUSY)
    world.run(10.0)
    world.take_turns(sleeper)
    world.time += 0.9
    world.take_answers(sleeper)
    world.take_turns(sleeper)
    assert sleeper.turns

    world.run(8.0, asleep=[sleeper])
    assert holders(world) == [0, 5]
    since = world.time
    world.send(sleeper, answer_time=0.0)

    assert world.calls_since(since) == {}
    world.run(10.0)
    assert world.calls_since(world.time - 5.0)[sleeper.name] > 5
    assert world.most_in_a_window() <= 5
