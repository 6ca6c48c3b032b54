"""The TAMS client over real HTTP: against the emulator, and against servers that break every rule."""

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import HttpUrl, SecretStr

from bridge.adapters.brokers import free_ports
from bridge.adapters.clock import SystemClock
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.emulator import EmulatorSettings, serve
from bridge.errors import CannotStart
from bridge.messages import (
    Ambiguous,
    Answer,
    Done,
    InHand,
    Missing,
    NotSent,
    Refused,
    Seen,
    TryLater,
    Unauthorized,
)
from bridge.settings import TamsSettings
from tests.adapters.web import Talk, answering, read_request, response, serving

KEY = "emulator-key"
GRAPH: dict[str, Any] = {
    "3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20}, "properties": {}},
    "9": {"classType": "SaveImage", "inputs": {"images": ["3", 0]}},
}
PARAMS = msgspec.json.encode(GRAPH)

Client = Callable[..., TamsClient]
Emulator = Callable[..., Awaitable[str]]
CallTams = Callable[[TamsClient], Awaitable[Answer]]

CALLS: dict[str, CallTams] = {
    "create": lambda client: client.create("r-1", PARAMS),
    "look": lambda client: client.look("7"),
    "cancel": lambda client: client.cancel("7"),
}


def scripted(**script: Any) -> bytes:
    """A graph whose job has this fate at the emulator."""
    return msgspec.json.encode({**GRAPH, "s": {"classType": "EmulatorScript", "inputs": script}})


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Make clients of the TAMS at a base URL; arguments are settings."""
    async with AsyncExitStack() as stack:

        def make(url: str, **settings: Any) -> TamsClient:
            credentials = {} if "app_id" in settings else {"api_key": SecretStr(KEY)}
            tams = TamsSettings(base_url=HttpUrl(url), **{"timeout_s": 10, **credentials, **settings})
            clock = SystemClock()
            made = TamsClient(
                tams, scheme=authorization(tams, clock=clock), transport=fast_transport(tams), clock=clock
            )
            stack.push_async_callback(made.aclose)
            return made

        yield make


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Start emulators; give the base URL of each."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> str:
            return await stack.enter_async_context(_emulator(EmulatorSettings.model_validate({"rate": 0, **settings})))

        yield start


@asynccontextmanager
async def _emulator(settings: EmulatorSettings) -> AsyncIterator[str]:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(settings, ready=url.set_result))
    try:
        yield await url
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# ---------------------------------------------------------------------- against the emulator
async def test_a_job_is_created_looked_at_and_canceled(client: Client, emulator: Emulator) -> None:
    tams = client(await emulator())

    created = await tams.create("r-1", PARAMS)
    assert isinstance(created, Seen)
    looked = await tams.look(created.view.job_id)
    canceled = await tams.cancel(created.view.job_id)
    after = await tams.look(created.view.job_id)

    assert created.view.status == "CREATED"
    assert isinstance(looked, Seen)
    assert isinstance(canceled, Done)
    assert isinstance(after, Seen)
    assert after.view.status == "CANCELED"


async def test_the_same_request_id_gives_the_same_job(client: Client, emulator: Emulator) -> None:
    tams = client(await emulator())

    first, again, other = (
        await tams.create("r-1", PARAMS),
        await tams.create("r-1", PARAMS),
        await tams.create("r-2", PARAMS),
    )

    assert isinstance(first, Seen)
    assert isinstance(again, Seen)
    assert isinstance(other, Seen)
    assert first.view.job_id == again.view.job_id != other.view.job_id


async def test_the_graph_reaches_tams_byte_for_byte(client: Client) -> None:
    """Numbers of any precision, key order, spaces, text beyond ASCII: nothing is read and written anew."""
    params = (
        b'{ "3": {"classType":"X", "inputs": {"cfg": 7.10, "seed": 12345678901234567890, "text": "\xc3\xa9\\u00e9"}}}'
    )
    bodies: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append((await read_request(reader))[1])
        writer.write(response(202))

    async with serving(talk) as url:
        assert await client(url).create('id "quoted"', params) == InHand()

    assert params in bodies[0]
    assert msgspec.json.decode(bodies[0])["requestId"] == 'id "quoted"'


async def test_a_base_url_with_a_path_is_kept(client: Client) -> None:
    async with answering(response(202)) as (url, heads):
        await client(f"{url}/proxy/tams/").look("7")

    assert heads[0].startswith("GET /proxy/tams/v1/jobs/7 HTTP/1.1")


async def test_a_job_id_of_odd_characters_stays_one_segment_of_the_path(client: Client) -> None:
    async with answering(response(202)) as (url, heads):
        await client(url).look("a/../b?c é\n")

    assert heads[0].startswith("GET /v1/jobs/a%2F..%2Fb%3Fc%20%C3%A9%0A HTTP/1.1")


async def test_a_wrong_key_is_told_apart_from_a_missing_job(client: Client, emulator: Emulator) -> None:
    """TAMS answers both with 404."""
    url = await emulator()

    assert isinstance(await client(url, api_key=SecretStr("wrong")).look("1"), Unauthorized)
    assert isinstance(await client(url).look("1"), Missing)


async def test_what_tams_says_about_a_bad_graph_is_passed_on(client: Client, emulator: Emulator) -> None:
    wide = {"5": {"classType": "EmptyLatentImage", "inputs": {"width": 500, "height": 512}}}

    answer = await client(await emulator()).create("r-1", msgspec.json.encode(wide))

    assert isinstance(answer, Refused)
    assert answer.failure.code == "invalid_height_or_width"
    assert "node id: 5" in answer.failure.message
    assert b"ArgumentError" in bytes(answer.failure.details)


async def test_a_repeat_that_tams_refuses_has_a_code_of_its_own(client: Client, emulator: Emulator) -> None:
    tams = client(await emulator(repeat="error"))
    await tams.create("r-1", PARAMS)

    answer = await tams.create("r-1", PARAMS)

    assert isinstance(answer, Refused)
    assert answer.failure.code == "already_exists"


async def test_too_many_calls_are_throttled_and_say_for_how_long(client: Client, emulator: Emulator) -> None:
    tams = client(await emulator(rate=1, retry_after=True))

    answers = [await tams.look("1") for _ in range(3)]

    throttled = [answer for answer in answers if isinstance(answer, TryLater)]
    assert throttled
    assert throttled[0].throttled
    assert throttled[0].retry_after == timedelta(seconds=1)


async def test_sixty_four_calls_at_once_are_each_answered_with_their_own_job(
    client: Client, emulator: Emulator
) -> None:
    tams = client(await emulator())

    created = await asyncio.gather(*(tams.create(f"r-{number}", PARAMS) for number in range(64)))
    ids = [answer.view.job_id for answer in created if isinstance(answer, Seen)]
    looked = await asyncio.gather(*(tams.look(job_id) for job_id in ids))

    assert len(set(ids)) == 64
    assert [answer.view.job_id for answer in looked if isinstance(answer, Seen)] == ids


# ---------------------------------------------------------------------- signatures
def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, password: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def key_file(rsa_key: rsa.RSAPrivateKey, tmp_path: Path) -> Path:
    file = tmp_path / "key.pem"
    file.write_bytes(_pem(rsa_key))
    return file


@pytest.fixture
def pem_lines(key_file: Path) -> list[str]:
    """The lines of the key file."""
    return key_file.read_text().splitlines()


async def test_signed_requests_are_accepted(
    client: Client, emulator: Emulator, rsa_key: rsa.RSAPrivateKey, key_file: Path
) -> None:
    """The emulator verifies the signature over method, path, time, nonce and the very bytes of the body."""
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    url = await emulator(public_keys={"app-1": public.decode()}, bearer_keys={})
    tams = client(url, app_id="app-1", private_key_file=key_file)

    created = await tams.create("é", PARAMS)
    assert isinstance(created, Seen)
    assert isinstance(await tams.look(created.view.job_id), Seen)
    assert isinstance(await tams.cancel(created.view.job_id), Done)


async def test_a_signature_by_another_key_is_refused_as_wrong_credentials(
    client: Client, emulator: Emulator, rsa_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes(_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    url = await emulator(public_keys={"app-1": public.decode()})

    answer = await client(url, app_id="app-1", private_key_file=other).look("1")

    assert isinstance(answer, Unauthorized)


# ---------------------------------------------------------------------- every answer
JOB = b'{"job": {"id": "7", "status": "RUNNING"}}'
NO = b'{"code": 3, "message": "no", "details": []}'
GATEWAY = b'{"code": 100001, "message": "unauthorized", "tips": "app not found"}'
ROWS: dict[str, tuple[bytes, type[Answer], type[Answer], type[Answer]]] = {
    "200": (response(200, JOB), Seen, Seen, Done),
    "200 unreadable": (response(200, b"<html>"), Ambiguous, Ambiguous, Done),
    "202": (response(202, NO), InHand, InHand, InHand),
    "400": (response(400, NO), Refused, Missing, Refused),
    "401": (response(401, NO), Unauthorized, Unauthorized, Unauthorized),
    "403": (response(403, NO), Refused, Missing, Refused),
    "404": (response(404, NO), Refused, Missing, Missing),
    "404 by the gateway": (response(404, GATEWAY), Unauthorized, Unauthorized, Unauthorized),
    "408": (response(408, NO), Ambiguous, Ambiguous, Ambiguous),
    "429": (response(429, NO), TryLater, TryLater, TryLater),
    "500": (response(500, NO), Ambiguous, Ambiguous, Ambiguous),
    "502, a page": (response(502, b"<html>"), Ambiguous, Ambiguous, Ambiguous),
    "503": (response(503, NO), Ambiguous, Ambiguous, Ambiguous),
    "503 later": (response(503, NO, "Retry-After: 3"), TryLater, TryLater, TryLater),
    "302": (response(302, b"", "location: http://127.0.0.1:1/"), Ambiguous, Ambiguous, Ambiguous),
}


@pytest.mark.parametrize("row", ROWS)
async def test_every_answer_of_the_error_table_is_told_apart(row: str, client: Client) -> None:
    raw, *expected = ROWS[row]
    async with answering(raw) as (url, _):
        tams = client(url)
        answers = [await call(tams) for call in CALLS.values()]

    assert [type(answer) for answer in answers] == expected


async def test_a_redirect_is_not_followed(client: Client) -> None:
    """A signed or bearer request must not be sent wherever an answer points."""
    async with (
        answering(response(200, JOB)) as (elsewhere, heads_elsewhere),
        answering(response(307, b"", f"location: {elsewhere}/v1/jobs/7")) as (url, heads),
    ):
        answer = await client(url).look("7")

    assert isinstance(answer, Ambiguous)
    assert len(heads) == 1
    assert heads_elsewhere == []


async def test_a_retry_after_date_is_understood(client: Client) -> None:
    async with answering(response(429, NO, "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT")) as (url, _):
        answer = await client(url).look("7")

    assert isinstance(answer, TryLater)
    assert answer.retry_after == timedelta(hours=1)


# ---------------------------------------------------------------------- when nothing was sent
@pytest.mark.parametrize("call", CALLS)
async def test_a_refused_connection_proves_that_nothing_was_sent(call: str, client: Client) -> None:
    port = free_ports(1)[0]

    answer = await CALLS[call](client(f"http://127.0.0.1:{port}"))

    assert isinstance(answer, NotSent)
    assert answer.failure.retryable
    assert answer.failure.code == "not_sent"


async def test_a_name_that_does_not_resolve_proves_that_nothing_was_sent(client: Client) -> None:
    assert isinstance(await client("http://tams.invalid").create("r-1", PARAMS), NotSent)


async def test_a_failed_tls_handshake_proves_that_nothing_was_sent(client: Client) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"this is no TLS")
        await writer.drain()

    async with serving(talk) as url:
        answer = await client(url.replace("http://", "https://")).create("r-1", PARAMS)

    assert isinstance(answer, NotSent)


# ---------------------------------------------------------------------- when something was sent
async def _close(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _reset_before_reading(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(response(200, JOB)[:-10])
    await writer.drain()


async def _half_a_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 O")
    await writer.drain()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"\x00\xff\x16\x03 what is this\r\n\r\n")
    await writer.drain()


async def _hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_request(reader)
    await asyncio.Event().wait()


async def _hang_halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(response(200, JOB)[:-10])
    await writer.drain()
    await asyncio.Event().wait()


DISASTERS: dict[str, Talk] = {
    "closed after the request": _close,
    "reset after the request": _reset,
    "half an answer": _half,
    "half a head": _half_a_head,
    "garbage": _garbage,
    "no answer in time": _hang,
    "half an answer in time": _hang_halfway,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("disaster", DISASTERS)
async def test_once_bytes_may_have_gone_out_the_outcome_is_ambiguous(disaster: str, call: str, client: Client) -> None:
    async with serving(DISASTERS[disaster]) as url:
        answer = await CALLS[call](client(url, timeout_s=0.3))

    assert isinstance(answer, Ambiguous)
    assert answer.failure.retryable
    assert answer.failure.code == "no_answer"


@pytest.mark.parametrize("call", CALLS)
async def test_a_header_that_is_no_text_leaves_the_outcome_ambiguous(call: str, client: Client) -> None:
    """The transport raises a plain error for it, which would have ended the worker."""
    head = response(200, JOB).replace(b"\r\n\r\n", b"\r\nx-proxy: caf\xe9\r\n\r\n")
    async with answering(head) as (url, _):
        answer = await CALLS[call](client(url))

    assert isinstance(answer, Ambiguous)
    assert answer.failure.code == "unreadable_answer"


async def test_a_connection_reset_at_once_is_never_taken_for_an_answer(client: Client) -> None:
    """Whether the request had left by then is a race; both readings of it are safe."""
    async with serving(_reset_before_reading) as url:
        answer = await client(url).create("r-1", PARAMS)

    assert isinstance(answer, NotSent | Ambiguous)


async def test_a_connection_that_the_server_closed_while_idle_does_no_harm(client: Client) -> None:
    """Whatever it is taken for, it is not taken for an answer, and the next call works."""

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(response(200, JOB))
        await writer.drain()

    async with serving(once) as url:
        tams = client(url)
        answers = [await tams.look("7") for _ in range(4)]

    assert {type(answer) for answer in answers} <= {Seen, Ambiguous}
    assert isinstance(answers[0], Seen)


async def test_an_answer_too_long_is_not_read_to_its_end(client: Client) -> None:
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        while True:
            writer.write(b" " * 65_536)
            written += 65_536
            await writer.drain()

    async with serving(flood) as url:
        answer = await client(url, max_answer_bytes=100_000).create("r-1", PARAMS)

    assert isinstance(answer, Ambiguous)
    assert answer.failure.code == "answer_too_long"
    assert written < 50_000_000


async def test_a_disaster_spoils_no_later_call(client: Client) -> None:
    turn = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        if turn % 2:
            await _reset(reader, writer)
        else:
            await read_request(reader)
            writer.write(response(200, JOB, "connection: close"))
            await writer.drain()

    async with serving(talk) as url:
        tams = client(url, concurrency=1)
        answers = [type(await tams.look("7")) for _ in range(6)]

    assert answers == [Ambiguous, Seen] * 3


# ---------------------------------------------------------------------- secrets
@pytest.mark.parametrize("disaster", DISASTERS)
async def test_no_failure_tells_a_secret(disaster: str, client: Client, key_file: Path, pem_lines: list[str]) -> None:
    secrets = [KEY, *pem_lines]
    async with serving(DISASTERS[disaster]) as url:
        bearer = await client(url, timeout_s=0.3).create("r-1", PARAMS)
        signed = await client(url, timeout_s=0.3, app_id="app-1", private_key_file=key_file).create("r-1", PARAMS)

    for answer in (bearer, signed):
        assert not any(secret in repr(answer) for secret in [*secrets, "signature", "Bearer"])


async def test_a_refused_connection_tells_no_secret(client: Client) -> None:
    answer = await client(f"http://127.0.0.1:{free_ports(1)[0]}").create("r-1", PARAMS)

    assert KEY not in repr(answer)


def test_settings_do_not_show_the_key() -> None:
    tams = TamsSettings(api_key=SecretStr("a-very-secret-key"))

    assert "a-very-secret-key" not in repr(tams) + tams.model_dump_json()


# ---------------------------------------------------------------------- before it can start
def test_without_credentials_the_variables_to_set_are_named() -> None:
    with pytest.raises(CannotStart, match=r"^tams: no credentials: set BRIDGE_TAMS__API_KEY, or [^\n]+$"):
        authorization(TamsSettings(), clock=SystemClock())


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "missing.pem"

    with pytest.raises(
        CannotStart, match=rf"^tams: the key file {re.escape(str(file))} cannot be used: No such file[^\n]+$"
    ):
        authorization(TamsSettings(app_id="a", private_key_file=file), clock=SystemClock())


@pytest.mark.parametrize("content", ["empty", "text", "public", "encrypted", "elliptic", "binary"])
def test_a_key_file_of_no_use_is_named_and_its_content_is_not(
    content: str, rsa_key: rsa.RSAPrivateKey, tmp_path: Path
) -> None:
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    raw = {
        "empty": b"",
        "text": b"my secret key",
        "public": public,
        "encrypted": _pem(rsa_key, password=b"hunter2"),
        "elliptic": _pem(ec.generate_private_key(ec.SECP256R1())),
        "binary": bytes(range(256)),
    }[content]
    file = tmp_path / "key.pem"
    file.write_bytes(raw)

    with pytest.raises(CannotStart, match=r"^tams: the key [^\n]*BRIDGE_TAMS__PRIVATE_KEY_FILE\)$") as caught:
        authorization(TamsSettings(app_id="a", private_key_file=file), clock=SystemClock())

    assert "secret" not in str(caught.value)
    assert "BEGIN" not in str(caught.value)


async def test_a_scripted_fate_is_seen_as_it_is(client: Client, emulator: Emulator) -> None:
    tams = client(await emulator(speed=1000))
    created = await tams.create("r-1", scripted(outcomes=["TRANSITORY_ERROR"], run_s=0, queue_s=0))
    assert isinstance(created, Seen)

    looked = await tams.look(created.view.job_id)

    assert isinstance(looked, Seen)
    assert looked.view.failure is not None
    assert (looked.view.failure.code, looked.view.failure.retryable) == ("TRANSITORY_ERROR", True)
