"""Signing secrets: made, sealed, shown once, replaced."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from fastapi import Response

from bridge.api.ports import Services
from bridge.api.problems import Problem
from bridge.core.signatures import SEED_BYTES, new_secret, public_key
from bridge.errors import CannotUnseal
from bridge.webhook_messages import Endpoint, SealedSecret, SignatureScheme
from bridge.webhook_ports import SecretBox

_SIGNING_MAX = 5
"""Each secret in force adds a signature to every POST."""


def box(its: Services) -> SecretBox:
    """What secrets are sealed with.

    Raises:
        Problem: 503, no encryption key is configured.
    """
    if its.secret_box is None:
        detail = (
            "secrets cannot be kept: no encryption key is configured; set BRIDGE_WEBHOOKS__ENCRYPTION_KEYS "
            "(`tams-bridge keys encryption-key` makes one) and start the API again"
        )
        raise Problem(503, detail, headers={"retry-after": "60"})
    return its.secret_box


def make(its: Services, scheme: SignatureScheme, *, owner: str) -> tuple[str, SealedSecret]:
    """A new secret, as people write it and as it is kept.

    Args:
        its: chance, time, and what seals.
        scheme: how it signs.
        owner: endpoint id, or tenant.

    Raises:
        Problem: 503, no encryption key is configured.
    """
    secret = new_secret(scheme, its.random_bytes(SEED_BYTES))
    return secret, SealedSecret(sealed=box(its).seal(secret, owner=owner), created=its.clock.now())


def succeeded(
    former: Sequence[SealedSecret], newest: SealedSecret, *, overlap_s: float, now: datetime
) -> tuple[SealedSecret, ...]:
    """The secrets that sign from now on, the newest first.

    Raises:
        Problem: 409, too many would sign at once.
    """
    until = now + timedelta(seconds=overlap_s)
    kept = [_ending(secret, until) for secret in former if secret.expires is None or secret.expires > now]
    secrets = (newest, *(kept if overlap_s > 0 else ()))
    if len(secrets) > _SIGNING_MAX:
        raise Problem(409, f"{_SIGNING_MAX} secrets sign already: wait until one expires, or give a shorter overlap_s")
    return secrets


def shown_once(response: Response) -> None:
    """Nobody on the way is to keep this answer."""
    response.headers["cache-control"] = "no-store"


def public_key_of(its: Services, endpoint: Endpoint) -> str | None:
    """What checks the signatures of an endpoint with a key pair; None if there is none, or it cannot be told now."""
    if endpoint.scheme is not SignatureScheme.V1A or its.secret_box is None or not endpoint.secrets:
        return None
    try:
        return public_key(its.secret_box.unseal(endpoint.secrets[0].sealed, owner=endpoint.id))
    except (CannotUnseal, ValueError):
        return None


def _ending(secret: SealedSecret, until: datetime) -> SealedSecret:
    expires = until if secret.expires is None else min(secret.expires, until)
    return SealedSecret(sealed=secret.sealed, created=secret.created, expires=expires)
