"""Whatever TAMS answers, it is one of our answers: nothing is raised, nothing is passed on that others cannot read."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import httpx
import msgspec
from pydantic import HttpUrl, SecretStr
from typing_extensions import override

from bridge.adapters.tams import TamsClient, authorization
from bridge.core.answers import Call
from bridge.core.jobs import Step, cancel_answered, looked, submitted
from bridge.messages import (
    Ambiguous,
    Answer,
    Done,
    Failure,
    InHand,
    JobRecord,
    JobView,
    Missing,
    NotSent,
    Phase,
    Refused,
    Seen,
    TryLater,
    Unauthorized,
)
from bridge.settings import TamsSettings
from tests.core.examples import NOW, POLICY, in_every_phase, stopped
from tests.fuzz.answers import Spoilt, make_answer
from tests.fuzz.campaign import fuzz
from tests.roles.fakes import HandClock

T = TypeVar("T")

SECRET = "canary-4711"
PHASES = in_every_phase()
ENDED = PHASES[Phase.SUCCESS]
RECORDS: dict[Call, Sequence[JobRecord]] = {
    Call.CREATE: (PHASES[Phase.SUBMITTING], stopped(PHASES[Phase.SUBMITTING]), PHASES[Phase.TRACKING], ENDED),
    Call.LOOK: (PHASES[Phase.TRACKING], stopped(PHASES[Phase.TRACKING]), ENDED),
    Call.CANCEL: (stopped(PHASES[Phase.TRACKING]), ENDED),
}
DEEPER = 150
"""A record that was written is read again from deeper within some program."""

MAY_BE: dict[Call, tuple[type, ...]] = {
    Call.CREATE: (Seen, Ambiguous, InHand, Unauthorized, Refused, TryLater),
    Call.LOOK: (Seen, Ambiguous, InHand, Unauthorized, Missing, TryLater),
    Call.CANCEL: (Done, Ambiguous, InHand, Unauthorized, Missing, Refused, TryLater),
}


def check_answer(spoilt: Spoilt) -> None:
    answer = spoilt.read(NOW)
    assert isinstance(answer, MAY_BE[spoilt.call])
    assert isinstance(answer, InHand) == (spoilt.status == 202)
    match answer:
        case Seen(view):
            assert spoilt.status // 100 == 2
            _check_view(view, spoilt.body)
        case TryLater(failure, retry_after):
            assert spoilt.status in {429, 503}
            assert retry_after is None or timedelta(0) <= retry_after <= timedelta(hours=1)
            _check_failure(failure)
        case Refused(failure) | Missing(failure):
            assert spoilt.status // 100 == 4
            _check_failure(failure)
        case Ambiguous(failure) | Unauthorized(failure) | NotSent(failure):
            _check_failure(failure)
        case InHand() | Done():
            pass
    _check_steps(spoilt.call, answer)


def _check_view(view: JobView, body: bytes) -> None:
    told = _strictly_read(body.decode(errors="replace").encode())["job"]
    assert _strictly_read(bytes(view.document)) == told, "the document is passed on as it came"
    assert 0 < len(view.job_id) <= 255
    assert view.job_id.isprintable()
    assert view.job_id not in {".", ".."}, "it stands in the path of a URL"
    assert 0.0 <= view.progress <= 1.0
    assert view.finished_nodes >= 0
    assert (view.queue_rank is not None) == (view.status == "WAITING")
    assert (view.failure is not None) == (view.status == "FAILED")
    if view.failure is not None:
        _check_failure(view.failure)


def _check_failure(failure: Failure) -> None:
    assert failure.code
    assert 0 < len(failure.message) <= 1_000
    if failure.details:
        _strictly_read(bytes(failure.details))


def _check_steps(call: Call, answer: Answer) -> None:
    """Jobs that may get it take it, and can be written down and read again."""
    for record in RECORDS[call]:
        step = _taken_in(record, call, answer)
        assert step.record is record or not record.phase.is_terminal
        assert [event.sequence for event in step.events] == list(range(record.sequence + 1, step.record.sequence + 1))
        if step.record is not record:
            _check_written(step.record)


def _taken_in(record: JobRecord, call: Call, answer: Answer) -> Step:
    match call:
        case Call.CREATE:
            return submitted(record, answer, POLICY, NOW, 0.5)
        case Call.LOOK:
            return looked(record, answer, POLICY, NOW, 0.5)
        case Call.CANCEL:
            return cancel_answered(record, answer)


def _check_written(record: JobRecord) -> None:
    written = msgspec.json.encode(record)
    read = _deeper(DEEPER, lambda: msgspec.json.decode(written, type=JobRecord))
    assert msgspec.json.encode(read) == written
    _strictly_read(written)


def _deeper(levels: int, call: Callable[[], T]) -> T:
    return call() if levels == 0 else _deeper(levels - 1, call)


def _strictly_read(value: bytes) -> Any:
    return json.loads(value.decode(), parse_int=str, parse_float=str, parse_constant=_no_json)


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def test_any_answer_of_tams_is_one_of_ours() -> None:
    fuzz("tams answers", make_answer, check_answer)


# --------------------------------------------------------------------------------------------------------- the client
class _Answering(httpx.AsyncBaseTransport):
    """Answers as it is told."""

    def __init__(self) -> None:
        self.next: Spoilt | None = None
        self.requests: list[httpx.Request] = []

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert self.next is not None
        self.requests.append(request)
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in self.next.headers.items()]
        return httpx.Response(self.next.status, headers=headers, stream=_Chunks(self.next.body))


class _Chunks(httpx.AsyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    @override
    async def __aiter__(self) -> Any:
        yield self._body[:10]
        yield self._body[10:]


def test_the_client_raises_nothing_and_tells_no_secret() -> None:
    settings = TamsSettings(base_url=HttpUrl("https://tams.example/base"), api_key=SecretStr(SECRET))
    settings = settings.model_copy(update={"max_answer_bytes": 4_000})
    clock, transport = HandClock(), _Answering()
    client = TamsClient(settings, scheme=authorization(settings, clock=clock), transport=transport, clock=clock)

    def check(spoilt: Spoilt) -> None:
        transport.next = spoilt
        answer = loop.run_until_complete(_called(client, spoilt.call))
        assert isinstance(answer, (*MAY_BE[spoilt.call], NotSent))
        assert SECRET not in repr(answer)
        if len(spoilt.body) > 4_000:
            assert isinstance(answer, Ambiguous)

    loop = asyncio.new_event_loop()
    try:
        fuzz("tams client", make_answer, check)
    finally:
        loop.close()
    assert all(request.url.path.startswith("/base/v1/jobs/") for request in transport.requests)


async def _called(client: TamsClient, call: Call) -> Answer:
    match call:
        case Call.CREATE:
            return await client.create("r-1", b"{}")
        case Call.LOOK:
            return await client.look("7")
        case Call.CANCEL:
            return await client.cancel("7")
