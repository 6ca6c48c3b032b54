"""The judge of webhooks is worth what it finds: a history in order passes, each way of breaking a promise is named."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.crash.webhook_judge import (
    Dead,
    Kept,
    Ordered,
    Place,
    Receipt,
    Receiver,
    Recorded,
    Try,
    WebhookEvidence,
    judge_orders,
    judge_webhooks,
    repeats,
)

GOOD, FAILING, BUSY = "good", "failing", "busy"


def receipt(to: str, event_id: str, **fields: str) -> Receipt:
    return Receipt(place=(to, event_id), **{"webhook_id": f"msg_{to}_{event_id}", "digest": event_id, **fields})


def tried(*outcomes: str) -> tuple[Try, ...]:
    """Attempts that ended so, numbered as they should be."""
    numbers = [1 + sum(1 for each in outcomes[:place] if each != "throttled") for place in range(len(outcomes))]
    return tuple(
        Try(number=number, outcome=outcome, time=f"12:00:0{place}", status=500)
        for place, (number, outcome) in enumerate(zip(numbers, outcomes, strict=True))
    )


def recorded(to: str, event_id: str, tries: Sequence[Try], after: str) -> Recorded:
    return Recorded(
        place=(to, event_id), webhook_id=f"msg_{to}_{event_id}", made=tries[-1], tries=tuple(tries), after=after
    )


DELIVERED, ONCE, TWICE, THROTTLED = tried("delivered"), tried("failed"), tried("failed", "failed"), tried("throttled")
RECEIPTS = (
    receipt(GOOD, "a.1"),
    receipt(GOOD, "a.1"),
    receipt(GOOD, "a.2"),
    receipt(FAILING, "a.1"),
    receipt(FAILING, "a.1"),
    receipt(FAILING, "a.2"),
    receipt(BUSY, "a.1"),
    receipt(BUSY, "a.1"),
    receipt(BUSY, "a.1"),
)
RECORDED = (
    recorded(GOOD, "a.1", DELIVERED, "delivered"),
    recorded(GOOD, "a.2", DELIVERED, "delivered"),
    recorded(FAILING, "a.1", ONCE, "waiting"),
    recorded(FAILING, "a.1", TWICE, "dead"),
    recorded(FAILING, "a.2", ONCE, "waiting"),
    recorded(BUSY, "a.1", THROTTLED, "waiting"),
    recorded(BUSY, "a.1", tried("throttled", "failed"), "waiting"),
    recorded(BUSY, "a.1", tried("throttled", "failed", "throttled")[1:], "waiting"),  # the oldest may be forgotten
)
DEAD = Dead(place=(FAILING, "a.1"), reason="exhausted", tries=TWICE, event_id="a.1")
LEDGER = {
    (FAILING, "a.2"): Kept(tries=ONCE, event_id="a.2"),
    (BUSY, "a.1"): Kept(tries=tried("throttled", "failed", "throttled")[1:], event_id="a.1"),
    (BUSY, "a.2"): Kept(tries=(), event_id="a.2"),
}
SOUND = WebhookEvidence(
    receivers={
        GOOD: Receiver(outcomes=frozenset({"delivered"}), attempts=2, is_healthy=True, is_ordered=True),
        FAILING: Receiver(outcomes=frozenset({"failed"}), attempts=2),
        BUSY: Receiver(outcomes=frozenset({"throttled", "failed"}), attempts=2),
    },
    orders=[(to, event_id) for to in (GOOD, FAILING, BUSY) for event_id in ("a.1", "a.2")],
    receipts=RECEIPTS,
    recorded=RECORDED,
    dead=[DEAD],
    ledger=LEDGER,
    positions={0: 6},
    ends={0: 6},
)


def received(*changed: Receipt, without: Place | None = None) -> WebhookEvidence:
    """The sound history with other receipts in front, and without those of one delivery."""
    return replace(SOUND, receipts=[*changed, *(each for each in RECEIPTS if each.place != without)])


def on_record(place: int, *instead: Recorded) -> WebhookEvidence:
    """The sound history with something else instead of one record."""
    return replace(SOUND, recorded=[*RECORDED[:place], *instead, *RECORDED[place + 1 :]])


def buried(*letters: Dead) -> WebhookEvidence:
    return replace(SOUND, dead=letters)


def pending(to: str, event_id: str, kept: Kept | None) -> WebhookEvidence:
    ledger = {place: each for place, each in LEDGER.items() if place != (to, event_id)}
    return replace(SOUND, ledger=ledger if kept is None else {**ledger, (to, event_id): kept})


BROKEN: dict[str, tuple[WebhookEvidence, str]] = {
    "an event never arrives": (received(without=(GOOD, "a.2")), "never received"),
    "nobody ordered what arrives": (received(receipt(GOOD, "b.1")), "nobody ordered"),
    "nobody ordered what is on record": (
        replace(SOUND, recorded=[*RECORDED, recorded(GOOD, "b.1", DELIVERED, "delivered")]),
        "nobody ordered",
    ),
    "a signature does not hold": (received(receipt(GOOD, "a.1", problem="No matching signature")), "does not hold"),
    "a repeat has another webhook-id": (received(receipt(GOOD, "a.1", webhook_id="msg_1")), "several webhook-ids"),
    "two deliveries share a webhook-id": (
        received(receipt(GOOD, "a.1", webhook_id="msg_good_a.2")),
        "the webhook-id of",
    ),
    "a repeat has another body": (received(receipt(GOOD, "a.1", digest="other")), "another body"),
    "an answer on record was never given": (received(without=(FAILING, "a.2")), "1 answers on record, but 0 receipts"),
    "a job's events come out of order": (received(receipt(GOOD, "a.2")), "first received after event 2"),
    "a delivery is not on record": (on_record(1), "not delivered"),
    "a healthy receiver is given up": (
        replace(SOUND, recorded=[recorded(GOOD, "a.1", ONCE, "waiting"), *RECORDED[1:]]),
        "not delivered",
    ),
    "an attempt is missing": (on_record(2), "attempt 2 on record where 1 was due"),
    "an attempt is on record twice": (on_record(2, RECORDED[2], RECORDED[2]), "attempt 1 on record where 2 was due"),
    "an attempt is forgotten": (
        on_record(3, replace(RECORDED[3], tries=TWICE[1:])),
        "does not tell of those before it",
    ),
    "a record tells of another attempt": (
        on_record(3, replace(RECORDED[3], tries=tried("failed", "failed", "failed"))),
        "does not tell of those before it",
    ),
    "a throttled attempt costs one": (
        on_record(6, recorded(BUSY, "a.1", [*THROTTLED, replace(TWICE[1], number=2)], "waiting")),
        "attempt 2 on record where 1 was due",
    ),
    "a failing receiver took something": (
        on_record(4, recorded(FAILING, "a.2", DELIVERED, "delivered")),
        "delivered on record, which cannot be",
    ),
    "a delivery goes on after its end": (
        on_record(0, RECORDED[0], recorded(GOOD, "a.1", tried("delivered", "delivered"), "delivered")),
        "an attempt after its end",
    ),
    "a delivery dies too early": (on_record(2, replace(RECORDED[2], after="dead")), "dead after attempt 1"),
    "a delivery lives too long": (on_record(3, replace(RECORDED[3], after="waiting")), "waiting after attempt 2"),
    "an ended delivery is pending": (pending(GOOD, "a.1", Kept(tries=(), event_id="a.1")), "and still pending"),
    "a waiting delivery is lost": (pending(FAILING, "a.2", None), "neither ended nor pending"),
    "an untried delivery is lost": (pending(BUSY, "a.2", None), "neither ended nor pending"),
    "the ledger lags": (pending(FAILING, "a.2", Kept(tries=(), event_id="a.2")), "with other attempts"),
    "the ledger has lost an event": (pending(FAILING, "a.2", Kept(tries=ONCE, event_id="")), "beside the event ''"),
    "the ledger keeps an event for nobody": (replace(SOUND, leftovers=["good/a.1"]), "belongs to no delivery"),
    "a dead delivery is lost": (buried(), "0 dead deliveries, expected 1"),
    "a dead delivery is doubled": (buried(DEAD, DEAD), "2 dead deliveries, expected 1"),
    "a living delivery lies among the dead": (
        buried(DEAD, replace(DEAD, place=(BUSY, "a.1"))),
        "1 dead deliveries, expected 0",
    ),
    "a dead delivery lacks an attempt": (buried(replace(DEAD, tries=ONCE)), "dead without all its 2 attempts"),
    "a dead delivery tells of other attempts": (
        buried(replace(DEAD, tries=(TWICE[0], replace(TWICE[1], time="13:00:00")))),
        "with other attempts",
    ),
    "a delivery died of something else": (buried(replace(DEAD, reason="too_old")), "dead as too_old"),
    "a dead delivery has lost its event": (buried(replace(DEAD, event_id="")), "dead beside the event ''"),
    "a redirect was followed": (replace(SOUND, contacts=1), "where the redirects lead"),
    "orders were not read": (replace(SOUND, ends={0: 7}), "read to 6, and it ends at 7"),
    "a partition was never read": (replace(SOUND, positions={}), "read to None"),
}


def test_a_history_in_order_passes() -> None:
    assert judge_webhooks(SOUND) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_about_webhooks_is_named(name: str) -> None:
    evidence, named = BROKEN[name]
    assert any(named in complaint for complaint in judge_webhooks(evidence)), judge_webhooks(evidence)


def test_a_repeat_may_come_after_what_followed_its_first_receipt() -> None:
    """A forwarder that dies forgets what it had not written; its heir begins there again."""
    assert judge_webhooks(replace(SOUND, receipts=[*RECEIPTS, receipt(GOOD, "a.1")])) == []


def test_repeats_are_counted_at_healthy_receivers_alone() -> None:
    assert repeats(SOUND) == 1


EVENTS: dict[str, dict[str, object]] = {"a.1": {"id": "a.1"}, "a.2": {"id": "a.2"}}
ORDERS = [Ordered(place=(GOOD, name), event=event) for name, event in EVENTS.items()]
WANTED = [(GOOD, "a.1"), (GOOD, "a.2")]


def test_orders_as_wanted_pass() -> None:
    assert judge_orders(WANTED, EVENTS, ORDERS) == []


@pytest.mark.parametrize(
    ("orders", "named"),
    [
        (ORDERS[:1], "0 orders, expected 1"),
        ([*ORDERS, ORDERS[1]], "2 orders, expected 1"),
        ([*ORDERS, replace(ORDERS[1], place=(BUSY, "a.2"))], "1 orders, expected 0"),
        ([ORDERS[0], replace(ORDERS[1], event=EVENTS["a.1"])], "another event"),
        (ORDERS[::-1], "ordered after event 2"),
    ],
    ids=["lost", "doubled", "for who does not want it", "with another event", "out of order"],
)
def test_a_wrong_order_is_named(orders: list[Ordered], named: str) -> None:
    assert any(named in complaint for complaint in judge_orders(WANTED, EVENTS, orders))
