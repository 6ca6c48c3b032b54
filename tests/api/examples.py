"""Records as workers and forwarders write them, and the views that hold them."""

from datetime import timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from bridge.core.registry import endpoint_key, status_key
from bridge.messages import EventType, Failure, JobEvent, JobRecord, Phase
from bridge.webhook_messages import (
    After,
    Attempt,
    AttemptSummary,
    DeadDelivery,
    DeadReason,
    Delivery,
    Endpoint,
    EndpointStatus,
    Exchange,
    InlineWebhook,
    Outcome,
    Replay,
    ReplayOrder,
    ReplayState,
    SealedSecret,
)
from tests.api.fakes import HOOK, FakeBox, World, Written
from tests.roles.fakes import START

SECOND = timedelta(seconds=1)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def endpoint(endpoint_id: str = "ep_1", **fields: Any) -> Endpoint:
    secret = SealedSecret(sealed=FakeBox().seal(SECRET, owner=endpoint_id), created=START)
    return Endpoint(
        **{"id": endpoint_id, "url": HOOK, "secrets": (secret,), "created": START, "changed": START, **fields}
    )


def status(endpoint_id: str = "ep_1", **fields: Any) -> EndpointStatus:
    return EndpointStatus(**{"endpoint_id": endpoint_id, "epoch": 1, "changed": START, **fields})


def delivery(event_id: str = "order-1.3", endpoint_id: str = "ep_1", **fields: Any) -> Delivery:
    request_id, _, sequence = event_id.rpartition(".")
    return Delivery(
        **{
            "endpoint_id": endpoint_id,
            "event_id": event_id,
            "type": EventType.SUCCESS,
            "request_id": request_id,
            "sequence": int(sequence),
            "time": START,
            "ordered": START,
            **fields,
        }
    )


def tried(before: Delivery, outcome: Outcome, *, after_s: float = 1.0, code: int = 500, **fields: Any) -> Delivery:
    """A delivery after one more attempt."""
    summary = AttemptSummary(
        number=before.used + 1,
        time=before.ordered + after_s * SECOND,
        outcome=outcome,
        status=code,
        error="" if outcome is Outcome.DELIVERED else f"the receiver answered {code}",
        duration_s=0.25,
    )
    return replace(before, attempts=(*before.attempts, summary), used=before.used + 1, **fields)


def attempt(told: Delivery, after: After, **fields: Any) -> Attempt:
    """The record of the last attempt of a delivery."""
    exchange = Exchange(
        request_headers={"webhook-id": "msg_1", "webhook-signature": "v1,***"},
        response_headers={"content-type": "text/plain"},
        response_body="ok",
    )
    return Attempt(
        **{
            "delivery": told,
            "webhook_id": "msg_1",
            "url": HOOK,
            "attempt": told.attempts[-1],
            "after": after,
            "exchange": exchange,
            **fields,
        }
    )


def replay_order(replay_id: str = "rp_1", endpoint_id: str = "ep_1", **fields: Any) -> ReplayOrder:
    return ReplayOrder(
        **{
            "replay_id": replay_id,
            "endpoint_id": endpoint_id,
            "since": START,
            "until": START,
            "created": START,
            **fields,
        }
    )


def job(request_id: str = "order-1", phase: Phase = Phase.TRACKING, **fields: Any) -> JobRecord:
    return JobRecord(
        **{
            "request_id": request_id,
            "phase": phase,
            "sequence": 3,
            "max_attempts": 3,
            "accepted_at": START,
            "labels": {"tenant": "acme"},
            "job_id": "881417947308949275",
            "status": "RUNNING",
            "job": msgspec.Raw(b'{"id": "881417947308949275", "credits": 0.80, "new": [1e3]}'),
            **fields,
        }
    )


def event(event_id: str = "order-1.4", kind: EventType = EventType.RUNNING, **fields: Any) -> JobEvent:
    request_id, _, sequence = event_id.rpartition(".")
    return JobEvent(
        **{
            "id": event_id,
            "type": kind,
            "time": START,
            "request_id": request_id,
            "sequence": int(sequence),
            "attempt": 1,
            "labels": {"tenant": "acme"},
            **fields,
        }
    )


class Writer:
    """Writes to topics as workers and forwarders do: what it writes is in the views."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._offset = 0

    def endpoint(self, record: Endpoint, how: EndpointStatus | None = None) -> Endpoint:
        self._world.registry.apply(endpoint_key(record.id), msgspec.json.encode(record))
        if how is not None:
            self._world.registry.apply(status_key(record.id), msgspec.json.encode(how))
        return record

    def job(self, *records: JobRecord) -> None:
        for record in records:
            self._world.jobs.take(self._written(record.request_id, record))

    def forgotten_job(self, request_id: str) -> None:
        self._world.jobs.take(self._written(request_id, None))

    def event(self, *events: JobEvent) -> None:
        for told in events:
            self._world.hub.take(msgspec.json.encode(told))

    def pending(self, *deliveries: Delivery) -> None:
        for told in deliveries:
            self._world.deliveries.take_ledger(self._written(told.id, told))

    def ended(self, told: Delivery) -> None:
        self._world.deliveries.take_ledger(self._written(told.id, None))

    def attempt(self, record: Attempt) -> str:
        """Returns the attempt's id."""
        written = self._written(record.delivery.endpoint_id, record)
        self._world.deliveries.take_attempt(written)
        return f"{written.partition}-{written.offset}"

    def dead(self, told: Delivery, reason: DeadReason = DeadReason.EXHAUSTED) -> None:
        record = DeadDelivery(delivery=told, reason=reason, time=START + 9 * SECOND, event=msgspec.Raw(b"{}"))
        self._world.deliveries.take_dead(self._written(told.endpoint_id, record))

    def replay(self, record: Replay) -> None:
        key = f"{record.order.endpoint_id}\x1freplay\x1f{record.order.replay_id}"
        self._world.deliveries.take_ledger(self._written(key, record))

    def _written(self, key: str, record: msgspec.Struct | None) -> Written:
        self._offset += 1
        value = None if record is None else msgspec.json.encode(record)
        return Written(key.encode(), value, partition=3, offset=self._offset)


def fill(world: World) -> dict[str, str]:
    """One of everything; returns the ids, by the names that paths give them."""
    writer = Writer(world)
    writer.endpoint(endpoint(header_names=("x-token",), labels={"a": "b"}), status(last_error="no", warned=True))
    writer.endpoint(endpoint("ep_2"), status("ep_2", disabled_at=START, disabled_reason="gone", failing_since=START))
    writer.pending(tried(delivery("order-2.1", next_at=START), Outcome.FAILED, after_s=2))
    webhook = InlineWebhook(url="https://acme.example/in?token=secret", tenant="acme")
    writer.pending(delivery("order-2.2", "in_1", inline=webhook))
    done = tried(tried(delivery(), Outcome.FAILED), Outcome.DELIVERED, after_s=2, code=200)
    attempt_id = writer.attempt(attempt(done, After.DELIVERED))
    writer.dead(tried(delivery("order-3.1"), Outcome.FAILED))
    writer.attempt(attempt(tried(delivery("order-4.1"), Outcome.BLOCKED, code=0), After.WAITING, exchange=None))
    order = replay_order()
    writer.replay(Replay(order=order, positions={"t-0": 5}, ends={"t-0": 10}, scanned=5, changed=START))
    writer.replay(Replay(order=replay_order("rp_2"), state=ReplayState.DONE, changed=START))
    writer.job(job(), job("order-2", Phase.FAILED, error=Failure(code="x", message="no"), labels=None))
    world.jobs.requested("order-9", {}, START)
    return {
        "endpoint_id": "ep_1",
        "event_id": "order-1.3",
        "attempt_id": attempt_id,
        "replay_id": order.replay_id,
        "request_id": "order-1",
    }
