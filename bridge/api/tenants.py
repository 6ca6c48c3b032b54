"""Default secrets of tenants: they sign webhooks that are given inside requests."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Response

from bridge.api import secrets
from bridge.api.access import Its, WebhooksReader, WebhooksWriter, sees
from bridge.api.endpoint_models import TENANT_MAX, NewTenantSecret, Rotation, TenantSecret
from bridge.api.inputs import body_of, takes
from bridge.api.ports import Services
from bridge.api.problems import may_answer, not_found, wrong_field
from bridge.core.registry import tenant_key
from bridge.webhook_messages import ApiKey, SignatureScheme, TenantSecrets

NOBODY = "-"
"""Stands in paths for requests without tenant."""

TenantName = Annotated[str, Path(min_length=1, description="A tenant; `-` stands for requests without one.")]

router = APIRouter(tags=["tenants"])


@router.post(
    "/v1/tenants/{tenant:path}/secret/rotate",
    operation_id="rotateTenantSecret",
    summary="Make or replace a tenant's default secret",
    responses=may_answer(400, 404, 409, 413, 415, 422),
    openapi_extra=takes(Rotation, optional=True),
)
async def rotate(
    key: WebhooksWriter,
    its: Its,
    tenant: TenantName,
    asked: Annotated[Rotation, Depends(body_of(Rotation, optional=True))],
    response: Response,
) -> NewTenantSecret:
    """The answer holds the new secret, which is not shown again; the former ones sign beside it for the overlap."""
    name = _name(key, tenant)
    async with its.locks.of(f"tenant {name}"):
        former = its.registry.tenants.get(name)
        secret, newest = secrets.make(its, SignatureScheme.V1, owner=name)
        now = its.clock.now()
        kept = secrets.succeeded(
            former.secrets if former is not None else (), newest, overlap_s=asked.overlap_s, now=now
        )
        after = TenantSecrets(tenant=name, secrets=kept, changed=now)
        await its.registry_log.write(tenant_key(name), msgspec.json.encode(after))
    secrets.shown_once(response)
    return NewTenantSecret(tenant=tenant, created=newest.created, count=_count(its, after), secret=secret)


@router.get(
    "/v1/tenants/{tenant:path}/secret",
    operation_id="getTenantSecret",
    summary="Whether a tenant has a default secret",
    responses=may_answer(404, 422),
)
async def get(key: WebhooksReader, its: Its, tenant: TenantName) -> TenantSecret:
    """Never the secret itself."""
    found = its.registry.tenants.get(_name(key, tenant))
    if found is None or not found.secrets:
        raise not_found("secret of this tenant: make one at /v1/tenants/{tenant}/secret/rotate")
    return TenantSecret(tenant=tenant, created=found.secrets[0].created, count=_count(its, found))


def _name(key: ApiKey, tenant: str) -> str:
    """Value of the label; empty for requests without one."""
    name = "" if tenant == NOBODY else tenant
    if not sees(key, name):
        raise not_found("tenant of this name")
    if len(name.encode(errors="replace")) > TENANT_MAX or "\ufffd" in name:
        raise wrong_field("tenant", f"a tenant's name is at most {TENANT_MAX} bytes of text")
    return name


def _count(its: Services, found: TenantSecrets) -> int:
    now = its.clock.now()
    return sum(1 for secret in found.secrets if secret.expires is None or secret.expires > now)
