from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core import timeline as module
from bridge.core.timeline import Mark, Timeline
from tests.core.examples import NOW, SECOND

moments = st.integers(-30, 30).map(lambda seconds: NOW + seconds * SECOND)
ids = st.sampled_from("abcdefgh")
steps = st.lists(st.tuples(ids, st.one_of(moments, st.none())), max_size=60)


def filled(done: list[tuple[str, datetime | None]]) -> tuple[Timeline[str], list[Mark]]:
    """A timeline after some steps, and what must be in it, by the simplest means."""
    timeline: Timeline[str] = Timeline()
    model: dict[str, datetime] = {}
    for item_id, time in done:
        if time is None:
            assert timeline.drop(item_id) == (f"{item_id}!" if item_id in model else None)
            model.pop(item_id, None)
        else:
            timeline.put(item_id, time, f"{item_id}!")
            model[item_id] = time
    return timeline, sorted(((time, item_id) for item_id, time in model.items()), reverse=True)


@given(done=steps, tiny=st.booleans())
@example(done=[("a", NOW), ("a", None), ("a", NOW)], tiny=False)
@example(done=[("a", NOW), ("b", NOW), ("a", None), ("a", NOW)], tiny=True)
def test_items_are_read_newest_first_however_they_came(
    done: list[tuple[str, datetime | None]],
    tiny: bool,  # noqa: FBT001
) -> None:
    """Also where what is late is sorted in at once no more, and what was dropped leaves marks behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LATE_ENOUGH", 2 if tiny else 1_000)
        timeline, expected = filled(done)

        assert list(timeline.newest_first()) == [(mark, f"{mark[1]}!") for mark in expected]
    assert len(timeline) == len(expected)
    assert all(timeline.get(item_id) == f"{item_id}!" for _, item_id in expected)


@given(steps, moments, moments, st.integers(0, 5))
def test_part_of_the_time_and_pages_of_it_are_what_the_whole_holds(
    done: list[tuple[str, datetime | None]], since: datetime, until: datetime, read: int
) -> None:
    timeline, everything = filled(done)
    expected = [mark for mark in everything if since <= mark[0] <= until]

    found = [mark for mark, _ in timeline.newest_first(since=since, until=until)]
    rest = [mark for mark, _ in timeline.newest_first(before=found[read], until=until)] if len(found) > read else []

    assert found == expected
    assert rest == ([mark for mark in everything if mark < found[read]] if rest else [])


def test_a_page_goes_on_where_the_last_one_ended_though_newer_items_came() -> None:
    timeline, _ = filled([(name, NOW + place * SECOND) for place, name in enumerate("abcd")])
    page = timeline.newest_first()
    marks = [next(page)[0], next(page)[0]]

    timeline.put("e", NOW + 9 * SECOND, "e!")
    timeline.drop("c")

    assert [mark[1] for mark, _ in timeline.newest_first(before=marks[1])] == ["b", "a"]


def test_what_is_not_there_is_none() -> None:
    timeline: Timeline[str] = Timeline()

    assert timeline.get("a") is None
    assert timeline.drop("a") is None
    assert list(timeline.newest_first()) == []
    with pytest.raises(StopIteration):
        timeline.first_in()


def test_the_first_that_came_is_known_whatever_its_time() -> None:
    timeline, _ = filled([("a", NOW), ("b", NOW - SECOND), ("a", NOW + SECOND)])

    assert timeline.first_in() == "a"


def test_a_time_without_zone_counts_as_utc() -> None:
    timeline, _ = filled([("a", NOW)])
    timeline.put("b", (NOW + SECOND).replace(tzinfo=None), "b!")

    assert [mark for mark, _ in timeline.newest_first()] == [(NOW + SECOND, "b"), (NOW, "a")]


def test_marks_of_what_is_gone_do_not_pile_up() -> None:
    timeline: Timeline[int] = Timeline()
    timeline.put("stays", NOW, 0)
    for number in range(10_000):
        timeline.put(str(number), NOW + timedelta(seconds=number), number)
        timeline.drop(str(number))

    assert len(timeline._marks) < 1_100
    assert [mark[1] for mark, _ in timeline.newest_first()] == ["stays"]
