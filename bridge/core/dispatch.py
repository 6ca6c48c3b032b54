"""All deliveries of one partition: what has been ordered, what may be sent next, and what is to be written down.

The owner feeds it what happened, sends what it offers, and commits its journal from time to time. A delivery is sent
before anything is written of it: its order stays in the input topic, from where it is read again if the process dies
first. So every commit covers all that was read: what has ended by then needs no record, the rest gets one.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from itertools import takewhile
from typing import assert_never

import msgspec

from bridge.core import deliveries
from bridge.core.breaker import Breaker
from bridge.core.deliveries import Unsendable, Verdict
from bridge.core.dispatch_journal import DispatchJournal, Held
from bridge.core.dispatch_policy import DispatchPolicy, Moment
from bridge.core.endpoint_queue import EndpointQueue, limits_of
from bridge.core.endpoint_turns import EndpointTurns
from bridge.core.fanout import is_inline
from bridge.core.health import EndpointHealth
from bridge.core.layouts import UNREADABLE, refuse_odd_times
from bridge.core.posts import Send
from bridge.core.receivers import Receivers
from bridge.core.registry import Registry
from bridge.core.replays import Replays
from bridge.messages import DeadLetterReason
from bridge.ports import Arrival, DeadLetter
from bridge.webhook_messages import (
    After,
    DeadReason,
    Delivery,
    DispatchRecord,
    Endpoint,
    Exchange,
    NoticeType,
    Order,
    Outcome,
    Replay,
    ReplayCancel,
    ReplayOrder,
)
from bridge.webhook_ports import NoResponse, Response

__all__ = ["DispatchPartition", "DispatchPolicy", "Moment", "Send"]

_PROGRESS = frozenset({"tams.job.waiting", "tams.job.running"})
_UNKNOWN_GRACE = timedelta(seconds=30)
"""How long an order may be ahead of the registry: the worker has seen an endpoint that this process has not yet."""


class DispatchPartition:
    """The deliveries of one partition, as its owner holds them in memory.

    Args:
        number: the partition.
        registry: who wants what; followed, not copied.
        policy: what the operator chose.
    """

    def __init__(self, *, number: int, registry: Registry, policy: DispatchPolicy) -> None:
        self.number = number
        self.position = 0
        self.journal = DispatchJournal()
        self.replays = Replays()
        self._registry = registry
        self._policy = policy
        self._receivers = Receivers(registry, policy.health)
        self._held: dict[str, Held] = {}
        self._queues: dict[str, EndpointQueue] = {}
        self._turns = EndpointTurns()
        self._full: dict[str, int] = {}
        self._unknown: dict[str, float] = {}

    def __len__(self) -> int:
        """How many deliveries have not ended."""
        return len(self._held)

    def restore(
        self,
        pending: Iterable[tuple[Delivery, bytes]],
        replays: Iterable[Replay],
        position: int,
        moment: Moment,
    ) -> None:
        """Take over what the ledger holds.

        Args:
            pending: deliveries that have not ended, with their events' values.
            replays: those that are remembered.
            position: offset of the next dispatch record to read.
            moment: now.
        """
        self.position = position
        self.replays.restore(replays)
        for delivery, event in sorted(pending, key=lambda each: each[0].ordered):
            self._hold(Held(delivery, event, is_written=True), moment)

    def move_to(self, position: int) -> None:
        """Read on from here, even if that is further back: the topic was made anew, or lost its oldest records."""
        self.position = position

    def arrive(self, arrival: Arrival, moment: Moment) -> None:
        """Take in a record of the dispatch topic; one that was read before is passed over."""
        if arrival.offset < self.position:
            return
        self.position = arrival.offset + 1
        self.journal.moved_to(self.position)
        try:
            record = _decode(arrival.value or b"")
        except UNREADABLE as error:
            reason = DeadLetterReason.INVALID_DISPATCH
            self.journal.unreadable(DeadLetter(arrival, reason, f"not a dispatch record: {error}"[:500], moment.now))
            return
        match record:
            case Order():
                self._take_in(deliveries.take_in(record, moment.now), bytes(record.event), moment)
            case ReplayOrder():
                self._note(self.replays.begin(record, moment.now))
            case ReplayCancel():
                self._note(self.replays.cancel(record.endpoint_id, record.replay_id, moment.now))
            case _:
                assert_never(record)

    def replay_begun(self, replay_id: str, bounds: tuple[dict[str, int], dict[str, int]], moment: Moment) -> None:
        """A replay's bounds are known."""
        self._note(self.replays.begun(replay_id, bounds, moment.now))

    def replay_read(self, replay_id: str, values: list[bytes], positions: Mapping[str, int], moment: Moment) -> None:
        """Some of a replay's events have been read: those the endpoint wants, and that do not wait, are put in line."""
        found, replay = self.replays.read(replay_id, values, positions, self._registry, moment.now)
        for order in found:
            self._take_in(deliveries.take_in(order, moment.now, replay_id=replay_id), bytes(order.event), moment)
        self._note(replay)

    def room(self, endpoint_id: str) -> int:
        """How many more deliveries an endpoint may be given before its line is half full: replays wait there.

        There is none while the endpoint is not known: what it wants is not, either.
        """
        if not self._receivers.is_known(endpoint_id):
            return 0
        return max(1, self._policy.max_pending // 2) - self._waiting(endpoint_id)

    def endpoint_changed(self, endpoint_id: str, moment: Moment) -> None:
        """The registry says something new of an endpoint."""
        queue = self._queues.get(endpoint_id)
        if queue is None:
            return
        endpoint = self._receivers.registered(endpoint_id)
        if endpoint is None:
            if self._receivers.is_readable(endpoint_id):
                self._end_all(endpoint_id, "the endpoint was deleted", moment)
            return
        self._unknown.pop(endpoint_id, None)
        queue.follow(limits_of(endpoint))
        health = self._receivers.health(endpoint_id)
        if health.follow(endpoint.epoch):
            queue.resume()
        if health.adopt(self._registry.status(endpoint_id)):
            self._beware(queue, health, moment)
        self.journal.status(health.take_status())
        self._settle(endpoint_id, moment)

    def tenant_changed(self, moment: Moment) -> None:
        """The secrets of some tenant have changed: who waited for one need wait no longer."""
        self._receivers.forget_secrets()
        for endpoint_id, queue in self._queues.items():
            if is_inline(endpoint_id):
                queue.mended()
                self._settle(endpoint_id, moment)

    def moving(self, now: float) -> int:
        """How many deliveries wait for endpoints that take them; `now` in seconds on the monotonic clock."""
        return sum(len(queue) for queue in self._queues.values() if queue.is_moving(now))

    def next_send_at(self) -> float:
        """When the next POST may begin, on the monotonic clock; infinity while none may."""
        return self._turns.next_at()

    def take_send(self, moment: Moment) -> Send:
        """The POST whose turn it is; only after `next_send_at` has passed, and followed by `sent`."""
        endpoint_id = self._turns.take()
        held = self._held[self._queues[endpoint_id].take(moment.monotonic)]
        self._settle(endpoint_id, moment)
        endpoint = self._receivers.of(held.delivery)
        return Send(delivery=held.delivery, endpoint=endpoint, event=held.event, began=moment)

    def sent(
        self,
        send: Send,
        answer: Response | NoResponse | Unsendable,
        exchange: Exchange | None,
        moment: Moment,
        chance: float,
    ) -> None:
        """Take in what a POST came to; without effect for a delivery that has ended meanwhile.

        Args:
            send: what was sent.
            answer: what came back.
            exchange: the heads, for people.
            moment: now.
            chance: uniform in [0, 1), for jitter.
        """
        held = self._held.get(send.delivery.id)
        if held is None or held.delivery is not send.delivery:
            return
        verdict = deliveries.judge(answer, moment.now, longest_pause=self._policy.longest_pause)
        pauses = send.endpoint.retry_schedule_s
        step = deliveries.attempted(
            held.delivery, verdict, began=send.began.now, now=moment.now, pauses=pauses, chance=chance
        )
        held.delivery = step.delivery
        if self._receivers.is_as_at(send.endpoint):
            self._learn(send.endpoint, verdict, moment, chance, is_ours=isinstance(answer, Unsendable))
        else:
            self._queues[send.endpoint.id].told_nothing()
        self.journal.attempt(step.delivery, send.endpoint, step.after, exchange)
        if step.after is After.WAITING:
            self._queues[send.endpoint.id].put_back(send.delivery.id, due=_due(step.delivery, moment))
            self.journal.changed(held)
        else:
            self._drop(held)
        if step.reason is not None:
            self.journal.dead(held, step.reason, moment.now)
        self._settle(send.endpoint.id, moment)

    def time_passed(self, moment: Moment) -> None:
        """Give up what is too old, and what belongs to an endpoint that nobody knows; forget old replays."""
        self._give_up_old(moment)
        for endpoint_id, until in list(self._unknown.items()):
            if until <= moment.monotonic and self._receivers.is_readable(endpoint_id):
                self._end_all(endpoint_id, "no such endpoint is registered", moment)
        for replay in self.replays.running():
            order, asleep = replay.order, moment.now - replay.changed
            if not self._receivers.is_known(order.endpoint_id) and asleep >= _UNKNOWN_GRACE:
                self._note(self.replays.cancel(order.endpoint_id, order.replay_id, moment.now))
        for replay in self.replays.forget(moment.now):
            self.journal.replay(replay, forgotten=True)

    def _give_up_old(self, moment: Moment) -> None:
        """The oldest are held first; one whose POST is under way may still be delivered by it."""
        old = takewhile(lambda held: held.delivery.ordered + self._policy.max_age <= moment.now, self._held.values())
        for held in [each for each in old if not self._is_under_way(each.delivery)]:
            self._end(held, After.DEAD, Outcome.DROPPED, "it could not be delivered in time", moment)
            self.journal.dead(held, DeadReason.TOO_OLD, moment.now)
            self._settle(held.delivery.endpoint_id, moment)

    def _take_in(self, delivery: Delivery, event: bytes, moment: Moment) -> None:
        if delivery.id in self._held:
            return
        held = Held(delivery, event)
        if delivery.replay_id is None and self._is_full(delivery.endpoint_id, moment):
            self._turn_away(held, moment)
            return
        self._hold(held, moment)
        self.journal.changed(held)
        endpoint = self._receivers.registered(delivery.endpoint_id)
        if endpoint is not None and endpoint.drop_superseded:
            self._drop_superseded(delivery, moment)

    def _hold(self, held: Held, moment: Moment) -> None:
        delivery = held.delivery
        self._held[delivery.id] = held
        queue = self._queues.get(delivery.endpoint_id)
        if queue is None:
            queue = self._open_queue(delivery, moment)
        queue.add(delivery.id, job=delivery.request_id, sequence=delivery.sequence, due=_due(delivery, moment))
        self._settle(delivery.endpoint_id, moment)

    def _open_queue(self, delivery: Delivery, moment: Moment) -> EndpointQueue:
        breaker = Breaker(threshold=self._policy.breaker_threshold, back_off=self._policy.breaker)
        queue = EndpointQueue(limits_of(self._receivers.of(delivery)), breaker=breaker)
        self._queues[delivery.endpoint_id] = queue
        if not self._receivers.is_known(delivery.endpoint_id):
            self._unknown[delivery.endpoint_id] = moment.monotonic + _UNKNOWN_GRACE / timedelta(seconds=1)
        self._beware(queue, self._receivers.health(delivery.endpoint_id), moment)
        return queue

    def _beware(self, queue: EndpointQueue, health: EndpointHealth, moment: Moment) -> None:
        """An endpoint that failed when a former owner had it gets probes only, until one succeeds."""
        if health.is_failing:
            queue.failed(now=moment.monotonic, chance=1.0, at_once=True)
        if health.disabled:
            queue.pause(moment.monotonic + self._policy.disabled_probe / timedelta(seconds=1))

    def _settle(self, endpoint_id: str, moment: Moment) -> None:
        """Give an endpoint its turn as its queue now stands."""
        queue = self._queues.get(endpoint_id)
        if queue is not None:
            queue.is_open = endpoint_id not in self._unknown and self._receivers.accepts(endpoint_id)
            self._turns.offer(endpoint_id, queue.available_at(), now=moment.monotonic)

    def _is_full(self, endpoint_id: str, moment: Moment) -> bool:
        """Whether an endpoint's line takes no more: by itself, or because lines that stand still fill the memory."""
        queue, waiting = self._queues.get(endpoint_id), self._waiting(endpoint_id)
        if waiting >= self._policy.max_pending:
            return True
        if queue is None or len(self._held) < self._policy.max_held or queue.is_moving(moment.monotonic):
            return False
        return waiting >= self._policy.max_held // len(self._queues)

    def _waiting(self, endpoint_id: str) -> int:
        queue = self._queues.get(endpoint_id)
        return len(queue) if queue is not None else 0

    def _is_under_way(self, delivery: Delivery) -> bool:
        return self._queues[delivery.endpoint_id].is_under_way(delivery.id)

    def _learn(self, endpoint: Endpoint, verdict: Verdict, moment: Moment, chance: float, *, is_ours: bool) -> None:
        """What an attempt says of its endpoint, beside its delivery."""
        queue, health = self._queues[endpoint.id], self._receivers.health(endpoint.id)
        if verdict.outcome is Outcome.DELIVERED:
            queue.succeeded()
            told = health.succeeded(moment.now)
        elif verdict.is_failure:
            queue.failed(now=moment.monotonic, chance=chance)
            told = health.failed(verdict.error, moment.now, repeatedly=queue.breaker.is_open)
            if health.disabled:
                queue.pause(moment.monotonic + self._policy.disabled_probe / timedelta(seconds=1))
        elif verdict.outcome is Outcome.GONE:
            told = health.gone(verdict.error, moment.now)
        else:
            queue.told_nothing()
            until = moment.monotonic + (verdict.pause or timedelta(0)) / timedelta(seconds=1)
            (queue.hold if is_ours else queue.pause)(until)
            told = health.unsendable(verdict.error) if is_ours else []
        if self._receivers.registered(endpoint.id) is not None:
            self.journal.status(health.take_status())
        for kind, detail in told:
            self.journal.notice(kind, endpoint, detail, moment.now)

    def _drop(self, held: Held) -> None:
        delivery = held.delivery
        del self._held[delivery.id]
        self.journal.ended(held)
        queue = self._queues[delivery.endpoint_id]
        queue.remove(delivery.id)
        if len(queue) <= self._full.get(delivery.endpoint_id, -1) // 2:
            del self._full[delivery.endpoint_id]
        if not len(queue) and delivery.inline is not None:
            self._forget(delivery.endpoint_id)  # there may be as many of them as there are requests

    def _end(self, held: Held, after: After, outcome: Outcome, error: str, moment: Moment) -> None:
        """End a delivery without another attempt, and say why."""
        endpoint = self._receivers.of(held.delivery)
        held.delivery = deliveries.ended(held.delivery, outcome, error, moment.now)
        self._drop(held)
        self.journal.attempt(held.delivery, endpoint, after, None)

    def _turn_away(self, held: Held, moment: Moment) -> None:
        """The endpoint's line is full: the delivery goes to the dead-letter topic, from where it can be replayed."""
        endpoint = self._receivers.of(held.delivery)
        waiting = self._waiting(endpoint.id)
        error = f"{waiting} deliveries wait for the endpoint already"
        held.delivery = deliveries.ended(held.delivery, Outcome.DROPPED, error, moment.now)
        self.journal.attempt(held.delivery, endpoint, After.DEAD, None)
        self.journal.dead(held, DeadReason.BACKLOG_FULL, moment.now)
        if endpoint.id not in self._full:
            self._full[endpoint.id] = waiting
            detail = f"{error}: further ones go to the dead-letter topic; replay with failed_only once it works"
            self.journal.notice(NoticeType.BACKLOG_FULL, endpoint, detail, moment.now)

    def _drop_superseded(self, delivery: Delivery, moment: Moment) -> None:
        queue = self._queues[delivery.endpoint_id]
        for earlier in queue.waiting_before(delivery.request_id, delivery.sequence):
            held = self._held[earlier]
            if held.delivery.type in _PROGRESS:
                error = f"event {delivery.event_id} has overtaken it"
                self._end(held, After.ENDED, Outcome.SUPERSEDED, error, moment)
        self._settle(delivery.endpoint_id, moment)

    def _end_all(self, endpoint_id: str, error: str, moment: Moment) -> None:
        """Nobody is left to deliver to."""
        for held in [each for each in self._held.values() if each.delivery.endpoint_id == endpoint_id]:
            self._end(held, After.ENDED, Outcome.DROPPED, error, moment)
        self._forget(endpoint_id)

    def _forget(self, endpoint_id: str) -> None:
        self._queues.pop(endpoint_id, None)
        self._unknown.pop(endpoint_id, None)
        self._receivers.forget(endpoint_id)
        self._turns.forget(endpoint_id)

    def _note(self, replay: Replay | None) -> None:
        if replay is not None:
            self.journal.replay(replay)


def _decode(value: bytes) -> DispatchRecord:
    record: DispatchRecord = msgspec.json.decode(value, type=DispatchRecord)
    if isinstance(record, Order):
        refuse_odd_times(record)
    return record


def _due(delivery: Delivery, moment: Moment) -> float:
    wait = (delivery.next_at - moment.now).total_seconds() if delivery.next_at else 0.0
    return moment.monotonic + max(0.0, wait)
