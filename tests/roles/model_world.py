"""What surrounds real workers in their model: a ledger and a TAMS that answer when, and as, the model says.

They stand on the models of the core's own test, `tests/core/job_world.py`, and put waiting in front of them: a commit
or a call may hang while anything else happens, and may have its effect though nobody is there to hear of it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from bridge.core import jobs
from bridge.errors import LedgerUnavailable
from bridge.messages import Ambiguous, Answer, Done, Missing, Phase
from bridge.ports import Changes, OpenLedger
from tests.core.job_judge import Judge
from tests.core.job_world import LOST, NOT_FOUND, NUMBER, Ledger, Tams
from tests.roles.fakes import HandClock

ANSWER_S = 15.0
"""Longest time of a call, as the TAMS adapter sees to it."""


@dataclass(eq=False)
class Commit:
    """A transaction under way; `landed` once it is visible, whether or not its owner has heard."""

    epoch: int
    changes: Changes
    outcome: str = "lands"
    landed: bool = False
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)


class SlowLedgers:
    """Implements `bridge.ports.Ledgers` for one partition; while `is_quick`, commits land at once.

    Args:
        ledger: what is written.
        judge: looks at every transaction.
        clock: for the judge.
    """

    def __init__(self, ledger: Ledger, judge: Judge, clock: HandClock) -> None:
        self.is_quick = True
        self.pending: list[Commit] = []
        self.intents: dict[str, datetime] = {}
        self._ledger = ledger
        self._judge = judge
        self._clock = clock

    def open(self, partition: int) -> AbstractAsyncContextManager[OpenLedger]:
        assert partition == NUMBER
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[OpenLedger]:
        self._ledger.epoch += 1
        yield OpenLedger(
            ledger=_Held(self, self._ledger.epoch),
            records=self._ledger.read(),
            params=dict(self._ledger.params),
            position=self._ledger.position,
        )

    async def commit(self, commit: Commit) -> None:
        """One transaction of an owner."""
        if not self.is_quick:
            self.pending.append(commit)
            try:
                await commit.goes_on.wait()
            finally:
                self.pending.remove(commit)
        if not commit.landed and commit.outcome == "fails":
            raise LedgerUnavailable("commit: no answer from the brokers in time")
        self.land(commit)
        if commit.outcome != "lands":
            raise LedgerUnavailable("commit: its outcome is unknown")

    def land(self, commit: Commit) -> None:
        """Make a transaction visible, unless its owner has been fenced."""
        if commit.landed:
            return
        begin = self._ledger.position
        self._ledger.commit(commit.epoch, commit.changes)
        commit.landed = True
        self._judge.written(commit.changes, begin, self._clock.now())
        for record in commit.changes.records.values():
            if record is not None and record.phase is Phase.SUBMITTING and record.lease_until is not None:
                tams_request_id = jobs.tams_request_id(record)
                self.intents[tams_request_id] = record.lease_until
                assert self._judge.tams.lives.setdefault(tams_request_id, record.seed) == record.seed

    def may_land(self, commit: Commit) -> bool:
        """Whether a transaction is still that of the owner."""
        return commit.epoch == self._ledger.epoch


class _Held:
    """Implements `bridge.ports.Ledger`."""

    def __init__(self, ledgers: SlowLedgers, epoch: int) -> None:
        self._ledgers = ledgers
        self._epoch = epoch

    async def commit(self, changes: Changes) -> None:
        await self._ledgers.commit(Commit(self._epoch, changes))


@dataclass(eq=False)
class Call:
    """A call to TAMS under way; `reached` once TAMS has done what it asks for."""

    kind: str
    of: str
    until: float
    reached: bool = False
    answer: Answer | None = None
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class SlowTams:
    """Implements `bridge.ports.Tams`; while `is_quick`, calls are answered at once.

    A create must follow its written intent, within its lease, and never beside another of the same attempt.

    Args:
        tams: what is done there.
        ledgers: whose intents count.
        clock: for leases and time-outs.
    """

    def __init__(self, tams: Tams, ledgers: SlowLedgers, clock: HandClock) -> None:
        self.is_quick = True
        self.calls: list[Call] = []
        self.ghosts: list[Call] = []
        self._tams = tams
        self._ledgers = ledgers
        self._clock = clock

    async def create(self, tams_request_id: str, params: bytes) -> Answer:
        assert params in {b'{"3":{"classType":"KSampler"}}', b'{ "1": {"inputs": {"x": 1.0e1}} }'}
        assert self._clock.now() < self._ledgers.intents[tams_request_id], "created without a written intent"
        others = [each.of for each in [*self.calls, *self.under_way_unheard()] if each.kind == "create"]
        assert tams_request_id not in others, "two POSTs of one attempt at a time"
        return await self._call("create", tams_request_id)

    async def look(self, job_id: str) -> Answer:
        return await self._call("look", job_id)

    async def cancel(self, job_id: str) -> Answer:
        return await self._call("cancel", job_id)

    def under_way_unheard(self) -> list[Call]:
        """Calls of processes that have died, which may still reach TAMS."""
        self.ghosts = [ghost for ghost in self.ghosts if ghost.until > self._clock.monotonic()]
        return self.ghosts

    def usual(self, call: Call) -> Answer:
        """TAMS does what it is asked for, and says so."""
        call.reached = True
        if call.kind == "create":
            return self._tams.create(call.of)
        if call.kind == "cancel":
            self._tams.cancel(call.of)
            return Missing(NOT_FOUND) if call.of in self._tams.forgotten else Done()
        return self._tams.look(call.of)

    async def _call(self, kind: str, of: str) -> Answer:
        call = Call(kind, of, self._clock.monotonic() + ANSWER_S)
        if self.is_quick:
            return self.usual(call)
        self.calls.append(call)
        try:
            await self._clock.wait(call.answered, ANSWER_S)
        except asyncio.CancelledError:
            self.ghosts.append(call)
            raise
        finally:
            self.calls.remove(call)
        return call.answer or Ambiguous(LOST)
