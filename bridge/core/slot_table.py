"""Who holds how many slots of the rate: what every worker makes of the same log.

The log is a topic of one partition. Every worker folds the same records in the same order into the same table: no
clock and no chance has a part in it, and all numbers are whole. A record that is written twice, lost or late does no
harm: what a worker has given up is counted from its beginning.

Shares follow load: what a member is due is a part of all slots, in thousandths. Whole slots are given for good; the
slot that a fraction stands for is lent in turn, to whoever has most credit. A member has credit for the time it had
less than its due, by the time that its own records tell.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec.structs import replace

from bridge.core.layouts import UNREADABLE

VERSION = 1

_THOUSAND = 1000
_LEAST = 250
"""What a member with load is due at the least, in thousandths of a slot; a quarter of an equal part if that is less."""

_TURN = 1_000
"""Credit, in slot milliseconds, by which another must be ahead before a slot changes hands for a fraction's sake."""

_MOST_CREDIT = 3 * _TURN

_MOST_SLOTS = 100_000
"""More calls at once nobody makes; who believed in more would count them one by one."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Slots = Annotated[int, msgspec.Meta(ge=0, le=_MOST_SLOTS)]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as the table has it.

    Args:
        held: its slots.
        load: how much work it has, on the scale all workers use; slots go by it.
        wanted: how many slots it could make use of at once.
        released: how many slots it has given up since it began.
        uptime_ms: how long it had been running at its last record.
        credit: what it has had less than its due, in slot milliseconds; below zero if more.
        last: offset of its last record.
    """

    held: Slots = 0
    load: Count
    wanted: Count
    released: Count
    uptime_ms: Count
    credit: int = 0
    last: Count


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report", tag_field="type"):
    """A worker says that it lives and what it could use; its first report makes it a member.

    Args:
        worker: its id; a worker that was taken for dead comes back under another.
        number: of this report, from 1.
        slots: how many there are, as its settings say; the word of who joined last counts.
        load, wanted, uptime_ms: see `Member`.
        released: see `Member`; the slots that it newly counts were free when the report was written.
        position: offset of the next record it had not read.
        table: the table before that record, now and then, so that a newcomer need not read the log from its beginning.
        version: of the rules in this file; records of another are not read.
    """

    worker: str
    number: Count
    slots: Annotated[int, msgspec.Meta(ge=1, le=_MOST_SLOTS)]
    load: Count
    wanted: Count
    released: Count
    uptime_ms: Count
    position: Count
    table: "SlotTable | None" = None
    version: int = VERSION


class Leave(msgspec.Struct, frozen=True, kw_only=True, tag="leave", tag_field="type"):
    """A worker makes no more calls; its slots are free one window after its last."""

    worker: str
    version: int = VERSION


class Expire(msgspec.Struct, frozen=True, kw_only=True, tag="expire", tag_field="type"):
    """Somebody has heard nothing from a worker for too long; of no effect if it did report meanwhile.

    Args:
        worker: who is silent.
        last: offset of its last record as far as the writer knows.
    """

    worker: str
    last: Count
    version: int = VERSION


SlotRecord = Report | Leave | Expire


class SlotTable(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds what.

    Args:
        slots: how many there are.
        members: by id of the worker.
    """

    slots: Slots = 0
    members: dict[str, Member] = {}

    @property
    def free(self) -> int:
        """How many slots nobody holds; none, except while there are no members."""
        return max(0, self.slots - sum(member.held for member in self.members.values()))

    def after(self, offset: int, record: SlotRecord) -> "SlotTable":
        """The table after the record at this offset."""
        match record:
            case Report():
                return _handed_out(self._reported(offset, record))
            case Expire(worker=worker, last=last) if worker in self.members and self.members[worker].last != last:
                return self
            case _:
                members = {worker: member for worker, member in self.members.items() if worker != record.worker}
                return _handed_out(replace(self, members=members))

    def hands_over(self, record: SlotRecord) -> bool:
        """Whether slots gained by this record were free when it was written, and so may be used at once.

        Those of a worker that left or fell silent may have been used right before.
        """
        return isinstance(record, Report) and record.worker in self.members

    def dues(self) -> dict[str, int]:
        """What each member is due, in thousandths of a slot: in all, every slot, if there is a member.

        By load, as far as members can make use of it; then one to each that has none, so that its first call need not
        wait; then evenly.
        """
        dues = dict.fromkeys(sorted(self.members), 0)
        left = _THOUSAND * self.slots
        loads = {worker: member.load for worker in dues if (member := self.members[worker]).load and member.wanted}
        if loads:
            least = min(_LEAST, left // (4 * len(loads)))
            dues |= dict.fromkeys(loads, least)
            left -= least * len(loads)
        evenly = dict.fromkeys(dues, 1)
        left = _pour(dues, left, loads, {worker: _THOUSAND * self.members[worker].wanted for worker in loads})
        left = _pour(dues, left, evenly, dict.fromkeys(dues, _THOUSAND))
        _pour(dues, left, evenly, dict.fromkeys(dues, _THOUSAND * self.slots))
        return dues

    def targets(self) -> dict[str, int]:
        """How many slots each member should hold now: in all, every slot, if there is a member."""
        dues = self.dues()
        targets = {worker: due // _THOUSAND for worker, due in dues.items()}

        def claim(worker: str) -> tuple[int, int, str]:
            member = self.members[worker]
            lent = member.held > targets[worker]
            return (member.credit + (_TURN if lent else 0), dues[worker] % _THOUSAND, worker)

        claimants = sorted((worker for worker, due in dues.items() if due % _THOUSAND), key=claim, reverse=True)
        for worker in claimants[: self.slots - sum(targets.values())]:
            targets[worker] += 1
        return targets

    def _reported(self, offset: int, record: Report) -> "SlotTable":
        member = self.members.get(record.worker)
        if member is None:
            joined = Member(
                load=record.load,
                wanted=record.wanted,
                released=record.released,
                uptime_ms=record.uptime_ms,
                credit=self._first_in_line(),
                last=offset,
            )
            return SlotTable(slots=record.slots, members={**self.members, record.worker: joined})
        released = max(member.released, record.released)
        uptime_ms = max(member.uptime_ms, record.uptime_ms)
        reported = Member(
            held=max(0, member.held - (released - member.released)),
            load=record.load,
            wanted=record.wanted,
            released=released,
            uptime_ms=uptime_ms,
            credit=self._credit(record, member, uptime_ms - member.uptime_ms),
            last=offset,
        )
        return replace(self, members={**self.members, record.worker: reported})

    def _credit(self, record: Report, member: Member, gap_ms: int) -> int:
        if not record.load:
            return 0
        if not member.load:
            return self._first_in_line()
        due = min(self.dues()[record.worker], _THOUSAND * member.wanted)
        credit = member.credit + (due - _THOUSAND * member.held) * gap_ms // _THOUSAND
        return min(max(credit, -_MOST_CREDIT), _MOST_CREDIT)

    def _first_in_line(self) -> int:
        """More credit than anybody's: a first call waits for nobody's turn to end."""
        return max((member.credit for member in self.members.values()), default=0) + _TURN + 1


class _Head(msgspec.Struct):
    version: int = 0


def is_of_later_rules(value: bytes | None) -> bool:
    """Whether a worker of a later release wrote this, by rules that this file does not know."""
    try:
        return msgspec.json.decode(value or b"", type=_Head).version > VERSION
    except UNREADABLE:
        return False


def read_record(value: bytes | None) -> SlotRecord | None:
    """A record of the log; None if it is none, or of other rules."""
    try:
        record: SlotRecord = msgspec.json.decode(value or b"", type=SlotRecord)
    except UNREADABLE:
        return None
    return record if record.version == VERSION else None


def _pour(dues: dict[str, int], left: int, weights: Mapping[str, int], limits: Mapping[str, int]) -> int:
    """Add what is left to the dues by weight, none beyond its limit; gives what nobody has room for."""
    while left:
        thirsty = {worker: weight for worker, weight in weights.items() if dues[worker] < limits[worker]}
        if not thirsty:
            break
        total = sum(thirsty.values())
        drops = {
            worker: min(left * weight // total, limits[worker] - dues[worker]) for worker, weight in thirsty.items()
        }
        if not any(drops.values()):
            drops = dict.fromkeys(list(thirsty)[:left], 1)
        for worker, drop in drops.items():
            dues[worker] += drop
        left -= sum(drops.values())
    return left


def _handed_out(table: SlotTable) -> SlotTable:
    """Free slots go to whoever lacks most."""
    free = table.free
    if not free or not table.members:
        return table
    members = dict(table.members)
    lacking = {worker: target - members[worker].held for worker, target in table.targets().items()}
    for worker in sorted(lacking, key=lacking.__getitem__, reverse=True):
        given = min(free, max(0, lacking[worker]))
        members[worker] = replace(members[worker], held=members[worker].held + given)
        free -= given
    return replace(table, members=members)
