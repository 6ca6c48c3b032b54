"""A dispatcher against chance: endpoints that come, change and go, answers of every kind, crashes at any moment.

The model is the dispatch topic, the replays' history and a ledger made of the committed changes; from these alone it
knows what has become of every delivery, and what may be sent next.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import ceil

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from typing_extensions import override

from bridge.core.deliveries import Unsendable
from bridge.core.dispatch import DispatchPolicy, Moment, Send
from bridge.core.fanout import inline_id, is_inline
from bridge.core.health import GONE as IS_GONE
from bridge.core.health import HealthPolicy
from bridge.core.registry import EndpointState, status_key
from bridge.core.schedule import BackOff
from bridge.messages import EventType, JobEvent
from bridge.ports import Arrival
from bridge.webhook_messages import (
    After,
    DeadDelivery,
    DeadReason,
    Delivery,
    DispatchRecord,
    Endpoint,
    InlineWebhook,
    Ordering,
    Outcome,
    Replay,
    ReplayCancel,
    ReplayState,
)
from bridge.webhook_ports import NoResponse, Response
from tests.core.examples import NOW, SECOND
from tests.core.webhook_examples import (
    BLOCKED,
    DELIVERED,
    FAILED,
    GONE,
    NEVER,
    NO_RESPONSE,
    UNSENDABLE,
    Desk,
    arrival,
    delivery,
    endpoint,
    event,
    order,
    replay_order,
    value_of,
)

POLICY = DispatchPolicy(
    max_pending=8,
    max_age=timedelta(seconds=400),
    longest_pause=timedelta(seconds=60),
    breaker_threshold=2,
    breaker=BackOff(initial=2 * SECOND, limit=8 * SECOND),
    disabled_probe=timedelta(seconds=40),
    health=HealthPolicy(warn_after=timedelta(seconds=30), disable_after=timedelta(seconds=60)),
)
GRACE = 31.0
ROUNDING_S = 1e-5
"""Times are written down in whole microseconds, and the model counts in floats."""

MOST_ENDPOINTS = 3
"""At a time."""
THROTTLED = Response(status=503, headers={"retry-after": "7"}, body=b"")
ANSWERS: list[Response | NoResponse | Unsendable] = [
    DELIVERED, DELIVERED, DELIVERED, FAILED, FAILED, FAILED, NO_RESPONSE, BLOCKED, GONE, THROTTLED, UNSENDABLE,
]  # fmt: skip
FAILURES = {Outcome.FAILED, Outcome.BLOCKED}
INLINE = [InlineWebhook(url=f"https://{name}.example/", tenant="acme") for name in "xy"]
PLACE = "h-0"

MOST_REPLAYS = 3

PICK = st.integers(0, 99)
End = tuple[int, Response | NoResponse | Unsendable, float]
ENDS = st.lists(st.tuples(PICK, st.sampled_from(ANSWERS), st.sampled_from([0.0, 0.5, 0.99])), min_size=2, max_size=8)
CHANGES = ["create", "change", "change", "change", "resume", "resume", "delete", "secrets"]
AWAY = st.sampled_from([0.0, 0.0, 0.0, 5.0, 45.0])
WRITTEN = ["commit", "commit and tail", "commit and tail", "tail", "crash", "crash uncommitted"]
FIELDS = st.fixed_dictionaries(
    {
        "max_in_flight": st.sampled_from([1, 2, 9]),
        "retry_schedule_s": st.sampled_from([(), (3.0,), (3.0, 20.0)]),
        "rate": st.sampled_from([None, None, 0.5, 2.0]),
        "ordering": st.sampled_from(["job", "job", "none"]),
        "drop_superseded": st.sampled_from([False, False, True]),
        "paused": st.sampled_from([False, False, False, False, True]),
        "url": st.sampled_from(["https://here.example/", "https://here.example/", "https://there.example/"]),
    },
)


@dataclass(frozen=True)
class FromLog:
    """Where an order comes from: the dispatch topic."""

    offset: int


@dataclass(frozen=True)
class FromReplay:
    """Or a replay's history."""

    replay_id: str
    index: int


def dead(endpoint_id: str, told: JobEvent, inline: InlineWebhook) -> bytes:
    """A delivery that was given up, as it lies on the dead-letter topic."""
    given_up = delivery(endpoint_id, told.request_id, told.sequence, inline=inline)
    reason, raw = DeadReason.EXHAUSTED, msgspec.Raw(value_of(told))
    return msgspec.json.encode(DeadDelivery(delivery=given_up, reason=reason, time=NOW, event=raw))


class CrashingDispatcher(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(policy=POLICY)
        self.log: list[Arrival] = []
        self.sources: dict[str, FromLog | FromReplay] = {}
        self.sequences: Counter[str] = Counter()
        self.created = 0
        self.deleted: list[str] = []
        self.tailed = 0
        self.replays = 0
        self.history: dict[str, list[bytes]] = defaultdict(list)
        self.stale: list[Send] = []
        self.forget_what_only_the_owner_knew()

    def forget_what_only_the_owner_knew(self) -> None:
        self.under_way: list[Send] = []
        self.quiet_until: dict[str, float] = {}
        self.mended_at: dict[str, float] = {}
        self.not_before: dict[str, float] = {}
        self.begun: dict[str, list[float]] = defaultdict(list)
        self.failures: Counter[str] = Counter()
        self.gone: set[tuple[str, int]] = set()
        self.ended: set[str] = set()
        for endpoint_id in self.desk.registry.endpoints:
            self.heed_status(endpoint_id)

    def heed_status(self, endpoint_id: str) -> None:
        status = self.desk.registry.status(endpoint_id)
        if status is not None and status.disabled_reason == IS_GONE:
            self.gone.add((endpoint_id, status.epoch))
        if status is not None and status.failing_since is not None:
            self.failures[endpoint_id] += POLICY.breaker_threshold

    @property
    def now(self) -> float:
        return self.desk.now.monotonic

    def held(self, endpoint_id: str | None = None) -> list[Delivery]:
        """What the owner has in memory."""
        held = [each.delivery for each in self.desk.partition._held.values()]
        return [each for each in held if endpoint_id in {None, each.endpoint_id}]

    def known(self, endpoint_id: str) -> Endpoint | None:
        return self.desk.registry.endpoints.get(endpoint_id)

    def some_id(self, pick: int) -> str:
        """A registered endpoint, one that is deleted, the one that will be created next, or a webhook of requests."""
        others = [*self.deleted[-1:], f"ep_{self.created}", *(inline_id(each) for each in INLINE)]
        ids = sorted(self.desk.registry.endpoints) * 8 + others
        return ids[pick % len(ids)]

    def write(self, record: DispatchRecord) -> int:
        self.log.append(arrival(record, len(self.log)))
        return len(self.log) - 1

    # ------------------------------------------------------------------------------------------------ what is asked for

    @initialize(first=FIELDS, second=FIELDS)
    def begin(self, first: dict[str, object], second: dict[str, object]) -> None:
        self.create(first)
        self.create(second)

    @rule(
        pick=PICK,
        job=st.sampled_from("ab"),
        kind=st.sampled_from([EventType.RUNNING, EventType.RUNNING, EventType.RETRYING, EventType.SUCCESS]),
        count=st.integers(1, 3),
        read=st.sampled_from([0, 2, 99, 99]),
        again=st.integers(0, 3),
    )
    def orders_come(self, pick: int, job: str, kind: EventType, count: int, read: int, again: int) -> None:
        endpoint_id = self.some_id(pick)
        inline = next((each for each in INLINE if inline_id(each) == endpoint_id), None)
        for _ in range(count):
            self.sequences[job] += 1
            placed = order(endpoint_id, job, self.sequences[job], type_=kind, inline=inline)
            self.sources[f"{endpoint_id}/{placed.event_id}"] = FromLog(self.write(placed))
        self.records_are_read(read, again=again)

    def records_are_read(self, count: int, *, again: int) -> None:
        """Some of them may have been read before."""
        begin = self.desk.partition.position
        for record in self.log[max(0, begin - again) : begin + count]:
            self.desk.partition.arrive(record, self.desk.now)

    @rule(pick=PICK, fields=FIELDS, what=st.sampled_from(CHANGES))
    def registry_changes(self, pick: int, fields: dict[str, object], what: str) -> None:
        endpoints = sorted(self.desk.registry.endpoints.items())
        if not endpoints or (what == "create" and len(endpoints) < MOST_ENDPOINTS):
            self.create(fields)
        elif what == "secrets":
            self.secrets_change()
        else:
            before = endpoints[pick % len(endpoints)][1]
            if what == "change":
                self.change(before, fields)
            elif what == "delete":
                self.delete(before.id)
            else:
                self.resume(before)

    def secrets_change(self) -> None:
        """What could not be signed need not wait any longer; who asked for a pause still gets it."""
        self.desk.partition.tenant_changed(self.desk.now)
        self.mended_at = {each: until for each, until in self.mended_at.items() if not is_inline(each)}

    def create(self, fields: dict[str, object]) -> None:
        self.desk.put(endpoint(f"ep_{self.created}", **fields))
        self.created += 1

    def change(self, before: Endpoint, fields: dict[str, object]) -> None:
        after = endpoint(before.id, epoch=before.epoch, **fields)
        self.desk.put(after)
        if after.rate != before.rate:
            self.begun.pop(before.id, None)

    def resume(self, before: Endpoint) -> None:
        """As the API does it: only what was disabled begins a new epoch."""
        is_disabled = self.desk.registry.state(before.id) is EndpointState.DISABLED
        self.desk.put(replace(before, paused=False, epoch=before.epoch + is_disabled))
        if is_disabled:
            for kept in (self.quiet_until, self.mended_at):
                kept.pop(before.id, None)
            self.failures.pop(before.id, None)

    def delete(self, endpoint_id: str) -> None:
        self.desk.delete(endpoint_id)
        self.deleted.append(endpoint_id)
        assert self.held(endpoint_id) == []

    # --------------------------------------------------------------------------------------------------------- replays

    @rule(pick=PICK, count=st.integers(0, 8), what=st.sampled_from(["ask", "read", "read", "read", "cancel"]))
    def replays_go_on(self, pick: int, count: int, what: str) -> None:
        if what == "ask" and self.replays < MOST_REPLAYS:
            self.replay_is_asked_for(pick, count)
        elif what == "cancel" and self.replays:
            self.replay_is_canceled(pick)
        elif self.desk.partition.replays.running():
            self.replay_reads_on(pick, count)

    def replay_is_asked_for(self, pick: int, count: int) -> None:
        """Of events that nothing else delivers, so that each has one fate; of webhooks of requests, dead ones alone."""
        endpoint_id, replay_id = self.some_id(pick), f"rp_{self.replays}"
        inline = next((each for each in INLINE if inline_id(each) == endpoint_id), None)
        self.replays += 1
        for index in range(count):
            told = event(f"{replay_id}-{index % 2}", index + 1)
            self.history[replay_id].append(value_of(told) if inline is None else dead(endpoint_id, told, inline))
            self.sources[f"{endpoint_id}/{told.id}"] = FromReplay(replay_id, index)
        self.write(replay_order(replay_id, endpoint_id=endpoint_id, failed_only=inline is not None))
        self.records_are_read(99, again=0)

    def replay_reads_on(self, pick: int, count: int) -> None:
        """As the forwarder does it: first the bounds, and then while there is room."""
        running = self.desk.partition.replays.running()
        replay = running[pick % len(running)]
        replay_id = replay.order.replay_id
        if not replay.ends:
            bounds = {PLACE: 0}, {PLACE: len(self.history[replay_id])}
            self.desk.partition.replay_begun(replay_id, bounds, self.desk.now)
        elif self.desk.partition.room(replay.order.endpoint_id) > 0:
            at = replay.positions[PLACE]
            values = self.history[replay_id][at : at + count]
            self.desk.partition.replay_read(replay_id, values, {PLACE: at + len(values)}, self.desk.now)

    def replay_is_canceled(self, pick: int) -> None:
        replay_id = f"rp_{pick % self.replays}"
        replay = self.desk.partition.replays.get(replay_id)
        if replay is not None:
            self.write(ReplayCancel(replay_id=replay_id, endpoint_id=replay.order.endpoint_id))

    # --------------------------------------------------------------------------------------------------------- sending

    @rule(wait=st.sampled_from([0.0, 0.6, 3.5, 22.0]), most=st.sampled_from([1, 2, 99, 99]), ends=ENDS)
    def posts_begin_and_end(self, wait: float, most: int, ends: list[End]) -> None:
        """Some of those under way end in some way, the others stay under way."""
        if wait:
            self.time_passes(wait)
        self.posts_begin(most)
        for pick, answer, chance in ends:
            if self.under_way:
                self.post_ends(pick, answer, chance)

    def posts_begin(self, most: int) -> None:
        """All that may, at this moment, are never more than wait."""
        waiting = len(self.held())
        for _ in range(min(most, waiting + 1)):
            if self.desk.partition.next_send_at() > self.now:
                self.nobody_is_forgotten()
                return
            self.begin_one()
        assert most <= waiting

    def begin_one(self) -> None:
        send = self.desk.partition.take_send(self.desk.now)
        self.may_be_sent(send)
        self.is_within_limits(send)
        self.keeps_the_order(send)
        self.under_way.append(send)
        self.begun[send.endpoint.id].append(self.now)

    def may_be_sent(self, send: Send) -> None:
        delivery_id, endpoint_id = send.delivery.id, send.delivery.endpoint_id
        known = self.known(endpoint_id)
        assert known is send.endpoint or (known is None and is_inline(endpoint_id))
        assert delivery_id not in self.ended
        assert delivery_id not in {after for after, _ in self.desk.ledger.ends()}
        assert delivery_id not in {each.delivery.id for each in self.under_way}
        assert not send.endpoint.paused
        assert (endpoint_id, send.endpoint.epoch) not in self.gone
        assert self.now + ROUNDING_S >= max(
            self.quiet_until.get(endpoint_id, 0.0), self.mended_at.get(endpoint_id, 0.0)
        )
        assert self.now + ROUNDING_S >= self.not_before.get(delivery_id, 0.0)
        assert msgspec.json.decode(send.event)["id"] == send.delivery.event_id

    def is_within_limits(self, send: Send) -> None:
        limits = send.endpoint
        assert len(self.of(limits.id)) < limits.max_in_flight
        if limits.rate is not None:
            most = ceil(limits.rate)
            lately = [moment for moment in self.begun[limits.id] if moment > self.now - most / limits.rate + ROUNDING_S]
            assert len(lately) < most

    def keeps_the_order(self, send: Send) -> None:
        if send.endpoint.ordering is Ordering.JOB:
            job = send.delivery.request_id
            assert job not in {each.delivery.request_id for each in self.of(send.endpoint.id)}
            earliest = min(each.sequence for each in self.held(send.endpoint.id) if each.request_id == job)
            assert send.delivery.sequence == earliest

    def of(self, endpoint_id: str) -> list[Send]:
        return [each for each in self.under_way if each.delivery.endpoint_id == endpoint_id]

    def nobody_is_forgotten(self) -> None:
        """Once nothing more may be sent, no endpoint with work is left that nothing speaks against."""
        for endpoint_id, known in self.desk.registry.endpoints.items():
            is_shut = self.failures[endpoint_id] >= POLICY.breaker_threshold
            waits = known.paused or self.of(endpoint_id) or known.rate is not None or is_shut
            paused_until = max(self.quiet_until.get(endpoint_id, 0.0), self.mended_at.get(endpoint_id, 0.0))
            if not waits and (endpoint_id, known.epoch) not in self.gone and paused_until <= self.now - ROUNDING_S:
                first: dict[str, Delivery] = {}
                for each in sorted(self.held(endpoint_id), key=lambda each: each.sequence):
                    first.setdefault(each.request_id if known.ordering is Ordering.JOB else each.id, each)
                assert all(self.not_before.get(each.id, 0.0) > self.now - ROUNDING_S for each in first.values())

    def post_ends(self, pick: int, answer: Response | NoResponse | Unsendable, chance: float) -> None:
        send = self.under_way.pop(pick % len(self.under_way))
        known = self.known(send.endpoint.id)
        is_there = send.endpoint.id not in self.deleted
        self.desk.answer(send, answer, chance)
        if not is_there:
            return
        if is_inline(send.endpoint.id) or (known is not None and self.is_same(known, send.endpoint)):
            self.learn(send, answer)
        self.attempt_is_on_the_books(send)

    def is_same(self, one: Endpoint, other: Endpoint) -> bool:
        return (one.epoch, one.url) == (other.epoch, other.url)

    def learn(self, send: Send, answer: Response | NoResponse | Unsendable) -> None:
        endpoint_id = send.endpoint.id
        if answer is DELIVERED:
            self.failures.pop(endpoint_id, None)
        elif answer is GONE:
            self.gone.add((endpoint_id, send.endpoint.epoch))
        elif answer is THROTTLED:
            self.quiet_until[endpoint_id] = max(self.now + 7.0, self.quiet_until.get(endpoint_id, 0.0))
        elif answer is UNSENDABLE:
            self.mended_at[endpoint_id] = max(self.now + 60.0, self.mended_at.get(endpoint_id, 0.0))
        else:
            self.failures[endpoint_id] += 1

    def attempt_is_on_the_books(self, send: Send) -> None:
        attempt = self.desk.partition.journal._changes.attempts[-1]
        before, after = send.delivery, attempt.delivery
        failed = attempt.attempt.outcome in FAILURES
        assert after.id == before.id
        assert after.used == before.used + (failed or attempt.after is After.DELIVERED)
        assert (attempt.after is After.DEAD) is (failed and after.used > len(send.endpoint.retry_schedule_s))
        assert (attempt.after is After.DELIVERED) is (attempt.attempt.outcome is Outcome.DELIVERED)
        if attempt.after is not After.WAITING:
            self.forget_endpoint_without_work(before.endpoint_id)
        elif failed and after.next_at is not None:
            self.not_before[after.id] = self.now + (after.next_at - self.desk.now.now).total_seconds()

    def forget_endpoint_without_work(self, endpoint_id: str) -> None:
        """Nothing is remembered of the webhooks of requests once none of their deliveries waits."""
        if is_inline(endpoint_id) and not self.held(endpoint_id):
            self.gone.discard((endpoint_id, 1))
            for kept in (self.quiet_until, self.mended_at, self.begun):
                kept.pop(endpoint_id, None)

    @precondition(lambda self: self.stale)
    @rule(pick=PICK, answer=st.sampled_from(ANSWERS))
    def answer_comes_for_a_former_owner(self, pick: int, answer: Response | NoResponse | Unsendable) -> None:
        """It is nothing to the present one."""
        send = self.stale.pop(pick % len(self.stale))
        before = len(self.desk.partition.journal._changes.attempts)
        self.desk.answer(send, answer)
        assert len(self.desk.partition.journal._changes.attempts) == before

    # ------------------------------------------------------------------------------------------- time, commits, crashes

    @rule(
        seconds=st.sampled_from([1.0, 4.0, 8.0, 8.0, 25.0, 45.0, 401.0]),
        jump=st.sampled_from([0.0, 0.0, 0.0, -50.0, 90.0]),
    )
    def much_time_passes(self, seconds: float, jump: float) -> None:
        """And the wall clock may be set, by a person or by the network."""
        self.desk.now = Moment(self.desk.now.now + timedelta(seconds=jump), self.desk.now.monotonic)
        self.time_passes(seconds)

    def time_passes(self, seconds: float) -> None:
        self.desk.passes(seconds)
        for webhook in INLINE:
            self.forget_endpoint_without_work(inline_id(webhook))

    @rule(what=st.sampled_from(WRITTEN), away=AWAY)
    def something_is_written(self, what: str, away: float) -> None:
        """By the owner, or to the registry, or nothing any more."""
        if what not in {"tail", "crash uncommitted"}:
            self.commit()
        if what.startswith("crash"):
            self.crash(away)
        while "tail" in what and self.tailed < len(self.desk.ledger.statuses):
            self.status_arrives()

    def commit(self) -> None:
        self.ended |= {each.delivery.id for each in self.desk.commit().attempts if each.after is not After.WAITING}

    def status_arrives(self) -> None:
        """The registry's tail is behind the ledger."""
        status = self.desk.ledger.statuses[self.tailed]
        self.tailed += 1
        if status.endpoint_id in self.desk.registry.endpoints:
            self.desk.put(status)
            self.heed_status(status.endpoint_id)
        else:
            self.desk.registry.apply(status_key(status.endpoint_id), None)

    def crash(self, away: float) -> None:
        """The next owner restores what was written, and reads on from there."""
        self.desk.passes(away, told=False)
        self.stale += self.under_way
        self.desk.partition = self.desk.ledger.restored(self.desk.registry, self.desk.now, POLICY)
        self.forget_what_only_the_owner_knew()
        for each in self.held():
            if each.next_at is not None:
                self.not_before[each.id] = self.now + (each.next_at - self.desk.now.now).total_seconds()

    # ------------------------------------------------------------------------------------------------------ what holds

    def was_read(self, source: FromLog | FromReplay, position: int, replay: Callable[[str], Replay | None]) -> bool:
        if isinstance(source, FromLog):
            return source.offset < position
        found = replay(source.replay_id)
        return found is not None and source.index < found.positions.get(PLACE, 0)

    @invariant()
    def every_order_has_one_fate_in_the_ledger(self) -> None:
        """Pending or ended once it was read, in the same transaction; before that neither."""
        ledger = self.desk.ledger
        replays = {key[1]: msgspec.json.decode(value, type=Replay) for key, value in ledger.replays.items()}
        ends = Counter(delivery_id for delivery_id, _ in ledger.ends())
        assert ends.keys() | ledger.deliveries.keys() <= self.sources.keys()
        for delivery_id, source in self.sources.items():
            fates = ends[delivery_id] + (delivery_id in ledger.deliveries)
            assert fates == self.was_read(source, ledger.position, replays.get), delivery_id

    @invariant()
    def every_order_has_one_fate_in_memory(self) -> None:
        """Held until it has ended."""
        partition = self.desk.partition
        told = [*self.desk.ledger.attempts, *partition.journal._changes.attempts]
        ends = Counter(each.delivery.id for each in told if each.after is not After.WAITING)
        held = Counter(each.id for each in self.held())
        for delivery_id, source in self.sources.items():
            fates = ends[delivery_id] + held[delivery_id]
            assert fates == self.was_read(source, partition.position, partition.replays.get), delivery_id

    @invariant()
    def dead_letters_are_those_that_were_given_up(self) -> None:
        """What a replay reads is never turned away: it waits for room."""
        ledger = self.desk.ledger
        assert [each.delivery.id for each in ledger.dead] == [
            each for each, after in ledger.ends() if after is After.DEAD
        ]
        turned_away = [each for each in ledger.dead if each.reason is DeadReason.BACKLOG_FULL]
        assert all(each.delivery.replay_id is None for each in turned_away)

    @invariant()
    def ledger_knows_the_last_attempt(self) -> None:
        last = {each.delivery.id: each.delivery for each in self.desk.ledger.attempts}
        for delivery_id, value in self.desk.ledger.deliveries.items():
            found = msgspec.json.decode(value, type=Delivery)
            assert found == last.get(delivery_id, found)
            assert bool(found.attempts) is (delivery_id in last)

    @invariant()
    def lines_hold_what_is_held(self) -> None:
        """And not many more than may wait; replays fill half, and what they read at once."""
        lines = self.desk.partition._queues
        assert sum(len(line) for line in lines.values()) == len(self.desk.partition)
        assert sum(line.in_flight for line in lines.values()) == len(
            [each for each in self.under_way if each.delivery.id in {held.id for held in self.held()}]
        )

    @override
    def teardown(self) -> None:
        """Once everything works, every order comes to its end, and nothing is left of it."""
        self.records_are_read(999, again=0)
        for _ in range(3):
            for _ in range(150):
                self.everything_works_for_a_while()
                if not self.under_way and not any(self.known(each.endpoint_id) for each in self.held()):
                    break
            assert [each for each in self.held() if self.known(each.endpoint_id)] == []
            self.time_passes(401.0)  # webhooks of requests that are gone have no other end
        self.commit()
        self.every_order_has_one_fate_in_the_ledger()
        self.every_order_has_one_fate_in_memory()
        self.dead_letters_are_those_that_were_given_up()
        assert (self.desk.ledger.deliveries, self.desk.ledger.events, self.held()) == ({}, {}, [])
        self.nothing_is_kept()

    def everything_works_for_a_while(self) -> None:
        while self.under_way:
            self.post_ends(0, DELIVERED, 0.5)
        self.commit()
        while self.tailed < len(self.desk.ledger.statuses):
            self.status_arrives()
        for known in list(self.desk.registry.endpoints.values()):
            self.resume(known)
        for number in range(len(self.desk.partition.replays.running())):
            self.replay_reads_on(number, 4)
        self.posts_begin(99)
        wait = self.desk.waits()
        self.desk.passes(wait if 0.0 < wait < GRACE else GRACE / 4)

    def nothing_is_kept(self) -> None:
        partition = self.desk.partition
        receivers = partition._receivers
        for replay_id, values in self.history.items():
            replay = partition.replays.get(replay_id)
            assert replay is not None
            assert replay.state is not ReplayState.RUNNING
            assert replay.state is ReplayState.CANCELED or replay.positions == {PLACE: len(values)}
        assert partition.next_send_at() == NEVER
        assert partition._unknown == {}
        assert partition._full == {}
        assert partition._queues.keys() <= self.desk.registry.endpoints.keys()
        assert receivers._health.keys() <= self.desk.registry.endpoints.keys()
        assert receivers._made_up.keys() <= self.desk.registry.endpoints.keys()
        for line in partition._queues.values():
            assert (len(line), line.in_flight, line._lines, line._places) == (0, 0, {}, {})


TestCrashingDispatcher = CrashingDispatcher.TestCase
TestCrashingDispatcher.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
