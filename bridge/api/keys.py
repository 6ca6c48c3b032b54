"""API keys: made, listed, revoked."""

from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, Field

from bridge.api.access import Admin, Its, sees, tenant_for
from bridge.api.endpoint_models import Tenant
from bridge.api.inputs import Body, Page, PagingQuery, body_of, sorted_page, takes
from bridge.api.problems import may_answer, not_found
from bridge.api.secrets import shown_once
from bridge.core.keyring import ID_BYTES, SECRET_BYTES, make_key
from bridge.webhook_messages import ApiKey, Scope

router = APIRouter(tags=["api keys"])


class NewApiKey(Body):
    """A key to make."""

    name: Annotated[str, Field(min_length=1, max_length=200, description="For people.")]
    scopes: Annotated[
        tuple[Scope, ...],
        Field(min_length=1, max_length=10, fail_fast=True, description="What it may do; `admin` may do everything."),
    ]
    tenant: Tenant | None = Field(None, description="It sees and makes only what belongs to this tenant.")


class ApiKeyAnswer(BaseModel):
    """A key, without its secret part."""

    id: str
    name: str
    scopes: list[Scope]
    tenant: str | None
    created: datetime


class ApiKeyWithSecret(ApiKeyAnswer):
    """A new key, which is not shown again."""

    key: str = Field(description="Send it as `Authorization: Bearer …`.")


@router.post(
    "/v1/api-keys",
    operation_id="createApiKey",
    summary="Make an API key",
    status_code=201,
    responses=may_answer(400, 413, 415, 422),
    openapi_extra=takes(NewApiKey),
)
async def create(
    key: Admin, its: Its, asked: Annotated[NewApiKey, Depends(body_of(NewApiKey))], response: Response
) -> ApiKeyWithSecret:
    """The answer holds the key, which is not shown again; only its hash is kept."""
    made = make_key(its.random_bytes(ID_BYTES + SECRET_BYTES))
    record = ApiKey(
        id=made.id,
        name=asked.name,
        secret_hash=made.secret_hash,
        scopes=tuple(dict.fromkeys(asked.scopes)),
        tenant=tenant_for(key, asked.tenant),
        created=its.clock.now(),
    )
    await its.key_log.write(record.id.encode(), msgspec.json.encode(record))
    shown_once(response)
    return ApiKeyWithSecret(**_shown(record).model_dump(), key=made.text)


@router.get(
    "/v1/api-keys", operation_id="listApiKeys", summary="List API keys, the newest first", responses=may_answer(422)
)
async def list_(key: Admin, its: Its, paging: PagingQuery) -> Page[ApiKeyAnswer]:
    """Without secrets and hashes."""
    everything = [((each.created, each.id), each) for each in its.keyring.keys.values()]
    found, following = sorted_page(everything, paging, wanted=lambda each: sees(key, each.tenant))
    return Page(data=[_shown(each) for each in found], next=following)


@router.delete(
    "/v1/api-keys/{key_id}",
    operation_id="revokeApiKey",
    summary="Revoke an API key",
    status_code=204,
    responses=may_answer(404),
)
async def revoke(
    key: Admin, its: Its, key_id: Annotated[str, Path(description="The part between `tbk_` and the next `_`.")]
) -> None:
    """Nobody gets in with it any more, in every process within a second."""
    found = its.keyring.keys.get(key_id)
    if found is None or not sees(key, found.tenant):
        raise not_found("API key of this id")
    await its.key_log.write(key_id.encode(), None)


def _shown(key: ApiKey) -> ApiKeyAnswer:
    return ApiKeyAnswer.model_validate(key, from_attributes=True)
