"""When to look at which job: whatever looks have shown and clocks have said, somebody is looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from random import Random

from bridge.core.documents import UnreadableDocument, read_job
from bridge.core.polling import JobHistory, LeastDelay
from bridge.core.run_times import RunTimes, kind_of
from bridge.messages import JobView
from tests.fuzz.answers import DOCUMENTS
from tests.fuzz.campaign import fuzz
from tests.fuzz.mutations import hostile_text, spoilt_document

NAN, INF = float("nan"), float("inf")
TIMES = (0.0, 1.0, 999.0, 1_000.0, 1_001.0, -5.0, -1e12, 1e12, 1e300, NAN, INF, -INF)
KINDS = (kind_of(["A"]), kind_of(["A", "B"]), "", "x", "a/b/c")


@dataclass(frozen=True, slots=True)
class Looks:
    """Jobs that are tracked, and what is then seen of them, with the seconds between two looks."""

    histories: Sequence[JobHistory]
    views: Sequence[tuple[float, JobView | None]]


def make_looks(chance: Random) -> Looks:
    """A few jobs, and looks at them."""
    return Looks(
        [_history(chance) for _ in range(chance.randint(1, 4))],
        [(chance.choice((0.0, 0.2, 3.0, 70.0, 1e6)), _view(chance)) for _ in range(chance.randint(1, 12))],
    )


def _history(chance: Random) -> JobHistory:
    running = chance.choice((None, *TIMES))
    return JobHistory(
        kind=chance.choice((*KINDS, hostile_text(chance)[:100])),
        submitted_at=chance.choice(TIMES),
        seen_at=chance.choice(TIMES),
        running_at=running,
        queue_rank=chance.choice((None, 0, 3, -7, 10**300)),
        progress=chance.choice((0.0, 0.3, 1.0)),
    )


def _view(chance: Random) -> JobView | None:
    try:
        return read_job(spoilt_document(chance, DOCUMENTS))
    except UnreadableDocument:
        return None


def check_looks(looks: Looks) -> None:
    now = 1_000.0
    policy = LeastDelay(RunTimes(), RunTimes(), interval=1.0, max_silence=60.0)
    for key, history in enumerate(looks.histories):
        policy.add(key, history, now=now)
    for seconds, view in looks.views:
        now += seconds
        at = policy.available_at()
        assert not isnan(at)
        now = max(now, at)
        policy.looked(policy.take(now=now), view, now=now)
        assert 0 < policy.price < INF
        assert not isnan(policy.delay_estimate)
    assert len(policy) == len(looks.histories)


def test_looks_go_on_whatever_they_show() -> None:
    fuzz("looks", make_looks, check_looks, size=lambda looks: len(looks.histories) + len(looks.views))
