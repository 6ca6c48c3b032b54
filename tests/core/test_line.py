from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.line import Line

NEVER = float("inf")


def line_of(**times: float) -> Line:
    """Keys at their times, put in this order."""
    line = Line()
    for key, at in times.items():
        line.put(key, at)
    return line


def drain(line: Line) -> list[tuple[float, object]]:
    """All keys with their times, in the order in which they come out."""
    return [(line.first_at(), line.pop()) for _ in range(len(line))]


def test_keys_come_in_the_order_of_their_times() -> None:
    assert drain(line_of(a=2.0, b=1.0, c=3.0)) == [(1.0, "b"), (2.0, "a"), (3.0, "c")]


def test_equal_times_are_served_in_the_order_of_coming() -> None:
    assert drain(line_of(b=1.0, c=1.0, a=1.0)) == [(1.0, "b"), (1.0, "c"), (1.0, "a")]


def test_nobody_in_line_never_comes() -> None:
    line = line_of(a=1.0)
    line.drop("a")

    assert (len(line), line.first_at()) == (0, NEVER)


def test_moved_key_stands_only_at_its_new_time() -> None:
    line = line_of(a=1.0, b=2.0)

    line.put("a", 3.0)

    assert drain(line) == [(2.0, "b"), (3.0, "a")]


def test_key_that_comes_back_at_the_same_time_stands_once() -> None:
    """The place it left before must not let it in a second time."""
    line = line_of(a=1.0)
    line.drop("a")
    line.put("a", 1.0)
    line.put("a", 1.0)

    assert drain(line) == [(1.0, "a")]


def test_first_key_can_be_taken_without_asking_for_its_time() -> None:
    line = line_of(a=1.0, b=2.0)
    line.drop("a")

    assert line.pop() == "b"


def test_dropping_an_unknown_key_changes_nothing() -> None:
    line = line_of(a=1.0)

    line.drop("z")

    assert drain(line) == [(1.0, "a")]


def test_places_that_were_left_do_not_pile_up() -> None:
    """A job that moves for days behind one that is always first takes no more memory than one that stands."""
    line = line_of(first=0.0)

    for at in range(10_000):
        line.put("a", 1.0 + at)

    assert len(line._heap) < 200
    assert drain(line) == [(0.0, "first"), (10_000.0, "a")]


def test_order_is_kept_when_left_places_are_cleared_away() -> None:
    """Whoever stays comes out as if nobody had been there."""
    line, chance = Line(), Random(1)
    times = {str(number): chance.random() for number in range(1_000)}
    for key, at in times.items():
        line.put(key, at)
    for key in list(times)[:900]:
        line.drop(key)
        del times[key]

    line.put("late", 2.0)

    assert len(line._heap) == 101
    assert drain(line) == [*sorted((at, key) for key, at in times.items()), (2.0, "late")]


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "drop", "pop"]), st.sampled_from("abcde"), st.integers(0, 5)), max_size=80
)


@given(STEPS)
def test_line_does_what_a_sorted_list_would(steps: list[tuple[str, str, int]]) -> None:
    line, listed = Line(), dict[str, tuple[float, int]]()
    for count, (step, key, at) in enumerate(steps):
        if step == "put":
            line.put(key, at)
            listed[key] = (at, count)
        elif step == "drop":
            line.drop(key)
            listed.pop(key, None)
        elif listed:
            first = min(listed, key=listed.__getitem__)
            assert (line.first_at(), line.pop()) == (listed.pop(first)[0], first)
        assert len(line) == len(listed)
    assert line.first_at() == min(listed.values(), default=(NEVER, 0))[0]
