"""The forwarder's promises, told in a world in memory: what is sent, what is written when, and what bad days cost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random

import pytest

from bridge.core.fanout import inline_id
from bridge.errors import LedgerUnavailable, OwnershipLost
from bridge.messages import EventType
from bridge.webhook_messages import After, Attempt, InlineWebhook, Ordering, Outcome, ReplayCancel, ReplayState
from bridge.webhook_ports import NoResponse, Response
from tests.core.webhook_examples import (
    FAILED,
    GONE,
    NO_RESPONSE,
    THROTTLED,
    event,
    replay_order,
    secrets,
    value_of,
    with_policy,
)
from tests.roles.fakes import settle
from tests.roles.forwarder_fakes import FakeHistory
from tests.roles.forwarder_world import ForwarderWorld, Options, forwarding, secret_of, url_of

MakeForwarder = Callable[[Options], Awaitable[ForwarderWorld]]

A = url_of("ep_a")


@pytest.fixture
async def make_forwarder() -> AsyncIterator[MakeForwarder]:
    """Start a forwarder with these options."""
    async with AsyncExitStack() as stack:

        async def start(options: Options) -> ForwarderWorld:
            return await stack.enter_async_context(forwarding(options))

        yield start


def ends(attempts: list[Attempt]) -> list[tuple[str, str]]:
    """Which deliveries were written down as ended, and how."""
    return [(attempt.delivery.id, attempt.after.value) for attempt in attempts if attempt.after is not After.WAITING]


def past(count: int, job: str = "old") -> list[bytes]:
    """Events of a job as they lie on a result topic."""
    return [value_of(event(job, number)) for number in range(1, count + 1)]


# --------------------------------------------------------------------------------------------------------- on good days
async def test_an_order_is_sent_at_once_and_recorded_a_moment_later(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")

    await world.order("ep_a", "job-1", 3)
    assert world.sender.events(A) == ["job-1.3"]
    assert world.ledgers.commits == []

    await world.commit()
    assert ends(world.ledgers.attempts) == [("ep_a/job-1.3", "delivered")]
    assert world.ledgers.position() == 1
    assert world.told.commits == world.ledgers.commits


async def test_what_ends_before_the_first_commit_costs_the_ledger_nothing_but_its_position(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")

    await world.order("ep_a")
    await world.commit()

    (changes,) = world.ledgers.commits
    assert (changes.deliveries, changes.events, changes.position) == ({}, {}, 1)


async def test_outcomes_wait_for_each_other_so_that_many_go_into_one_transaction(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options(commit_interval_s=1.0))
    await world.register("ep_a")
    for number in range(20):
        await world.order("ep_a", f"job-{number}")

    await world.clock.advance(0.99)
    assert world.ledgers.commits == []

    await world.clock.advance(0.01)
    assert [len(changes.attempts) for changes in world.ledgers.commits] == [20]


async def test_what_comes_back_while_a_commit_runs_goes_into_the_next_one(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.ledgers.gate.clear()
    await world.order("ep_a", "first")
    await world.commit()
    for number in range(5):
        await world.order("ep_a", f"later-{number}")

    world.ledgers.gate.set()
    await settle()
    await world.commit()

    assert [len(changes.attempts) for changes in world.ledgers.commits] == [1, 5]


async def test_a_failure_is_tried_again_after_its_pause_with_the_same_bytes(make_forwarder: MakeForwarder) -> None:
    """Half way in between it lies in the ledger, with its event."""
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.sender.answers[A].append(FAILED)

    await world.order("ep_a")
    await world.commit()
    (waiting,) = world.ledgers.pending()
    await world.clock.advance(20.0)

    assert (waiting.id, waiting.used) == ("ep_a/a.1", 1)
    first, second = world.sender.posted
    assert second.at - first.at == pytest.approx(9.0)
    assert first.post.body == second.post.body
    assert first.post.headers["webhook-id"] == second.post.headers["webhook-id"]
    assert first.post.headers["webhook-timestamp"] != second.post.headers["webhook-timestamp"]
    assert [(each.attempt.number, each.attempt.outcome) for each in world.ledgers.attempts] == [
        (1, Outcome.FAILED),
        (2, Outcome.DELIVERED),
    ]
    assert world.ledgers.pending() == []


async def test_what_uses_up_its_schedule_is_given_up_with_all_its_attempts(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.sender.answers[A].extend([FAILED, NO_RESPONSE, FAILED])

    await world.order("ep_a")
    await world.clock.advance(1000.0)

    (dead,) = world.ledgers.dead
    assert [summary.status for summary in dead.delivery.attempts] == [500, 0, 500]
    assert bytes(dead.event) == value_of(event("a"))
    assert world.ledgers.pending() == []


async def test_a_record_that_cannot_be_read_is_parked_and_the_next_one_sent(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")

    world.feed.publish(b"{broken", key="x")
    await world.order("ep_a")
    await world.commit()

    letters = [letter for changes in world.ledgers.commits for letter in changes.dead_letters]
    assert [(letter.arrival.value, letter.reason.value) for letter in letters] == [(b"{broken", "invalid_dispatch")]
    assert world.sender.events() == ["a.1"]
    assert world.ledgers.position() == 2


# ------------------------------------------------------------------------------------------------------------ isolation
async def test_nothing_waits_in_line_behind_an_endpoint_that_hangs(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_hanging", "ep_fine")
    world.sender.hang(url_of("ep_hanging"))
    for number in range(50):
        await world.order("ep_hanging", f"job-{number}")
        await world.order("ep_fine", f"job-{number}")
    await world.commit()

    assert world.sender.events(url_of("ep_fine")) == [f"job-{number}.1" for number in range(50)]
    assert len(world.sender.events(url_of("ep_hanging"))) == 10
    assert len(ends(world.ledgers.attempts)) == 50
    assert (world.forwarder.under_way, world.forwarder.pending()) == (10, 50)


async def test_never_more_posts_at_once_than_allowed_and_each_that_ends_makes_room(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options(concurrency=3))
    names = [f"ep_{number}" for number in range(10)]
    await world.register(*names)
    gates = [world.sender.hang(url_of(name)) for name in names]
    for name in names:
        await world.order(name)
    assert world.sender.under_way == world.forwarder.under_way == 3

    for gate in gates:
        gate.set()
    await settle()

    assert len(world.sender.posted) == 10
    assert world.sender.most_at_once == 3
    assert world.forwarder.under_way == 0


async def test_a_partition_with_much_to_send_does_not_starve_another_one(make_forwarder: MakeForwarder) -> None:
    """While as many POSTs are under way as may be, whoever has waited longest is next."""
    world = await make_forwarder(Options(partitions=2, concurrency=1))
    await world.register("ep_busy", "ep_quiet")
    busy = world.sender.hang(url_of("ep_busy"))
    for number in range(30):
        await world.order("ep_busy", f"job-{number}", partition=0)
    await world.order("ep_quiet", "quiet", partition=1)

    for _ in range(5):
        await world.clock.advance(0.01)
        busy.set()
        busy.clear()
    await settle()

    assert "quiet.1" in world.sender.events()[:4]


async def test_events_of_one_job_go_one_after_the_other_if_the_endpoint_says_so(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a", ordering=Ordering.JOB)
    gate = world.sender.hang(A)
    for sequence in (1, 2, 3):
        await world.order("ep_a", "slow", sequence)
    await world.order("ep_a", "other", 1)
    assert world.sender.events() == ["slow.1", "other.1"]

    gate.set()
    await settle()

    assert world.sender.events() == ["slow.1", "other.1", "slow.2", "slow.3"]


async def test_a_pause_the_receiver_asks_for_costs_no_attempt(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.sender.answers[A].append(THROTTLED)

    await world.order("ep_a", "first")
    await world.order("ep_a", "second")
    await world.clock.advance(59.0)
    assert world.sender.events() == ["first.1"]
    await world.clock.advance(2.0)

    assert sorted(world.sender.events()) == ["first.1", "first.1", "second.1"]
    assert {each.attempt.number for each in world.ledgers.attempts} == {1}


async def test_an_endpoint_that_wants_no_more_is_disabled_at_once_and_its_deliveries_are_kept(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.sender.answers[A].append(GONE)

    await world.order("ep_a", "first")
    await world.order("ep_a", "second")
    await world.clock.advance(3600.0)
    (notice,) = world.ledgers.notices
    assert notice.type == "tams.endpoint.disabled"
    assert world.sender.events() == ["first.1"]
    assert {delivery.id for delivery in world.ledgers.pending()} == {"ep_a/first.1", "ep_a/second.1"}
    status = world.ledgers.commits[0].statuses["ep_a"]
    world.put(status)

    await world.register("ep_a", epoch=2)
    await world.commit()

    assert sorted(world.sender.events()) == ["first.1", "first.1", "second.1"]
    assert world.ledgers.pending() == []


# ------------------------------------------------------------------------------------- what the registry says meanwhile
async def test_a_paused_endpoint_gets_nothing_until_it_is_resumed(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a", paused=True)
    await world.order("ep_a")
    await world.clock.advance(60.0)
    assert world.sender.posted == []
    assert [delivery.id for delivery in world.ledgers.pending()] == ["ep_a/a.1"]

    await world.register("ep_a")

    assert world.sender.events() == ["a.1"]


async def test_a_delivery_that_waits_goes_to_the_address_the_endpoint_has_then(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.sender.answers[A].append(FAILED)
    await world.order("ep_a")

    await world.register("ep_a", url="https://new.example/hook")
    await world.clock.advance(20.0)

    assert world.sender.events("https://new.example/hook") == ["a.1"]


async def test_what_waits_for_a_deleted_endpoint_ends_on_record(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a", paused=True)
    await world.order("ep_a")
    await world.commit()

    await world.delete("ep_a")
    await world.commit()

    assert ends(world.ledgers.attempts) == [("ep_a/a.1", "ended")]
    assert world.ledgers.attempts[0].attempt.error == "the endpoint was deleted"
    assert world.ledgers.pending() == []


async def test_an_order_may_be_ahead_of_the_registry(make_forwarder: MakeForwarder) -> None:
    """The worker has seen an endpoint that this process has not yet."""
    world = await make_forwarder(Options())
    await world.order("ep_a")
    await world.clock.advance(5.0)
    assert world.sender.posted == []

    await world.register("ep_a")

    assert world.sender.events(A) == ["a.1"]


async def test_an_order_for_an_endpoint_that_never_comes_ends_on_record(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())

    await world.order("ep_a")
    await world.clock.advance(60.0)

    assert ends(world.ledgers.attempts) == [("ep_a/a.1", "ended")]
    assert world.ledgers.attempts[0].attempt.error == "no such endpoint is registered"


async def test_an_inline_webhook_waits_until_its_tenant_has_a_secret(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    webhook = InlineWebhook(url="https://inline.example/hook", tenant="acme")
    await world.order(inline_id(webhook), inline=webhook)
    await world.commit()
    assert world.sender.posted == []
    (attempt,) = world.ledgers.attempts
    assert (attempt.attempt.outcome, attempt.after) == (Outcome.THROTTLED, After.WAITING)
    assert "tenant-secret acme --rotate" in attempt.attempt.error
    (notice,) = world.ledgers.notices
    assert (notice.url, notice.detail) == (webhook.url, attempt.attempt.error)

    world.put(secrets("acme", world.box.seal(secret_of("acme"), owner="acme")))
    await world.clock.advance(61.0)

    assert world.sender.events(webhook.url) == ["a.1"]
    assert ends(world.ledgers.attempts) == [(f"{inline_id(webhook)}/a.1", "delivered")]


# --------------------------------------------------------------------------------------------------- closing and losing
async def test_a_forwarder_that_stops_writes_down_at_once_what_it_knows(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options(commit_interval_s=3600.0))
    await world.register("ep_a")
    await world.order("ep_a")

    await world.stop()

    assert world.working.done()
    assert ends(world.ledgers.attempts) == [("ep_a/a.1", "delivered")]


async def test_a_forwarder_that_stops_begins_nothing_new_and_waits_for_what_is_under_way(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a", "ep_b", max_in_flight=1)
    gate = world.sender.hang(A)
    await world.order("ep_a", "under-way")
    await world.order("ep_a", "waiting")

    await world.stop()
    await world.order("ep_b")
    assert not world.working.done()
    gate.set()
    await settle()

    assert world.working.done()
    assert world.sender.events() == ["under-way.1"]
    assert ends(world.ledgers.attempts) == [("ep_a/under-way.1", "delivered")]
    assert [delivery.id for delivery in world.ledgers.pending()] == ["ep_a/waiting.1"]
    assert world.ledgers.position() == 2


async def test_a_receiver_that_hangs_does_not_hold_up_the_end(make_forwarder: MakeForwarder) -> None:
    """What was under way is sent again by the successor."""
    former = await make_forwarder(Options())
    await former.register("ep_a")
    former.sender.hang(A)
    await former.order("ep_a")

    await former.stop()
    await former.clock.advance(5.9)
    assert not former.working.done()
    await former.clock.advance(0.2)
    assert former.working.done()

    latter = await make_forwarder(Options(ledgers=former.ledgers, feed=former.feed, registry=former.registry))
    await latter.commit()
    assert latter.sender.events() == ["a.1"]
    assert ends(former.ledgers.attempts) == [("ep_a/a.1", "delivered")]


async def test_what_comes_back_after_a_partition_was_taken_away_is_dropped_and_sent_again(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    gate = world.sender.hang(A)
    await world.order("ep_a")
    revoking = asyncio.create_task(world.forwarder.ownership.revoked())
    await world.clock.advance(7.0)
    await revoking
    written = len(world.ledgers.commits)

    gate.set()
    await world.commit()
    assert (len(world.ledgers.commits), world.ledgers.attempts) == (written, [])
    assert world.forwarder.under_way == 0

    world.forwarder.ownership.assigned([0])
    await world.commit()
    assert world.sender.events() == ["a.1", "a.1"]
    assert ends(world.ledgers.attempts) == [("ep_a/a.1", "delivered")]


async def test_retries_survive_the_process(make_forwarder: MakeForwarder) -> None:
    former = await make_forwarder(Options())
    await former.register("ep_a")
    former.sender.answers[A].append(FAILED)
    await former.order("ep_a")
    await former.clock.advance(4.0)
    await former.stop()

    latter = await make_forwarder(Options(ledgers=former.ledgers, feed=former.feed, registry=former.registry))
    assert latter.feed.begins[-1] == (0, 1)
    await latter.clock.advance(8.9)
    assert latter.sender.posted == []
    await latter.clock.advance(0.2)

    assert latter.sender.posted[0].post.body == former.sender.posted[0].post.body
    assert [attempt.attempt.number for attempt in former.ledgers.attempts] == [1, 2]
    assert former.ledgers.pending() == []


async def test_what_a_former_owner_has_finished_is_not_begun_again_by_its_successor(
    make_forwarder: MakeForwarder,
) -> None:
    """Not even if the topic gives it once more."""
    former = await make_forwarder(Options())
    await former.register("ep_a")
    await former.order("ep_a")
    await former.stop()

    latter = await make_forwarder(Options(ledgers=former.ledgers, feed=former.feed, registry=former.registry))
    latter.feed.begun[0] = 0
    latter.feed.deliver()
    await latter.order("ep_a", "new")

    assert latter.sender.events() == ["new.1"]


@pytest.mark.parametrize("trouble", [LedgerUnavailable("the broker is gone"), OwnershipLost("fenced")])
async def test_what_could_not_be_written_is_sent_again_and_nothing_is_lost(
    make_forwarder: MakeForwarder, trouble: Exception
) -> None:
    """The receiver knows the repeat by its `webhook-id`."""
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.ledgers.errors.append(trouble)

    await world.order("ep_a")
    await world.commit()
    assert world.forwarder.ownership.open_partitions == frozenset()
    assert world.ledgers.attempts == []

    await world.clock.advance(20.0)
    assert world.forwarder.ownership.open_partitions == {0}
    assert ends(world.ledgers.attempts) == [("ep_a/a.1", "delivered")]
    first, second = world.sender.posted
    assert first.post.headers["webhook-id"] == second.post.headers["webhook-id"]
    assert world.feed.begins == [(0, None), (0, None)]


async def test_what_a_fenced_owner_still_hears_is_not_written(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a", "ep_b")
    gate = world.sender.hang(A)
    await world.order("ep_a")
    world.ledgers.steal()
    await world.order("ep_b")
    await world.commit()
    assert (0, "lost") in world.told.ownerships

    gate.set()
    await world.clock.advance(14.0)
    assert world.ledgers.commits == []

    await world.clock.advance(2.0)
    assert sorted(ends(world.ledgers.attempts)) == [("ep_a/a.1", "delivered"), ("ep_b/a.1", "delivered")]


async def test_orders_stay_in_kafka_while_too_many_deliveries_are_held(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options(read_ahead=3))
    await world.register("ep_a")
    gate = world.sender.hang(A)
    for number in range(10):
        await world.order("ep_a", f"job-{number}")
    assert not world.forwarder.ownership.wants_more()
    assert world.feed.begun[0] == 3

    gate.set()
    for _ in range(4):
        await settle()
        world.feed.deliver()
    await world.commit()

    assert sorted(world.sender.events()) == [f"job-{number}.1" for number in range(10)]
    assert world.forwarder.pending() == 0


async def test_an_input_topic_that_was_made_anew_is_read_from_where_it_begins(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    for number in range(3):
        await world.order("ep_a", f"job-{number}")
    await world.commit()

    world.forwarder.ownership.moved(0, 0)
    world.forwarder.ownership.moved(7, 0)
    world.feed.begun[0] = 0
    world.feed.deliver()
    await world.commit()

    assert len(world.sender.posted) == 6


async def test_an_unforeseen_error_ends_the_forwarder_loudly_with_nothing_half_done_written(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.ledgers.errors.append(ZeroDivisionError("a bug"))

    await world.order("ep_a")
    await world.commit()

    assert world.working.done()
    with pytest.raises(ExceptionGroup) as caught:
        await world.working
    assert caught.group_contains(ZeroDivisionError, depth=1)
    assert world.ledgers.commits == []


# -------------------------------------------------------------------------------------------------------------- replays
def replay_of(world: ForwarderWorld, replay_id: str = "rp_1") -> tuple[str, int, int]:
    """A replay as committed: its state, how many events it looked at, how many it put in line."""
    replay = world.ledgers.replay(replay_id)
    assert replay is not None
    return replay.state.value, replay.scanned, replay.matched


async def test_a_replay_delivers_past_events_that_the_endpoint_wants(make_forwarder: MakeForwarder) -> None:
    """Those from before it was registered, too."""
    world = await make_forwarder(Options())
    await world.register("ep_a", event_types=["tams.job.success"])
    unwanted = value_of(event("other", 1, type_=EventType.FAILED))
    world.history.topics = {"t.success-0": past(3), "t.success-1": past(2, "more"), "t.failed-0": [unwanted]}

    world.place(replay_order())
    await world.commit()
    await world.commit()

    assert sorted(world.sender.events(A)) == ["more.1", "more.2", "old.1", "old.2", "old.3"]
    assert replay_of(world) == ("done", 6, 5)
    assert {attempt.delivery.replay_id for attempt in world.ledgers.attempts} == {"rp_1"}
    assert world.history.reading == 0


async def test_a_replay_without_any_event_is_done(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")

    world.place(replay_order())
    await world.commit()

    assert replay_of(world) == ("done", 0, 0)
    assert world.history.begun == []


async def test_a_replay_goes_on_after_a_crash_where_its_last_commit_was(make_forwarder: MakeForwarder) -> None:
    former = await make_forwarder(Options())
    await former.register("ep_a")
    former.history.topics = {"t.success-0": past(9)}
    former.history.gate.clear()
    former.place(replay_order())
    await former.commit()
    former.history.gate.set()
    await former.clock.advance(0.0)
    # Everything is read, and nothing of it is written when the process dies.
    former.ledgers.steal()
    assert replay_of(former) == ("running", 0, 0)

    latter = await make_forwarder(
        Options(ledgers=former.ledgers, feed=former.feed, registry=former.registry, history=former.history)
    )
    await latter.commit()
    await latter.commit()

    assert former.history.begun == [{"t.success-0": 0}, {"t.success-0": 0}]
    assert former.history.asked == ["rp_1"]
    assert sorted(latter.sender.events(A)) == sorted(f"old.{number}" for number in range(1, 10))
    assert replay_of(latter) == ("done", 9, 9)


async def test_what_a_replay_has_written_down_is_not_read_again(make_forwarder: MakeForwarder) -> None:
    former = await make_forwarder(Options(policy=with_policy(max_pending=8)))
    await former.register("ep_a", paused=True)
    former.history.topics = {"t.success-0": past(9)}
    former.place(replay_order())
    await former.clock.advance(1.0)
    assert replay_of(former) == ("running", 4, 4)
    await former.stop()

    latter = await make_forwarder(Options(ledgers=former.ledgers, history=former.history, registry=former.registry))
    await latter.register("ep_a")
    await latter.clock.advance(1.0)

    assert former.history.begun == [{"t.success-0": 0}, {"t.success-0": 4}]
    assert sorted(latter.sender.events(A)) == sorted(f"old.{number}" for number in range(1, 10))
    assert replay_of(latter) == ("done", 9, 9)


async def test_a_replay_waits_while_its_endpoint_has_much_in_line(make_forwarder: MakeForwarder) -> None:
    """Half of the line stays free for what happens now."""
    world = await make_forwarder(Options(policy=with_policy(max_pending=8)))
    await world.register("ep_a", paused=True)
    world.history.topics = {"t.success-0": past(20)}
    world.place(replay_order())
    await world.clock.advance(30.0)
    assert replay_of(world) == ("running", 4, 4)
    await world.order("ep_a", "new")
    assert len(world.ledgers.dead) == 0

    await world.register("ep_a")
    await world.clock.advance(5.0)

    assert replay_of(world) == ("done", 20, 20)
    assert len(world.sender.events(A)) == 21


@pytest.mark.parametrize("waits", [True, False], ids=["waiting for room", "reading"])
async def test_a_canceled_replay_reads_no_further(make_forwarder: MakeForwarder, *, waits: bool) -> None:
    """What it has put in line already is still delivered."""
    world = await make_forwarder(Options(policy=with_policy(max_pending=8 if waits else 1000)))
    await world.register("ep_a", paused=True)
    world.history.topics = {"t.success-0": past(20)}
    if not waits:
        world.history.gate.clear()
    world.place(replay_order())
    await world.clock.advance(1.0)
    scanned = replay_of(world)[1]

    world.place(ReplayCancel(replay_id="rp_1", endpoint_id="ep_a"))
    world.history.gate.set()
    await world.clock.advance(1.0)
    assert world.history.reading == 0
    await world.register("ep_a")
    await world.clock.advance(1.0)

    assert replay_of(world) == ("canceled", scanned, scanned)
    assert len(world.sender.events(A)) == scanned


async def test_trouble_while_reading_the_past_is_told_and_tried_again_from_there(
    make_forwarder: MakeForwarder,
) -> None:
    world = await make_forwarder(Options())
    await world.register("ep_a")
    world.history.topics = {"t.success-0": past(6)}
    gone = LedgerUnavailable("replay: no answer from the brokers in time")
    world.history.errors.extend([gone, None, None, gone])

    world.place(replay_order())
    await settle()
    assert world.told.troubles == [("replay", str(gone))]
    await world.clock.advance(2.0)
    assert world.told.troubles == 2 * [("replay", str(gone))]
    await world.clock.advance(3.0)

    assert world.history.begun == [{"t.success-0": 0}, {"t.success-0": 2}]
    assert sorted(world.sender.events(A)) == sorted(f"old.{number}" for number in range(1, 7))
    assert replay_of(world) == ("done", 6, 6)


async def test_a_replay_does_not_hold_up_the_end(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options(policy=with_policy(max_pending=8)))
    await world.register("ep_a", paused=True)
    world.history.topics = {"t.success-0": past(20)}
    world.place(replay_order())
    await world.clock.advance(1.0)

    await world.stop()

    assert world.working.done()
    assert world.history.reading == 0
    assert replay_of(world) == ("running", 4, 4)


async def test_a_replay_of_a_lost_partition_is_left_to_the_next_owner(make_forwarder: MakeForwarder) -> None:
    world = await make_forwarder(Options(policy=with_policy(max_pending=8)))
    await world.register("ep_a", paused=True)
    world.history.topics = {"t.success-0": past(20)}
    world.place(replay_order())
    await world.clock.advance(1.0)
    world.ledgers.steal()
    await world.order("ep_a", "new")
    await world.commit()
    assert world.history.reading == 0

    await world.register("ep_a")
    await world.clock.advance(20.0)

    assert replay_of(world) == ("done", 20, 20)
    assert len({*world.sender.events(A)}) == 21


# -------------------------------------------------------------------------------------------------- all of it by chance
ANSWERS: list[Response | NoResponse] = [
    FAILED,
    NO_RESPONSE,
    THROTTLED,
    Response(status=503, headers={"retry-after": "3"}, body=b""),
]


async def make_trouble(world: ForwarderWorld, chance: Random) -> None:
    """What may go wrong at any time, or not."""
    if chance.random() < 0.2:
        world.ledgers.errors.append(chance.choice([LedgerUnavailable("gone"), OwnershipLost("fenced"), None]))
    if chance.random() < 0.1:
        world.ledgers.steal(chance.randrange(2))
    if chance.random() < 0.4:
        world.sender.answers[url_of(f"ep_{chance.randrange(4)}")].append(chance.choice(ANSWERS))
    if chance.random() < 0.1:
        world.history.errors.append(LedgerUnavailable("gone"))
    if chance.random() < 0.1:
        revoking = asyncio.create_task(world.forwarder.ownership.revoked())
        await world.clock.advance(7.0)
        await revoking
        world.forwarder.ownership.assigned(range(2))
    if chance.random() < 0.5:
        await world.clock.advance(chance.random() * 3)


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_every_event_reaches_its_endpoint_and_is_recorded_as_delivered_once(
    make_forwarder: MakeForwarder, seed: int
) -> None:
    """Failing commits, fencing, partitions that come and go, receivers that fail, and one that hangs for long."""
    chance = Random(seed)
    history = FakeHistory()
    history.topics = {"t.success-0": past(10)}
    world = await make_forwarder(Options(partitions=2, concurrency=5, history=history))
    await world.register(*(f"ep_{number}" for number in range(4)), retry_schedule_s=[1.0] * 20, max_in_flight=2)
    hanging = world.sender.hang(url_of("ep_3"))
    for number in range(30):
        for receiver in range(4):
            await world.order(f"ep_{receiver}", f"job-{number}", partition=receiver % 2)
        if number == 10:
            world.place(replay_order(endpoint_id="ep_0"), partition=0)
        await make_trouble(world, chance)
    hanging.set()
    for _ in range(60):
        await world.clock.advance(10.0)

    expected = {f"ep_{receiver}/job-{number}.1" for receiver in range(4) for number in range(30)}
    replayed = {f"ep_0/old.{number}" for number in range(1, 11)}
    recorded = Counter(name for name, _ in ends(world.ledgers.attempts))
    assert recorded == dict.fromkeys(expected | replayed, 1)
    assert {how for _, how in ends(world.ledgers.attempts)} == {"delivered"}
    for receiver in range(4):
        received = {f"ep_{receiver}/{name}" for name in world.sender.events(url_of(f"ep_{receiver}"))}
        assert received == {name for name in expected | replayed if name.startswith(f"ep_{receiver}/")}
    assert world.ledgers.pending(0) == world.ledgers.pending(1) == []
    assert (world.forwarder.under_way, world.forwarder.pending(), world.history.reading) == (0, 0, 0)
    replay = world.ledgers.replay("rp_1")
    assert replay is not None
    assert (replay.state, replay.scanned) == (ReplayState.DONE, 10)
