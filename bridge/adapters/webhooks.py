"""The way to receivers of webhooks: aiohttp, with the address guard at every name that is looked up and every dial.

aiohttp, because it lets us bring the resolver and open the sockets: what was vetted is what is dialled, while Host and
TLS keep the name. It keeps nothing between requests but idle connections: no cookies, no redirects, no proxies.
"""

import asyncio
import errno
import io
import os
import socket
import ssl
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace
from typing_extensions import override
from yarl import URL

from bridge.core.addresses import Address, AddressPolicy, ForbiddenTarget, Target
from bridge.errors import CannotStart
from bridge.webhook_ports import NoResponse, Post, Response

LookUp = Callable[[str], Collection[str]]
"""Gives the addresses of a name, as text; blocks, and raises `OSError` if it finds none."""

_RESPONSE_LIMIT: Final = 16 * 1024
_LINE_LIMIT: Final = 8 * 1024
_HEADERS_LIMIT: Final = 100

_KEEP_ALIVE_S: Final = 4.0
"""Shorter than common servers keep idle connections (5 s), so that they seldom close one that we begin to use."""

_ADDRESSES_DIALLED: Final = 4
"""A name may have hundreds of addresses; nobody shall aim us at all of them (aiohttp tries each several times)."""

_LOOKUPS_AT_ONCE: Final = 64
_LARGE_BODY: Final = 512 * 1024

_TOO_LONG: Final = ("Got more than", "Too many headers")
"""How aiohttp begins to say that a head has passed the limits above."""

_LOOKING_UP: Final = "looking up the name"
_CONNECTING: Final = "connecting"
_WAITING: Final = "waiting for an answer"


def look_up(name: str) -> list[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(address[0]) for *_, address in found]


class _Exchange:
    """How far one exchange has come."""

    __slots__ = ("body", "dialled", "head", "phase", "refusal", "target", "transport")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.phase = _WAITING
        self.dialled = False
        self.refusal: ForbiddenTarget | None = None
        self.transport: asyncio.Transport | None = None
        self.head: aiohttp.ClientResponse | None = None
        self.body = bytearray()


_EXCHANGE: ContextVar[_Exchange] = ContextVar("exchange")
"""The exchange that the hooks below work for; aiohttp calls them from the sender's task or from children of it."""


class HttpWebhookSender:
    """Implements `bridge.webhook_ports.WebhookSender` over HTTP/1.1; is made inside the event loop that it is used in.

    Once the head of an answer has arrived, the exchange has an answer, even if its body breaks off or takes too long.

    A connection that was kept open may turn out to be closed when it is used again: the request is then sent once more,
    on a new one, since receivers must expect a delivery twice anyway and know it by its `webhook-id`.

    Args:
        policy: which addresses may be dialled.
        ca_file: PEM file of authorities to trust besides the system's.
        response_limit: most bytes read of an answer's body; the connection is closed when more come.
        look_up: how names are resolved.

    Raises:
        CannotStart: the file cannot be used.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        ca_file: Path | None = None,
        response_limit: int = _RESPONSE_LIMIT,
        look_up: LookUp = look_up,
    ) -> None:
        self._response_limit = response_limit
        self._resolver = _VettingResolver(policy, look_up)
        self._session = _session(
            _Connector(
                resolver=self._resolver,
                socket_factory=_vetting_sockets(policy),
                use_dns_cache=False,
                keepalive_timeout=_KEEP_ALIVE_S,
                limit=0,
                ssl=_tls_context(ca_file),
            )
        )

        @lru_cache(maxsize=4096)
        def read(url: str) -> tuple[Target, URL]:
            target = policy.check_url(url)
            return target, URL(target.url, encoded=True)

        self._read_url = read

    async def aclose(self) -> None:
        """Close all connections; requests under way fail."""
        await self._session.close()
        await self._resolver.close()

    async def send(self, post: Post) -> Response | NoResponse:
        """See the port."""
        try:
            target, url = self._read_url(post.url)
        except ForbiddenTarget as error:
            return _blocked(error)
        exchange = _Exchange(target)
        _EXCHANGE.set(exchange)
        seconds = post.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                await self._hold(exchange, post, url)
        except ForbiddenTarget as error:
            return _blocked(error)
        except TimeoutError:
            failure = f"timed out after {seconds:g} s, {exchange.phase}"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = _in_words(error)
        else:
            failure = ""
        if exchange.refusal is not None:
            return _blocked(exchange.refusal)
        return NoResponse(error=failure) if exchange.head is None else _response(exchange.head, bytes(exchange.body))

    async def _hold(self, exchange: _Exchange, post: Post, url: URL) -> None:
        try:
            exchange.head = head = await self._request(exchange, post, url)
            while len(exchange.body) < self._response_limit and not head.content.at_eof():
                exchange.body += await head.content.read(self._response_limit - len(exchange.body))
        finally:
            # Once the whole answer has come, the connection may already be another exchange's.
            if exchange.head is None or not exchange.head.closed:
                _abandon(exchange)

    async def _request(self, exchange: _Exchange, post: Post, url: URL) -> aiohttp.ClientResponse:
        """The head of the answer."""
        while True:
            # aiohttp warns of large bodies that are sent in one piece.
            body = io.BytesIO(post.body) if len(post.body) > _LARGE_BODY else post.body or None
            try:
                return await self._session.request(
                    post.method, url, headers=post.headers, data=body, allow_redirects=False
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError):
                if exchange.dialled:
                    raise


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity"},
        skip_auto_headers=("accept", "content-type", "user-agent"),
        timeout=aiohttp.ClientTimeout(),  # none: one deadline of ours spans everything
        trust_env=False,
        auto_decompress=False,
        read_bufsize=_RESPONSE_LIMIT,
        max_line_size=_LINE_LIMIT,
        max_field_size=_LINE_LIMIT,
        max_headers=_HEADERS_LIMIT,
    )


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # what is wrong with the file's content is one, too
            reason = "not a PEM file of certificates" if isinstance(error, ssl.SSLError) else error.strerror
            raise CannotStart(f"webhooks: the file of authorities {ca_file} cannot be used: {reason}") from None
    return context


def _abandon(exchange: _Exchange) -> None:
    """Cut the connection: a polite end would wait for a receiver that may never read what is still to be sent."""
    if exchange.head is not None:
        exchange.head.close()
    if exchange.transport is not None:
        exchange.transport.abort()


# ------------------------------------------------------------------------------------------------------------ the guard
class _Connector(aiohttp.TCPConnector):
    """Tells the exchange which connection is its own."""

    @override
    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        exchange = _EXCHANGE.get()
        exchange.transport, exchange.phase = connection.transport, _WAITING
        return connection


class _VettingResolver(AbstractResolver):
    """Looks names up in threads of its own, and gives addresses only if all of a name are allowed.

    However many wait for a name, it is looked up once, so that a name whose servers hang holds one thread.
    """

    def __init__(self, policy: AddressPolicy, look_up: LookUp) -> None:
        self._policy = policy
        self._look_up = look_up
        self._threads = ThreadPoolExecutor(_LOOKUPS_AT_ONCE, thread_name_prefix="webhook-names")
        self._under_way: dict[str, asyncio.Future[Collection[str]]] = {}

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        exchange = _EXCHANGE.get()
        exchange.dialled, exchange.phase = True, _LOOKING_UP
        addresses = await self._addresses(host)
        self._policy.check_addresses(exchange.target, addresses)
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,  # noqa: PLR2004  # its name
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses[:_ADDRESSES_DIALLED]
        ]

    @override
    async def close(self) -> None:
        """Start no more look-ups; those under way end by themselves, for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _addresses(self, host: str) -> list[Address]:
        looking = self._under_way.get(host)
        if looking is None:
            looking = asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host)
            self._under_way[host] = looking
            looking.add_done_callback(lambda ended: self._ended(host, ended))
        try:
            found = await asyncio.shield(looking)  # others may wait for the same
        except asyncio.CancelledError:
            if looking.cancelled():  # by `close`; nobody cancels who waits
                raise OSError("the resolver was closed") from None
            raise
        return [ip_address(address) for address in found]

    def _ended(self, host: str, ended: asyncio.Future[Collection[str]]) -> None:
        del self._under_way[host]
        if not ended.cancelled():
            ended.exception()  # asked for, or asyncio would report it if nobody waits any more


def _vetting_sockets(policy: AddressPolicy) -> Callable[[AddrInfoType], socket.socket]:
    """Opens sockets for aiohttp, which asks no resolver about an address written in a URL."""

    def open_socket(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        exchange = _EXCHANGE.get()
        exchange.dialled, exchange.phase = True, _CONNECTING
        try:
            policy.check_addresses(exchange.target, (ip_address(address[0]),))
        except ForbiddenTarget as error:
            exchange.refusal = error
            raise PermissionError(errno.EACCES, "refused") from error
        return socket.socket(family, kind, protocol)

    return open_socket


# ---------------------------------------------------------------------------------------------------------- the outcome
def _blocked(error: ForbiddenTarget) -> NoResponse:
    return NoResponse(error=f"refused to dial: {error}", blocked=True)


def _response(head: aiohttp.ClientResponse, body: bytes) -> Response:
    return Response(status=head.status, headers=_headers(head.headers), body=body)


def _headers(received: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value if value.isascii() else _as_text(value) for name, value in received.items()}


def _as_text(value: str) -> str:
    """Bytes that are no UTF-8 come as lone surrogates, which cannot be written down as JSON."""
    return value.encode(errors="surrogateescape").decode(errors="replace")


def _in_words(error: aiohttp.ClientError | OSError | ValueError) -> str:
    """What went wrong; errors of aiohttp name the URL in their texts, so those are not shown."""
    match error:
        case aiohttp.ClientConnectorError():
            return _connecting_in_words(error)
        case aiohttp.ClientResponseError(message=why):
            return "the answer's head is too long" if why.startswith(_TOO_LONG) else "the answer is not HTTP"
        case OSError():
            return _system_words(error) or "connection closed before an answer"
        case aiohttp.ClientError():
            return "connection closed before an answer"
        case _:
            return "not sent: a header holds what HTTP cannot carry"


def _connecting_in_words(error: aiohttp.ClientConnectorError) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as cause):
            return f"TLS: certificate verify failed: {cause.verify_message}"
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError() as cause):
            return f"TLS: {(cause.reason or 'failed').replace('_', ' ').lower()}"
        case aiohttp.ClientConnectorDNSError(os_error=cause):
            temporary = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
            return "name cannot be resolved at present" if temporary else "name does not resolve"
        case _:
            return _system_words(error.os_error) or "connection closed while connecting"


def _system_words(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else ""
