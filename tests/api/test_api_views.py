"""The views add topics up, in whatever order the topics come, and never hold more than they may."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridge.api.views import DeliveriesView, DeliveryState, JobsView, RequestedJob
from bridge.messages import JobRecord, Phase
from bridge.webhook_messages import After, DeadDelivery, DeadReason, Delivery, Outcome, Replay, ReplayState
from tests.api.examples import SECOND, attempt, delivery, job, replay_order, tried
from tests.api.fakes import Written
from tests.roles.fakes import START

Step = Callable[[DeliveriesView], None]


def ledger(told: Delivery, *, is_over: bool = False) -> Step:
    value = None if is_over else msgspec.json.encode(told)
    return lambda view: view.take_ledger(Written(told.id.encode(), value))


def tries(told: Delivery, after: After, offset: int) -> Step:
    value = msgspec.json.encode(attempt(told, after))
    return lambda view: view.take_attempt(Written(told.endpoint_id.encode(), value, offset=offset))


def dead(told: Delivery) -> Step:
    value = msgspec.json.encode(DeadDelivery(delivery=told, reason=DeadReason.EXHAUSTED, time=START))
    return lambda view: view.take_dead(Written(told.endpoint_id.encode(), value))


def life(event_id: str, end: After, *, again: bool) -> tuple[list[list[Step]], DeliveryState | None]:
    """What three topics tell of a delivery that fails once, then ends; and perhaps is ordered once more."""
    first = delivery(event_id)
    failed = tried(first, Outcome.FAILED)
    ended = tried(failed, Outcome.DELIVERED if end is After.DELIVERED else Outcome.FAILED, after_s=2)
    number = int(event_id.rpartition(".")[2]) * 10
    topics = [
        [ledger(first), ledger(failed), ledger(ended, is_over=True)],
        [tries(failed, After.WAITING, number), tries(ended, end, number + 1)],
        [dead(ended)] if end is After.DEAD else [],
    ]
    state = {After.DELIVERED: DeliveryState.DELIVERED, After.DEAD: DeliveryState.DEAD, After.ENDED: DeliveryState.ENDED}
    if again:
        topics[0].append(ledger(delivery(event_id, ordered=START + 60 * SECOND)))
        return topics, DeliveryState.PENDING
    return topics, state[end]


@given(
    st.lists(st.tuples(st.sampled_from([After.DELIVERED, After.DEAD, After.ENDED]), st.booleans()), max_size=4),
    st.data(),
)
def test_whatever_the_order_of_the_topics_the_end_is_the_same(
    ends: list[tuple[After, bool]], data: st.DataObject
) -> None:
    view = DeliveriesView(history=100)
    lives = {f"o.{number}": life(f"o.{number}", end, again=again) for number, (end, again) in enumerate(ends, start=1)}
    queues = [list(topic) for topics, _ in lives.values() for topic in topics if topic]
    while queues:
        queue = data.draw(st.sampled_from(queues))
        queue.pop(0)(view)
        queues = [each for each in queues if each]

    for event_id, (_, state) in lives.items():
        seen = view.get(f"ep_1/{event_id}")
        assert seen is not None
        assert seen.state == state
        assert (seen.dead_reason is not None) == (state is DeliveryState.DEAD)
    listed = [seen.delivery.event_id for _, seen in view.newest_first(before=None, since=None, until=None)]
    assert sorted(listed) == sorted(lives)
    for query in ({"endpoint_id": "ep_1"}, {"request_id": "o"}):
        narrowed = view.newest_first(before=None, since=None, until=None, **query)
        assert [seen.delivery.event_id for _, seen in narrowed] == listed
    assert view.pending_of("ep_1") == sum(again for _, again in ends)
    assert len(list(view.attempts(before=None, since=None, until=None))) == 2 * len(ends)


def test_what_is_known_of_ended_deliveries_is_bounded_and_lists_forget_the_rest() -> None:
    view = DeliveriesView(history=3)
    for number in range(1, 11):
        done = tried(delivery(f"r{number}.1", f"ep_{number}"), Outcome.DELIVERED)
        tries(done, After.DELIVERED, number)(view)

    listed = list(view.newest_first(before=None, since=None, until=None))
    assert len(listed) == 3
    assert len(list(view.attempts(before=None, since=None, until=None))) == 3
    assert view.get("ep_1/r1.1") is None
    assert view.attempt("0-1") is None
    assert view._by_endpoint.keys() == {"ep_8", "ep_9", "ep_10"}
    assert len(view._by_request) == 3


def test_pending_deliveries_are_all_held_and_leave_nothing_behind() -> None:
    view = DeliveriesView(history=3)
    everything = [delivery(f"r.{number}") for number in range(1, 101)]
    for each in everything:
        ledger(each)(view)
    assert view.pending_of("ep_1") == 100
    for each in everything:
        ledger(each, is_over=True)(view)

    assert view.pending_of("ep_1") == 0
    assert list(view.newest_first(before=None, since=None, until=None)) == []
    assert not view._by_endpoint
    assert not view._by_request
    assert not view._pending_of


@pytest.mark.parametrize("key", [b"ep_1/a.1\x1fevent", b"\x1fposition", b"ep_1\x1fstrange"])
def test_what_lies_beside_deliveries_is_none(key: bytes) -> None:
    view = DeliveriesView(history=10)
    view.take_ledger(Written(key, msgspec.json.encode(delivery())))

    assert list(view.newest_first(before=None, since=None, until=None)) == []


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe", b"12"])
@pytest.mark.parametrize("key", [None, b"", b"ep_1/a.1", b"ep_1\x1freplay\x1frp_1", b"\xff"])
def test_a_record_that_cannot_be_read_changes_nothing(key: bytes | None, value: bytes | None) -> None:
    """Anybody may write to a topic: a view that raised would stop the process."""
    view, jobs, written = DeliveriesView(history=10), JobsView(limit=10), Written(key, value)

    for take in (view.take_ledger, view.take_attempt, view.take_dead, jobs.take):
        take(written)

    assert list(view.newest_first(before=None, since=None, until=None)) == []
    assert list(view.replays(before=None)) == []
    assert len(jobs) == 0


def test_a_replay_that_is_forgotten_is_gone() -> None:
    view = DeliveriesView(history=10)
    key = b"ep_1\x1freplay\x1frp_1"
    view.asked_to_replay(replay_order())
    view.take_ledger(Written(key, msgspec.json.encode(Replay(order=replay_order(), changed=START))))
    assert isinstance(view.replay("rp_1"), Replay)

    view.take_ledger(Written(key, None))

    assert view.replay("rp_1") is None


def test_a_replay_that_the_forwarder_was_quicker_to_tell_of_is_not_queued() -> None:
    view = DeliveriesView(history=10)
    done = Replay(order=replay_order(), state=ReplayState.DONE, changed=START)
    view.take_ledger(Written(b"ep_1\x1freplay\x1frp_1", msgspec.json.encode(done)))

    view.asked_to_replay(replay_order())

    assert view.replay("rp_1") == done


def test_orders_that_no_forwarder_takes_are_remembered_up_to_a_limit() -> None:
    view, jobs = DeliveriesView(history=10), JobsView(limit=10)
    for number in range(1_500):
        view.asked_to_replay(replay_order(f"rp_{number}"))
        jobs.requested(f"r{number}", {}, START)

    assert view.replay("rp_0") is None
    assert view.replay("rp_1499") is not None
    assert len(list(view.replays(before=None))) == 1_000
    assert (jobs.get("r0"), jobs.get("r499")) == (None, None)
    assert isinstance(jobs.get("r1499"), RequestedJob)


# ---- jobs
def take(view: JobsView, *records: JobRecord) -> None:
    for record in records:
        view.take(Written(record.request_id.encode(), msgspec.json.encode(record)))


def held(view: JobsView) -> list[str]:
    return [each.request_id for _, each in view.newest_first(before=None, since=None, until=None)]


def test_live_jobs_are_kept_longest() -> None:
    view = JobsView(limit=3)
    take(view, job("live"), job("done", Phase.SUCCESS), job("older", Phase.FAILED))

    take(view, job("new-1", accepted_at=START + SECOND), job("new-2", accepted_at=START + 2 * SECOND))

    assert held(view) == ["new-2", "new-1", "live"]


def test_the_oldest_live_job_goes_when_all_are_live() -> None:
    view = JobsView(limit=2)
    take(view, *(job(name, accepted_at=START + place * SECOND) for place, name in enumerate("abc")))

    assert held(view) == ["c", "b"]


def test_a_job_is_forgotten_with_its_tombstone() -> None:
    view = JobsView(limit=10)
    take(view, job("a", Phase.SUCCESS), job("b"))
    for name in (b"a", b"b", b"unknown"):
        view.take(Written(name, None))

    assert held(view) == []
    assert view._finished == {}


def test_a_jobs_partition_is_known_for_as_long_as_it_is_held() -> None:
    """Of one that is forgotten, in whatever way, the next request may lie elsewhere."""
    view = JobsView(limit=1)
    view.take(Written(b"a", msgspec.json.encode(job("a", Phase.SUCCESS)), partition=3))
    assert (view.partition_of("a"), view.partition_of("b")) == (3, None)

    view.take(Written(b"b", msgspec.json.encode(job("b")), partition=2))
    assert (view.partition_of("a"), view.partition_of("b")) == (None, 2)

    view.take(Written(b"b", None, partition=2))
    assert view._partitions == {}


def test_graphs_and_positions_are_no_jobs() -> None:
    view = JobsView(limit=10)
    for key in (b"a\x1fparams", b"\x1fposition"):
        view.take(Written(key, msgspec.json.encode(job("a"))))
        view.take(Written(key, None))

    assert held(view) == []


def test_a_job_that_runs_again_is_live_again() -> None:
    """The same id may be used anew once it is forgotten."""
    view = JobsView(limit=2)
    take(view, job("a", Phase.SUCCESS), job("a"), job("b", Phase.FAILED), job("c"))

    assert sorted(held(view)) == ["a", "c"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([*Phase, None])), max_size=40))
def test_never_more_than_the_limit_and_never_a_finished_one_for_a_live_one(steps: list[tuple[str, Any]]) -> None:
    view = JobsView(limit=3)
    for name, phase in steps:
        live = {each.request_id for _, each in view.newest_first(before=None, since=None, until=None)}
        live = {each for each in live if each not in view._finished}
        if phase is None:
            view.take(Written(name.encode(), None))
        else:
            take(view, replace(job(name), phase=phase))
        after = set(held(view))
        assert len(after) <= 3
        assert view._finished.keys() <= after
        if view._finished:
            assert live - {name} <= after


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff", b'{"request_id":' + b"[" * 100_000])
def test_what_cannot_be_read_changes_nothing(value: bytes) -> None:
    """However deeply it is nested: an error would end the process, which would read it again."""
    jobs, deliveries = JobsView(limit=2), DeliveriesView(history=2)
    take(jobs, job("a"))

    for key in (b"a", b"ep_1/a.1", b"ep_1\x1freplay\x1frp_1"):
        jobs.take(Written(key, value))
        deliveries.take_ledger(Written(key, value))
        deliveries.take_attempt(Written(key, value))
        deliveries.take_dead(Written(key, value))

    assert held(jobs) == ["a"]
    assert list(deliveries.newest_first(before=None, since=None, until=None)) == []
