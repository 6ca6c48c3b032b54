"""The registry's secrets at rest: Fernet tokens (AES-128-CBC and HMAC-SHA256, so a changed one does not open).

What is encrypted is the pair of owner and secret: a token that was copied to another endpoint does not open there.
"""

import re
from collections.abc import Sequence

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from bridge.errors import CannotStart, CannotUnseal

SETTING = "BRIDGE_WEBHOOKS__ENCRYPTION_KEYS"

_MAKE_ONE = "`tams-bridge keys encryption-key` makes one"
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


def new_encryption_key() -> str:
    """A key for the setting, as people write it; drawn from the system's source of chance."""
    return Fernet.generate_key().decode()


class Vault:
    """Implements `bridge.webhook_ports.SecretBox`.

    Args:
        keys: the first one seals, all of them unseal; to change keys, put the new one in front.

    Raises (on making):
        CannotStart: there is no key, or one is malformed.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            message = f"webhooks: no encryption key: set {SETTING} to a JSON list of keys ({_MAKE_ONE})"
            raise CannotStart(message)
        for place, key in enumerate(keys, start=1):
            if _KEY.fullmatch(key) is None:
                malformed = f"key {place} of {len(keys)} in {SETTING} is not 32 bytes as URL-safe base64"
                message = f"webhooks: {malformed} ({_MAKE_ONE})"
                raise CannotStart(message)
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, plain: str, *, owner: str) -> str:
        """See the port."""
        return self._fernet.encrypt(msgspec.json.encode((owner, plain))).decode()

    def unseal(self, sealed: str, *, owner: str) -> str:
        """See the port."""
        try:
            sealed_for, plain = msgspec.json.decode(self._fernet.decrypt(sealed), type=tuple[str, str])
        except (InvalidToken, msgspec.DecodeError, ValueError):
            message = (
                f"webhooks: no key in force opens a secret of {owner!r}: put the key it was sealed with back into "
                f"{SETTING}, behind the newest one, or rotate the secret"
            )
            raise CannotUnseal(message) from None
        if sealed_for != owner:
            message = (
                f"webhooks: a secret stored for {owner!r} was sealed for another owner, so the bridge did not store it "
                "there: rotate the secret, and find out who may write to the registry's topic"
            )
            raise CannotUnseal(message)
        return plain
