"""The API's client: what it asks, what it makes of every answer, and how it gets over a broken connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest

from bridge.adapters.api_client import ApiClient, ApiRefused
from bridge.adapters.brokers import free_ports
from bridge.core.event_stream import ServerEvent
from bridge.errors import CannotStart
from bridge.settings import ApiSettings
from tests.adapters.web import Talk, answering, read_request, response, serving

KEY = "tbk_aaaaaaaaaaaa_secret"
JSON = "content-type: application/json"
PROBLEM = "content-type: application/problem+json"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


class HastyClock:
    """Implements `bridge.ports.Clock`; every pause is over at once, and noted."""

    def __init__(self) -> None:
        self.pauses: list[float | None] = []

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def wait(self, event: asyncio.Event, seconds: float | None) -> None:
        del event
        self.pauses.append(seconds)


@asynccontextmanager
async def client_of(url: str, *, key: str = KEY, clock: HastyClock | None = None) -> AsyncIterator[ApiClient]:
    api = ApiSettings.model_validate({"url": url, "key": key})
    async with ApiClient(api, clock=clock or HastyClock()) as client:
        yield client


def ok(document: object) -> bytes:
    return response(200, json.dumps(document).encode(), JSON)


def problem(status: int, **fields: object) -> bytes:
    return response(status, json.dumps({"status": status, **fields}).encode(), PROBLEM)


def cut_off(*, times: int, then: bytes, heads: list[str]) -> Talk:
    """A server that takes requests and closes the connection without a word, so many times."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        heads.append(head)
        if len(heads) > times:
            writer.write(then)

    return talk


async def test_a_call_carries_key_query_and_body() -> None:
    async with answering(ok({"id": "ep_1"})) as (url, heads), client_of(url + "/bridge/") as client:
        document = await client.ask(
            "POST", "/v1/endpoints/a%2Fb", query={"a": "1", "b": ["x", "y"], "c": None}, body={}
        )

    assert bytes(document) == b'{"id": "ep_1"}'
    first, *headers = heads[0].splitlines()
    assert first == "POST /bridge/v1/endpoints/a%2Fb?a=1&b=x&b=y HTTP/1.1"
    assert {f"authorization: bearer {KEY}", JSON} <= {line.lower() for line in headers}


async def test_a_proxy_of_the_environment_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be given the key."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_ports(1)[0]}")
    async with answering(ok({})) as (url, heads), client_of(url) as client:
        await client.ask("GET", "/v1/endpoints")

    assert len(heads) == 1


async def test_an_answer_without_a_body_is_an_empty_document() -> None:
    async with answering(response(204)) as (url, _), client_of(url) as client:
        assert bytes(await client.ask("DELETE", "/v1/endpoints/ep_1")) == b""


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (response(401), "does not accept this key: check BRIDGE_API__KEY"),
        (problem(403, detail="the key lacks the scope webhooks:write"), "the key lacks the scope webhooks:write"),
        (problem(404, title="Not Found"), "api: Not Found"),
        (problem(409, detail="two\nlines"), "api: two lines"),
        (
            problem(
                422, detail="a: 1 (and 1 more)", errors=[{"field": "a", "message": "1"}, {"field": "b", "message": "2"}]
            ),
            "api: a: 1; b: 2",
        ),
        (problem(500, detail="something went wrong here"), "something went wrong here"),
        (response(502, b"<html>"), "fails: 502"),
        (response(503, b"{", PROBLEM), "fails: 503"),
    ],
)
async def test_a_refusal_is_told_in_one_line(answer: bytes, told: str) -> None:
    """What the API says is what the person reads; nothing of it is lost, and nothing is added that was not said."""
    async with answering(answer) as (url, _), client_of(url) as client:
        with pytest.raises(ApiRefused) as refused:
            await client.ask("GET", "/v1/endpoints")

    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "answer", [response(404, b"not here"), response(302), response(400), response(404, b"7", PROBLEM), ok([1])]
)
async def test_something_else_than_the_api_is_recognised(answer: bytes) -> None:
    """The port may be another program's."""
    async with answering(answer) as (url, _), client_of(url) as client:
        with pytest.raises(CannotStart, match="answers, but not as the API"):
            _ = [item async for item in client.pages("/v1/endpoints")]


async def test_an_answer_that_is_no_json_is_recognised() -> None:
    async with answering(response(200, b"<html>")) as (url, _), client_of(url) as client:
        with pytest.raises(CannotStart, match="answers, but not as the API"):
            await client.ask("GET", "/v1/endpoints")


async def test_where_nothing_answers_the_url_is_told() -> None:
    async with client_of(f"http://127.0.0.1:{free_ports(1)[0]}") as client:
        with pytest.raises(CannotStart, match=r"api: http://127.0.0.1:\d+ cannot be reached: .* \(check --url"):
            await client.ask("GET", "/v1/endpoints")


@pytest.mark.parametrize("key", ["", "a key", "a\nkey", "schlüssel"])
def test_what_cannot_be_a_key_is_refused_before_anything_is_sent(key: str) -> None:
    """A line break in a header would be another header."""
    with pytest.raises(CannotStart, match="BRIDGE_API__KEY") as refused:
        ApiClient(ApiSettings.model_validate({"key": key}), clock=HastyClock())

    assert not key or key not in str(refused.value)


async def test_a_broken_call_is_repeated_only_under_an_idempotency_key() -> None:
    """Without one, what was asked for would perhaps be done twice."""
    heads: list[str] = []
    async with serving(cut_off(times=2, then=ok({}), heads=heads)) as url, client_of(url) as client:
        document = await client.ask("POST", "/v1/endpoints", body={}, repeat_as="once")
    assert bytes(document) == b"{}"
    assert [("idempotency-key: once" in head.lower()) for head in heads] == [True, True, True]

    heads = []
    async with serving(cut_off(times=1, then=ok({}), heads=heads)) as url, client_of(url) as client:
        with pytest.raises(CannotStart, match=r"the connection to .* broke"):
            await client.ask("POST", "/v1/endpoints/ep_1/rotate", body={})
    assert len(heads) == 1


async def test_a_call_that_breaks_every_time_is_given_up() -> None:
    heads: list[str] = []
    async with serving(cut_off(times=9, then=b"", heads=heads)) as url, client_of(url) as client:
        with pytest.raises(CannotStart, match="broke"):
            await client.ask("POST", "/v1/endpoints", body={}, repeat_as="once")

    assert len(heads) == 3


async def test_a_list_is_read_page_by_page_to_its_end() -> None:
    pages = ok({"data": [1, 2], "next": "c1"}), ok({"data": [3], "next": None})
    async with answering(*pages) as (url, heads), client_of(url) as client:
        items = [bytes(item) async for item in client.pages("/v1/jobs", query={"state": "failed"})]

    assert items == [b"1", b"2", b"3"]
    assert [head.split()[1] for head in heads] == [
        "/v1/jobs?state=failed&limit=200",
        "/v1/jobs?state=failed&limit=200&cursor=c1",
    ]


@pytest.mark.parametrize(("limit", "asked"), [(3, ["3", "1"]), (2, ["2"]), (1, ["1"])])
async def test_a_limit_ends_a_list_early(limit: int, asked: list[str]) -> None:
    """Neither more items than wanted are shown, nor more pages than needed read."""
    async with answering(ok({"data": [1, 2], "next": "c"})) as (url, heads), client_of(url) as client:
        items = [item async for item in client.pages("/v1/jobs", limit=limit)]

    assert len(items) == limit
    assert [head.split()[1].partition("limit=")[2].partition("&")[0] for head in heads] == asked


class Broadcast:
    """A server of event streams: each connection gets the next of these bytes, and is then closed."""

    def __init__(self, *streams: bytes) -> None:
        self.left = list(streams)
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        self.heads.append(head)
        writer.write(self.left.pop(0) if self.left else b"")


def data(*values: str) -> bytes:
    return STREAM_HEAD + "".join(f"event: e\ndata: {value}\n\n" for value in values).encode()


async def followed(
    url: str, *, until: str = "end", clock: HastyClock | None = None
) -> tuple[list[ServerEvent], list[str]]:
    """The events up to one, and why streams broke before it."""
    events: list[ServerEvent] = []
    breaks: list[str] = []
    async with (
        client_of(url, clock=clock) as client,
        aclosing(client.follow("/v1/events", query={"type": "x"}, broke=breaks.append)) as stream,
    ):
        async for event in stream:
            events.append(event)
            if event.data == until:
                break
    return events, breaks


async def test_events_are_followed_until_the_caller_has_seen_enough() -> None:
    server = Broadcast(data("a", "end", "more"))
    async with serving(server) as url:
        events, breaks = await followed(url)

    assert [event.data for event in events] == ["a", "end"]
    assert breaks == []
    assert server.heads[0].startswith("GET /v1/events?type=x HTTP/1.1")


async def test_a_broken_stream_is_taken_up_again_and_the_person_told() -> None:
    """An API that is deployed anew must not end a command that waits for a job of an hour."""
    clock = HastyClock()
    server = Broadcast(data("a"), b"", response(502), data("b") + b"data: ha", data("end"))
    async with serving(server) as url:
        events, breaks = await followed(url, clock=clock)

    assert [event.data for event in events] == ["a", "b", "end"]
    assert ["ended the stream" in breaks[0], "broke" in breaks[1], "fails: 502" in breaks[2]] == [True] * 3
    assert clock.pauses == [1.0, 1.0, 2.0, 1.0]


async def test_a_stream_that_does_not_come_back_is_given_up() -> None:
    clock = HastyClock()
    async with serving(Broadcast(data("a"))) as url:
        with pytest.raises(CannotStart, match="broke"):
            await followed(url, clock=clock)

    assert clock.pauses == [1.0, 1.0, 2.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize("begun", [True, False])
async def test_a_refused_stream_is_not_asked_for_again(*, begun: bool) -> None:
    """A job that does not exist will not exist in a second."""
    refusal = problem(404, detail="there is no such job")
    clock = HastyClock()
    async with serving(Broadcast(*([data("a")] if begun else []), refusal)) as url:
        with pytest.raises(ApiRefused, match="there is no such job"):
            await followed(url, clock=clock)

    assert clock.pauses == [1.0] * begun


async def test_a_stream_that_cannot_begin_is_told_at_once() -> None:
    """A wrong URL is not worth half a minute."""
    clock = HastyClock()
    with pytest.raises(CannotStart, match="cannot be reached"):
        await followed(f"http://127.0.0.1:{free_ports(1)[0]}", clock=clock)

    assert clock.pauses == []


async def test_a_document_passes_through_unchanged() -> None:
    """What TAMS said is shown as TAMS said it: order, numbers, unknown fields."""
    document = b'{"z": 1.0, "a": 12345678901234567890123, "u": "\\u00fc"}'
    async with answering(response(200, document, JSON)) as (url, _), client_of(url) as client:
        answer = await client.ask("GET", "/v1/jobs/order-1")

    assert isinstance(answer, msgspec.Raw)
    assert bytes(answer) == document
