"""Signatures of webhooks: Standard Webhooks 1.0.0, with a shared secret (`v1`) or a key pair (`v1a`).

What is signed is `<webhook-id>.<webhook-timestamp>.<body>`, the body byte for byte as it travels.

| written   | what it is                               | bytes    | makes | checks |
|-----------|------------------------------------------|----------|-------|--------|
| `whsec_…` | a secret both sides share, HMAC-SHA256   | 24 to 64 | `v1`  | `v1`   |
| `whsk_…`  | Ed25519 private key, seed then public key | 64       | `v1a` |        |
| `whpk_…`  | Ed25519 public key                       | 32       |       | `v1a`  |

Source: Standard Webhooks 1.0.0, "Signature scheme"; webhooks.md.
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from string import ascii_letters, digits

from cryptography.exceptions import InvalidSignature as DoesNotFit
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bridge.webhook_messages import SignatureScheme

ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"

SEED_BYTES = 32
"""How much chance `new_secret` is best given: right for either scheme."""

TOLERANCE = timedelta(minutes=5)
"""How far a timestamp may lie from the receiver's clock, either way (Standard Webhooks 1.0.0, "Verifying")."""

_SHARED, _PRIVATE, _PUBLIC = "whsec_", "whsk_", "whpk_"
_CHECKED_BY = {SignatureScheme.V1: _SHARED, SignatureScheme.V1A: _PUBLIC}
_SIZES = {_SHARED: range(24, 65), _PRIVATE: range(64, 65), _PUBLIC: range(32, 33)}

_BASE62 = digits + ascii_letters
_ID_BYTES, _ID_LENGTH = 20, 27
"""27 digits of base 62 hold 160 bits."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")

Sign = Callable[[bytes], str]
"""Content → one signature, its version in front."""

Fits = Callable[[bytes, Sequence[str]], bool]
"""Content, signatures → whether one of them is right."""


class InvalidSecret(ValueError):
    """A secret or key that cannot be used; the message says what is wrong with it, and never shows it."""


class InvalidSignature(ValueError):
    """A POST that cannot be trusted; the message tells a developer what to look at, and shows nothing received."""


def webhook_id(endpoint_id: str, event_id: str) -> str:
    """The header `webhook-id`, by which a receiver knows a repeat: the same whenever this event goes to this endpoint.

    Args:
        endpoint_id: registered or inline.
        event_id: `<request id>.<sequence>`.
    """
    named = f"{len(endpoint_id)}:{endpoint_id}{event_id}"  # the length keeps ("a", "bc") and ("ab", "c") apart
    number = int.from_bytes(sha256(named.encode()).digest()[:_ID_BYTES])
    letters: list[str] = []
    for _ in range(_ID_LENGTH):
        number, letter = divmod(number, len(_BASE62))
        letters.append(_BASE62[letter])
    return "msg_" + "".join(letters)


def new_secret(scheme: SignatureScheme, random: bytes) -> str:
    """A secret to sign with, as people write it.

    Args:
        scheme: `v1` gives a shared secret, `v1a` a private key.
        random: chance from a source fit for cryptography: 24 to 64 bytes, for `v1a` exactly 32.

    Raises:
        ValueError: that much chance does not suit the scheme.
    """
    if len(random) not in (_SIZES[_SHARED] if scheme is SignatureScheme.V1 else _SIZES[_PUBLIC]):
        message = f"{len(random)} random bytes do not suit {scheme}: give {SEED_BYTES}"
        raise ValueError(message)
    if scheme is SignatureScheme.V1:
        return _written(_SHARED, random)
    return _written(_PRIVATE, random + _public_half(Ed25519PrivateKey.from_private_bytes(random)))


def public_key(private_key: str) -> str:
    """The `whpk_…` that checks what this `whsk_…` signs; may be shown to anybody.

    Raises:
        InvalidSecret: it is no private key.
    """
    if not private_key.startswith(_PRIVATE):
        message = f"only a private key ({_PRIVATE}…) has a public key"
        raise InvalidSecret(message)
    return _written(_PUBLIC, _public_half(_private_key(private_key)))


def scheme_of(secret: str) -> SignatureScheme:
    """Which scheme a secret signs by, once it is known to be sound.

    Raises:
        InvalidSecret: nothing can be signed with it.
    """
    _signing(secret)
    return SignatureScheme.V1 if secret.startswith(_SHARED) else SignatureScheme.V1A


class Signer:
    """Signs the POSTs to one endpoint; made once from its secrets and then used for each.

    Args:
        secrets: all that are live, `whsec_…` or `whsk_…`; each adds one signature, in this order.

    Raises (on making):
        InvalidSecret: one cannot be used, or there is none.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            message = "there is no secret to sign with"
            raise InvalidSecret(message)
        self._signing = [_signing(secret) for secret in secrets]

    def header(self, *, webhook_id: str, timestamp: int, body: bytes) -> str:
        """The header `webhook-signature`.

        Args:
            webhook_id: as in the header of that name.
            timestamp: of this attempt, in Unix seconds, as in the header `webhook-timestamp`.
            body: as it will be sent.

        Raises:
            ValueError: the id holds a dot, so that other ids and times would fit the same signature.
        """
        if "." in webhook_id:
            message = f"a webhook-id holds no dot: {webhook_id!r}"
            raise ValueError(message)
        content = _content(webhook_id, str(timestamp), body)
        return " ".join([sign(content) for sign in self._signing])


def sign(secrets: Sequence[str], *, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of one POST; see `Signer`, which is the faster way to sign many."""
    return Signer(secrets).header(webhook_id=webhook_id, timestamp=timestamp, body=body)


class Verifier:
    """Checks the POSTs that a receiver gets; made once from its secrets and then used for each.

    Args:
        secrets: what was given to the receiver, `whsec_…` or `whpk_…`; a POST must fit any one of them.

    Raises (on making):
        InvalidSecret: one cannot be used, or there is none.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            message = "there is no secret to check with"
            raise InvalidSecret(message)
        checks = [_checking(secret) for secret in secrets]
        self._versions = {version for version, _ in checks}
        self._fits = [fits for _, fits in checks]

    def verify(
        self, headers: Mapping[str, str], body: bytes, *, now: datetime, tolerance: timedelta = TOLERANCE
    ) -> None:
        """Return if the POST is from who holds the secret, unchanged and fresh; unknown signature versions are skipped.

        Args:
            headers: as received; letter case does not matter.
            body: as received, byte for byte.
            now: the wall clock, aware.
            tolerance: how far the timestamp may lie from `now`, either way.

        Raises:
            InvalidSignature: it is not, or that cannot be told.
        """
        received = {name.lower(): value for name, value in headers.items()}
        sent_id, timestamp = _header(received, ID_HEADER), _header(received, TIMESTAMP_HEADER)
        signatures = _header(received, SIGNATURE_HEADER).split()
        if "." in sent_id or not sent_id.isascii():
            message = f"{ID_HEADER} is not ASCII without a dot, as Standard Webhooks has it"
            raise InvalidSignature(message)
        _check_time(timestamp, now, tolerance)
        content = _content(sent_id, timestamp, body)
        if not any(fits(content, signatures) for fits in self._fits):
            raise InvalidSignature(self._nothing_fits(signatures))

    def _nothing_fits(self, signatures: Sequence[str]) -> str:
        versions = {signature.partition(",")[0] for signature in signatures}
        mine = " or ".join(sorted(self._versions))
        if versions & self._versions:
            return (
                f"no {mine} signature fits: check that the secret is this endpoint's, and that the body is verified "
                "as received, before anything parses it and writes it again"
            )
        problem = f"{SIGNATURE_HEADER} holds no {mine} signature"
        for scheme, kind in _CHECKED_BY.items():
            if scheme in versions:
                return f"{problem}; it holds a {scheme} one, which a {kind}… checks"
        return f"{problem}: did it arrive whole?"


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime,
    tolerance: timedelta = TOLERANCE,
) -> None:
    """Return if a POST can be trusted; see `Verifier`, which is the faster way to check many.

    Raises:
        InvalidSignature: it cannot.
        InvalidSecret: the fault is on this side.
    """
    Verifier(secrets).verify(headers, body, now=now, tolerance=tolerance)


def _content(sent_id: str, timestamp: str, body: bytes) -> bytes:
    return f"{sent_id}.{timestamp}.".encode() + body


def _header(received: Mapping[str, str], name: str) -> str:
    value = received.get(name, "")
    if not value:
        message = f"the header {name} is missing: is this a Standard Webhooks POST, and does every proxy pass it on?"
        raise InvalidSignature(message)
    return value


def _check_time(timestamp: str, now: datetime, tolerance: timedelta) -> None:
    if _TIMESTAMP.fullmatch(timestamp) is None:
        message = f"{TIMESTAMP_HEADER} is not a number of seconds since 1970"
        raise InvalidSignature(message)
    age = timedelta(seconds=now.timestamp() - int(timestamp))
    if abs(age) > tolerance:
        seconds = f"{abs(age) / timedelta(seconds=1):.0f} s {'old' if age > timedelta(0) else 'ahead'}"
        message = (
            f"{TIMESTAMP_HEADER} is {seconds}, {tolerance / timedelta(seconds=1):.0f} s are allowed: "
            "check this machine's clock; if it is right, somebody may be sending an old POST again"
        )
        raise InvalidSignature(message)


def _signing(secret: str) -> Sign:
    if secret.startswith(_PUBLIC):
        message = f"a public key ({_PUBLIC}…) cannot sign: give the private one ({_PRIVATE}…)"
        raise InvalidSecret(message)
    if secret.startswith(_PRIVATE):
        private = _private_key(secret)
        return lambda content: _signature(SignatureScheme.V1A, private.sign(content))
    keyed = hmac.new(_bytes(secret, _SHARED), digestmod=sha256)
    return lambda content: _signature(SignatureScheme.V1, _mac(keyed, content))


def _checking(secret: str) -> tuple[str, Fits]:
    """The version it checks, and how."""
    if secret.startswith(_PRIVATE):
        message = (
            f"a private key ({_PRIVATE}…) is for the sender alone: receivers check with the public one ({_PUBLIC}…)"
        )
        raise InvalidSecret(message)
    if secret.startswith(_PUBLIC):
        public = Ed25519PublicKey.from_public_bytes(_bytes(secret, _PUBLIC))
        return SignatureScheme.V1A, lambda content, signatures: any(
            _is_by(public, content, signature) for signature in signatures
        )
    make = _signing(secret)
    return SignatureScheme.V1, lambda content, signatures: _is_among(make(content), signatures)


def _is_among(expected: str, signatures: Sequence[str]) -> bool:
    """In constant time for each, so that an answer's delay tells a forger nothing."""
    right = expected.encode()
    return any(hmac.compare_digest(right, signature.encode(errors="replace")) for signature in signatures)


def _is_by(public: Ed25519PublicKey, content: bytes, signature: str) -> bool:
    try:
        made = b64decode(signature.partition(",")[2])
        public.verify(made, content)
    except (DoesNotFit, ValueError):
        return False
    return signature == _signature(SignatureScheme.V1A, made)  # of this version, and base64 in its one proper form


def _mac(keyed: hmac.HMAC, content: bytes) -> bytes:
    mac = keyed.copy()  # the key was worked in once and for all
    mac.update(content)
    return mac.digest()


def _signature(scheme: SignatureScheme, made: bytes) -> str:
    return f"{scheme.value},{b64encode(made).decode()}"


def _private_key(secret: str) -> Ed25519PrivateKey:
    both = _bytes(secret, _PRIVATE)
    private = Ed25519PrivateKey.from_private_bytes(both[:SEED_BYTES])
    if _public_half(private) != both[SEED_BYTES:]:
        message = f"the two halves of the private key ({_PRIVATE}…) do not belong together: was it copied whole?"
        raise InvalidSecret(message)
    return private


def _public_half(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()


def _written(prefix: str, raw: bytes) -> str:
    return prefix + b64encode(raw).decode()


def _bytes(secret: str, prefix: str) -> bytes:
    """Padding may be missing, as in many copies; nothing else may, or half a secret would pass for a whole one."""
    if not secret.startswith(prefix):
        message = f"a signing secret begins with {_SHARED}, {_PRIVATE} or {_PUBLIC}; this one does not"
        raise InvalidSecret(message)
    text, sizes = secret.removeprefix(prefix).rstrip("="), _SIZES[prefix]
    try:
        raw = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raw = b""
    if _written("", raw).rstrip("=") != text:
        message = f"what follows {prefix} is not base64, or a part of it is missing: was it copied whole?"
        raise InvalidSecret(message)
    if len(raw) not in sizes:
        wanted = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else f"{sizes[0]}"
        message = f"what follows {prefix} is {len(raw)} bytes as base64, {wanted} are needed: was it copied whole?"
        raise InvalidSecret(message)
    return raw
