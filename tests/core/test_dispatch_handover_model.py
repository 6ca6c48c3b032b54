"""Dispatchers that follow each other against chance: what changes in the registry while a partition changes hands.

Where `test_dispatch_model.py` lets one dispatcher at a time see every change at once, here each process reads the
registry for itself, sooner or later, and a former owner goes on until it learns that it has been fenced. The model is
the dispatch topic, the registry's records, the ledger, and receivers that write down what they took.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from typing_extensions import override

from bridge.core.deliveries import Unsendable
from bridge.core.dispatch import DispatchPartition, DispatchPolicy, Moment, Send
from bridge.core.fanout import inline_id, is_inline
from bridge.core.health import GONE as IS_GONE
from bridge.core.health import HealthPolicy
from bridge.core.registry import EndpointState, Registry, endpoint_key, status_key, tenant_key
from bridge.core.schedule import BackOff
from bridge.errors import OwnershipLost
from bridge.messages import EventType
from bridge.ports import Arrival
from bridge.webhook_messages import (
    After,
    Delivery,
    DispatchRecord,
    Endpoint,
    InlineWebhook,
    Outcome,
    Replay,
    ReplayCancel,
    SealedSecret,
)
from bridge.webhook_ports import DispatchChanges, NoResponse, Response
from tests.core.examples import NOW, SECOND
from tests.core.webhook_examples import (
    DELIVERED,
    FAILED,
    GONE,
    NEVER,
    NO_RESPONSE,
    UNSENDABLE,
    LedgerModel,
    arrival,
    endpoint,
    event,
    order,
    replay_order,
    secrets,
    value_of,
)
from tests.models import MODEL_TIMEOUT_S, model_settings

pytestmark = pytest.mark.timeout(MODEL_TIMEOUT_S)

PROBE_S = 30.0
POLICY = DispatchPolicy(
    max_pending=50,
    max_age=timedelta(seconds=900),
    breaker_threshold=2,
    breaker=BackOff(initial=2 * SECOND, limit=8 * SECOND),
    disabled_probe=timedelta(seconds=PROBE_S),
    health=HealthPolicy(warn_after=4 * SECOND, disable_after=8 * SECOND),
)
PLACE = "h-0"
COUNT = {Outcome.DELIVERED, Outcome.FAILED, Outcome.BLOCKED}
"""What uses up an attempt."""

INLINE = InlineWebhook(url="https://inline.example/", tenant="acme")
ANSWERS: dict[str, Response | NoResponse | Unsendable] = {
    "takes it": DELIVERED, "takes it too": DELIVERED, "takes it again": DELIVERED, "takes it at last": DELIVERED,
    "fails": FAILED, "is not there": NO_RESPONSE, "wants no more": GONE, "cannot be signed": UNSENDABLE,
}  # fmt: skip
PICK = st.integers(0, 99)
WRITES = [
    "create",
    "create",
    "move",
    "pause",
    "resume",
    "resume",
    "resume",
    "rotate",
    "rotate tenant",
    "delete",
    "garble",
]
ENDS = st.lists(st.tuples(PICK, st.sampled_from(sorted(ANSWERS))), max_size=6)
THEN = st.sampled_from(["lands", "lands", "lands", "waits", "fails", "lands, in doubt"])


class Fenced(LedgerModel):
    """A ledger that only its last owner may write."""

    epoch = 0

    def write(self, epoch: int, changes: DispatchChanges) -> None:
        """One transaction of an owner."""
        if epoch != self.epoch:
            message = "commit: another owner has taken the partition over"
            raise OwnershipLost(message)
        self.commit(changes)


@dataclass(eq=False)
class Process:
    """A dispatcher, with a registry of its own that is as new as what it has read.

    Args:
        epoch: of its ownership.
        registry, read: what it knows of endpoints, and how many records that is.
        partition: its deliveries.
        offset: how far its monotonic clock is from that of the model.
        since: when it began.
        under_way: POSTs that have not ended.
        cautious: endpoints that it knows to fail, from the registry, and of which it has heard nothing good since.
        disabled: those that were disabled when it began.
        probes: POSTs to them that have not ended.
        mended_at: when it last heard something good of an endpoint.
    """

    epoch: int
    registry: Registry
    read: int
    partition: DispatchPartition
    offset: float
    since: float
    under_way: list[Send] = field(default_factory=list)
    cautious: set[str] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    probes: list[Send] = field(default_factory=list)
    mended_at: dict[str, datetime] = field(default_factory=dict)


class DispatchersInTurn(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log: list[Arrival] = []
        self.written: list[tuple[bytes, bytes | None]] = []
        self.truth: dict[str, Endpoint] = {}
        self.garbled: set[str] = set()
        self.deleted: set[str] = set()
        self.created = 0
        self.sequences: Counter[str] = Counter()
        self.sources: dict[str, tuple[str, int]] = {}
        self.history: dict[str, list[bytes]] = {}
        self.ledger = Fenced()
        self.told = 0
        self.took: Counter[str] = Counter()
        self.used: dict[str, int] = {}
        self.seconds = 0.0
        self.zombies: list[Process] = []

    @initialize(secret=st.booleans())
    def begin(self, *, secret: bool) -> None:
        self.api_writes("create", 0)
        self.api_writes("create", 0)
        if secret:
            self.api_writes("rotate tenant", 0)
        self.owner = self.open(lag=0)

    def moment(self, process: Process) -> Moment:
        return Moment(NOW + timedelta(seconds=self.seconds), self.seconds + process.offset)

    def open(self, *, lag: int) -> Process:
        """A process takes the partition over; it has read the registry but for its last records."""
        self.ledger.epoch += 1
        registry, read = Registry(), max(0, len(self.written) - lag)
        for key, value in dict(self.written[:read]).items():  # of each key the latest is all that is sure to be kept
            registry.apply(key, value)
        offset = 1000.0 * self.ledger.epoch
        moment = Moment(NOW + timedelta(seconds=self.seconds), self.seconds + offset)
        partition = self.ledger.restored(registry, moment, POLICY)
        process = Process(self.ledger.epoch, registry, read, partition, offset, self.seconds)
        process.cautious = {each for each in registry.endpoints if self.is_failing(process, each)}
        process.disabled = {each for each in process.cautious if registry.state(each) is EndpointState.DISABLED}
        self.reads_orders(process)
        process.partition.time_passed(moment)
        return process

    def is_failing(self, process: Process, endpoint_id: str) -> bool:
        status = process.registry.status(endpoint_id)
        return status is not None and status.failing_since is not None

    # ----------------------------------------------------------------------------------------------------- the registry

    @rule(writes=st.lists(st.tuples(st.sampled_from(WRITES), PICK), min_size=1, max_size=3), reads=st.booleans())
    def registry_changes(self, writes: list[tuple[str, int]], *, reads: bool) -> None:
        for what, pick in writes:
            self.api_writes(what, pick)
        if reads:
            self.reads_registry(self.owner)

    def api_writes(self, what: str, pick: int) -> None:
        """As the API does it: only what was disabled begins a new epoch, and is then written anew."""
        known = sorted(self.truth)
        if what == "create" or not known:
            if len(known) < 4:
                self.put(self.signed(endpoint(f"ep_{self.created}", retry_schedule_s=(3.0, 10.0, 20.0, 20.0))))
                self.created += 1
            return
        before = self.truth[known[pick % len(known)]]
        if what == "delete":
            self.delete(before.id)
        elif what == "garble":
            self.garbled.add(before.id)
            self.write(endpoint_key(before.id), b'{"id": 7}')
        elif what == "rotate tenant":
            self.write(tenant_key("acme"), msgspec.json.encode(secrets("acme", f"sealed-{len(self.written)}")))
        else:
            self.put(self.changed(before, what))

    def changed(self, before: Endpoint, what: str) -> Endpoint:
        match what:
            case "move":
                return replace(before, url=f"https://{before.id}.example/{len(self.written)}")
            case "pause":
                return replace(before, paused=True)
            case "resume":
                return replace(before, paused=False, epoch=before.epoch + self.is_disabled(before))
            case _:
                return self.signed(before)

    def signed(self, before: Endpoint) -> Endpoint:
        return replace(before, secrets=(SealedSecret(sealed=f"sealed-{len(self.written)}", created=NOW),))

    def is_disabled(self, known: Endpoint) -> bool:
        statuses = [each for each in self.ledger.statuses if (each.endpoint_id, each.epoch) == (known.id, known.epoch)]
        return bool(statuses) and bool(statuses[-1].disabled_reason)

    def put(self, known: Endpoint) -> None:
        self.truth[known.id] = known
        self.garbled.discard(known.id)
        self.write(endpoint_key(known.id), msgspec.json.encode(known))

    def delete(self, endpoint_id: str) -> None:
        del self.truth[endpoint_id]
        self.garbled.discard(endpoint_id)
        self.deleted.add(endpoint_id)
        self.write(endpoint_key(endpoint_id), None)
        self.write(status_key(endpoint_id), None)

    def write(self, key: bytes, value: bytes | None) -> None:
        self.written.append((key, value))

    @rule(count=st.sampled_from([1, 2, 99]), statuses=st.booleans(), zombie=st.booleans())
    def registry_is_read(self, count: int, *, statuses: bool, zombie: bool) -> None:
        """By some process; what dispatchers have written about endpoints arrives there, too, sooner or later."""
        for status in self.ledger.statuses[self.told :] if statuses else ():
            self.told += 1
            if status.endpoint_id not in self.deleted:
                self.write(status_key(status.endpoint_id), msgspec.json.encode(status))
        self.reads_registry(self.zombies[-1] if zombie and self.zombies else self.owner, count)

    def reads_registry(self, process: Process, count: int = 999) -> None:
        for key, value in self.written[process.read : process.read + count]:
            process.read += 1
            changed = process.registry.apply(key, value)
            if changed is None:
                process.partition.tenant_changed(self.moment(process))
                continue
            process.partition.endpoint_changed(changed, self.moment(process))
            status = process.registry.status(changed)
            if status is None or status.failing_since is None:
                process.cautious.discard(changed)
                process.disabled.discard(changed)
            elif changed not in process.mended_at or process.mended_at[changed] < status.changed:
                process.cautious.add(changed)

    # ------------------------------------------------------------------------------------------------- orders, replays

    @rule(pick=PICK, count=st.integers(1, 3), reads=st.booleans())
    def orders_come(self, pick: int, count: int, *, reads: bool) -> None:
        ids = [*sorted(self.truth), *sorted(self.truth), inline_id(INLINE)]
        endpoint_id = ids[pick % len(ids)]
        inline = INLINE if is_inline(endpoint_id) else None
        for _ in range(count):
            job = "ab"[pick % 2]
            self.sequences[job] += 1
            placed = order(endpoint_id, job, self.sequences[job], type_=EventType.RUNNING, inline=inline)
            self.sources[f"{endpoint_id}/{placed.event_id}"] = ("", len(self.log))
            self.place(placed)
        if reads:
            self.reads_orders(self.owner)

    def place(self, record: DispatchRecord) -> None:
        self.log.append(arrival(record, len(self.log)))

    def reads_orders(self, process: Process) -> None:
        for record in self.log[max(0, process.partition.position - 2) :]:
            process.partition.arrive(record, self.moment(process))

    @precondition(lambda self: self.truth)
    @rule(pick=PICK, what=st.sampled_from(["ask", "read", "read", "read", "cancel"]))
    def replays_go_on(self, pick: int, what: str) -> None:
        if what == "ask" and len(self.history) < 3:
            self.replay_is_asked_for(sorted(self.truth)[pick % len(self.truth)], pick % 6)
        elif what == "cancel":
            for replay in self.owner.partition.replays.running()[:1]:
                self.place(ReplayCancel(replay_id=replay.order.replay_id, endpoint_id=replay.order.endpoint_id))
        else:
            self.replays_read_on(pick % 4)
        self.reads_orders(self.owner)

    def replay_is_asked_for(self, endpoint_id: str, count: int) -> None:
        replay_id = f"rp_{len(self.history)}"
        told = [event(f"{replay_id}-{index}", index + 1) for index in range(count)]
        self.history[replay_id] = [value_of(each) for each in told]
        self.sources |= {f"{endpoint_id}/{each.id}": (replay_id, index) for index, each in enumerate(told)}
        self.place(replay_order(replay_id, endpoint_id=endpoint_id))

    def replays_read_on(self, count: int) -> None:
        """As the forwarder does it: while the endpoint is known, and has room."""
        partition, moment = self.owner.partition, self.moment(self.owner)
        for replay in partition.replays.running():
            replay_id = replay.order.replay_id
            values = self.history[replay_id]
            if not replay.ends:
                partition.replay_begun(replay_id, ({PLACE: 0}, {PLACE: len(values)}), moment)
            elif partition.room(replay.order.endpoint_id) > 0:
                at = replay.positions[PLACE]
                read = values[at : at + count]
                partition.replay_read(replay_id, read, {PLACE: at + len(read)}, moment)

    # ---------------------------------------------------------------------------------------------------------- sending

    @rule(most=st.sampled_from([1, 99]), ends=ENDS, zombie=st.booleans(), then=THEN)
    def posts_begin_and_end(self, most: int, ends: list[tuple[int, str]], then: str, *, zombie: bool) -> None:
        """Those of a former owner, too: receivers cannot tell."""
        process = self.zombies[-1] if zombie and self.zombies else self.owner
        self.posts_begin(process, most)
        for pick, answer in ends:
            if process.under_way:
                self.post_ends(process, process.under_way.pop(pick % len(process.under_way)), ANSWERS[answer])
        self.owner_writes(then)

    @rule()
    def all_is_well(self) -> None:
        """For a moment."""
        self.everything_works_for_a_while()

    @rule(rounds=st.integers(2, 6), answer=st.sampled_from(["fails", "fails", "wants no more"]), hears=st.booleans())
    def receivers_are_out(self, rounds: int, answer: str, *, hears: bool) -> None:
        """For a while; the registry is told, and the next owner may hear of it before it begins."""
        for _ in range(rounds):
            self.posts_begin(self.owner, 99)
            while self.owner.under_way:
                self.post_ends(self.owner, self.owner.under_way.pop(), ANSWERS[answer])
            self.time_passes(3.5, "lands")
        if hears:
            self.registry_is_read(0, statuses=True, zombie=False)
            self.owner = self.open(lag=0)
            self.posts_begin(self.owner, 99)

    def posts_begin(self, process: Process, most: int) -> None:
        for _ in range(most):
            if process.partition.next_send_at() > self.moment(process).monotonic:
                return
            send = process.partition.take_send(self.moment(process))
            self.may_be_sent(process, send)
            process.under_way.append(send)

    def may_be_sent(self, process: Process, send: Send) -> None:
        """By what this process has read of the registry, and by what the ledger says has ended."""
        known = process.registry.endpoints.get(send.delivery.endpoint_id)
        if known is None:
            assert is_inline(send.endpoint.id)
            tenant = process.registry.tenants.get("acme")
            assert send.endpoint.secrets == (tenant.secrets if tenant else ())
            return
        assert send.endpoint is known
        assert not known.paused
        status = process.registry.status(known.id)
        assert status is None or status.disabled_reason != IS_GONE
        if process is self.owner:
            assert send.delivery.id in self.ledger.deliveries.keys() | self.not_written()
        assert known.id not in process.disabled or self.seconds >= process.since + PROBE_S
        if known.id in process.cautious:
            assert not any(probe.endpoint.id == known.id for probe in process.probes)
            process.probes.append(send)

    def not_written(self) -> set[str]:
        """Deliveries that only the owner knows of yet."""
        return {each.id for each in self.held()}

    def held(self) -> list[Delivery]:
        return [each.delivery for each in self.owner.partition._held.values()]

    def post_ends(self, process: Process, send: Send, answer: Response | NoResponse | Unsendable) -> None:
        if answer is DELIVERED:
            self.took[send.delivery.id] += 1
        process.partition.sent(send, answer, None, self.moment(process), 0.5)
        if send in process.probes:
            process.probes.remove(send)
        known = process.registry.endpoints.get(send.endpoint.id)
        if answer is DELIVERED and known and (known.epoch, known.url) == (send.endpoint.epoch, send.endpoint.url):
            process.mended_at[send.endpoint.id] = self.moment(process).now
            process.cautious.discard(send.endpoint.id)
            process.disabled.discard(send.endpoint.id)

    # ------------------------------------------------------------------------------------- time, commits, other owners

    @rule(seconds=st.sampled_from([0.5, 3.5, 8.0, 22.0, 45.0]), then=THEN)
    def time_passes(self, seconds: float, then: str) -> None:
        """No process is further behind the registry than a few seconds."""
        if seconds > 1:
            self.reads_registry(self.owner)
        self.seconds += seconds
        self.owner.partition.time_passed(self.moment(self.owner))
        self.owner_writes(then)

    def owner_writes(self, outcome: str) -> None:
        if outcome == "waits":
            return
        if outcome != "fails":
            self.ledger.write(self.owner.epoch, self.owner.partition.journal.take())
            self.ledger_holds_what_the_owner_holds()
        if outcome != "lands":
            self.owner = self.open(lag=0)

    @rule(what=st.sampled_from(["dies", "is fenced", "is fenced", "is fenced", "wakes"]), lag=st.integers(0, 3))
    def owner_changes(self, what: str, lag: int) -> None:
        if what == "wakes":
            while self.zombies:
                self.zombie_learns_that_it_is_one(self.zombies.pop())
            return
        self.zombies += [self.owner] if what == "is fenced" else []
        self.owner = self.open(lag=lag)

    def zombie_learns_that_it_is_one(self, zombie: Process) -> None:
        """Whatever it has done in the meantime, it writes nothing."""
        before = self.as_bytes()
        if not zombie.partition.journal.is_empty:
            with pytest.raises(OwnershipLost):
                self.ledger.write(zombie.epoch, zombie.partition.journal.take())
        assert self.as_bytes() == before

    def as_bytes(self) -> bytes:
        ledger = self.ledger
        replays = list(ledger.replays.values())
        return msgspec.json.encode((ledger.deliveries, replays, ledger.position, len(ledger.attempts)))

    # ------------------------------------------------------------------------------------------------------- what holds

    def ledger_holds_what_the_owner_holds(self) -> None:
        """Whoever restores it now is where this owner is."""
        held, ledger = self.owner.partition._held, self.ledger
        assert {key: each.event for key, each in held.items()} == ledger.events
        assert {key: msgspec.json.encode(each.delivery) for key, each in held.items()} == ledger.deliveries
        replays = [msgspec.json.decode(value, type=Replay) for value in ledger.replays.values()]
        assert {each.order.replay_id: each for each in replays} == self.owner.partition.replays._replays
        assert ledger.position == self.owner.partition.position
        for key, each in held.items():
            assert each.delivery.used >= self.used.get(key, 0)
            self.used[key] = each.delivery.used

    def was_read(self, source: tuple[str, int], position: int, replay: Callable[[str], Replay | None]) -> bool:
        replay_id, index = source
        if not replay_id:
            return index < position
        found = replay(replay_id)
        return found is not None and index < found.positions.get(PLACE, 0)

    @invariant()
    def every_order_has_one_fate(self) -> None:
        """In the ledger: waiting, or ended once, from the transaction on that says it was read."""
        ledger = self.ledger
        replays = {key[1]: msgspec.json.decode(value, type=Replay) for key, value in ledger.replays.items()}
        ends = Counter(delivery_id for delivery_id, _ in ledger.ends())
        for delivery_id, source in self.sources.items():
            fates = ends[delivery_id] + (delivery_id in ledger.deliveries)
            assert fates == self.was_read(source, ledger.position, replays.get), delivery_id

    @invariant()
    def what_is_recorded_has_happened(self) -> None:
        """Delivered means that the receiver took it; an end without attempts means that nobody was there to take it."""
        for attempt in self.ledger.attempts:
            assert attempt.delivery.used == sum(each.outcome in COUNT for each in attempt.delivery.attempts)
            if attempt.after is After.DELIVERED:
                assert self.took[attempt.delivery.id]
            if attempt.attempt.outcome is Outcome.DROPPED and attempt.after is After.ENDED:
                assert attempt.delivery.endpoint_id in self.deleted
        dead = [delivery_id for delivery_id, after in self.ledger.ends() if after is After.DEAD]
        assert [each.delivery.id for each in self.ledger.dead] == dead

    @override
    def teardown(self) -> None:
        """Once everything works, every order comes to its end, and nothing is left of it."""
        if not hasattr(self, "owner"):
            return
        for zombie in self.zombies:
            self.zombie_learns_that_it_is_one(zombie)
        for endpoint_id in sorted(self.garbled):
            self.put(self.truth[endpoint_id])
        for _ in range(60):
            self.everything_works_for_a_while()
            if not self.held() and not self.owner.partition.replays.running():
                break
        assert [each for each in self.held() if each.endpoint_id in self.truth] == []
        self.time_passes(901.0, "lands")  # what waits for an inline webhook that is gone has no other end
        self.every_order_has_one_fate()
        self.what_is_recorded_has_happened()
        assert (self.held(), self.ledger.deliveries, self.ledger.events) == ([], {}, {})
        assert self.owner.partition.next_send_at() == NEVER

    def everything_works_for_a_while(self) -> None:
        self.registry_is_read(999, statuses=True, zombie=False)
        for known in list(self.truth.values()):
            if known.paused or self.is_disabled(known):
                self.put(replace(known, paused=False, epoch=known.epoch + self.is_disabled(known)))
        self.reads_registry(self.owner)
        self.reads_orders(self.owner)
        self.replays_read_on(4)
        while self.owner.under_way:
            self.post_ends(self.owner, self.owner.under_way.pop(), DELIVERED)
        self.posts_begin(self.owner, 99)
        self.time_passes(8.0, "lands")


TestDispatchersInTurn = DispatchersInTurn.TestCase
TestDispatchersInTurn.settings = model_settings(examples=250, steps=40)
