from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.fanout import fan_out, inline_id, is_inline, is_webhook, partition_of
from bridge.core.registry import Registry
from bridge.messages import NOTHING, EventType, JobEvent, JobRecord, Phase
from bridge.webhook_messages import InlineWebhook, Order
from tests.core.examples import NOW, accepted
from tests.core.webhook_examples import endpoint, event, registry_of, value_of

HOOK = "https://acme.example/hook"


def record(webhook: object = None) -> JobRecord:
    """A job, with a webhook or without."""
    raw = NOTHING if webhook is None else msgspec.Raw(msgspec.json.encode(webhook))
    return JobRecord(request_id="a", phase=Phase.TRACKING, accepted_at=NOW, webhook=raw)


def ordered(told: JobEvent, registry: Registry, webhook: object = None) -> list[Order]:
    return fan_out([(told, record(webhook))], registry)


def test_each_subscriber_gets_one_order() -> None:
    """However many patterns of it match."""
    registry = registry_of(
        endpoint("ep_a", event_types=["*", "tams.job.*"]), endpoint("ep_b"), endpoint("ep_c", event_types=["x"])
    )

    assert Counter(order.endpoint_id for order in ordered(event(), registry)) == {"ep_a": 1, "ep_b": 1}


def test_order_carries_the_event_as_it_was_published() -> None:
    """Byte for byte: the receiver and the consumer of the topic read the same."""
    told = event("a", 7, team="red")

    (order,) = ordered(told, registry_of(endpoint()))

    assert bytes(order.event) == value_of(told)
    assert (order.event_id, order.type, order.request_id, order.sequence, order.time, order.inline) == (
        "a.7", "tams.job.success", "a", 7, told.time, None,
    )  # fmt: skip


def test_order_can_be_read_from_the_topic() -> None:
    """What the worker writes is what the forwarder takes in."""
    webhook = {"url": HOOK, "events": ["success"]}

    for order in ordered(event(tenant="acme"), registry_of(endpoint()), webhook):
        assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order


def test_events_nobody_wants_make_no_orders() -> None:
    """Nor any work."""
    assert ordered(event(), registry_of(endpoint(event_types=["tams.job.failed"]))) == []


def test_orders_lie_in_the_order_of_the_events() -> None:
    """Endpoints that want one event of a job after the other rely on it."""
    told = [(event("a", number), record()) for number in (1, 2, 3)]

    orders = fan_out(told, registry_of(endpoint("ep_a"), endpoint("ep_b")))

    for endpoint_id in ("ep_a", "ep_b"):
        assert [order.sequence for order in orders if order.endpoint_id == endpoint_id] == [1, 2, 3]


# --------------------------------------------------------------------------------------------- webhooks inside requests


def test_webhook_of_a_request_gets_its_events() -> None:
    """Beside the registered endpoints, under an id made from tenant and URL."""
    webhook = {"url": HOOK, "events": ["success"]}

    orders = ordered(event(tenant="acme"), registry_of(endpoint()), webhook)

    inline = InlineWebhook(url=HOOK, tenant="acme")
    assert [(order.endpoint_id, order.inline) for order in orders] == [("ep_a", None), (inline_id(inline), inline)]


def test_webhook_of_a_request_without_tenant_belongs_to_none() -> None:
    """Its events are signed with the secret of requests without tenant."""
    (order,) = ordered(event(), Registry(), {"url": HOOK, "events": ["success"]})

    assert order.inline == InlineWebhook(url=HOOK, tenant="")


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        (["success"], True),
        (["tams.job.success"], True),
        (["*"], True),
        (["s*"], True),
        (["failed", "success"], True),
        (["failed"], False),
        ([], False),
    ],
)
def test_webhook_of_a_request_names_events_by_their_last_word(events: list[str], *, wanted: bool) -> None:
    """Or in full."""
    assert bool(ordered(event(), Registry(), {"url": HOOK, "events": events})) is wanted


@pytest.mark.parametrize(("type_", "wanted"), [(EventType.SUCCESS, True), (EventType.RUNNING, False)])
def test_webhook_as_the_worker_keeps_it_gets_the_events_it_asked_for(type_: EventType, *, wanted: bool) -> None:
    """Read by the rules for requests, kept in the ledger: without `events`, those that end a job."""
    kept = accepted(webhook={"url": HOOK})

    assert bool(fan_out([(event(type_=type_), kept)], Registry())) is wanted


@given(st.lists(st.tuples(st.text(max_size=5), st.sampled_from(["https://a.example/", "https://b.example/"]))))
def test_requests_share_a_queue_exactly_if_tenant_and_url_agree(webhooks: list[tuple[str, str]]) -> None:
    """Nobody's events are signed with another tenant's secret."""
    by_id: dict[str, set[tuple[str, str]]] = {}
    for tenant, url in webhooks:
        by_id.setdefault(inline_id(InlineWebhook(url=url, tenant=tenant)), set()).add((tenant, url))

    assert all(len(group) == 1 for group in by_id.values())
    assert len(by_id) == len(set(webhooks))
    assert all(is_inline(endpoint_id) for endpoint_id in by_id)


def test_queue_of_a_webhook_never_changes_its_name() -> None:
    """Another version that named it otherwise would send what waits in the ledger beside what comes."""
    assert inline_id(InlineWebhook(url=HOOK, tenant="acme")) == "in_fe8a7d93d4e917b93b804b7e"


def test_registered_endpoints_are_not_inline() -> None:
    """Their ids are of another kind."""
    assert not is_inline("ep_in_a")


# ----------------------------------------------------------------------------------------------------------- partitions


@given(st.text(), st.integers(1, 50))
def test_everything_of_an_endpoint_lies_in_one_partition_that_exists(endpoint_id: str, partitions: int) -> None:
    """Its one owner keeps order and limits."""
    assert 0 <= partition_of(endpoint_id, partitions) < partitions


@pytest.mark.parametrize(("endpoint_id", "partition"), [("ep_a", 4), ("ep_b", 2), ("in_c", 5)])
def test_partition_of_an_endpoint_never_changes(endpoint_id: str, partition: int) -> None:
    """Another version that reckoned otherwise would split an endpoint's deliveries over two owners."""
    assert partition_of(endpoint_id, 12) == partition


def test_endpoints_are_spread_over_the_partitions() -> None:
    """No partition has twice its share of many."""
    shares = Counter(partition_of(f"ep_{number}", 6) for number in range(6_000))

    assert len(shares) == 6
    assert max(shares.values()) < 1_200


def test_only_what_names_a_url_and_patterns_is_the_webhook_of_a_request() -> None:
    """A ledger that holds anything else in its place is not worked on."""
    assert is_webhook(accepted(webhook={"url": HOOK}).webhook)
    assert not any(map(is_webhook, (b"{}", b'{"url": 7}', b'{"url": "\xff"}', b'{"x": ' + b"[" * 100_000)))
