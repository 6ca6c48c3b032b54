"""Who sends a request: bearer keys, and signatures as TAMS defines them."""

from base64 import b64decode
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bridge.emulator.settings import DEFAULT_APP, EmulatorSettings
from bridge.emulator.wire import Refusal, Request, RpcCode, rpc_status

SCHEME = "TAMS-SHA256-RSA"
SIGNED_FIELDS = frozenset({"app_id", "nonce_str", "timestamp", "signature"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: an app, by one of its keys."""

    app: str
    key: str


class Authenticator:
    """Knows the credentials, and the nonces that were used."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._nonces: dict[tuple[str, str], float] = {}
        self.use(settings)

    def use(self, settings: EmulatorSettings) -> None:
        """Take other credentials; raise `ValueError` or `OSError`, and change nothing, if a public key is unusable."""
        pems = {app: pem.encode() for app, pem in settings.public_keys.items()}
        if settings.public_key_file:
            pems[DEFAULT_APP] = settings.public_key_file.read_bytes()
        self._public_keys = {app: _public_key(pem) for app, pem in pems.items()}
        self._settings = settings

    def authenticate(self, request: Request, real_now: float) -> Caller:
        """Give who sent a request; raise `Refusal` if that is unclear. Signatures are dated by the real clock."""
        scheme, _, credentials = request.header(b"authorization").partition(" ")
        if scheme == "Bearer" and credentials:
            app = self._settings.bearer_keys.get(credentials)
            if app is None:
                raise _unknown()
            return Caller(app, credentials)
        if scheme == SCHEME:
            return self._signed(request, credentials, real_now)
        raise self._malformed()

    def _signed(self, request: Request, credentials: str, real_now: float) -> Caller:
        fields = dict(_pair(part) for part in credentials.split(","))
        if not fields.keys() >= SIGNED_FIELDS or not fields["timestamp"].isdecimal():
            raise self._malformed()
        key = self._public_keys.get(fields["app_id"])
        if key is None:
            raise _unknown()
        signed = [request.method.encode(), request.target, fields["timestamp"].encode(), fields["nonce_str"].encode()]
        _verify(key, fields["signature"], b"\n".join([*signed, bytes(request.body)]))
        self._check_time(float(fields["timestamp"]), real_now)
        self._check_nonce((fields["app_id"], fields["nonce_str"]), real_now)
        return Caller(fields["app_id"], f"{SCHEME} {fields['app_id']}")

    def _check_time(self, timestamp: float, real_now: float) -> None:
        skew = self._settings.clock_skew_s
        if skew is not None and abs(real_now - timestamp) > skew:
            raise _unauthenticated("timestamp expired")

    def _check_nonce(self, nonce: tuple[str, str], real_now: float) -> None:
        window = self._settings.nonce_window_s
        while self._nonces and real_now - self._nonces[oldest := next(iter(self._nonces))] >= window:
            del self._nonces[oldest]
        if nonce in self._nonces:
            raise _unauthenticated("nonce used before")
        self._nonces[nonce] = real_now

    def _malformed(self) -> Refusal:
        return Refusal(
            self._settings.malformed_authorization_status,
            {"code": 100002, "message": "invalid authorization header"},
        )


def _public_key(pem: bytes) -> RSAPublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, RSAPublicKey):
        msg = "not an RSA public key"
        raise ValueError(msg)  # noqa: TRY004 -- the type of a key is a matter of its value
    return key


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.strip().partition("=")
    return name, value


def _verify(key: RSAPublicKey, signature: str, message: bytes) -> None:
    try:
        key.verify(b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError) as error:
        raise _unauthenticated("signature check failed") from error


def _unknown() -> Refusal:
    return Refusal(404, {"code": 100001, "message": "unauthorized", "tips": "app not found"})


def _unauthenticated(message: str) -> Refusal:
    return Refusal(401, rpc_status(RpcCode.UNAUTHENTICATED, message))
