from math import exp, log
from random import Random
from statistics import NormalDist

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.durations import BINS, Durations, bin_of
from bridge.core.progress import Sign
from bridge.core.run_times import EVERY_KIND, KindRecord, RunTimes, kind_of

KIND, SIBLING, STRANGER = "upscale/2x", "upscale/4x", "video/1"
HALF = Sign(2, 0.5)
PARTS = (0.1, 0.5, 0.9)

WEIGHTS = st.dictionaries(st.integers(-5, BINS + 5), st.floats() | st.floats(0.0, 100.0), max_size=6)
LESSONS = st.dictionaries(st.integers(-2, 30), st.tuples(st.floats(), st.floats(), st.floats()), max_size=4)
RECORDS = st.builds(KindRecord, version=st.integers(0, 2), weights=WEIGHTS, progress=LESSONS)
ODD_FLOATS = st.floats() | st.sampled_from([float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e9])


def teach(
    run_times: RunTimes,
    kind: str,
    median: float,
    *,
    sigma: float = 0.3,
    jobs: int = 200,
    pause: float = 5.0,
    seed: int = 1,
) -> RunTimes:
    """Let jobs of a log-normal law end, each seen only by the first of the looks made at every pause."""
    chance = Random(seed)
    for _ in range(jobs):
        run_time, first = chance.lognormvariate(log(median), sigma), chance.uniform(0.0, pause)
        missed = (run_time - first) // pause
        run_times.learn(kind, first + missed * pause, first + (missed + 1) * pause)
    return run_times


def median_of(run_times: RunTimes, kind: str) -> float:
    """By when half of the jobs of a kind are expected to have ended."""
    (median,) = run_times.of(kind).quantiles(0.0, [0.5])
    return median


def spread_of(run_times: RunTimes, kind: str) -> float:
    """The factor between what nine tenths and one tenth of the jobs of a kind are expected to take."""
    low, high = run_times.of(kind).quantiles(0.0, [0.1, 0.9])
    return high / low


def test_kind_tells_graphs_apart_by_their_nodes_whatever_the_order() -> None:
    assert kind_of(["load", "sample", "save"]) == kind_of(["save", "load", "sample"])
    assert kind_of(["load", "sample", "save"]) != kind_of(["load", "sample", "show"])


def test_kind_of_the_same_nodes_in_another_number_is_the_same_when_taken_coarsely() -> None:
    """Two samplers take longer than one, and are still more like it than like anything else."""
    once, twice = kind_of(["load", "sample"]), kind_of(["load", "sample", "sample"])

    assert once != twice
    assert once.split("/")[0] == twice.split("/")[0]


def test_kind_is_short_whatever_the_graph() -> None:
    """It is kept with every job, and no name of a node may break it."""
    assert len(kind_of([f"node/\n\ud800{number}" for number in range(1_000)])) == len(kind_of([])) == 25


def test_nothing_known_is_a_broad_guess() -> None:
    """Seconds to minutes, and nothing is held to be impossible."""
    run_times = RunTimes()

    low, middle, high = run_times.of(KIND).quantiles(0.0, PARTS)

    assert 2.0 < low < 6.0
    assert 10.0 < middle < 40.0
    assert 90.0 < high < 600.0
    assert min(run_times.of(KIND).weights) > 0.0
    assert (run_times.evidence(KIND), len(run_times)) == (0.0, 0)


def test_another_guess_can_be_given() -> None:
    guess = Durations([1.0] * BINS)

    assert RunTimes(guess=guess).of(KIND) is guess


@pytest.mark.parametrize(
    ("median", "sigma", "pause"), [(25.0, 0.3, 5.0), (90.0, 0.3, 30.0), (3.0, 0.3, 2.0), (300.0, 0.1, 20.0)]
)
def test_run_times_are_learned_although_looks_only_tell_between_what_ages_jobs_ended(
    median: float, sigma: float, pause: float
) -> None:
    """The quantiles come out within an eighth, about the width of a bin, from looks that are far apart."""
    run_times = teach(RunTimes(), KIND, median, sigma=sigma, jobs=300, pause=pause)

    truth = [median * exp(sigma * NormalDist().inv_cdf(part)) for part in PARTS]
    assert run_times.of(KIND).quantiles(0.0, PARTS) == pytest.approx(truth, rel=0.125)


def test_two_peaks_are_learned_as_two() -> None:
    """Jobs of one kind may take 10 s, or 100 s where a model has to be loaded: nothing ends between."""
    run_times = RunTimes()
    for _ in range(100):
        run_times.learn(KIND, 9.0, 11.0)
        run_times.learn(KIND, 95.0, 105.0)

    law = run_times.of(KIND)

    assert law.done_by(20.0) == pytest.approx(0.5, abs=0.03)
    assert law.done_by(60.0) - law.done_by(20.0) < 0.02


def test_what_has_changed_is_learned_anew() -> None:
    """About a hundred jobs count: after twice as many of the new sort, the old ones are forgotten."""
    run_times = teach(RunTimes(), KIND, 20.0)

    teach(run_times, KIND, 60.0, seed=2)

    assert median_of(run_times, KIND) == pytest.approx(60.0, rel=0.15)


def test_memory_is_a_choice() -> None:
    run_times = teach(RunTimes(memory=10.0), KIND, 20.0)

    teach(run_times, KIND, 60.0, jobs=30, seed=2)

    assert median_of(run_times, KIND) == pytest.approx(60.0, rel=0.2)
    assert run_times.evidence(KIND) == pytest.approx(10.0, rel=0.01)


def test_learning_goes_on_without_end() -> None:
    """Old weights fade; they do not grow until numbers overflow or small ones are lost."""
    run_times = RunTimes(memory=5.0)

    for seed in range(200):
        teach(run_times, KIND, 20.0, jobs=1, seed=seed)

        weights = run_times.export(KIND).weights
        assert sum(weights.values()) == pytest.approx(run_times.evidence(KIND), rel=0.01)


def test_a_few_outliers_change_little() -> None:
    """One job in twenty hangs for an hour: that is known, and the others are expected when they were before."""
    run_times = RunTimes()
    for seed in range(15):
        teach(run_times, KIND, 20.0, jobs=19, seed=seed)
        run_times.learn(KIND, 3_500.0, 3_700.0)

    assert median_of(run_times, KIND) == pytest.approx(20.0, rel=0.15)
    assert 0.01 < 1.0 - run_times.of(KIND).done_by(600.0) < 0.12


def test_first_job_is_believed_but_not_blindly() -> None:
    run_times = RunTimes()

    run_times.learn(KIND, 55.0, 60.0)

    assert 40.0 < median_of(run_times, KIND) < 65.0
    assert spread_of(run_times, KIND) > 2.0


def test_more_jobs_make_it_sharper() -> None:
    few, many = teach(RunTimes(), KIND, 20.0, sigma=0.1, jobs=3), teach(RunTimes(), KIND, 20.0, sigma=0.1, jobs=100)

    assert spread_of(many, KIND) < 1.7 < spread_of(few, KIND)


def test_kind_of_which_nothing_is_known_is_taken_for_the_coarser_one() -> None:
    run_times = teach(RunTimes(), KIND, 200.0)

    assert median_of(run_times, SIBLING) == pytest.approx(200.0, rel=0.1)
    assert run_times.evidence(SIBLING) == 0.0


def test_kind_of_strangers_is_taken_for_all_jobs() -> None:
    run_times = teach(RunTimes(), KIND, 200.0)

    assert median_of(run_times, STRANGER) == pytest.approx(200.0, rel=0.1)


def test_kind_of_which_little_is_known_leans_on_the_coarser_one() -> None:
    """One job of 60 s, and many of the same sort of 200 s: the next one may take either."""
    run_times = teach(RunTimes(), KIND, 200.0)
    run_times.learn(SIBLING, 59.0, 61.0)

    law = run_times.of(SIBLING)

    assert 0.3 < law.done_by(100.0) < 0.7


def test_kind_that_is_known_well_does_not_mind_the_others() -> None:
    run_times = teach(RunTimes(), SIBLING, 60.0)

    teach(run_times, KIND, 200.0)

    assert median_of(run_times, SIBLING) == pytest.approx(60.0, rel=0.1)


def test_all_kinds_together_are_a_kind() -> None:
    """Waits for the queue are learned like that."""
    run_times = teach(RunTimes(), EVERY_KIND, 60.0)

    assert median_of(run_times, EVERY_KIND) == pytest.approx(60.0, rel=0.1)
    assert (len(run_times), run_times.changed) == (1, {EVERY_KIND})


def test_job_older_than_all_bins_teaches_that_it_was_old() -> None:
    run_times = RunTimes()
    for _ in range(50):
        run_times.learn(KIND, 1e6, 2e6)

    assert run_times.of(KIND).done_by(30_000.0) < 0.5


def test_what_was_held_to_be_impossible_is_learned_nevertheless() -> None:
    """A guess that leaves something out is not the truth."""
    run_times = RunTimes(guess=Durations([1.0] * 10 + [0.0] * (BINS - 10)))
    for _ in range(50):
        run_times.learn(KIND, 95.0, 105.0)

    assert median_of(run_times, KIND) == pytest.approx(100.0, rel=0.1)


@pytest.mark.parametrize(("low", "high"), [(20.0, 10.0), (float("nan"), 10.0), (1.0, float("nan")), (0.0, -1.0)])
def test_times_that_cannot_be_teach_nothing(low: float, high: float) -> None:
    """A clock has stepped."""
    run_times = RunTimes()

    run_times.learn(KIND, low, high)

    assert (len(run_times), run_times.changed) == (0, set())


def test_kinds_are_remembered_up_to_a_number_and_the_one_not_asked_for_the_longest_is_forgotten() -> None:
    """What is known of all jobs together is used by all, and stays."""
    run_times = RunTimes(max_kinds=5)
    for kind in ("a", "b", "c", "d"):
        run_times.learn(kind, 10.0, 20.0)
    run_times.of("a")

    run_times.learn("e", 10.0, 20.0)

    assert len(run_times) == 5
    assert [kind for kind in (EVERY_KIND, *"abcde") if run_times.evidence(kind)] == [EVERY_KIND, "a", "c", "d", "e"]
    assert "b" not in run_times.changed


def test_kind_is_remembered_as_long_as_finer_ones_are_learned() -> None:
    """It is what the next new one of them will lean on."""
    run_times = teach(RunTimes(max_kinds=5), "a/1", 20.0, jobs=30)
    for kind in ("b", "c", "b", "c"):
        run_times.learn(kind, 10.0, 20.0)
    run_times.learn("a/1", 10.0, 20.0)

    run_times.learn("d", 10.0, 20.0)

    assert [kind for kind in ("a", "a/1", "b", "c", "d") if run_times.evidence(kind)] == ["a", "a/1", "c", "d"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("123"), st.booleans()), max_size=30))
def test_memory_is_bounded_whatever_kinds_come(jobs: list[tuple[str, str, bool]]) -> None:
    run_times = RunTimes(max_kinds=4)
    for coarse, fine, shown in jobs:
        kind = f"{coarse}/{fine}"
        if shown:
            run_times.learn_progress(kind, [(HALF, 10.0)], 20.0)
        run_times.learn(kind, 10.0, 20.0)
        run_times.of(kind)

        assert len(run_times) <= 4
        assert len(run_times.changed) <= 4


def test_progress_teaches_what_is_left_of_the_run() -> None:
    """For a kind that takes anything from seconds to minutes, half of the progress tells the end nearly exactly."""
    run_times, chance = RunTimes(), Random(1)
    for _ in range(100):
        run_time = chance.lognormvariate(log(30.0), 1.0)
        run_times.learn(KIND, 0.95 * run_time, 1.05 * run_time)
        run_times.learn_progress(KIND, [(HALF, 0.7 * run_time)], run_time)

    law = run_times.of(KIND).given(run_times.hint(KIND, HALF, 70.0))

    low, middle, high = law.quantiles(70.0, PARTS)
    assert 80.0 < low < middle < high < 130.0
    assert middle == pytest.approx(100.0, rel=0.1)


def test_progress_of_a_kind_that_has_shown_none_is_read_like_that_of_the_coarser_one() -> None:
    run_times = RunTimes()
    run_times.learn_progress(KIND, [(HALF, 10.0)] * 100, 50.0)

    known = run_times.hint(SIBLING, HALF, 10.0)

    assert known == run_times.hint(KIND, HALF, 10.0)
    assert known is not None
    assert exp(known.centre) == pytest.approx(50.0, rel=0.05)


def test_progress_before_any_end_leaves_the_run_time_what_it_was_thought_to_be() -> None:
    run_times = RunTimes()
    before = run_times.of(KIND)

    run_times.learn_progress(KIND, [(HALF, 10.0)], 20.0)

    assert run_times.of(KIND) is before


def test_what_was_learned_survives_as_a_record_in_json() -> None:
    """One record a kind, short enough to be written at every change."""
    run_times = teach(RunTimes(), KIND, 25.0)
    run_times.learn_progress(KIND, [(HALF, 5.0)] * 10, 25.0)
    restarted = RunTimes()

    for kind, record in run_times.take_changed().items():
        kept = msgspec.json.encode(record)
        assert len(kept) < 2_000
        restarted.adopt(kind, msgspec.json.decode(kept, type=KindRecord))

    for kind in (KIND, SIBLING, STRANGER):
        quantiles = run_times.of(kind).quantiles(0.0, PARTS)
        assert restarted.of(kind).quantiles(0.0, PARTS) == pytest.approx(quantiles, rel=0.02)
        assert restarted.evidence(kind) == pytest.approx(run_times.evidence(kind), rel=0.01)
        hint, known = restarted.hint(kind, HALF, 5.0), run_times.hint(kind, HALF, 5.0)
        assert hint is not None
        assert known is not None
        assert hint.centre == pytest.approx(known.centre, abs=0.001)
    assert restarted.changed == set()


def test_changed_kinds_are_told_once() -> None:
    run_times = RunTimes()
    run_times.learn(KIND, 10.0, 20.0)

    assert set(run_times.take_changed()) == {EVERY_KIND, "upscale", KIND}
    assert run_times.take_changed() == {}
    run_times.learn_progress(SIBLING, [(HALF, 10.0)], 20.0)
    assert set(run_times.take_changed()) == {EVERY_KIND, "upscale", SIBLING}


def test_unknown_kind_has_an_empty_record() -> None:
    run_times = RunTimes()

    assert run_times.export(KIND) == KindRecord()
    run_times.adopt(KIND, KindRecord())
    assert len(run_times) == 0


def test_less_than_is_known_is_not_taken_over() -> None:
    """Another process may have seen fewer jobs, or the record may be an old one."""
    run_times = teach(RunTimes(), KIND, 25.0, jobs=20)
    known = run_times.export(KIND)

    run_times.adopt(KIND, teach(RunTimes(), KIND, 90.0, jobs=10).export(KIND))

    assert run_times.export(KIND) == known


def test_more_than_is_known_is_taken_over() -> None:
    run_times = teach(RunTimes(), KIND, 25.0, jobs=10)

    run_times.adopt(KIND, teach(RunTimes(), KIND, 90.0, jobs=20).export(KIND))

    assert median_of(run_times, KIND) == pytest.approx(90.0, rel=0.15)


def test_record_of_a_longer_memory_counts_for_no_more_than_the_own() -> None:
    """What is taken over is forgotten as fast as what was seen here."""
    run_times = RunTimes(memory=20.0)
    run_times.adopt(KIND, KindRecord(weights={bin_of(25.0): 5_000.0}))

    teach(run_times, KIND, 90.0, jobs=60)

    assert run_times.evidence(KIND) == pytest.approx(20.0)
    assert median_of(run_times, KIND) == pytest.approx(90.0, rel=0.15)


def test_record_of_another_version_is_ignored() -> None:
    """Its numbers mean something else."""
    run_times = RunTimes()

    run_times.adopt(KIND, KindRecord(version=2, weights={50: 10.0}))

    assert len(run_times) == 0


@given(st.lists(st.tuples(st.sampled_from(["", "a", "a/b", "/", "//x", "é/\n"]), RECORDS), max_size=4), ODD_FLOATS)
def test_no_record_breaks_anything(records: list[tuple[str, KindRecord]], odd: float) -> None:
    """Whatever the topic holds, jobs are expected to take some time, and more is learned."""
    run_times = RunTimes(max_kinds=4)
    for kind, record in records:
        run_times.adopt(kind, record)
    run_times.learn("a/b", odd, 1_000.0)
    run_times.learn("a/b", 1.0, odd)
    run_times.learn_progress("a/b", [(HALF, odd)], odd)

    for kind in ("a/b", *(kind for kind, _ in records)):
        (median,) = run_times.of(kind).quantiles(0.0, [0.5])
        assert 0.0 < median < 1e5
        assert run_times.hint(kind, HALF, 10.0) is not None
    run_times.take_changed()
