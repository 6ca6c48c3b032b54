"""What stands still must not hold up what moves: neither the reading of orders nor the memory of a partition."""

from bridge.core.fanout import inline_id
from bridge.webhook_messages import DeadReason, InlineWebhook, NoticeType, Order
from tests.core.webhook_examples import (
    FAILED,
    THROTTLED,
    UNSENDABLE,
    Desk,
    endpoint,
    order,
    put,
    secrets,
    with_policy,
)


def orders(count: int, endpoint_id: str) -> list[Order]:
    return [order(endpoint_id, f"j{number}") for number in range(count)]


def test_only_deliveries_of_endpoints_that_take_them_count_as_moving() -> None:
    """Orders stay in Kafka while too many wait; a paused, failing or throttled endpoint must not keep them there."""
    desk = Desk(*(endpoint(f"ep_{name}") for name in ("works", "fails", "waits")), endpoint("ep_paused", paused=True))
    for name in ("works", "fails", "waits", "paused"):
        desk.place(*orders(4, f"ep_{name}"))
    assert desk.partition.moving(desk.now.monotonic) == 12

    for send in desk.send():
        if send.endpoint.id != "ep_works":
            desk.answer(send, FAILED if send.endpoint.id == "ep_fails" else THROTTLED)

    assert desk.partition.moving(desk.now.monotonic) == 4
    assert len(desk.partition) == 16


def test_crowded_partition_keeps_no_more_than_a_fair_share_for_who_takes_none() -> None:
    """The rest goes to the dead-letter topic, with a notice, and can be replayed; endpoints that work lose nothing."""
    desk = Desk(endpoint(), endpoint("ep_paused", paused=True), policy=with_policy(max_pending=100, max_held=8))
    desk.place(*orders(6, "ep_paused"), *orders(6, "ep_a"))
    assert desk.commit().dead == []

    desk.place(order("ep_paused", "late"), order("ep_a", "late"))

    changes = desk.commit()
    assert [(dead.delivery.id, dead.reason) for dead in changes.dead] == [("ep_paused/late.1", DeadReason.BACKLOG_FULL)]
    assert [(notice.type, notice.endpoint_id) for notice in changes.notices] == [(NoticeType.BACKLOG_FULL, "ep_paused")]
    assert len(desk.partition) == 13


def test_crowded_partition_still_keeps_the_share_of_an_endpoint_that_has_little() -> None:
    """A newcomer that is paused is no reason for the crowd."""
    desk = Desk(
        endpoint("ep_paused", paused=True),
        endpoint("ep_little", paused=True),
        policy=with_policy(max_pending=100, max_held=8),
    )
    desk.place(*orders(8, "ep_paused"), *orders(3, "ep_little"))

    assert desk.commit().dead == []
    assert len(desk.partition) == 11


def test_what_waits_for_a_tenants_secret_goes_as_soon_as_there_is_one() -> None:
    """Not after the pause that a missing secret costs; the pauses of registered endpoints are none of its business."""
    webhook = InlineWebhook(url="https://acme.example/hook", tenant="acme")
    desk = Desk(endpoint())
    desk.place(order(inline_id(webhook), "a", inline=webhook), order("ep_a", "a"))
    for send in desk.send():
        desk.answer(send, UNSENDABLE if send.endpoint.id != "ep_a" else THROTTLED)
    assert desk.partition.next_send_at() > desk.now.monotonic

    put(desk.registry, secrets("acme"))
    desk.partition.tenant_changed(desk.now)

    assert [send.endpoint.id for send in desk.send()] == [inline_id(webhook)]
