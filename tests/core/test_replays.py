from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridge.core.registry import Registry
from bridge.core.replays import REMEMBERED, Replays
from bridge.messages import NOTHING, EventType
from bridge.webhook_messages import (
    DeadDelivery,
    DeadReason,
    InlineWebhook,
    Order,
    Replay,
    ReplayOrder,
    ReplayState,
)
from tests.core.examples import NOW, SECOND
from tests.core.webhook_examples import delivery, endpoint, event, instant, registry_of, replay_order, value_of

BOUNDS = ({"t-0": 10, "t-1": 0}, {"t-0": 14, "t-1": 3})
DEEP = b'{"zzz": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
UNREADABLE = [b"", b"no JSON", b"{}", b"[]", b'{"id": "\xff"}', DEEP]


def known() -> Registry:
    return registry_of(endpoint())


def begun(**fields: object) -> Replays:
    """A replay that knows its bounds."""
    replays = Replays()
    replays.begin(replay_order(**fields), NOW)
    replays.begun("rp_1", BOUNDS, NOW)
    return replays


def read(
    replays: Replays, *values: bytes, positions: dict[str, int] | None = None, registry: Registry | None = None
) -> tuple[list[Order], Replay | None]:
    found = known() if registry is None else registry
    return replays.read("rp_1", list(values), positions or {}, found, instant(5))


def found(*values: bytes, registry: Registry | None = None, **fields: object) -> list[str]:
    """Ids of the events that a replay puts in line."""
    return [order.event_id for order in read(begun(**fields), *values, registry=registry)[0]]


def dead(endpoint_id: str = "ep_a", sequence: int = 1, *, inline: InlineWebhook | None = None) -> bytes:
    """A delivery that was given up, as it lies on the dead-letter topic."""
    given_up = delivery(endpoint_id, "a", sequence, inline=inline, used=3)
    letter = DeadDelivery(
        delivery=given_up, reason=DeadReason.EXHAUSTED, time=NOW, event=msgspec.Raw(value_of(event("a", sequence)))
    )
    return msgspec.json.encode(letter)


# ----------------------------------------------------------------------------------------------------- from ask to done


def test_replay_runs_from_the_moment_it_is_asked_for() -> None:
    """Where it begins and ends is found out later."""
    replays = Replays()

    replay = replays.begin(replay_order(), NOW)

    assert replay == Replay(order=replay_order(), changed=NOW)
    assert (replays.running(), replays.get("rp_1")) == ([replay], replay)


def test_replay_that_was_asked_for_before_is_not_begun_again() -> None:
    """The wish may be read twice."""
    replays = begun()
    before = replays.get("rp_1")

    assert replays.begin(replay_order(), instant(9)) is None
    assert replays.get("rp_1") is before


def test_replay_remembers_its_bounds() -> None:
    """Another owner goes on with the same ones: what is published meanwhile is ordered by itself."""
    replay = begun().get("rp_1")

    assert replay is not None
    assert (replay.positions, replay.ends, replay.state) == (*BOUNDS, ReplayState.RUNNING)


@pytest.mark.parametrize("bounds", [({}, {}), ({"t-0": 4}, {"t-0": 4}), ({"t-0": 9}, {"t-0": 4}), ({}, {"t-0": 0})])
def test_replay_without_events_is_done_at_once(bounds: tuple[dict[str, int], dict[str, int]]) -> None:
    """Nobody waits for it."""
    replays = Replays()
    replays.begin(replay_order(), NOW)

    replay = replays.begun("rp_1", bounds, instant(1))

    assert replay is not None
    assert (replay.state, replay.changed, replays.running()) == (ReplayState.DONE, instant(1), [])


def test_replay_goes_on_from_where_it_was() -> None:
    """Positions move place by place; those that were not told stay."""
    replays = begun()

    read(replays, value_of(event()), positions={"t-0": 12})
    _, replay = read(replays, positions={"t-1": 2})

    assert replay is not None
    assert (replay.positions, replay.state) == ({"t-0": 12, "t-1": 2}, ReplayState.RUNNING)


def test_replay_is_done_once_every_place_is_at_its_end() -> None:
    """And then reads no more."""
    replays = begun()
    read(replays, positions={"t-0": 14})

    _, replay = read(replays, value_of(event()), positions={"t-1": 3})

    assert replay is not None
    assert (replay.state, replay.matched, replays.running()) == (ReplayState.DONE, 1, [])
    assert read(replays, value_of(event())) == ([], None)


def test_replay_counts_what_it_looks_at_and_what_it_puts_in_line() -> None:
    """For people who watch it."""
    replays = begun()
    waiting, success = value_of(event("b", type_=EventType.WAITING)), value_of(event())
    registry = registry_of(endpoint(event_types=["tams.job.success"]))

    read(replays, success, waiting, b"no JSON", registry=registry)
    _, replay = read(replays, success, registry=registry)

    assert replay is not None
    assert (replay.scanned, replay.matched, replay.changed) == (4, 2, instant(5))


# -------------------------------------------------------------------------------------------------- canceled, forgotten


def test_canceled_replay_reads_no_more() -> None:
    """What comes late is thrown away."""
    replays = begun()

    replay = replays.cancel("ep_a", "rp_1", instant(3))

    assert replay is not None
    assert (replay.state, replay.changed, replay.positions) == (ReplayState.CANCELED, instant(3), BOUNDS[0])
    assert (read(replays, value_of(event())), replays.begun("rp_1", BOUNDS, NOW)) == (([], None), None)
    assert replays.running() == []


@pytest.mark.parametrize(("endpoint_id", "replay_id"), [("ep_a", "rp_2"), ("ep_b", "rp_1")])
def test_only_a_replay_of_this_endpoint_can_be_canceled(endpoint_id: str, replay_id: str) -> None:
    """Another's goes on."""
    replays = begun()

    assert replays.cancel(endpoint_id, replay_id, NOW) is None
    assert len(replays.running()) == 1


def test_ended_replay_cannot_be_canceled() -> None:
    """It is done, and stays so."""
    replays = begun()
    read(replays, positions=BOUNDS[1])

    assert replays.cancel("ep_a", "rp_1", NOW) is None


def test_ended_replays_are_forgotten_after_a_week() -> None:
    """Those that run never are."""
    replays = Replays()
    for number in range(3):
        replays.begin(replay_order(f"rp_{number}"), NOW)
    replays.begun("rp_0", ({}, {}), NOW)
    replays.cancel("ep_a", "rp_1", NOW + SECOND)

    first = replays.forget(NOW + REMEMBERED)
    second = replays.forget(NOW + REMEMBERED + timedelta(days=99))

    assert [[replay.order.replay_id for replay in gone] for gone in (first, second)] == [["rp_0"], ["rp_1"]]
    assert (replays.get("rp_0"), len(replays.running())) == (None, 1)
    assert replays.forget(NOW + timedelta(days=999)) == []


def test_restored_replay_goes_on() -> None:
    """As the former owner left it."""
    former = begun()
    _, before = read(former, value_of(event()), positions={"t-0": 12})
    assert before is not None
    replays = Replays()

    replays.restore([msgspec.json.decode(msgspec.json.encode(before), type=Replay)])
    _, after = read(replays, positions={"t-0": 14, "t-1": 3})

    assert after is not None
    assert (after.state, after.matched) == (ReplayState.DONE, 1)


# ------------------------------------------------------------------------------------------------------ which are found


def test_events_that_the_endpoint_wants_now_are_found() -> None:
    """Also those from before it was registered."""
    registry = registry_of(endpoint(event_types=["tams.job.success"], labels={"team": "red"}, tenant="acme"))
    values = [
        value_of(event("a", 1, team="red", tenant="acme")),
        value_of(event("b", 1, team="blue", tenant="acme")),
        value_of(event("c", 1, team="red", tenant="other")),
        value_of(event("d", 1, team="red", tenant="acme", type_=EventType.FAILED)),
    ]

    assert found(*values, registry=registry) == ["a.1"]


def test_order_of_a_replay_is_like_the_first_one() -> None:
    """The event byte for byte."""
    value = b" " + value_of(event("a", 7))

    ((order,), _) = read(begun(), value)

    assert (bytes(order.event), order.endpoint_id, order.type) == (value, "ep_a", "tams.job.success")
    assert (order.request_id, order.sequence, order.time) == ("a", 7, instant(7))


def test_only_events_within_the_time_asked_for_are_found() -> None:
    """Both ends included; the bounds in Kafka are not as sharp."""
    values = [value_of(event("a", second)) for second in range(1, 7)]

    assert found(*values, since=instant(2), until=instant(4)) == ["a.2", "a.3", "a.4"]


def test_single_event_is_found_even_if_the_endpoint_does_not_want_its_like() -> None:
    """Somebody asked for this one."""
    registry = registry_of(endpoint(event_types=["tams.job.failed"]))

    assert found(value_of(event("a", 1)), value_of(event("a", 2)), registry=registry, event_id="a.2") == ["a.2"]


@pytest.mark.parametrize("fields", [{}, {"event_id": "a.1"}])
def test_endpoint_that_is_not_registered_wants_nothing(fields: dict[str, object]) -> None:
    """An event does not say where the webhooks of requests lead, and a deleted endpoint has no URL."""
    assert found(value_of(event()), registry=Registry(), **fields) == []


@pytest.mark.parametrize("value", UNREADABLE)
@pytest.mark.parametrize("failed_only", [False, True])
def test_record_that_cannot_be_read_is_passed_over(value: bytes, *, failed_only: bool) -> None:
    """Whoever wrote it; the rest is found."""
    good = dead() if failed_only else value_of(event())

    assert found(value, good, failed_only=failed_only) == ["a.1"]


def test_only_dead_deliveries_of_the_endpoint_are_found_when_asked_for() -> None:
    """They lie among those of other endpoints; whether it still wants their like does not matter."""
    registry = registry_of(endpoint(event_types=["tams.job.failed"]))

    assert found(dead("ep_b", 1), dead("ep_a", 2), dead("ep_a", 3), registry=registry, failed_only=True) == [
        "a.2",
        "a.3",
    ]


def test_dead_delivery_without_event_is_passed_over() -> None:
    """There is nothing to send."""
    letter = msgspec.json.decode(dead(), type=DeadDelivery)

    assert found(msgspec.json.encode(replace(letter, event=NOTHING)), dead(sequence=2), failed_only=True) == ["a.2"]


def test_single_dead_delivery_is_found() -> None:
    """Redelivery of one."""
    assert found(dead(sequence=1), dead(sequence=2), failed_only=True, event_id="a.2") == ["a.2"]


def test_dead_delivery_begins_anew_with_its_event_and_its_address() -> None:
    """Also those of webhooks that were given inside requests."""
    inline = InlineWebhook(url="https://acme.example/hook", tenant="acme")
    replays = begun(endpoint_id="in_a", failed_only=True)

    ((order,), _) = read(replays, dead("in_a", 3, inline=inline), registry=Registry())

    assert (order.inline, bytes(order.event), order.sequence) == (inline, value_of(event("a", 3)), 3)


def test_dead_deliveries_of_another_time_are_not_found() -> None:
    """By the time of the event."""
    assert found(dead(sequence=1), dead(sequence=9), failed_only=True, since=instant(5)) == ["a.9"]


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=6),
    st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_each_event_between_the_bounds_is_found_once_however_often_the_owner_changes(
    seconds: list[int], stops: list[int], crashes: list[bool]
) -> None:
    """What was committed with a position is not read again, and what was not committed is."""
    values = [value_of(event("j", number + 1)) for number, _ in enumerate(seconds)]
    ends = {"t-0": len(values)}
    committed, taken = Replay(order=asked(len(values)), positions={"t-0": 0}, ends=ends, changed=NOW), list[str]()
    replays = Replays()
    replays.restore([committed])
    for stop, crash in zip([*sorted(stops), len(values)], crashes, strict=False):
        at, until = committed.positions["t-0"], min(max(stop, committed.positions["t-0"]), len(values))
        orders, replay = replays.read("rp_1", values[at:until], {"t-0": until}, known(), NOW)
        if crash or replay is None:
            replays.restore([committed])
            continue
        committed = replay
        taken += [order.event_id for order in orders]

    assert taken == [f"j.{number + 1}" for number in range(committed.positions["t-0"])]
    assert (committed.state is ReplayState.DONE) is (committed.positions == ends)
    assert committed.matched == committed.scanned == len(taken)


def asked(seconds: int) -> ReplayOrder:
    return replay_order(until=instant(seconds + 1))
