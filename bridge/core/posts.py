"""What is sent to a receiver, and what may be shown of it: a structured CloudEvent under Standard Webhooks headers.

Structured mode, because headers of binary mode would not be covered by the signature (CloudEvents 1.0, HTTP protocol
binding, section 3.2; Standard Webhooks 1.0.0, "Signature").
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from bridge.core.dispatch_policy import Moment
from bridge.webhook_messages import Delivery, Endpoint, Exchange
from bridge.webhook_ports import NoResponse, Response

CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"

RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
"""Names custom headers may not have, beside those that begin with `webhook-` or `ce-`."""

_MASK = "***"
_MASKED_ANSWERS = frozenset({"set-cookie", "authorization", "www-authenticate", "proxy-authenticate"})
_HEADERS_SHOWN = 40
_HEADER_SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A POST to make now.

    Args:
        delivery: what for.
        endpoint: to whom; of an inline webhook one made up for it.
        event: the event's value.
        began: now.
    """

    delivery: Delivery
    endpoint: Endpoint
    event: bytes
    began: Moment


class _CloudEvent(msgspec.Struct, kw_only=True):
    specversion: str = "1.0"
    id: str
    source: str
    type: str
    time: str
    subject: str
    sequence: str
    datacontenttype: str = "application/json"
    data: msgspec.Raw


_encode = msgspec.json.Encoder().encode


def body_of(delivery: Delivery, event: bytes, *, source: str) -> bytes:
    """The CloudEvent of a delivery; the same bytes at every attempt.

    Args:
        delivery: what for.
        event: the event's value, as on the result topic; becomes `data` as it is.
        source: the bridge's `ce_source`.
    """
    return _encode(
        _CloudEvent(
            id=delivery.event_id,
            source=source,
            type=delivery.type,
            time=delivery.time.isoformat(),
            subject=delivery.request_id,
            sequence=f"{delivery.sequence:010d}",
            data=msgspec.Raw(event),
        )
    )


def headers_of(
    *, webhook_id: str, timestamp: int, signature: str, user_agent: str, custom: Mapping[str, str]
) -> dict[str, str]:
    """The headers of one attempt.

    Args:
        webhook_id: the same at every attempt.
        timestamp: seconds since 1970, of this attempt.
        signature: over id, timestamp and body.
        user_agent: who we are.
        custom: the endpoint's own; cannot take the place of ours.
    """
    return {
        **custom,
        "content-type": CONTENT_TYPE,
        "user-agent": user_agent,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }


def is_custom_header(name: str) -> bool:
    """Whether an endpoint may set a header of this name."""
    lower = name.lower()
    return lower not in RESERVED_HEADERS and not lower.startswith(("webhook-", "ce-"))


def exchange_of(
    sent: Mapping[str, str], custom: Collection[str], answer: Response | NoResponse, *, body_shown: int = 2_000
) -> Exchange:
    """What people may see of an exchange: signatures, custom headers and cookies are masked, long texts cut.

    Args:
        sent: the headers of the POST.
        custom: names of those that are the endpoint's own.
        answer: what came back.
        body_shown: bytes of its body that may be seen.
    """
    shown = {name: _MASK if name in custom else value for name, value in sent.items()}
    if "webhook-signature" in shown:
        versions = [signature.partition(",")[0] for signature in shown["webhook-signature"].split(" ")]
        shown["webhook-signature"] = " ".join(f"{version},{_MASK}" for version in versions)
    if isinstance(answer, NoResponse):
        return Exchange(request_headers=shown)
    answered = {
        name[:_HEADER_SHOWN]: _MASK if name in _MASKED_ANSWERS else value[:_HEADER_SHOWN]
        for name, value in list(answer.headers.items())[:_HEADERS_SHOWN]
    }
    body = answer.body[:body_shown].decode(errors="replace")
    return Exchange(request_headers=shown, response_headers=answered, response_body=body)
