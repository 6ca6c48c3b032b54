"""Whoever asks the API for whatever, in whatever way: it answers, never by a server error, and tells no secret."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote, unquote, urlencode

from starlette.types import Message

from bridge.core.requests import read_request
from bridge.ports import Arrival
from bridge.webhook_messages import Scope
from bridge.webhook_ports import Response
from tests.api.examples import SECRET, fill
from tests.api.fakes import World
from tests.fuzz.campaign import fuzz
from tests.fuzz.mutations import TIMES, Document, hostile_headers, hostile_text, spoilt_bytes, spoilt_document
from tests.fuzz.test_fuzz_requests import REQUESTS

APP = World().app
"""Made once; what it works with is another world for each case."""

NEW_ENDPOINT: Document = {
    "url": "https://acme.example/hook",
    "description": "ours",
    "event_types": ["tams.job.*"],
    "labels": {"a": "b"},
    "tenant": "acme",
    "headers": {"X-Token": "t"},
    "scheme": "v1a",
    "rate": 5.0,
    "max_in_flight": 3,
    "retry_schedule_s": [1.0, 60],
    "timeout_s": 10,
    "ordering": "job",
    "drop_superseded": True,
    "handshake": True,
}
ENDPOINTS: Sequence[Document] = (NEW_ENDPOINT, {"url": "https://acme.example/"}, {"headers": None, "rate": None})
ROTATIONS: Sequence[Document] = ({"overlap_s": 60.0}, {})
REPLAYS: Sequence[Document] = ({"since": "2026-03-01T12:00:00Z", "until": "2026-03-02T12:00:00Z", "failed_only": True},)
API_KEYS: Sequence[Document] = ({"name": "ci", "scopes": ["jobs:read", "admin"], "tenant": "acme"},)
NOTHING: Sequence[Document] = ({},)

ROUTES: Sequence[tuple[str, str, Sequence[Document]]] = (
    *[("POST", "/v1/jobs", REQUESTS)] * 8,
    ("GET", "/v1/jobs", NOTHING),
    ("GET", "/v1/jobs/{}", NOTHING),
    ("POST", "/v1/jobs/{}/cancel", NOTHING),
    ("GET", "/v1/jobs/{}/events", NOTHING),
    ("GET", "/v1/events", NOTHING),
    ("POST", "/v1/endpoints", ENDPOINTS),
    ("GET", "/v1/endpoints", NOTHING),
    ("GET", "/v1/endpoints/{}", NOTHING),
    ("PATCH", "/v1/endpoints/{}", ENDPOINTS),
    ("DELETE", "/v1/endpoints/{}", NOTHING),
    ("POST", "/v1/endpoints/{}/rotate", ROTATIONS),
    ("POST", "/v1/endpoints/{}/test", NOTHING),
    ("POST", "/v1/endpoints/{}/pause", NOTHING),
    ("POST", "/v1/endpoints/{}/resume", NOTHING),
    ("POST", "/v1/endpoints/{}/replays", REPLAYS),
    ("GET", "/v1/endpoints/{}/replays", NOTHING),
    ("GET", "/v1/replays/{}", NOTHING),
    ("POST", "/v1/replays/{}/cancel", NOTHING),
    ("GET", "/v1/deliveries", NOTHING),
    ("GET", "/v1/deliveries/{}/{}", NOTHING),
    ("POST", "/v1/deliveries/{}/{}/redeliver", NOTHING),
    ("GET", "/v1/attempts", NOTHING),
    ("GET", "/v1/attempts/{}", NOTHING),
    ("POST", "/v1/tenants/{}/secret/rotate", ROTATIONS),
    ("GET", "/v1/tenants/{}/secret", NOTHING),
    ("POST", "/v1/api-keys", API_KEYS),
    ("GET", "/v1/api-keys", NOTHING),
    ("DELETE", "/v1/api-keys/{}", NOTHING),
    ("PUT", "/v1/{}", NOTHING),
)
NAMES: Mapping[str, Sequence[str]] = {
    "jobs": ("order-1", "order-2", "order-9"),
    "endpoints": ("ep_1", "ep_2"),
    "deliveries": ("ep_1", "order-1.3", "in_1", "order-2.2", "order-3.1"),
    "replays": ("rp_1", "rp_2"),
    "attempts": ("3-1", "3-5", "3-7"),
    "tenants": ("acme", "-"),
}
QUERIES: Mapping[str, Sequence[str]] = {
    "limit": ("1", "50", "0", "-1", "9" * 30, "1.5", "x"),
    "cursor": ("WyIyMDI2LTAzLTAxVDEyOjAwOjAwWiIsIm9yZGVyLTEiXQ", "W10", "=", "é", "W1tbW1tbW1tbW1tbW10"),
    "since": TIMES,
    "until": TIMES,
    "state": ("accepted", "pending", "enabled", "x"),
    "label": ("tenant:acme", "tenant", ":", "a:b:c"),
    "type": ("tams.job.*", "*", "*a" * 2_000, ""),
    "tenant": ("acme", ""),
    "endpoint_id": ("ep_1", "in_1"),
    "request_id": ("order-1",),
    "event_id": ("order-1.3", ".", ""),
}
HEADERS: Mapping[str, Sequence[str]] = {
    "content-type": ("application/json", "application/x+json; charset=utf-8", "text/plain", "", ";;=", "application/"),
    "content-length": ("2", "0", "9" * 5_000, "-1", "x"),
    "idempotency-key": ("word", "w" * 256, ""),
    "if-match": ("*", '"x"', ", ,"),
    "traceparent": ("00-1", "\x80"),
    "accept": ("*/*",),
}
CONSENT = ("webhook-allowed-origin", "webhook-allowed-rate")
CONSENTS = {"webhook-allowed-origin": ("*", "tams-bridge"), "webhook-allowed-rate": ("*", "60", "0", "²", "9" * 5_000)}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as a server hands it to the application."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    tenant: str | None
    consent: Response


def make_session(chance: Random) -> Sequence[Asked]:
    """A few requests, one after the other."""
    return [_make_asked(chance) for _ in range(chance.randint(1, 6))]


def _make_asked(chance: Random) -> Asked:
    method, template, documents = chance.choice(ROUTES)
    known = NAMES.get(template.split("/")[2], ("x",))
    names = [chance.choice(known) if chance.random() < 0.8 else hostile_text(chance) for _ in range(2)]
    path = template.format(*(quote(name, safe="/" if chance.random() < 0.3 else "") for name in names))
    return Asked(
        method=method,
        path=path if chance.random() < 0.95 else path + "%ff%00",
        query=_query(chance) if method == "GET" else "",
        headers=hostile_headers(chance, tuple(HEADERS), HEADERS) if chance.random() < 0.5 else {},
        body=b"" if documents is NOTHING and chance.random() < 0.8 else spoilt_document(chance, documents),
        tenant=chance.choice((None, None, "acme", "other")),
        consent=Response(status=chance.choice((200, 204, 404, 999)), headers=_consent(chance), body=b""),
    )


def _consent(chance: Random) -> dict[str, str]:
    return hostile_headers(chance, CONSENT, CONSENTS)


def _query(chance: Random) -> str:
    wanted = chance.sample(list(QUERIES), chance.randint(0, 3))
    pairs = [(name, chance.choice(QUERIES[name]) if chance.random() < 0.8 else hostile_text(chance)) for name in wanted]
    text = urlencode(pairs)[:20_000]
    return text if chance.random() < 0.9 else quote(spoilt_bytes(chance, text.encode()), safe="=&%+")


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int = 0
    headers: Mapping[str, str] | None = None
    body: bytes = b""


async def _ask(asked: Asked, key: str) -> Answer:
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": asked.body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
        else:
            answer.body += message["body"]

    headers = {"authorization": f"Bearer {key}", **asked.headers}
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": unquote(asked.path),
        "raw_path": asked.path.encode(),
        "query_string": asked.query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await APP(scope, receive, send)
    return answer


async def _check_session(session: Sequence[Asked]) -> None:
    world = World()
    fill(world)
    world.hub.close()  # streams end at once
    APP.state.services = world.services()
    for asked in session:
        world.receivers.answer = asked.consent
        key = world.key(Scope.ADMIN, tenant=asked.tenant)
        before = len(world.requests.records)
        answer = await _ask(asked, key)
        _check_answer(asked, answer, key)
        for request_id, value in world.requests.records[before:]:
            assert value is not None
            arrival = Arrival(offset=0, key=request_id, value=value)
            taken = read_request(arrival, topic="t", partition=0, max_bytes=world.limits.request_bytes)
            assert taken.request_id.encode() == request_id, "what was accepted is accepted by workers, too"


def _check_answer(asked: Asked, answer: Answer, key: str) -> None:
    assert 200 <= answer.status < 500, answer.body
    assert answer.headers is not None
    told = answer.body.decode()
    if told and answer.headers["content-type"].startswith("application/"):
        json.loads(told, parse_constant=_no_json)
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(told) < 60_000
    assert key not in told
    assert SECRET not in told or "idempotency-key" in asked.headers
    assert "|" not in told or "ep_1|" not in told, "sealed secrets stay where they are"


def _no_json(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def test_any_request_is_answered_and_none_by_a_server_error() -> None:
    loop = asyncio.new_event_loop()
    try:
        fuzz("api", make_session, lambda session: loop.run_until_complete(_check_session(session)), size=len)
    finally:
        loop.close()
