"""Which event goes to whom.

The worker asks this for every event it commits, and writes the orders in the same transaction: an event has exactly one
order for each endpoint that wanted it at that moment, and those of a job lie in the order of its events.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from bridge.core.layouts import UNREADABLE
from bridge.core.registry import TENANT_LABEL, Registry, matches_type
from bridge.messages import JobEvent, JobRecord
from bridge.webhook_messages import InlineWebhook, Order

_INLINE_PREFIX = "in_"
_TYPE_PREFIX = "tams.job."


class _InlineFields(msgspec.Struct):
    url: str
    events: tuple[str, ...] = ()


def partition_of(endpoint_id: str, partitions: int) -> int:
    """The partition that holds everything of an endpoint; of our own making, as only the bridge writes these topics.

    Args:
        endpoint_id: registered or inline.
        partitions: how many there are.
    """
    return int.from_bytes(sha256(endpoint_id.encode()).digest()[:8]) % partitions


def inline_id(webhook: InlineWebhook) -> str:
    """The id under which all requests of one tenant that name the same URL share a queue."""
    return _INLINE_PREFIX + sha256(f"{webhook.tenant}\n{webhook.url}".encode()).hexdigest()[:24]


def is_inline(endpoint_id: str) -> bool:
    """Whether an id stands for webhooks that were given inside requests."""
    return endpoint_id.startswith(_INLINE_PREFIX)


def is_webhook(document: bytes | msgspec.Raw) -> bool:
    """Whether this can stand in a job's record as the webhook of its request."""
    try:
        msgspec.json.decode(document, type=_InlineFields)
    except UNREADABLE:
        return False
    return True


def fan_out(told: Iterable[tuple[JobEvent, JobRecord]], registry: Registry) -> list[Order]:
    """The orders that follow from some events.

    Args:
        told: the events, each with the job after it.
        registry: who wants what.
    """
    orders: list[Order] = []
    for event, record in told:
        subscribers = [(endpoint.id, None) for endpoint in registry.subscribers(event.type, event.labels)]
        inline = _inline(event, record)
        if subscribers or inline:
            orders += _orders(event, [*subscribers, *inline])
    return orders


def _orders(event: JobEvent, receivers: Sequence[tuple[str, InlineWebhook | None]]) -> Iterable[Order]:
    value = msgspec.Raw(msgspec.json.encode(event))
    for endpoint_id, inline in receivers:
        yield Order(
            endpoint_id=endpoint_id,
            event_id=event.id,
            type=event.type,
            request_id=event.request_id,
            sequence=event.sequence,
            time=event.time,
            event=value,
            inline=inline,
        )


def _inline(event: JobEvent, record: JobRecord) -> list[tuple[str, InlineWebhook | None]]:
    if not record.webhook:
        return []
    fields = msgspec.json.decode(record.webhook, type=_InlineFields)
    patterns = [each if each.startswith(_TYPE_PREFIX) else _TYPE_PREFIX + each for each in fields.events]
    if not matches_type(patterns, event.type):
        return []
    webhook = InlineWebhook(url=fields.url, tenant=event.labels.get(TENANT_LABEL, ""))
    return [(inline_id(webhook), webhook)]
