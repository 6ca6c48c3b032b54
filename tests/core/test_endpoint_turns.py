from hypothesis import given
from hypothesis import strategies as st

from bridge.core.endpoint_turns import EndpointTurns

NEVER = float("inf")


def offered(*endpoints: tuple[str, float], now: float = 0.0) -> EndpointTurns:
    turns = EndpointTurns()
    for endpoint_id, at in endpoints:
        turns.offer(endpoint_id, at, now=now)
    return turns


def take(turns: EndpointTurns, now: float) -> str | None:
    """The endpoint whose turn it is, if there is one."""
    return turns.take() if turns.next_at() <= now else None


def test_without_endpoints_no_turn_comes() -> None:
    """Nothing to wait for."""
    assert offered().next_at() == NEVER


def test_turn_comes_when_an_endpoint_may_be_sent_to() -> None:
    """Not before."""
    turns = offered(("a", 5.0))

    assert (turns.next_at(), take(turns, 4.9), take(turns, 5.0)) == (5.0, None, "a")


def test_turn_is_taken_once() -> None:
    """Until it is offered again."""
    turns = offered(("a", 0.0))

    assert (take(turns, 0.0), turns.next_at()) == ("a", NEVER)


def test_who_has_waited_longest_comes_first() -> None:
    """By the time since when it could have been sent to."""
    turns = offered(("late", 7.0), ("early", 3.0))

    assert [take(turns, 10.0), take(turns, 10.0)] == ["early", "late"]


def test_who_was_ready_long_ago_does_not_jump_the_queue() -> None:
    """What counts is since when it waits for a turn: a long backlog is no reason to come first."""
    turns = offered(("b", 10.0), now=10.0)

    turns.offer("a", 0.0, now=10.0)

    assert take(turns, 10.0) == "b"


def test_endpoints_with_work_without_end_take_turns() -> None:
    """Ten of one, and one of the other, in between."""
    turns = offered(("a", 0.0), ("b", 0.0), ("c", 0.0))
    taken: list[str] = []
    for _ in range(9):
        endpoint_id = turns.take() if turns.next_at() <= 1.0 else ""
        taken.append(endpoint_id)
        turns.offer(endpoint_id, 0.0, now=1.0)

    assert taken == ["a", "b", "c"] * 3


def test_endpoint_keeps_its_turn_when_more_arrives_for_it() -> None:
    """Or a busy endpoint would push itself back for ever."""
    turns = offered(("a", 0.0), ("b", 0.0))

    turns.offer("a", 0.0, now=5.0)

    assert take(turns, 5.0) == "a"


def test_turn_moves_when_the_endpoint_may_be_sent_to_earlier() -> None:
    """A new delivery need not wait for the retry of another."""
    turns = offered(("a", 100.0))

    turns.offer("a", 2.0, now=1.0)

    assert (turns.next_at(), take(turns, 2.0), turns.next_at()) == (2.0, "a", NEVER)


def test_turn_moves_when_the_endpoint_may_be_sent_to_only_later() -> None:
    """It has asked for a pause."""
    turns = offered(("a", 1.0))

    turns.offer("a", 60.0, now=1.0)

    assert (take(turns, 59.0), take(turns, 60.0)) == (None, "a")


def test_endpoint_that_may_not_be_sent_to_loses_its_turn() -> None:
    """Until it may again."""
    turns = offered(("a", 1.0))

    turns.offer("a", NEVER, now=1.0)
    assert turns.next_at() == NEVER
    turns.offer("a", NEVER, now=1.0)

    turns.offer("a", 0.0, now=3.0)
    assert turns.next_at() == 3.0


def test_forgotten_endpoint_has_no_turn() -> None:
    """Whether it had one or not."""
    turns = offered(("a", 1.0), ("b", 2.0))

    turns.forget("a")
    turns.forget("nobody")

    assert turns.next_at() == 2.0


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0, 20)), max_size=60))
def test_turns_between_two_of_an_endpoint_are_all_of_different_endpoints(noise: list[tuple[str, float]]) -> None:
    """Three that can always be sent to, whatever happens meanwhile to others: none waits twice for the same."""
    turns, taken = offered(("a", 0.0), ("b", 0.0), ("c", 0.0)), list[str]()
    for now, (endpoint_id, at) in enumerate(noise, start=1):
        turns.offer(endpoint_id, at, now=float(now))
        taken.append(take(turns, float(now)) or "")
        if taken[-1] in "abc":
            turns.offer(taken[-1], 0.0, now=float(now))

    steady = [endpoint_id for endpoint_id in taken if endpoint_id in "abc"]
    assert steady == (["a", "b", "c"] * len(noise))[: len(steady)]
    assert len(steady) >= len(noise) // 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 5.0, 60.0, NEVER])), max_size=60))
def test_turns_are_those_of_the_latest_offers(offers: list[tuple[str, float]]) -> None:
    """However often an endpoint changes: each has one turn, never before it may be sent to, and none is lost."""
    turns, latest = EndpointTurns(), dict[str, float]()
    for now, (endpoint_id, at) in enumerate(offers):
        turns.offer(endpoint_id, at, now=float(now))
        latest[endpoint_id] = at

    taken: list[tuple[float, str]] = []
    while turns.next_at() < NEVER:
        taken.append((turns.next_at(), turns.take()))

    assert sorted(endpoint_id for _, endpoint_id in taken) == sorted(k for k, at in latest.items() if at < NEVER)
    assert all(latest[endpoint_id] <= at <= max(latest[endpoint_id], len(offers)) for at, endpoint_id in taken)
