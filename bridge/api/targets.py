"""Whether an endpoint may be registered: where its URL leads, and whether its receiver consents."""

from datetime import timedelta
from http import HTTPStatus

from bridge.api.ports import Services
from bridge.api.problems import Problem, wrong_field
from bridge.core.addresses import ForbiddenTarget
from bridge.webhook_ports import NoResponse, Post, Response

_PATIENCE = timedelta(seconds=15)
_MINUTE_S = 60.0
_SUCCESS = range(200, 300)


async def vet(its: Services, url: str) -> None:
    """Return if webhooks may go there, by all we know now; it is judged again at every dial.

    Raises:
        Problem: 422 with the reason.
    """
    try:
        target = its.policy.check_url(url)
        if target.address is None:
            addresses = await its.resolver.addresses(target.host)
            if not addresses:
                raise wrong_field("url", f"{target.host} does not resolve at present")
            its.policy.check_addresses(target, addresses)
    except ForbiddenTarget as error:
        raise wrong_field("url", str(error)) from None


async def consented_rate(its: Services, url: str, rate: float | None) -> float | None:
    """Ask the receiver for its consent (CloudEvents HTTP 1.1 Web Hooks, section 4).

    Args:
        its: whom to ask through.
        url: of the receiver.
        rate: POSTs a second wished for; the protocol counts them by the minute.

    Returns:
        POSTs a second that were granted, never more than wished for.

    Raises:
        Problem: 422, it does not consent.
    """
    headers = {"webhook-request-origin": its.limits.origin, "user-agent": its.limits.origin}
    if rate is not None:
        headers["webhook-request-rate"] = str(max(1, round(rate * _MINUTE_S)))
    answer = await its.sender.send(Post(url=url, headers=headers, body=b"", timeout=_PATIENCE, method="OPTIONS"))
    match answer:
        case NoResponse(error=error):
            raise _refused(error)
        case Response(status=status) if status not in _SUCCESS:
            raise _refused(f"it answered {status} {_phrase(status)}".rstrip())
        case Response(headers=given):
            return _granted(given.get("webhook-allowed-origin", ""), given.get("webhook-allowed-rate", ""), its, rate)


def _granted(origin: str, allowed: str, its: Services, rate: float | None) -> float | None:
    if origin.strip() not in {"*", its.limits.origin}:
        raise _refused(f"its answer does not hold `WebHook-Allowed-Origin: {its.limits.origin}` (or `*`)")
    allowed = allowed.strip()
    if allowed in {"", "*"}:
        return rate
    if not (allowed.isascii() and allowed.isdecimal() and int(allowed[:9]) > 0):
        raise _refused("its `WebHook-Allowed-Rate` is neither a number of POSTs a minute nor `*`")
    granted = int(allowed[:9]) / _MINUTE_S
    return granted if rate is None else min(rate, granted)


def _refused(why: str) -> Problem:
    return wrong_field("handshake", f"the receiver did not consent to an OPTIONS request: {why}")


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
