"""One worker's slots of the rate: what it makes of the log that all workers share, and what it writes there.

Why no window of TAMS' ever holds more calls than there are slots, although nobody asks anybody before a call: a slot
passes from one to the other through the log, see `slot_table`, and its calls are a window apart wherever it goes.

- Handed over. A worker lays a slot by, waits until it is free, and only then writes the record that gives it up.
  Whoever gains it reads that record, which is later still, and may use it at once.
- Left behind. A worker that leaves makes no call once it has written so. Whoever gains its slots waits, from reading
  that, for as long as its last call may take to be counted, and a window.
- Taken from the silent. A worker makes calls for `valid_for` seconds from when it wrote a report that it has read back:
  it has read everything up to there, and so knows that its slots were its own. A record that takes it for dead names
  its last report, was written `expire_after` seconds after that report was read, and is of no effect if another report
  lies between. So the worker has stopped by then, with the difference of the two to spare. From there on as above.

- Of later rules. Who reads a record of rules it does not know makes no calls until it has read none of them for as long
  as a newcomer searches. So a later release may change the rules: it waits, before its first call, until all who go by
  the older ones must have read a record of its own, or have fallen silent.

What happens in one process is ordered by what it knows, and durations are taken from its own clock: clocks are never
compared. They must run equally fast, though, within that spare time, and go on while a process or machine stands still.
"""

from dataclasses import dataclass, field

import msgspec

from bridge.core.budget import COUNTED_AFTER, RateBudget
from bridge.core.slot_table import Expire, Leave, Report, SlotRecord, SlotTable, is_of_later_rules, read_record

NEVER = float("inf")
LONG_AGO = float("-inf")

READ_BACK = 256
"""Records before the log's end at which a newcomer begins to read; among so many there is one with a table."""

_TABLE_EVERY = 4
"""Records after which one carries a table again."""

_TABLES_KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTimes:
    """How long things take, in seconds; the same for all workers.

    Args:
        heartbeat: between two reports, at the most.
        valid_for: how long calls may be made after a report.
        expire_after: how long nothing must have been heard of a worker before its slots are taken; the longer it is
            than `valid_for`, the more is there to spare.
    """

    heartbeat: float = 1.0
    valid_for: float = 3.0
    expire_after: float = 5.0

    @property
    def search(self) -> float:
        """How long a newcomer looks for a table in the log before it takes it that nobody lives to write one."""
        return self.expire_after + _TABLE_EVERY * self.heartbeat


@dataclass(slots=True, kw_only=True)
class _Life:
    """What a worker is under one id; what was written under another, and may yet come, does not speak for it.

    Args:
        worker: the id.
        born: when it began.
        next_report: when to report next, at the latest.
        number: of its last report.
        released: how many slots it has given up.
        told_load: the load it last reported.
        sent: when those reports were written that were not read back yet, by number.
        valid_until: until when its slots are known to be its own.
        usable: how many slots calls may be made with until then.
    """

    worker: str
    born: float
    next_report: float
    number: int = 0
    released: int = 0
    told_load: int = 0
    sent: dict[int, float] = field(default_factory=dict)
    valid_until: float = LONG_AGO
    usable: int = 0


@dataclass(slots=True, kw_only=True)
class _Reading:
    """What was read of the log.

    Args:
        begun: the offset it began at.
        position: offset of the next record.
        table: who holds what; None while that is not known.
        unread: the records since `begun`, while there is no table to apply them to.
        tables: the latest tables, by the position they were reached at.
        table_at: offset of the last record that carried a table.
        heard: when the last record of each member was read.
    """

    begun: int
    position: int
    table: SlotTable | None
    unread: list[tuple[int, SlotRecord]] = field(default_factory=list)
    tables: dict[int, SlotTable] = field(default_factory=dict)
    table_at: int = -_TABLE_EVERY
    heard: dict[str, float] = field(default_factory=dict)


class SlotHolder:
    """Reads and writes the log for one worker, and lets its budget use those slots alone that are its own.

    Whoever drives it hands it every record in order (`read`), writes what `write` gives, and asks again for that at
    `next_at`, after each record, and when the demand has changed.

    Args:
        name: of this worker, as no other ever has it.
        budget: of the whole rate, which must have a limit; its slots are from now on changed here alone.
        times: how long things take.

    All times are seconds on one monotonic clock.
    """

    def __init__(self, name: str, budget: RateBudget, *, times: SlotTimes | None = None) -> None:
        self._name = name
        self._budget = budget
        self._times = times or SlotTimes()
        self._wait = budget.window + COUNTED_AFTER
        self._load = self._wanted = 0
        self._is_active = False  # from `begin` to `leave`
        self._lives = 0
        self._gave_way_at = LONG_AGO
        self._log = _Reading(begun=0, position=0, table=None)
        self._life = self._new_life(LONG_AGO)

    # ---- what the worker is, wants and may do

    @property
    def worker(self) -> str:
        """Its id in the log; another one each time it has to begin again."""
        return self._life.worker

    @property
    def position(self) -> int:
        """Offset of the next record to read."""
        return self._log.position

    @property
    def table(self) -> SlotTable | None:
        """Who holds what, as far as was read; None while that is not known."""
        return self._log.table

    def set_demand(self, load: int, wanted: int) -> None:
        """Say what the worker could use.

        Args:
            load: how much work there is, on the scale all workers use; 0 if none.
            wanted: how many slots it could make use of at once.
        """
        self._load, self._wanted = load, wanted

    def usable(self, *, now: float) -> int:
        """How many slots calls may be made with; some may be in use, or not free yet."""
        return self._life.usable if now < self._life.valid_until else 0

    def gives_way(self, *, now: float) -> bool:
        """Whether no call is made because workers of a later release share the rate by rules of their own."""
        return now < self._gave_way_at + self._times.search

    # ---- the log as it is read

    def begin(self, position: int, *, now: float) -> None:
        """Start over: read from this offset on, and hold nothing until the log says so.

        Args:
            position: 0, or an offset a little before the end; see `READ_BACK`.
            now: the time.
        """
        self._is_active = True
        self._start_over(position, now)

    def read(self, offset: int, value: bytes | None, *, now: float) -> None:
        """Take in a record; one that is not the next means that the log is another, or has a gap: start over."""
        if offset != self._log.position:
            self._start_over(offset, now)
        self._log.position = offset + 1
        record = read_record(value)
        if record is None:
            if is_of_later_rules(value):
                self._give_way(now)
            return
        if self._log.table is None:
            self._search(offset, record, now)
        else:
            self._apply(self._log.table, offset, record, now)

    def _search(self, offset: int, record: SlotRecord, now: float) -> None:
        """Find a table to begin with: one that was written down, or an empty one if nobody lives who knows another."""
        self._log.unread.append((offset, record))
        if not isinstance(record, Report):
            return
        if record.table is not None and record.position >= self._log.begun:
            self._catch_up(record.table, record.position, now)
        elif record.worker == self.worker:
            self._catch_up(SlotTable(), self._log.begun, now)

    def _catch_up(self, table: SlotTable, position: int, now: float) -> None:
        self._log.table = table
        self._log.heard = dict.fromkeys(table.members, now)
        unread, self._log.unread = self._log.unread, []
        for offset, record in unread:
            if offset >= position and self._log.table is not None:
                self._apply(self._log.table, offset, record, now)

    def _apply(self, table: SlotTable, offset: int, record: SlotRecord, now: float) -> None:
        if isinstance(record, Report) and record.table is not None:
            if record.table != self._log.tables.get(record.position, record.table):
                self._start_over(self._log.position, now)  # one of the two is wrong, and nobody knows which
                return
            self._log.table_at = offset
        changed = table.after(offset, record)
        self._log.table = self._log.tables[offset + 1] = changed
        self._log.tables.pop(offset + 1 - _TABLES_KEPT, None)
        self._hear(record, changed, now)
        own = self._own(table)
        if self.worker in table.members and self.worker not in changed.members:
            self._life = self._new_life(now)
        gained = self._own(changed) - own
        if gained > 0:
            self._budget.gain(gained, free_from=now if table.hands_over(record) else now + self._wait)
        self._lay_by(changed)

    def _hear(self, record: SlotRecord, changed: SlotTable, now: float) -> None:
        if isinstance(record, Report):
            self._log.heard[record.worker] = now
            if record.worker == self.worker:
                sent_at = self._life.sent.pop(record.number, LONG_AGO)
                self._life.valid_until = max(self._life.valid_until, sent_at + self._times.valid_for)
                self._budget.renew(self._life.valid_until)
        elif record.worker not in changed.members:
            self._log.heard.pop(record.worker, None)

    def _own(self, table: SlotTable) -> int:
        """Slots of this worker; what it has given up counts here at once, for the others when they read it."""
        member = table.members.get(self.worker)
        return 0 if member is None else member.held - (self._life.released - member.released)

    def _lay_by(self, table: SlotTable) -> None:
        """Keep from use what others are to have."""
        own = self._own(table)
        owed = max(0, own - table.targets().get(self.worker, 0))
        self._budget.owe(owed)
        self._life.usable = own - owed

    # ---- the log as it is written

    def next_at(self, *, now: float) -> float:
        """When there may be something to write, or the slots may no longer be used; infinity after `leave`."""
        if not self._is_active:
            return NEVER
        if self._is_urgent():
            return now
        lapse, expiry = NEVER, NEVER
        if now < self._life.valid_until:
            lapse = self._life.valid_until
            expiry = min(self._log.heard.values(), default=NEVER) + self._times.expire_after
        return min(self._life.next_report, self._budget.gives_up_at(), lapse, expiry)

    def write(self, *, now: float) -> bytes | None:
        """The next record to write; None if there is nothing to write yet."""
        if not self._is_active:
            return None
        given_up = self._budget.give_up(now=now)
        self._life.released += given_up
        if given_up or self._is_urgent() or now >= self._life.next_report:
            return self._report(now)
        return self._expire(now)

    def leave(self) -> bytes | None:
        """Make no call from now on; gives the record that tells the others, if they ever heard of this worker."""
        self._is_active = False
        leave = Leave(worker=self.worker) if self._life.number else None
        self._life = self._new_life(LONG_AGO)
        return None if leave is None else msgspec.json.encode(leave)

    def _is_urgent(self) -> bool:
        """Work that comes is told at once; that it has ended, or is more or less than it was, with the next report."""
        return self._log.table is not None and self._load > 0 and self._life.told_load == 0

    def _report(self, now: float) -> bytes:
        life, log = self._life, self._log
        life.number += 1
        life.sent[life.number] = now
        life.next_report = now + self._times.heartbeat
        life.told_load = self._load
        report = Report(
            worker=life.worker,
            number=life.number,
            slots=self._budget.slots,
            load=self._load,
            wanted=self._wanted,
            released=life.released,
            uptime_ms=int((now - life.born) * 1000),
            position=log.position,
            table=log.table if log.position - log.table_at >= _TABLE_EVERY else None,
        )
        return msgspec.json.encode(report)

    def _expire(self, now: float) -> bytes | None:
        """Only who reads the log to its end knows who is silent; whoever stood still would take all others for it."""
        if self._log.table is None or now >= self._life.valid_until:
            return None
        for worker, heard in self._log.heard.items():
            if now >= heard + self._times.expire_after:
                self._log.heard[worker] = now + self._times.heartbeat - self._times.expire_after
                return msgspec.json.encode(Expire(worker=worker, last=self._log.table.members[worker].last))
        return None

    # ---- beginning again

    def _give_way(self, now: float) -> None:
        """No table is looked for, and so nothing is held, until those of later rules are silent."""
        self._start_over(self._log.position, now)
        self._gave_way_at = now

    def _start_over(self, position: int, now: float) -> None:
        self._log = _Reading(begun=position, position=position, table=SlotTable() if position == 0 else None)
        self._life = self._new_life(now)
        if self._log.table is None:
            self._life.next_report = now + self._times.search

    def _new_life(self, now: float) -> _Life:
        self._budget.forfeit()
        self._budget.renew(LONG_AGO)
        self._lives += 1
        return _Life(worker=f"{self._name}.{self._lives}", born=now, next_report=now)
