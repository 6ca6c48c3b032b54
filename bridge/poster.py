"""ROLE forwarder, the POST itself: secrets opened, signed, sent, and what may be shown of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from bridge.core.deliveries import Unsendable
from bridge.core.dispatch import Send
from bridge.core.fanout import is_inline
from bridge.core.layouts import UNREADABLE
from bridge.core.posts import body_of, exchange_of, headers_of
from bridge.core.signatures import InvalidSecret, Signer, webhook_id
from bridge.errors import CannotUnseal
from bridge.ports import Clock
from bridge.webhook_messages import Endpoint, Exchange
from bridge.webhook_ports import NoResponse, Post, Response, SecretBox, WebhookSender

_PAUSE = timedelta(minutes=1)
_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class _Credentials:
    """What an endpoint is signed with, opened.

    Args:
        endpoint: as it was then; another object means that it has changed.
        signer: with every secret that signs now.
        headers: its own.
        until: when one of the secrets expires.
    """

    endpoint: Endpoint
    signer: Signer
    headers: dict[str, str]
    until: datetime | None


class Poster:
    """Makes the POSTs of deliveries.

    Args:
        sender: sends them.
        secret_box: opens secrets.
        clock: for timestamps.
        source: the bridge's `ce_source`.
        user_agent: who we are.
        answer_bytes: of an answer's body that are kept for people to look at.
    """

    def __init__(
        self,
        sender: WebhookSender,
        *,
        secret_box: SecretBox,
        clock: Clock,
        source: str,
        user_agent: str,
        answer_bytes: int = 2_000,
    ) -> None:
        self._sender = sender
        self._secret_box = secret_box
        self._clock = clock
        self._source = source
        self._user_agent = user_agent
        self._answer_bytes = answer_bytes
        self._kept: dict[str, _Credentials] = {}

    async def post(self, send: Send) -> tuple[Response | NoResponse | Unsendable, Exchange | None]:
        """One attempt; never raises for what the receiver, or the network, did."""
        credentials = self._credentials(send.endpoint)
        if isinstance(credentials, Unsendable):
            return credentials, None
        delivery = send.delivery
        name, timestamp = webhook_id(delivery.endpoint_id, delivery.event_id), int(self._clock.now().timestamp())
        body = body_of(delivery, send.event, source=self._source)
        headers = headers_of(
            webhook_id=name,
            timestamp=timestamp,
            signature=credentials.signer.header(webhook_id=name, timestamp=timestamp, body=body),
            user_agent=self._user_agent,
            custom=credentials.headers,
        )
        timeout = timedelta(seconds=send.endpoint.timeout_s)
        answer = await self._sender.send(Post(url=send.endpoint.url, headers=headers, body=body, timeout=timeout))
        return answer, exchange_of(headers, credentials.headers, answer, body_shown=self._answer_bytes)

    def _credentials(self, endpoint: Endpoint) -> _Credentials | Unsendable:
        kept, now = self._kept.get(endpoint.id), self._clock.now()
        if kept is not None and kept.endpoint is endpoint and (kept.until is None or now < kept.until):
            return kept
        try:
            opened = self._open(endpoint, now)
        except CannotUnseal as error:
            return Unsendable(str(error), _PAUSE)
        except InvalidSecret as error:
            return Unsendable(f"the endpoint's secret cannot be used: {error}: rotate it", _PAUSE)
        except UNREADABLE:
            return Unsendable("the endpoint's headers cannot be used: set them anew", _PAUSE)
        if isinstance(opened, _Credentials):
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[endpoint.id] = opened
        return opened

    def _open(self, endpoint: Endpoint, now: datetime) -> _Credentials | Unsendable:
        live = [secret for secret in endpoint.secrets if secret.expires is None or now < secret.expires]
        if not live:
            return Unsendable(_no_secret(endpoint), _PAUSE)
        owner = (endpoint.tenant or "") if is_inline(endpoint.id) else endpoint.id
        secrets = [self._secret_box.unseal(secret.sealed, owner=owner) for secret in live]
        headers: dict[str, str] = {}
        if endpoint.sealed_headers:
            opened = self._secret_box.unseal(endpoint.sealed_headers, owner=endpoint.id)
            headers = msgspec.json.decode(opened, type=dict[str, str])
        ends = [secret.expires for secret in live if secret.expires is not None]
        return _Credentials(endpoint, Signer(secrets), headers, min(ends, default=None))


def _no_secret(endpoint: Endpoint) -> str:
    if not is_inline(endpoint.id):
        return "the endpoint has no secret to sign with: rotate its secret"
    tenant = endpoint.tenant or "-"
    return (
        f"the tenant {tenant!r} has no secret to sign its inline webhooks with: make one with "
        f"`tams-bridge webhooks tenant-secret {tenant} --rotate`"
    )
