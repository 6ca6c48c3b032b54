"""API keys: how they are written, and whom they let in.

A person holds `tbk_<id>_<secret>`; the topic `<prefix>.api-keys` holds an `ApiKey` under the id, and only a hash of the
secret.
"""

import re
from base64 import b32encode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest

from bridge.core.layouts import UNREADABLE, KeptReader
from bridge.errors import NewerLayout
from bridge.webhook_messages import ApiKey, Scope

ID_BYTES = 8
"""Random bytes an id is made from."""

SECRET_BYTES = 32
"""Random bytes of a secret."""

_ID_LENGTH = 12
_API_KEYS = KeptReader(ApiKey)
_KEY = re.compile(r"tbk_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made.

    Args:
        id: its first part.
        text: the whole key, to be shown once and never kept.
        secret_hash: what is kept of the secret part.
    """

    id: str
    text: str = field(repr=False)
    secret_hash: str


def make_key(chance: bytes) -> NewKey:
    """Make a key.

    Args:
        chance: `ID_BYTES + SECRET_BYTES` bytes that nobody can guess.
    """
    if len(chance) != ID_BYTES + SECRET_BYTES:
        message = f"a key is made from {ID_BYTES + SECRET_BYTES} random bytes, not from {len(chance)}"
        raise ValueError(message)
    key_id = b32encode(chance[:ID_BYTES]).decode().lower()[:_ID_LENGTH]
    secret = urlsafe_b64encode(chance[ID_BYTES:]).decode().rstrip("=")
    return NewKey(id=key_id, text=f"tbk_{key_id}_{secret}", secret_hash=hash_secret(secret))


def hash_secret(secret: str) -> str:
    """What is kept of the secret part of a key: its SHA-256, in hex."""
    return sha256(secret.encode()).hexdigest()


def allows(key: ApiKey, scope: Scope) -> bool:
    """Whether a key may do what this scope stands for; `admin` may do everything."""
    return scope in key.scopes or Scope.ADMIN in key.scopes


class Keyring:
    """The keys that are in force, as of the last record applied."""

    def __init__(self) -> None:
        self.keys: dict[str, ApiKey] = {}
        self.unreadable: set[str] = set()

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Take in one record, in the order of the topic; one that this release cannot read lets nobody in."""
        key_id = key.decode(errors="replace")
        self.unreadable.discard(key_id)
        self.keys.pop(key_id, None)
        if value is None:
            return
        try:
            self.keys[key_id] = _API_KEYS.read(value)
        except (NewerLayout, *UNREADABLE):
            self.unreadable.add(key_id)

    def find(self, text: str) -> ApiKey | None:
        """The key that a person holds, if it is in force."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        key = self.keys.get(match[1])
        if key is None or not compare_digest(key.secret_hash.encode(), hash_secret(match[2]).encode()):
            return None
        return key
