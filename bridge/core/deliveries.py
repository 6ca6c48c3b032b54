"""The life of one delivery: from an order to a receiver's 2xx, or to the dead-letter topic.

    order ──► PENDING ──2xx──► delivered
               ▲   │ ├──other failure, pauses left──► PENDING, not before `next_at`
               │   │ └──other failure, none left, or too old──► dead
               │   ├──429 or 503 with Retry-After──► PENDING; the endpoint pauses, no attempt is used up
               └───┴──410──► PENDING; the endpoint is disabled

A delivery that is pending lies in the ledger; one that has ended does not. Sources: Standard Webhooks 1.0.0,
"Deliverability and reliability"; design.md, "Webhooks".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import assert_never

from msgspec.structs import replace

from bridge.webhook_messages import After, AttemptSummary, DeadReason, Delivery, Order, Outcome
from bridge.webhook_ports import NoResponse, Response

_JITTER = 0.2
_SUCCESS = range(200, 300)
_REDIRECT = range(300, 400)
_MAY_THROTTLE = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_ERROR_SHOWN = 300
_SHORTEST_PAUSE = timedelta(seconds=1)
"""A receiver that says `Retry-After: 0`, again and again, would get POSTs as fast as it can answer."""
_LONGEST_ASKED_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Unsendable:
    """Nothing was sent, for a reason that lies with us: it costs no attempt.

    Args:
        error: what is wrong and what to do.
        pause: how long the endpoint is left alone.
    """

    error: str
    pause: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one exchange came to.

    Args:
        outcome: of the attempt.
        status: HTTP status, 0 without one.
        error: in words; empty for a success.
        pause: how long the receiver, or we, want the endpoint to be left alone.
    """

    outcome: Outcome
    status: int = 0
    error: str = ""
    pause: timedelta | None = None

    @property
    def is_failure(self) -> bool:
        """Whether it uses up an attempt and speaks against the endpoint."""
        return self.outcome in {Outcome.FAILED, Outcome.BLOCKED}


@dataclass(frozen=True, slots=True)
class Step:
    """A delivery after something happened.

    Args:
        delivery: as it is now.
        after: what became of it.
        reason: why it is dead, if it is.
    """

    delivery: Delivery
    after: After
    reason: DeadReason | None = None


def take_in(order: Order, now: datetime, *, replay_id: str | None = None) -> Delivery:
    """Begin a delivery."""
    return Delivery(
        endpoint_id=order.endpoint_id,
        event_id=order.event_id,
        type=order.type,
        request_id=order.request_id,
        sequence=order.sequence,
        time=order.time,
        inline=order.inline,
        ordered=now,
        replay_id=replay_id,
    )


def judge(answer: Response | NoResponse | Unsendable, now: datetime, *, longest_pause: timedelta) -> Verdict:
    """What an exchange came to.

    Args:
        answer: of the receiver, or of the network, or our own.
        now: the wall clock, for a `Retry-After` given as a date.
        longest_pause: longest `Retry-After` that is followed.
    """
    match answer:
        case Unsendable(error, pause):
            return Verdict(outcome=Outcome.THROTTLED, error=error, pause=pause)
        case NoResponse(error=error, blocked=blocked):
            return Verdict(outcome=Outcome.BLOCKED if blocked else Outcome.FAILED, error=error[:_ERROR_SHOWN])
        case Response(status=status, headers=headers):
            return _judge_status(status, headers, now, longest_pause)
        case _:
            assert_never(answer)


def _judge_status(status: int, headers: Mapping[str, str], now: datetime, longest_pause: timedelta) -> Verdict:
    if status in _SUCCESS:
        return Verdict(outcome=Outcome.DELIVERED, status=status)
    if status == HTTPStatus.GONE:
        return Verdict(outcome=Outcome.GONE, status=status, error="the receiver answered 410: it wants no more events")
    pause = read_retry_after(headers.get("retry-after", ""), now) if status in _MAY_THROTTLE else None
    if pause is not None:
        pause = min(max(pause, _SHORTEST_PAUSE), longest_pause)
        error = f"the receiver answered {status} and asked for {pause / timedelta(seconds=1):.0f} s"
        return Verdict(outcome=Outcome.THROTTLED, status=status, error=error, pause=pause)
    error = f"the receiver answered {status}"
    if status in _REDIRECT:
        error += ", and redirects are not followed: register the address it points to"
    return Verdict(outcome=Outcome.FAILED, status=status, error=error)


def read_retry_after(value: str, now: datetime) -> timedelta | None:
    """The pause a receiver asks for, in seconds or as a date (RFC 9110, section 10.2.3), a day at the most.

    Returns:
        None if it cannot be read.
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (_aware(value) - now).total_seconds()
        except (ValueError, OverflowError):  # a year or a zone of twenty digits is no number for a date
            return None
    return timedelta(seconds=min(max(0.0, seconds), _LONGEST_ASKED_S))


def _aware(date: str) -> datetime:
    moment = parsedate_to_datetime(date)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def attempted(
    delivery: Delivery,
    verdict: Verdict,
    *,
    began: datetime,
    now: datetime,
    pauses: tuple[float, ...],
    chance: float,
) -> Step:
    """Take in what one attempt came to.

    Args:
        delivery: as it was when the attempt began.
        verdict: of the exchange.
        began, now: when it began and ended, on the wall clock.
        pauses: seconds before the second, third … attempt.
        chance: uniform in [0, 1), for the jitter.
    """
    summary = AttemptSummary(
        number=delivery.used + 1,
        time=began,
        outcome=verdict.outcome,
        status=verdict.status,
        error=verdict.error,
        duration_s=max(0.0, round((now - began).total_seconds(), 4)),
    )
    tried = replace(delivery, attempts=_remembered(delivery.attempts, summary))
    if verdict.outcome is Outcome.DELIVERED:
        return Step(replace(tried, used=delivery.used + 1), After.DELIVERED)
    if not verdict.is_failure:
        return Step(tried, After.WAITING)
    used = delivery.used + 1
    if used > len(pauses):
        return Step(replace(tried, used=used), After.DEAD, DeadReason.EXHAUSTED)
    pause = timedelta(seconds=pauses[used - 1] * (1 - _JITTER / 2 + _JITTER * chance))
    return Step(replace(tried, used=used, next_at=now + pause), After.WAITING)


def ended(delivery: Delivery, outcome: Outcome, error: str, now: datetime) -> Delivery:
    """A delivery that ends without another attempt; why is the last thing it remembers."""
    summary = AttemptSummary(number=delivery.used, time=now, outcome=outcome, error=error)
    return replace(delivery, attempts=_remembered(delivery.attempts, summary))


_THROTTLED_REMEMBERED = 20


def _remembered(attempts: tuple[AttemptSummary, ...], summary: AttemptSummary) -> tuple[AttemptSummary, ...]:
    """All that counted, and the latest of those that did not: a receiver may answer 429 for days."""
    throttled = [each for each in attempts if each.outcome is Outcome.THROTTLED]
    if summary.outcome is Outcome.THROTTLED and len(throttled) >= _THROTTLED_REMEMBERED:
        attempts = tuple(each for each in attempts if each is not throttled[0])
    return (*attempts, summary)
