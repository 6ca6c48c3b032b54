from math import exp, log
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.durations import Hint
from bridge.core.progress import Lesson, ProgressMeaning, Sign, signs_of

HALF, NEARLY_DONE = Sign(2, 0.5), Sign(4, 0.9)
THIRD_NODE = Sign(7, 1.0)

ODD_FLOATS = st.floats() | st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-320])
SIGNS = st.builds(lambda progress, nodes: list(signs_of(progress, nodes)), ODD_FLOATS, st.integers(-5, 1_000))


def taught(sign: Sign, *, age: float, run_times: list[float]) -> ProgressMeaning:
    """What is known after jobs that showed a sign at this age have run for so long."""
    meaning = ProgressMeaning()
    for run_time in run_times:
        meaning.learn(sign, age, run_time)
    return meaning


def hint_of(meaning: ProgressMeaning, sign: Sign, age: float) -> Hint:
    """What a sign is known to tell."""
    hint = meaning.hint(sign, age)
    assert hint is not None
    return hint


@pytest.mark.parametrize(
    ("progress", "number", "done"),
    [(0.001, 0, 0.005), (0.19, 0, 0.19), (0.2, 1, 0.2), (0.99, 4, 0.99), (1.0, 4, 1.0), (7.0, 4, 1.0)],
)
def test_progress_is_a_sign_for_each_fifth_of_the_way(progress: float, number: int, done: float) -> None:
    assert list(signs_of(progress, 0)) == [Sign(number, done)]


@pytest.mark.parametrize(("nodes", "number"), [(1, 5), (2, 6), (20, 24), (21, 24), (1_000, 24)])
def test_finished_nodes_are_signs_of_their_own(nodes: int, number: int) -> None:
    """How much of the work they stand for, only the past can say."""
    assert list(signs_of(0.0, nodes)) == [Sign(number, 1.0)]


@pytest.mark.parametrize("progress", [0.0, -1.0, float("nan")])
def test_no_progress_is_no_sign(progress: float) -> None:
    assert list(signs_of(progress, 0)) == []


def test_progress_is_taken_to_be_linear_to_begin_with() -> None:
    """Half of the work in 30 s makes a minute, more or less."""
    hint = hint_of(ProgressMeaning(), HALF, 30.0)

    assert exp(hint.centre) == pytest.approx(60.0)
    assert hint.spread == pytest.approx(0.35)


def test_finished_nodes_mean_nothing_before_some_jobs_have_shown_what() -> None:
    known = taught(THIRD_NODE, age=10.0, run_times=[40.0] * 4)

    assert ProgressMeaning().hint(THIRD_NODE, 10.0) is None
    assert taught(THIRD_NODE, age=10.0, run_times=[40.0]).hint(THIRD_NODE, 10.0) is None
    assert exp(hint_of(known, THIRD_NODE, 10.0).centre) == pytest.approx(40.0, rel=0.4)


def test_progress_that_is_not_linear_is_learned() -> None:
    """Nine tenths are done after a third of the time: what follows is slow."""
    meaning = taught(NEARLY_DONE, age=30.0, run_times=[90.0] * 50)

    hint = hint_of(meaning, NEARLY_DONE, 60.0)

    assert exp(hint.centre) == pytest.approx(180.0, rel=0.05)
    assert hint.spread < 0.1


def test_one_fifth_of_the_way_teaches_nothing_about_the_others() -> None:
    meaning = taught(NEARLY_DONE, age=30.0, run_times=[90.0] * 50)

    assert hint_of(meaning, HALF, 30.0) == hint_of(ProgressMeaning(), HALF, 30.0)


def test_spread_is_learned() -> None:
    """Run times that differ by a factor of about 1.22 after the same sign."""
    chance = Random(1)

    meaning = taught(HALF, age=30.0, run_times=[60.0 * exp(chance.gauss(0.0, 0.2)) for _ in range(300)])

    assert hint_of(meaning, HALF, 30.0).spread == pytest.approx(0.2, rel=0.15)


def test_hint_is_never_taken_to_be_exact() -> None:
    assert hint_of(taught(HALF, age=30.0, run_times=[60.0] * 1_000), HALF, 30.0).spread >= 0.04


def test_what_has_changed_is_learned_anew() -> None:
    """About a hundred jobs count."""
    meaning = taught(HALF, age=30.0, run_times=[60.0] * 300 + [120.0] * 300)

    assert exp(hint_of(meaning, HALF, 30.0).centre) == pytest.approx(120.0, rel=0.05)


def test_kept_lessons_are_the_same_when_taken_over() -> None:
    meaning, other = taught(HALF, age=30.0, run_times=[50.0, 70.0, 80.0]), ProgressMeaning()

    other.adopt(meaning.export())

    kept, known = hint_of(other, HALF, 30.0), hint_of(meaning, HALF, 30.0)
    assert other.evidence(HALF) == pytest.approx(meaning.evidence(HALF), abs=1e-3)
    assert other.evidence(NEARLY_DONE) == 0.0
    assert kept.centre == pytest.approx(known.centre, abs=1e-3)
    assert kept.spread == pytest.approx(known.spread, abs=1e-3)


@pytest.mark.parametrize(
    ("number", "lesson"),
    [
        (-1, (1.0, 0.0, 0.0)),
        (25, (1.0, 0.0, 0.0)),
        (2, (0.0, 0.0, 0.0)),
        (2, (101.0, 0.0, 0.0)),
        (2, (float("nan"), 0.0, 0.0)),
        (2, (1.0, float("nan"), 0.0)),
        (2, (1.0, -10.0, 0.0)),
        (2, (1.0, 0.0, -1.0)),
        (2, (1.0, 0.0, float("inf"))),
    ],
)
def test_damaged_lessons_are_left_out(number: int, lesson: Lesson) -> None:
    """And the others are taken over."""
    meaning = ProgressMeaning()

    meaning.adopt({number: lesson, 4: (10.0, 1.0, 0.1)})

    assert meaning.export() == {4: (10.0, 1.0, 0.1)}


@given(SIGNS, ODD_FLOATS, ODD_FLOATS, SIGNS, ODD_FLOATS)
def test_no_sign_and_no_time_breaks_anything(
    shown: list[Sign], age: float, run_time: float, later: list[Sign], later_age: float
) -> None:
    """Whatever TAMS says and clocks do, a hint is a number of seconds and a spread that can be reckoned with."""
    meaning = ProgressMeaning()
    for sign in shown:
        for _ in range(4):
            meaning.learn(sign, age, run_time)

    for sign in shown + later:
        hint = meaning.hint(sign, later_age)
        assert hint is None or (abs(hint.centre) < 1_000.0 and 0.04 <= hint.spread < 20.0), hint
    restored = ProgressMeaning()
    restored.adopt(meaning.export())
    assert all(restored.evidence(sign) > 0.0 for sign in shown)


def test_job_that_was_seen_to_be_older_than_it_came_to_be_is_taken_at_its_age() -> None:
    """A look is later than what it shows."""
    meaning = taught(Sign(4, 1.0), age=60.0, run_times=[50.0] * 300)

    assert hint_of(meaning, Sign(4, 1.0), 60.0).centre == pytest.approx(log(60.0))
