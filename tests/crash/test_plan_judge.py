"""As for the other judges: a plan in order passes, and each way of breaking a promise is named."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.crash.judge import Call, Evidence
from tests.crash.plan_judge import Letter, PlanEvidence, judge_plan, judge_secrets

RATE = 3
WHY = tuple(
    (name, b"x") for name in ("dlq-reason", "dlq-error", "dlq-topic", "dlq-partition", "dlq-offset", "dlq-time")
)
SENT = Letter(key=b"\xff", value=b"{", headers=(("a", None), ("b", b"1"), ("b", b"2")))
PARKED = replace(SENT, headers=(*SENT.headers, *WHY))
NOTHING = Letter(key=None, value=None)

SOUND = PlanEvidence(
    canceled={"a": 100.0},
    held_back=[],
    rate=RATE,
    calls=[10.0, 10.1, 10.2, 11.0, 11.1, 11.2, 13.0],
    sent={"0/7": SENT, "1/2": NOTHING},
    letters=[("0/7", PARKED), ("1/2", replace(NOTHING, headers=WHY))],
)


def jobs(*created_at: float, owner: str = "a", is_create: bool = True) -> Evidence:
    calls = [Call(request_id="r", job_id="1", is_create=is_create, time=time) for time in created_at]
    return Evidence(
        accepted=frozenset(), unreadable=(), events=(), dead_letters=(), calls=calls, owners={"1": owner}, ledger={}
    )


def letters(letter: Letter) -> PlanEvidence:
    return replace(SOUND, letters=[("0/7", letter)])


BROKEN: dict[str, tuple[PlanEvidence, Evidence, str]] = {
    "a create follows a confirmed cancel": (SOUND, jobs(99.0, 100.5), "a: a create 0.500 s after its cancel"),
    "a create is held back, but not for as long": (
        replace(SOUND, held_back=[(99.0, 101.0)]),
        jobs(101.5),
        "a: a create 1.500 s after",
    ),
    "calls were held back only after the cancel": (
        replace(SOUND, held_back=[(100.1, 102.0)]),
        jobs(101.5),
        "a: a create 1.500 s after",
    ),
    "the rate is exceeded": (replace(SOUND, calls=[1.0, 1.1, 1.2, 1.7]), jobs(), "4 calls to TAMS within 0.700 s"),
    "the rate is exceeded after calls came late": (
        replace(SOUND, calls=[1.0, 2.0, 2.1, 2.2, 2.3], held_back=[(0.5, 1.5)]),
        jobs(),
        "4 calls to TAMS within 0.300 s",
    ),
    "a dead letter has another value": (letters(replace(PARKED, value=b"{}")), jobs(), "another key or value"),
    "a dead letter has lost its value": (letters(replace(PARKED, value=None)), jobs(), "another key or value"),
    "a dead letter has another key": (letters(replace(PARKED, key=b"")), jobs(), "another key or value"),
    "a header is lost": (letters(replace(PARKED, headers=PARKED.headers[1:])), jobs(), "other headers"),
    "a header that was null is empty": (
        letters(replace(PARKED, headers=(("a", b""), *PARKED.headers[1:]))),
        jobs(),
        "other headers",
    ),
    "headers have changed places": (
        letters(replace(PARKED, headers=(SENT.headers[0], SENT.headers[2], SENT.headers[1], *WHY))),
        jobs(),
        "other headers",
    ),
    "the reason is missing": (letters(replace(PARKED, headers=(*SENT.headers, *WHY[1:]))), jobs(), "does not say"),
    "the reason is there twice": (letters(replace(PARKED, headers=(*PARKED.headers, WHY[0]))), jobs(), "does not say"),
}

IN_ORDER: dict[str, tuple[PlanEvidence, Evidence]] = {
    "a create before the cancel": (SOUND, jobs(99.0)),
    "a look after the cancel": (SOUND, jobs(101.0, is_create=False)),
    "a create for another request": (SOUND, jobs(101.0, owner="b")),
    "a create that was held back on its way": (replace(SOUND, held_back=[(99.0, 102.0)]), jobs(101.0)),
    "calls that came late, all at once": (replace(SOUND, calls=[1.0] * 9, held_back=[(0.0, 2.0)]), jobs()),
    "no limit": (replace(SOUND, calls=[1.0] * 9, rate=0), jobs()),
    "a dead letter of a record that is not ours to compare": (
        replace(SOUND, letters=[*SOUND.letters, ("3/3", NOTHING)]),
        jobs(),
    ),
}


@pytest.mark.parametrize("name", IN_ORDER)
def test_a_plan_in_order_passes(name: str) -> None:
    assert judge_plan(*IN_ORDER[name]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_promise_broken_under_a_plan_is_named(name: str) -> None:
    evidence, seen, named = BROKEN[name]
    assert any(named in complaint for complaint in judge_plan(evidence, seen)), judge_plan(evidence, seen)


@pytest.mark.parametrize(
    ("told", "places"),
    [
        ([("log of worker-1", b'{"event": "started"}')], []),
        ([("log of worker-1", b"key=hidden!"), ("progress", b"\xffhidden\x00")], ["log of worker-1", "progress"]),
        ([("API", b"sealed-too")], ["API"]),
    ],
)
def test_a_secret_is_found_wherever_it_is_told_and_is_not_told_again(
    told: Sequence[tuple[str, bytes]], places: Sequence[str]
) -> None:
    complaints = judge_secrets(["hidden", "sealed-too"], told)
    assert [complaint.partition(":")[0] for complaint in complaints] == places
    assert not any("hidden" in complaint or "sealed-too" in complaint for complaint in complaints)
