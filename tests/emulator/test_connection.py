"""What goes over the wire, byte by byte."""

import asyncio
import re
from functools import partial
from typing import Any

import httpx
import pytest

from bridge.emulator.connection import Connection
from bridge.emulator.wire import Answer, Request
from tests.emulator.hand_clock import Emulate, HandClock

LOOK = b"GET /v1/jobs/%d HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer emulator-key\r\n\r\n"
LAST = LOOK.replace(b"Host", b"Connection: close\r\nHost")


async def exchange(client: httpx.AsyncClient, *chunks: bytes) -> bytes:
    """Send chunks on one connection and give all that comes back until the server closes it."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def fault(client: httpx.AsyncClient, fault: dict[str, Any], **rule: Any) -> None:
    answer = await client.post("/_emulator/faults", json={"fault": fault, **rule})
    assert answer.status_code == 200, answer.text


async def test_pipelined_requests_are_answered_in_order_even_behind_a_slow_one(emulate: Emulate) -> None:
    client = await emulate()
    await fault(client, {"status": 500, "delay_s": 9}, match={"path_prefix": "/v1/jobs/1"})
    answers = await exchange(client, LOOK % 1 + LOOK % 2 + LAST % 3)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"500", b"404", b"404"]


async def test_nothing_is_answered_behind_a_cut(emulate: Emulate) -> None:
    client = await emulate()
    await fault(client, {"cut": "before"}, times=1)
    assert await exchange(client, LOOK % 1 + LAST % 2) == b""
    assert (await client.get("/_emulator/stats")).json()["requests"] == 1


async def test_a_request_may_come_in_pieces(emulate: Emulate) -> None:
    client = await emulate()
    assert (await exchange(client, *(bytes([byte]) for byte in LAST % 1))).startswith(b"HTTP/1.1 404 Not Found\r\n")


async def test_what_is_not_http_is_answered_400(emulate: Emulate) -> None:
    client = await emulate()
    assert (await exchange(client, b"hello\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_other_protocols_are_not_spoken(emulate: Emulate) -> None:
    client = await emulate()
    upgrade = LOOK.replace(b"Host", b"Connection: upgrade\r\nUpgrade: websocket\r\nHost") % 1
    assert b"101" not in (await exchange(client, upgrade)).partition(b"\r\n")[0]


async def test_a_client_that_asks_is_told_to_go_on(emulate: Emulate) -> None:
    client = await emulate()
    head = b"POST /v1/jobs/workflow HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    assert (await exchange(client, head, b"{}")).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 ")


async def test_delays_and_drips_take_emulated_time(emulate: Emulate, clock: HandClock) -> None:
    client = await emulate()
    await fault(client, {"delay_s": 30, "drip_s": 40})
    answer = await client.get("/v1/jobs/1")
    assert answer.json()["code"] == 5
    assert clock.slept[0] == 30
    assert sum(clock.slept[1:]) >= 40


async def test_a_late_cut_has_no_answer(emulate: Emulate, clock: HandClock) -> None:
    client = await emulate()
    await fault(client, {"delay_s": 30, "cut": "after"})
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/v1/jobs/1")
    assert clock.slept == [30]


async def test_broken_json_and_web_pages_have_the_status_of_a_success(emulate: Emulate) -> None:
    client = await emulate()
    await fault(client, {"malformed": True}, times=1)
    await fault(client, {"html": True}, times=1)
    broken, page = await client.get("/v1/jobs/1"), await client.get("/v1/jobs/1")
    assert (broken.status_code, page.status_code, page.headers["content-type"]) == (
        200,
        200,
        "text/html; charset=utf-8",
    )
    with pytest.raises(ValueError, match="Unterminated string"):
        broken.json()


async def test_a_client_that_leaves_is_forgotten_with_its_slow_answer(emulate: Emulate, clock: HandClock) -> None:
    client = await emulate()
    await fault(client, {"delay_s": 30})
    clock.sleeper = asyncio.get_running_loop().create_future()
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/v1/jobs/1", timeout=0.05)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(clock.sleeper, 5)


async def test_a_bug_is_a_500_and_not_silent(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    def answer(_: Request) -> Answer:
        raise ZeroDivisionError

    connect = partial(Connection, answer, lambda: 100, clock, set())
    server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
    async with server, httpx.AsyncClient() as client:
        answered = await client.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (answered.status_code, answered.json()["code"]) == (500, 13)
    assert "ZeroDivisionError" in caplog.text


async def test_outputs_may_misbehave_too(emulate: Emulate, scripted: Any, clock: HandClock) -> None:
    client = await emulate()
    await fault(client, {"drip_s": 10}, match={"path_prefix": "/outputs/"})
    created = await client.post("/v1/jobs/workflow", json=scripted(queue_s=0, run_s=0))
    answer = await client.get(created.json()["job"]["successInfo"]["images"][0]["url"])
    assert (answer.content[:4], sum(clock.slept) >= 10) == (b"\x89PNG", True)
