"""What must be true after a plan of faults, beside what `judge` and `webhook_judge` ask for.

As there, the evidence comes from outside, and nothing in here knows the bridge's code.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.crash.judge import Evidence

Span = tuple[float, float]
"""From when to when, s since 1970."""

Header = tuple[str, bytes | None]

_WINDOW_S = 0.8
"""A second, less what calls may be held up by a busy machine on their way; `test_rate` counts strictly."""

_ADDED = frozenset({"dlq-reason", "dlq-error", "dlq-topic", "dlq-partition", "dlq-offset", "dlq-time"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A record as it was sent, or as a dead letter keeps it."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEvidence:
    """What is known of a plan beside the topics.

    Args:
        canceled: request id → when its canceled event could be read, s since 1970.
        held_back: when the way to TAMS held calls back, so that they came later than they were made.
        rate: calls a second that were allowed; 0 for no limit.
        calls: when TAMS got each call, s since 1970.
        sent: place (`partition/offset`) of each record that cannot be read → the record.
        letters: each dead letter with the place it names.
    """

    canceled: Mapping[str, float]
    held_back: Sequence[Span]
    rate: int
    calls: Sequence[float]
    sent: Mapping[str, Letter]
    letters: Sequence[tuple[str, Letter]]


def judge_plan(evidence: PlanEvidence, jobs: Evidence) -> list[str]:
    """Everything that is wrong; empty if every promise was kept."""
    return [*_cancel_complaints(evidence, jobs), *_rate_complaints(evidence), *_letter_complaints(evidence)]


def judge_secrets(secrets: Iterable[str], told: Iterable[tuple[str, bytes]]) -> list[str]:
    """Where secrets can be read that nobody may read.

    Args:
        secrets: each of them.
        told: what anybody can read: where, and the bytes.
    """
    hidden = [(f"{secret[:3]}… ({len(secret)} characters)", secret.encode()) for secret in secrets]
    return [f"{where}: tells the secret {name}" for where, text in told for name, secret in hidden if secret in text]


def _cancel_complaints(evidence: PlanEvidence, jobs: Evidence) -> Iterator[str]:
    """No create after a cancel was confirmed, other than one that was made before and held back on its way."""
    for call in jobs.calls:
        name = jobs.owners.get(call.job_id, "")
        confirmed = evidence.canceled.get(name)
        if not call.is_create or confirmed is None or call.time <= confirmed:
            continue
        if not any(begin <= confirmed and call.time <= end for begin, end in evidence.held_back):
            yield f"{name}: a create {call.time - confirmed:.3f} s after its cancel was confirmed"


def _rate_complaints(evidence: PlanEvidence) -> Iterator[str]:
    """No second holds more calls than the rate, except for those that came late."""
    if not evidence.rate:
        return
    times = sorted(
        time for time in evidence.calls if not any(begin <= time <= end for begin, end in evidence.held_back)
    )
    for first, last in zip(times, times[evidence.rate :], strict=False):
        if last - first < _WINDOW_S:
            yield f"{evidence.rate + 1} calls to TAMS within {last - first:.3f} s, at {first:.3f}"


def _letter_complaints(evidence: PlanEvidence) -> Iterator[str]:
    """Dead letters are what was sent, byte for byte, and say why; how many there are of each, `judge` asks."""
    for place, letter in evidence.letters:
        sent = evidence.sent.get(place)
        if sent is None:
            continue
        if (letter.key, letter.value) != (sent.key, sent.value):
            yield f"record {place}: its dead letter has another key or value than was sent"
        kept, added = letter.headers[: len(sent.headers)], letter.headers[len(sent.headers) :]
        if kept != sent.headers:
            yield f"record {place}: its dead letter has other headers than were sent"
        if {name for name, _ in added} != _ADDED or len(added) != len(_ADDED):
            yield f"record {place}: its dead letter does not say where it came from and why"
