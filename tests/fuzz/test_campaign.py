"""The campaign sees as many inputs as it says, names the one that shows a fault, and makes that one again."""

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import SHARES, fuzz, share_of
from tests.fuzz.mutations import hostile_value, spoilt_bytes, spoilt_document

FIRST = next(iter(SHARES))


@pytest.fixture(autouse=True)
def by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INPUTS", "SEED", "ONLY"):
        monkeypatch.delenv(f"BRIDGE_FUZZ_{name}", raising=False)
    monkeypatch.setattr(campaign, "SHARES", {FIRST: 50, "other": 150})


def make(chance: Random) -> int:
    return chance.randrange(10)


def check(case: int) -> None:
    assert case != 7, "it is a seven"


def _count(numbers: Iterator[int]) -> None:
    next(numbers)


def _divide(_: object) -> None:
    raise ZeroDivisionError


def test_all_targets_together_see_two_hundred_thousand_inputs() -> None:
    assert sum(SHARES.values()) >= 200_000


def test_every_target_is_run_and_only_those_with_a_share() -> None:
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_fuzz_*.py"))

    assert sorted(re.findall(r'fuzz(?:_wire)?\(\s*"([^"]+)"', texts)) == sorted(SHARES)


def test_as_many_inputs_are_made_as_the_share_says() -> None:
    numbers = count()

    fuzz(FIRST, make, lambda _: _count(numbers))

    assert next(numbers) == 50


def test_a_case_of_several_inputs_counts_as_several() -> None:
    numbers = count()

    fuzz(FIRST, make, lambda _: _count(numbers), size=lambda _: 10)

    assert next(numbers) == 5


def test_more_inputs_are_shared_out_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_FUZZ_INPUTS", "4000")

    assert (share_of(FIRST), share_of("other")) == (1_000, 3_000)


def test_a_fault_names_target_seed_number_and_input_and_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match=rf"^{FIRST}, input \d+ of seed \d+ .*it is a seven") as found:
        fuzz(FIRST, make, check)
    told = re.search(r"BRIDGE_FUZZ_SEED=(\d+) BRIDGE_FUZZ_ONLY=(\d+)", str(found.value))
    assert told is not None
    monkeypatch.setenv("BRIDGE_FUZZ_SEED", told[1])
    monkeypatch.setenv("BRIDGE_FUZZ_ONLY", told[2])
    cases: list[int] = []

    fuzz(FIRST, make, cases.append)

    assert cases == [7]


def test_a_long_input_is_cut_in_what_is_told() -> None:
    with pytest.raises(AssertionError) as found:
        fuzz(FIRST, lambda _: "x" * 100_000, _divide)

    assert "ZeroDivisionError" in str(found.value)
    assert len(str(found.value)) < 5_000


def test_another_seed_makes_other_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[int]] = [[], []]
    for seed, cases in enumerate(made):
        monkeypatch.setenv("BRIDGE_FUZZ_SEED", str(seed))
        fuzz(FIRST, make, cases.append)

    assert made[0] != made[1]


def test_a_case_that_takes_too_long_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "CPU_LIMIT_S", 0.0)

    with pytest.raises(AssertionError, match="of a core"):
        fuzz(FIRST, make, lambda _: None)


def test_spoiling_spares_the_good_ones() -> None:
    """What is spoilt once is not spoilt for the inputs to come."""
    good = {"a": [1, {"b": "c"}], "d": {}}
    before = repr(good)
    chance = Random(1)

    spoilt = {spoilt_document(chance, [good]) for _ in range(2_000)}

    assert repr(good) == before
    assert len(spoilt) > 1_000
    assert len({spoilt_bytes(chance, b"some bytes") for _ in range(200)}) > 150
    assert len({repr(hostile_value(chance)) for _ in range(2_000)}) > 80
