"""Whatever bytes come over the wire, our clients give answers and records in their ports' words, and raise nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from ipaddress import ip_network
from random import Random

from aiokafka.producer.message_accumulator import BatchBuilder
from pydantic import HttpUrl, SecretStr

from bridge.adapters.clock import SystemClock
from bridge.adapters.kafka.tolerant import TolerantRecords
from bridge.adapters.tams import TamsClient, authorization, fast_transport
from bridge.adapters.webhooks import HttpWebhookSender
from bridge.core.addresses import AddressPolicy
from bridge.core.answers import Call
from bridge.settings import TamsSettings
from bridge.webhook_ports import NoResponse, Post, Response
from tests.adapters.web import read_request, serving
from tests.core.examples import SUCCESS_DOCUMENT
from tests.fuzz.campaign import fuzz
from tests.fuzz.mutations import hostile_text, spoilt_bytes
from tests.fuzz.test_fuzz_requests import make_arrival
from tests.fuzz.test_fuzz_tams import MAY_BE, SECRET

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKS = b'7\r\n{"job":\r\n0;x=y\r\nTrailer: a\r\n\r\n'
ANSWERS: Sequence[bytes] = (
    OK + b"content-length: %d\r\ncontent-type: application/json\r\n\r\n%s" % (len(SUCCESS_DOCUMENT), SUCCESS_DOCUMENT),
    OK + b"transfer-encoding: chunked\r\n\r\n" + CHUNKS,
    OK + b"content-encoding: gzip\r\nset-cookie: a=b\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.0 204 No Content\r\n\r\n",
    b"HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nx-long: %s\r\n\r\n" % (b"x" * 3_000),
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\x81\x05hello",
    b"HTTP/2 200\r\n\r\n",
    b"",
)


def make_bytes(chance: Random) -> tuple[Call, bytes]:
    """A call, and what comes back."""
    answer = spoilt_bytes(chance, chance.choice(ANSWERS), others=ANSWERS)
    if chance.random() < 0.1:
        answer = hostile_text(chance).encode() + answer
    return chance.choice(list(Call)), answer


class Wire:
    """A server that says `answer` to each request and hangs up."""

    def __init__(self) -> None:
        self.answer = b""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_request(reader)
        except asyncio.IncompleteReadError:
            return
        writer.write(self.answer)
        await writer.drain()


Asks = Callable[[Call], Awaitable[None]]


def _fuzz_wire(name: str, client_of: Callable[[str], tuple[Asks, Callable[[], Awaitable[None]]]]) -> None:
    """Ask a server that gives the answer of each case.

    Args:
        name: of the target.
        client_of: makes, for a base URL, what asks and checks, and what closes it.
    """

    async def run() -> None:
        loop, wire = asyncio.get_running_loop(), Wire()
        async with serving(wire.talk) as url:
            ask, close = client_of(url)

            def checked(case: tuple[Call, bytes]) -> None:
                wire.answer = case[1]
                asyncio.run_coroutine_threadsafe(_within_time(ask(case[0])), loop).result()

            try:
                await asyncio.to_thread(fuzz, name, make_bytes, checked)
            finally:
                await close()

    asyncio.run(run())


async def _within_time(asking: Awaitable[None]) -> None:
    async with asyncio.timeout(20):
        await asking


def test_bytes_of_tams_are_an_answer() -> None:
    def client_of(url: str) -> tuple[Asks, Callable[[], Awaitable[None]]]:
        settings = TamsSettings(base_url=HttpUrl(url), api_key=SecretStr(SECRET), timeout_s=10)
        clock = SystemClock()
        client = TamsClient(
            settings, scheme=authorization(settings, clock=clock), transport=fast_transport(settings), clock=clock
        )

        async def ask(call: Call) -> None:
            calls = {
                Call.CREATE: lambda: client.create("r-1", b"{}"),
                Call.LOOK: lambda: client.look("7"),
                Call.CANCEL: lambda: client.cancel("7"),
            }
            answer = await calls[call]()
            assert isinstance(answer, MAY_BE[call]), "bytes were sent, so it is never certain that nothing was done"
            assert SECRET not in repr(answer)

        return ask, client.aclose

    _fuzz_wire("tams wire", client_of)


def test_bytes_of_a_receiver_are_a_response_or_none() -> None:
    def client_of(url: str) -> tuple[Asks, Callable[[], Awaitable[None]]]:
        policy = AddressPolicy(allowed_networks=(ip_network("127.0.0.0/8"),))
        headers = {"x-token": SECRET}
        post = Post(url=f"{url}/hook?token={SECRET}", headers=headers, body=b"{}", timeout=timedelta(seconds=10))
        sender = HttpWebhookSender(policy)

        async def ask(_: Call) -> None:
            answer = await sender.send(post)
            assert SECRET not in repr(answer)
            match answer:
                case Response(body=body, headers=received):
                    assert len(body) <= 16 * 1024
                    "".join((*received, *received.values())).encode()
                case NoResponse(error=error, blocked=blocked):
                    assert error
                    assert not blocked

        return ask, sender.aclose

    _fuzz_wire("receivers wire", client_of)


# ------------------------------------------------------------------------------------------------------ record batches
Records = Sequence[tuple[bytes | None, bytes | None, Sequence[tuple[bytes, bytes | None]]]]
"""Key, value, and headers, whose names are bytes to clients in other languages."""

_NAME_BYTES = 4


def make_records(chance: Random) -> Records:
    """Records as any client may write them."""
    arrivals = [make_arrival(chance) for _ in range(chance.randint(1, 3))]
    return [
        (each.key, each.value, [(chance.randbytes(_NAME_BYTES), value) for _, value in each.headers])
        for each in arrivals
    ]


def check_records(records: Records) -> None:
    batch = BatchBuilder(1 << 24, 0)
    names: list[bytes] = []
    for key, value, headers in records:
        stand_ins = []
        for name, header in headers:
            stand_ins.append((f"#{len(names):03}", header))
            names.append(name)
        batch.append(timestamp=None, key=key, value=value, headers=stand_ins)
    written = bytes(batch._build())
    for number, name in enumerate(names):
        written = written.replace(f"#{number:03}".encode(), name)
    received = list(TolerantRecords(written).next_batch() or ())

    assert [(each.key, each.value) for each in received] == [(key, value) for key, value, _ in records]
    found = [header for each in received for header in each.headers]
    assert [value for _, value in found] == [value for *_, headers in records for _, value in headers]
    assert [name for name, _ in found] == [name.decode(errors="backslashreplace") for name in names]


def test_records_of_any_client_are_received_whole() -> None:
    fuzz("record batches", make_records, check_records, size=len)
