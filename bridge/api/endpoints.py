"""Endpoints: registered, listed, read, changed, deleted."""

from base64 import b32encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Response
from msgspec.structs import replace

from bridge.api.access import Its, WebhooksReader, WebhooksWriter, sees, tenant_for
from bridge.api.endpoint_models import (
    Disabled,
    EndpointAnswer,
    EndpointChange,
    EndpointWithSecret,
    NewEndpoint,
    SecretTimes,
)
from bridge.api.inputs import Page, PagingQuery, body_of, sorted_page, takes
from bridge.api.ports import Services
from bridge.api.problems import Problem, may_answer, not_found
from bridge.api.secrets import box, make, public_key_of, shown_once
from bridge.api.targets import consented_rate, vet
from bridge.core.registry import EndpointState, endpoint_key, status_key
from bridge.webhook_messages import ApiKey, Endpoint

ID_BYTES = 15
"""24 letters of base 32."""

_MASK = "***"
_ASKED_AGAIN = frozenset({"url", "handshake", "rate"})
"""A receiver's consent is for a URL and a rate."""

EndpointId = Annotated[str, Path(description="`ep_…`, as the creation answered.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="A word of your choice: a repeat with the same word and body answers with the first creation.",
    ),
]
IfMatch = Annotated[
    str | None, Header(max_length=1000, description="Change only this revision (`ETag`); 412 if there is another.")
]

router = APIRouter(tags=["endpoints"])


def find(its: Services, key: ApiKey, endpoint_id: str) -> Endpoint:
    """An endpoint that this key may see.

    Raises:
        Problem: 404.
    """
    endpoint = its.registry.endpoints.get(endpoint_id)
    if endpoint is None or not sees(key, endpoint.tenant):
        raise not_found("endpoint of this id")
    return endpoint


async def save(its: Services, endpoint: Endpoint) -> None:
    """Write an endpoint down; raises as `RegistryLog.write`."""
    await its.registry_log.write(endpoint_key(endpoint.id), msgspec.json.encode(endpoint))


def shown(its: Services, endpoint: Endpoint) -> EndpointAnswer:
    """An endpoint as people see it."""
    return EndpointAnswer.model_validate(_fields(its, endpoint))


def etag(endpoint: Endpoint) -> str:
    """Names the revision of an endpoint (RFC 9110, section 8.8.3)."""
    return f'"{sha256(msgspec.json.encode(endpoint)).hexdigest()[:24]}"'


def check_revision(endpoint: Endpoint, if_match: str | None) -> None:
    """Return if the revision is one of those that `If-Match` names.

    Raises:
        Problem: 412.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag(endpoint) not in {each.strip() for each in if_match.split(",")}:
        raise Problem(412, "the endpoint is not as you know it any more: read it again, then change it")


@router.post(
    "/v1/endpoints",
    operation_id="createEndpoint",
    summary="Register a URL",
    status_code=201,
    responses=may_answer(400, 409, 413, 415, 422),
    openapi_extra=takes(NewEndpoint),
)
async def create(
    key: WebhooksWriter,
    its: Its,
    asked: Annotated[NewEndpoint, Depends(body_of(NewEndpoint))],
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> EndpointWithSecret:
    """The answer holds the signing secret, which is shown again only to a repeat with the same Idempotency-Key."""
    box(its)
    asked = asked.model_copy(update={"tenant": tenant_for(key, asked.tenant)})
    endpoint_id = _id_for(its, key, idempotency_key)
    request_hash = sha256(asked.model_dump_json().encode()).hexdigest() if idempotency_key is not None else ""
    async with its.locks.of(endpoint_id):
        endpoint = its.registry.endpoints.get(endpoint_id)
        if endpoint is None:
            secret, endpoint = await _made(its, endpoint_id, asked, request_hash)
            await save(its, endpoint)
        elif endpoint.request_hash == request_hash:
            secret = box(its).unseal(endpoint.secrets[0].sealed, owner=endpoint_id)
        else:
            raise Problem(409, "this Idempotency-Key was used with another body: choose another one")
    response.headers["location"] = f"/v1/endpoints/{endpoint_id}"
    response.headers["etag"] = etag(endpoint)
    shown_once(response)
    return EndpointWithSecret.model_validate({**_fields(its, endpoint), "secret": secret})


@router.get(
    "/v1/endpoints", operation_id="listEndpoints", summary="List endpoints, the newest first", responses=may_answer(422)
)
async def list_(
    key: WebhooksReader,
    its: Its,
    paging: PagingQuery,
    state: Annotated[EndpointState | None, Query(description="Only those in this state.")] = None,
    tenant: Annotated[str | None, Query(description="Only those of this tenant.")] = None,
) -> Page[EndpointAnswer]:
    """Endpoints of other tenants are left out if the key is for one."""

    def wanted(endpoint: Endpoint) -> bool:
        return (
            sees(key, endpoint.tenant)
            and tenant in {None, endpoint.tenant}
            and state in {None, its.registry.state(endpoint.id)}
        )

    everything = [((each.created, each.id), each) for each in its.registry.endpoints.values()]
    found, following = sorted_page(everything, paging, wanted=wanted)
    return Page(data=[shown(its, endpoint) for endpoint in found], next=following)


@router.get(
    "/v1/endpoints/{endpoint_id}", operation_id="getEndpoint", summary="Read an endpoint", responses=may_answer(404)
)
async def get(key: WebhooksReader, its: Its, endpoint_id: EndpointId, response: Response) -> EndpointAnswer:
    """The header `ETag` names its revision."""
    endpoint = find(its, key, endpoint_id)
    response.headers["etag"] = etag(endpoint)
    return shown(its, endpoint)


@router.patch(
    "/v1/endpoints/{endpoint_id}",
    operation_id="changeEndpoint",
    summary="Change an endpoint",
    responses=may_answer(400, 404, 412, 413, 415, 422),
    openapi_extra=takes(EndpointChange),
)
async def change(
    key: WebhooksWriter,
    its: Its,
    endpoint_id: EndpointId,
    asked: Annotated[EndpointChange, Depends(body_of(EndpointChange))],
    response: Response,
    if_match: IfMatch = None,
) -> EndpointAnswer:
    """What the body leaves out stays as it is; `headers` replaces all custom headers."""
    async with its.locks.of(endpoint_id):
        before = find(its, key, endpoint_id)
        check_revision(before, if_match)
        after = await _changed(its, key, before, asked)
        if after != before:
            after = replace(after, changed=its.clock.now())
            await save(its, after)
    response.headers["etag"] = etag(after)
    return shown(its, after)


@router.delete(
    "/v1/endpoints/{endpoint_id}",
    operation_id="deleteEndpoint",
    summary="Delete an endpoint",
    status_code=204,
    responses=may_answer(404, 412, 422),
)
async def delete(key: WebhooksWriter, its: Its, endpoint_id: EndpointId, if_match: IfMatch = None) -> None:
    """What waits for it is dropped."""
    async with its.locks.of(endpoint_id):
        check_revision(find(its, key, endpoint_id), if_match)
        await its.registry_log.write(endpoint_key(endpoint_id), None)
        await its.status_log.write(status_key(endpoint_id), None)


def _id_for(its: Services, key: ApiKey, idempotency_key: str | None) -> str:
    """The same for the same idempotency key, in every process and after every crash."""
    if idempotency_key is None:
        chance = its.random_bytes(ID_BYTES)
    else:
        chance = sha256(f"{key.id}\n{idempotency_key}".encode()).digest()[:ID_BYTES]
    return "ep_" + b32encode(chance).decode().lower()


async def _made(its: Services, endpoint_id: str, asked: NewEndpoint, request_hash: str) -> tuple[str, Endpoint]:
    await vet(its, asked.url)
    rate = await consented_rate(its, asked.url, asked.rate) if asked.handshake else asked.rate
    secret, sealed = make(its, asked.scheme, owner=endpoint_id)
    now = its.clock.now()
    fields = {
        **{name: getattr(asked, name) for name in NewEndpoint.model_fields if name != "headers"},
        **_sealed_headers(its, endpoint_id, asked.headers),
        "id": endpoint_id,
        "rate": rate,
        "secrets": (sealed,),
        "created": now,
        "changed": now,
        "request_hash": request_hash,
    }
    return secret, msgspec.convert(fields, Endpoint)


async def _changed(its: Services, key: ApiKey, before: Endpoint, asked: EndpointChange) -> Endpoint:
    changes = asked.changes()
    if changes.pop("headers", None) is not None:
        changes |= _sealed_headers(its, before.id, asked.headers or {})
    if "tenant" in changes:
        changes["tenant"] = tenant_for(key, asked.tenant)
    after = replace(before, **changes)
    if after.url != before.url:
        await vet(its, after.url)
    if after.handshake and any(getattr(after, name) != getattr(before, name) for name in _ASKED_AGAIN):
        after = replace(after, rate=await consented_rate(its, after.url, after.rate))
    return after


def _sealed_headers(its: Services, endpoint_id: str, headers: Mapping[str, str]) -> dict[str, object]:
    if not headers:
        return {"sealed_headers": "", "header_names": ()}
    sealed = box(its).seal(msgspec.json.encode(headers).decode(), owner=endpoint_id)
    return {"sealed_headers": sealed, "header_names": tuple(sorted(headers))}


def _fields(its: Services, endpoint: Endpoint) -> dict[str, object]:
    status = its.registry.status(endpoint.id)
    disabled = None
    if status is not None and status.disabled_at is not None:
        disabled = Disabled(reason=status.disabled_reason, at=status.disabled_at)
    kept = {name: getattr(endpoint, name) for name in EndpointAnswer.model_fields if hasattr(endpoint, name)}
    return kept | {
        "headers": dict.fromkeys(endpoint.header_names, _MASK),
        "public_key": public_key_of(its, endpoint),
        "state": its.registry.state(endpoint.id) or EndpointState.ENABLED,
        "disabled": disabled,
        "failing_since": status.failing_since if status is not None else None,
        "warned": status is not None and status.warned,
        "last_error": status.last_error if status is not None else "",
        "pending": its.deliveries.pending_of(endpoint.id),
        "secrets": [SecretTimes(created=each.created, expires=each.expires) for each in endpoint.secrets],
    }
