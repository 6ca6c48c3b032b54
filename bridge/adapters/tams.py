"""The TAMS HTTP API: requests as TAMS wants them, signed, and every outcome as one of our answers.

httpx is the interface; the transport is pyreqwest's, which was measured an order of magnitude faster than httpx' own
(docs/decisions). The transport is called directly: TAMS needs no cookies, redirects or retries of httpx' client.
"""

import base64
import secrets
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pyreqwest.client import ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport
from pyreqwest.exceptions import DetailedPyreqwestError, PyreqwestError

from bridge.core.answers import Call, read_answer
from bridge.errors import CannotStart
from bridge.messages import Ambiguous, Answer, Failure, NotSent
from bridge.ports import Clock
from bridge.settings import TamsSettings

_CONNECT_FAILED = "client error (Connect)"
"""What the transport names as a cause only when no connection came to be, so that not one byte was sent."""


class BearerKey:
    """`Authorization: Bearer`, the simple scheme."""

    def __init__(self, key: str) -> None:
        self._value = f"Bearer {key}"

    def header(self, method: str, path: str, body: bytes) -> str:
        """The header's value; the same for every request."""
        del method, path, body
        return self._value


class RequestSigner:
    """`Authorization: TAMS-SHA256-RSA`: RSASSA-PKCS1-v1_5 over method, path, time, nonce and body.

    Args:
        app_id: from the user's console.
        key: the app's private key.
        clock: for the timestamp.
    """

    def __init__(self, app_id: str, key: RSAPrivateKey, *, clock: Clock) -> None:
        self._app_id = app_id
        self._key = key
        self._clock = clock

    def header(self, method: str, path: str, body: bytes) -> str:
        """The header's value for these exact bytes; holds a nonce, so every call gives another."""
        timestamp, nonce = int(self._clock.now().timestamp()), secrets.token_hex(16)
        text = f"{method}\n{path}\n{timestamp}\n{nonce}\n".encode() + body
        signature = base64.b64encode(self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())).decode()
        return f"TAMS-SHA256-RSA app_id={self._app_id},nonce_str={nonce},timestamp={timestamp},signature={signature}"


def authorization(tams: TamsSettings, *, clock: Clock) -> BearerKey | RequestSigner:
    """The scheme the settings ask for.

    Raises:
        CannotStart: there are no credentials, or the key file cannot be used.
    """
    if tams.api_key is not None:
        return BearerKey(tams.api_key.get_secret_value())
    if tams.app_id is not None and tams.private_key_file is not None:
        return RequestSigner(tams.app_id, _private_key(tams.private_key_file), clock=clock)
    message = (
        "tams: no credentials: set BRIDGE_TAMS__API_KEY, or BRIDGE_TAMS__APP_ID and BRIDGE_TAMS__PRIVATE_KEY_FILE "
        "(from your TAMS console)"
    )
    raise CannotStart(message)


def _private_key(file: Path) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = error.strerror if isinstance(error, OSError) else "not an unencrypted PEM private key"
        message = f"tams: the key file {file} cannot be used: {reason} (BRIDGE_TAMS__PRIVATE_KEY_FILE)"
        raise CannotStart(message) from None
    if not isinstance(key, RSAPrivateKey):
        message = f"tams: the key in {file} is not an RSA key (BRIDGE_TAMS__PRIVATE_KEY_FILE)"
        raise CannotStart(message)
    return key


def fast_transport(tams: TamsSettings) -> httpx.AsyncBaseTransport:
    """The transport for TAMS: keep-alive, HTTP/1.1, no redirects."""
    client = (
        ClientBuilder()
        .connect_timeout(timedelta(seconds=tams.connect_timeout_s))
        .timeout(timedelta(seconds=tams.timeout_s))
        .pool_max_idle_per_host(tams.concurrency)
        .follow_redirects(enable=False)
        .http1_only()
        .build()
    )
    return HttpxTransport(client)


class TamsClient:
    """Implements `bridge.ports.Tams` over HTTP; safe for many calls at once.

    Args:
        tams: where TAMS answers and how long to wait.
        scheme: who we are.
        transport: carries the requests; closed by `aclose`.
        clock: for `Retry-After` dates.
    """

    def __init__(
        self,
        tams: TamsSettings,
        *,
        scheme: BearerKey | RequestSigner,
        transport: httpx.AsyncBaseTransport,
        clock: Clock,
    ) -> None:
        self._base = httpx.URL(str(tams.base_url).rstrip("/"))
        self._scheme = scheme
        self._transport = transport
        self._clock = clock
        self._max_answer_bytes = tams.max_answer_bytes
        self._longest_pause = timedelta(seconds=tams.throttle_limit_s)

    async def create(self, tams_request_id: str, params: bytes) -> Answer:
        """See the port."""
        body = b'{"requestId":%s,"params":%s}' % (msgspec.json.encode(tams_request_id), params)
        return await self._call(Call.CREATE, "POST", "/v1/jobs/workflow", body)

    async def look(self, job_id: str) -> Answer:
        """See the port."""
        return await self._call(Call.LOOK, "GET", f"/v1/jobs/{quote(job_id, safe='')}")

    async def cancel(self, job_id: str) -> Answer:
        """See the port."""
        return await self._call(Call.CANCEL, "DELETE", f"/v1/jobs/{quote(job_id, safe='')}")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _call(self, call: Call, method: str, path: str, body: bytes = b"") -> Answer:
        request = self._request(method, path, body)
        try:
            response = await self._transport.handle_async_request(request)
            try:
                content = await self._content(response)
            finally:
                await response.aclose()
        except (httpx.RequestError, PyreqwestError) as error:  # garbage and half answers are no TransportErrors
            return _not_answered(error)
        except ValueError:  # the transport's, for a header that is no text
            message = "TAMS' answer has a header that cannot be read"
            return Ambiguous(Failure(code="unreadable_answer", message=message, retryable=True))
        except _AnswerTooLong:
            return Ambiguous(
                Failure(code="answer_too_long", message="TAMS' answer is too long to read", retryable=True)
            )
        headers = {name.lower(): value for name, value in response.headers.items()}
        return read_answer(
            call,
            response.status_code,
            headers,
            content,
            now=self._clock.now(),
            longest_pause=self._longest_pause,
        )

    def _request(self, method: str, path: str, body: bytes) -> httpx.Request:
        url = self._base.copy_with(raw_path=self._base.raw_path.rstrip(b"/") + path.encode())
        headers = {"authorization": self._scheme.header(method, url.raw_path.decode(), body)}
        if body:
            headers["content-type"] = "application/json"
        return httpx.Request(method, url, headers=headers, content=body)

    async def _content(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > self._max_answer_bytes:
                raise _AnswerTooLong
        return bytes(content)


class _AnswerTooLong(Exception):
    pass


def _not_answered(error: httpx.RequestError | PyreqwestError) -> NotSent | Ambiguous:
    """Whether anything was sent; the transport's classes do not tell, its causes do.

    A server that closes the connection after the request surfaces as `ConnectError`, too.
    """
    cause = error if isinstance(error, PyreqwestError) else error.__cause__
    told = cause.details["causes"] if isinstance(cause, DetailedPyreqwestError) else None
    causes = [item["message"] for item in told or ()]
    reason = causes[-1] if causes else str(error) or type(error).__name__
    if _CONNECT_FAILED in causes:
        return NotSent(Failure(code="not_sent", message=f"TAMS cannot be reached: {reason}", retryable=True))
    return Ambiguous(Failure(code="no_answer", message=f"TAMS did not answer: {reason}", retryable=True))
