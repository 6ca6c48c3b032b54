"""Who holds how many slots, from the records alone."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.slot_table import Expire, Leave, Report, SlotRecord, SlotTable, is_of_later_rules, read_record


class Log:
    """Records as workers write them, and the table they make."""

    def __init__(self, slots: int = 5) -> None:
        self.slots = slots
        self.table = SlotTable()
        self.end = 0
        self._released: dict[str, int] = {}
        self._uptime_ms: dict[str, int] = {}

    def append(self, record: SlotRecord) -> SlotTable:
        before = self.table
        self.table = self.table.after(self.end, record)
        self.end += 1
        return before

    def report(self, worker: str, load: int = 0, *, wanted: int = 5, released: int = 0, ms: int = 0) -> SlotTable:
        """Report, with what it gives up and how long its last report was ago."""
        self._released[worker] = self._released.get(worker, 0) + released
        self._uptime_ms[worker] = self._uptime_ms.get(worker, 0) + ms
        return self.append(self.record(worker, load, wanted=wanted))

    def record(self, worker: str, load: int = 0, *, wanted: int = 5) -> Report:
        return Report(
            worker=worker,
            number=1,
            slots=self.slots,
            load=load,
            wanted=wanted,
            released=self._released.get(worker, 0),
            uptime_ms=self._uptime_ms.get(worker, 0),
            position=self.end,
        )

    def settle(self) -> None:
        """Everybody gives up what others are to have, until nobody has any more to give."""
        while excess := {worker: extra for worker, extra in self.excess().items() if extra > 0}:
            for worker, extra in excess.items():
                member = self.table.members[worker]
                self.report(worker, member.load, wanted=member.wanted, released=extra)

    def excess(self) -> dict[str, int]:
        targets = self.table.targets()
        return {worker: member.held - targets[worker] for worker, member in self.table.members.items()}

    def second(self) -> None:
        """A second passes for everybody."""
        for worker, member in list(self.table.members.items()):
            self.report(worker, member.load, wanted=member.wanted, ms=1000)
        self.settle()

    def held(self) -> dict[str, int]:
        return {worker: member.held for worker, member in self.table.members.items()}


def log_of(loads: dict[str, int], *, slots: int = 5, wanted: int = 5) -> Log:
    """A log of workers that all have what they should have."""
    log = Log(slots)
    for worker, load in loads.items():
        log.report(worker, load, wanted=wanted)
    log.settle()
    return log


# ---- shares


@pytest.mark.parametrize("load", [0, 7])
def test_one_worker_alone_holds_all_slots(load: int) -> None:
    assert log_of({"a": load}).held() == {"a": 5}


def test_idle_workers_share_evenly() -> None:
    """So that the first call of each need not wait."""
    assert sorted(log_of({"a": 0, "b": 0, "c": 0}).held().values()) == [1, 2, 2]


def test_worker_with_work_has_the_slots_of_the_idle() -> None:
    assert log_of({"a": 0, "b": 9, "c": 0}).held() == {"a": 0, "b": 5, "c": 0}


def test_slots_that_one_can_make_no_use_of_stay_with_the_idle() -> None:
    log = Log()
    log.report("a", 9, wanted=3)
    log.report("b")
    log.report("c")
    log.settle()

    assert log.held() == {"a": 3, "b": 1, "c": 1}


def test_slots_that_nobody_can_make_use_of_are_shared_all_the_same() -> None:
    assert sum(log_of({"a": 1, "b": 1}, wanted=1).held().values()) == 5


def test_shares_follow_load() -> None:
    log = log_of({"a": 600, "b": 400})
    had = dict.fromkeys("ab", 0)
    for _ in range(100):
        log.second()
        for worker, held in log.held().items():
            had[worker] += held

    assert abs(had["a"] - log.table.dues()["a"] / 1000 * 100) <= 4
    assert abs(had["a"] - 300) <= 10


def test_smallest_load_is_due_a_quarter_of_a_slot() -> None:
    """Its jobs must not wait for ever behind those of the largest."""
    assert log_of({"a": 1_000_000, "b": 1}).table.dues() == {"a": 4750, "b": 250}


def test_least_due_is_less_where_many_share() -> None:
    dues = log_of({f"w{number}": 1 for number in range(40)}).table.dues()

    assert set(dues.values()) == {125}


def test_worker_that_joins_idle_workers_gets_its_part() -> None:
    log = log_of({"a": 0})

    log.report("b")
    log.settle()

    assert sorted(log.held().values()) == [2, 3]


def test_slots_of_who_leaves_go_to_the_others_at_once() -> None:
    log = log_of({"a": 1, "b": 1})

    log.append(Leave(worker="a"))

    assert log.held() == {"b": 5}


def test_slots_of_who_leaves_last_are_there_for_the_next() -> None:
    log = log_of({"a": 1})
    log.append(Leave(worker="a"))
    assert log.table.free == 5

    log.report("b")

    assert log.held() == {"b": 5}


def test_number_of_slots_is_what_the_newest_worker_says() -> None:
    """A change of the settings comes with a restart, one worker after the other."""
    log = log_of({"old": 1})
    log.slots = 8
    log.report("new", 1)
    log.slots = 5
    log.report("old", 1)
    log.settle()

    assert log.table.slots == 8
    assert log.held() == {"old": 4, "new": 4}


def test_slots_that_are_no_more_vanish_as_they_are_given_up() -> None:
    log = log_of({"old": 1})
    log.slots = 2
    log.report("new", 1)
    assert log.held() == {"old": 5, "new": 0}

    log.settle()

    assert log.held() == {"old": 1, "new": 1}


# ---- turns


def test_small_changes_of_load_move_nothing() -> None:
    """One in a hundred jobs more or less, around the very load at which a worker is due a whole number of slots."""
    log = log_of({"a": 60, "b": 40})
    for _ in range(5):
        log.second()
    assert log.held() == {"a": 3, "b": 2}
    for load in (59, 61, 60, 58, 62) * 4:
        log.report("a", load, ms=200)
        log.settle()

    assert log.held() == {"a": 3, "b": 2}


def test_slot_that_none_has_in_full_goes_round() -> None:
    """Three times five thirds are five slots; whoever has one only has it for a while."""
    log = log_of({"a": 1, "b": 1, "c": 1})
    had = dict.fromkeys("abc", 0)
    for _ in range(60):
        log.second()
        assert sorted(log.held().values()) == [1, 2, 2]
        for worker, held in log.held().items():
            had[worker] += held

    assert max(had.values()) - min(had.values()) <= 5


def test_more_workers_than_slots_take_turns() -> None:
    log = log_of({f"w{number}": 1 for number in range(8)})
    had = dict.fromkeys(log.held(), 0)
    for _ in range(80):
        log.second()
        for worker, held in log.held().items():
            had[worker] += held

    assert sum(had.values()) == 5 * 80
    assert max(had.values()) - min(had.values()) <= 4


def test_who_gets_a_slot_in_turn_keeps_it_for_a_while() -> None:
    """Each move costs the time a record takes."""
    log = log_of({f"w{number}": 1 for number in range(8)})
    moves = 0
    for _ in range(60):
        before = log.held()
        log.second()
        moves += sum(max(0, held - before[worker]) for worker, held in log.held().items())

    assert moves <= 80


def test_nothing_moves_between_who_has_all_it_can_use_and_the_idle() -> None:
    log = Log()
    log.report("busy", 9, wanted=2)
    log.report("idle")
    log.report("idle too")
    log.settle()
    for _ in range(5):
        log.second()
    before = log.held()
    for _ in range(20):
        log.second()

        assert log.held() == before


def test_turns_of_idle_workers_do_not_change() -> None:
    log = log_of({f"w{number}": 0 for number in range(8)})
    before = log.held()
    for _ in range(20):
        log.second()

    assert log.held() == before


def test_worker_that_gets_work_is_first_in_line() -> None:
    """It does not wait for the turns of those that were busy all the time to end."""
    log = log_of({f"w{number}": 1 for number in range(8)} | {"new": 0})
    for _ in range(3):
        log.second()
    assert log.held()["new"] == 0

    log.report("new", 1)

    assert log.table.targets()["new"] == 1


# ---- records that are late, lost or doubled


def test_what_was_given_up_counts_once_though_it_is_told_twice() -> None:
    log = log_of({"a": 1, "b": 1})
    told = log.held()

    for _ in range(3):
        log.append(log.record("a", 1))

    assert log.held() == told


def test_what_a_lost_report_gave_up_counts_with_the_next() -> None:
    log = log_of({"a": 0})
    log.report("b", 1)
    log._released["a"] = 3

    log.report("a", released=2)

    assert log.held() == {"a": 0, "b": 5}


def test_late_report_takes_nothing_back() -> None:
    log = log_of({"a": 0})
    late = log.record("a")
    log.report("b", 1)
    log.settle()

    log.append(late)

    assert log.held() == {"a": 0, "b": 5}


def test_worker_that_reported_since_does_not_expire() -> None:
    log = log_of({"a": 1, "b": 1})
    heard = log.table.members["a"].last
    log.report("a", 1)

    log.append(Expire(worker="a", last=heard))
    assert set(log.held()) == {"a", "b"}

    log.append(Expire(worker="a", last=log.table.members["a"].last))
    assert log.held() == {"b": 5}


@pytest.mark.parametrize("record", [Leave(worker="x"), Expire(worker="x", last=0)])
def test_end_of_a_worker_that_nobody_knows_changes_nothing(record: SlotRecord) -> None:
    log = log_of({"a": 1, "b": 1})

    before = log.append(record)

    assert log.table == before


def test_slots_may_be_used_at_once_only_if_they_were_given_up_free() -> None:
    log = log_of({"a": 1, "b": 1})

    assert log.table.hands_over(log.record("a"))
    assert not log.table.hands_over(log.record("newcomer"))
    assert not log.table.hands_over(Leave(worker="a"))
    assert not log.table.hands_over(Expire(worker="a", last=0))


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"\xff",
        b'{"type": "report"}',
        b'{"type": "gossip", "worker": "a", "version": 1}',
        b'{"type": "leave", "worker": "a", "version": 2}',
        b'{"type": "expire", "worker": "a", "last": -1, "version": 1}',
        (
            b'{"type":"report","worker":"a","number":1,"slots":100001,"load":0,"wanted":0,"released":0,"uptime_ms":0,'
            b'"position":0}'
        ),
        b'{"type": "leave", "worker": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_record_of_these_rules_is_not_read(value: bytes | None) -> None:
    assert read_record(value) is None


@pytest.mark.parametrize(
    ("value", "is_later"),
    [
        (b'{"type": "gossip", "version": 2}', True),
        (b'{"version": 99}', True),
        (b'{"type": "leave", "worker": "a", "version": 1}', False),
        (b'{"type": "leave", "worker": "a", "version": 0}', False),
        (b'{"version": "two"}', False),
        (b"{}", False),
        (b"\xff", False),
        (b"[" * 100_000, False),
        (None, False),
    ],
)
def test_record_of_later_rules_is_told_from_what_is_no_record(value: bytes | None, is_later: bool) -> None:  # noqa: FBT001
    assert is_of_later_rules(value) is is_later


def test_record_says_which_rules_it_was_written_by() -> None:
    assert read_record(msgspec.json.encode(Leave(worker="a"))) == Leave(worker="a")
    assert b'"version":1' in msgspec.json.encode(Leave(worker="a"))


# ---- whatever happens

WORKERS = st.sampled_from("abcdefg")
LOADS = st.integers(0, 3) | st.integers(0, 10**6)
EVENTS = st.lists(
    st.tuples(st.just("report"), WORKERS, LOADS, st.integers(0, 6))
    | st.tuples(st.just("settle"), WORKERS, st.just(0), st.just(0))
    | st.tuples(st.sampled_from(["leave", "expire"]), WORKERS, st.just(0), st.just(0)),
    max_size=40,
)


def happen(log: Log, event: tuple[str, str, int, int]) -> None:
    what, worker, load, wanted = event
    match what:
        case "report":
            log.report(worker, load, wanted=wanted, ms=700)
        case "settle":
            log.settle()
        case "leave":
            log.append(Leave(worker=worker))
        case _:
            known = log.table.members.get(worker)
            log.append(Expire(worker=worker, last=known.last if known else 0))


@given(EVENTS, st.integers(1, 12))
def test_every_slot_has_one_holder(events: list[tuple[str, str, int, int]], slots: int) -> None:
    log = Log(slots)
    for event in events:
        happen(log, event)
        if log.table.members:
            assert sum(log.held().values()) == slots
            assert min(log.held().values()) >= 0


@given(EVENTS, st.integers(1, 12))
def test_targets_use_every_slot_and_are_dues_without_their_fractions_or_one_more(
    events: list[tuple[str, str, int, int]], slots: int
) -> None:
    log = Log(slots)
    for event in events:
        happen(log, event)
        dues, targets = log.table.dues(), log.table.targets()
        if log.table.members:
            assert sum(dues.values()) == 1000 * slots
            assert sum(targets.values()) == slots
        assert all(due // 1000 <= targets[worker] <= -(-due // 1000) for worker, due in dues.items())


@given(EVENTS)
def test_table_that_was_written_down_goes_on_as_the_one_that_was_not(events: list[tuple[str, str, int, int]]) -> None:
    """A newcomer makes of the records what everybody else does."""
    log, newcomer = Log(), Log()
    for event in events:
        newcomer.table = msgspec.json.decode(msgspec.json.encode(newcomer.table), type=SlotTable)
        happen(log, event)
        happen(newcomer, event)

        assert newcomer.table == log.table


@given(st.lists(LOADS.filter(bool), min_size=2, max_size=7))
def test_more_load_is_never_due_less(loads: list[int]) -> None:
    log = log_of({f"w{number}": load for number, load in enumerate(loads)}, wanted=99)
    dues = log.table.dues()
    ordered = [due for _, due in sorted((load, dues[f"w{number}"]) for number, load in enumerate(loads))]

    assert all(later >= earlier - 1 for earlier, later in pairwise(ordered))
