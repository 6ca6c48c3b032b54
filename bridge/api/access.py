"""Who asks, and what they may see: every route takes one of these as its first parameter."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from bridge.api.ports import Services
from bridge.api.problems import Problem
from bridge.core.keyring import allows
from bridge.webhook_messages import ApiKey, Scope

_CHALLENGE = {"www-authenticate": "Bearer"}

_bearer = HTTPBearer(auto_error=False, bearerFormat="tbk_<id>_<secret>", description="An API key, as shown once.")


def services(request: Request) -> Services:
    """What this API is made of."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError(type(found))
    return found


async def _services(request: Request) -> Services:
    return services(request)


Its = Annotated[Services, Depends(_services)]


async def caller(
    scopes: SecurityScopes, its: Its, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> ApiKey:
    """The key that a request carries.

    Raises:
        Problem: 401 without one that is in force, 403 if it lacks a scope that is needed, 503 before any is known.
    """
    if credentials is None:
        raise Problem(401, "no API key: send the header `Authorization: Bearer tbk_…`", headers=_CHALLENGE)
    if not its.is_ready():
        raise Problem(503, "the API is starting: try again in a moment", headers={"retry-after": "1"})
    key = its.keyring.find(credentials.credentials)
    if key is None:
        raise Problem(401, "this API key is not in force", headers=_CHALLENGE)
    for needed in scopes.scopes:
        if not allows(key, Scope(needed)):
            raise Problem(403, f"this API key lacks the scope {needed}")
    return key


Anybody = Annotated[ApiKey, Security(caller, scopes=[])]
JobsReader = Annotated[ApiKey, Security(caller, scopes=[Scope.JOBS_READ])]
JobsWriter = Annotated[ApiKey, Security(caller, scopes=[Scope.JOBS_WRITE])]
WebhooksReader = Annotated[ApiKey, Security(caller, scopes=[Scope.WEBHOOKS_READ])]
WebhooksWriter = Annotated[ApiKey, Security(caller, scopes=[Scope.WEBHOOKS_WRITE])]
Admin = Annotated[ApiKey, Security(caller, scopes=[Scope.ADMIN])]


def sees(key: ApiKey, tenant: str | None) -> bool:
    """Whether what belongs to a tenant, or to none, is for this key."""
    return key.tenant is None or key.tenant == tenant


def tenant_for(key: ApiKey, asked: str | None) -> str | None:
    """The tenant of what a key makes: its own, if it has one.

    Raises:
        Problem: 403, it asks for another's.
    """
    if key.tenant is None or asked in {None, key.tenant}:
        return asked if key.tenant is None else key.tenant
    raise Problem(403, f"this API key is for the tenant {key.tenant!r} alone")
