"""Receivers: a POST that its sender did not sign is refused, whatever its headers hold, and no error tells a secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from bridge.adapters.vault import Vault
from bridge.core.addresses import AddressPolicy, ForbiddenTarget
from bridge.core.signatures import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    InvalidSecret,
    InvalidSignature,
    Signer,
    Verifier,
    new_secret,
    public_key,
    scheme_of,
)
from bridge.errors import CannotStart, CannotUnseal
from bridge.webhook_messages import SignatureScheme
from tests.core.examples import NOW
from tests.fuzz.campaign import check_words, fuzz
from tests.fuzz.mutations import TEXTS, hostile_text, spoilt_bytes

SHARED = new_secret(SignatureScheme.V1, b"canary-4711-canary-4711-canary-4")
OTHER = new_secret(SignatureScheme.V1, b"another-4711-canary-4711-canary-4"[:32])
PRIVATE = new_secret(SignatureScheme.V1A, b"canary-4711-canary-4711-canary-4")
PUBLIC = public_key(PRIVATE)
TIMESTAMP = int(NOW.timestamp())
BODY = b'{"specversion":"1.0","id":"order-1.3"}'
SIGNER = Signer([SHARED, PRIVATE])
VERIFIERS = (Verifier([SHARED]), Verifier([PUBLIC]), Verifier([OTHER, SHARED]), Verifier([OTHER]))
GOOD: Mapping[str, str] = {
    ID_HEADER: "msg_1",
    TIMESTAMP_HEADER: str(TIMESTAMP),
    SIGNATURE_HEADER: SIGNER.header(webhook_id="msg_1", timestamp=TIMESTAMP, body=BODY),
}


def text_of(chance: Random, text: str) -> str:
    """A text as a header may bring it: as it is, spoilt, or another one."""
    match chance.random():
        case luck if luck < 0.5:
            return text
        case luck if luck < 0.85:
            return spoilt_bytes(chance, text.encode()).decode(chance.choice(("latin-1", "utf-8")), "surrogateescape")
        case _:
            return hostile_text(chance)


@dataclass(frozen=True, slots=True)
class Received:
    """A POST as a receiver gets it."""

    headers: Mapping[str, str]
    body: bytes
    verifier: int
    late_s: int


def make_post(chance: Random) -> Received:
    """A POST that is signed, but for what befell it on the way."""
    headers = {name: text_of(chance, value) for name, value in GOOD.items() if chance.random() < 0.97}
    if chance.random() < 0.2:
        headers[SIGNATURE_HEADER] = " ".join([hostile_text(chance)[:200], GOOD[SIGNATURE_HEADER], "v1,", "v1a,AAAA"])
    body = BODY if chance.random() < 0.8 else spoilt_bytes(chance, BODY)
    late_s = chance.choice((0, 0, 0, 299, -299, 301, -301, 86_400))
    case = chance.choice((str.upper, str.title, str))
    return Received({case(name): value for name, value in headers.items()}, body, chance.randrange(4), late_s)


def check_post(received: Received) -> None:
    try:
        now = NOW + timedelta(seconds=received.late_s)
        VERIFIERS[received.verifier].verify(received.headers, received.body, now=now)
    except InvalidSignature as error:
        check_words(error, most=400, hidden=[SHARED.removeprefix("whsec_")])
        return
    given = {name.lower(): value for name, value in received.headers.items()}
    assert received.verifier != 3, "nothing is signed with that secret"
    assert received.body == BODY
    assert abs(received.late_s) <= 300
    assert (given[ID_HEADER], given[TIMESTAMP_HEADER]) == (GOOD[ID_HEADER], GOOD[TIMESTAMP_HEADER])
    assert set(given[SIGNATURE_HEADER].split()) & set(GOOD[SIGNATURE_HEADER].split())


def test_only_what_was_signed_is_believed() -> None:
    fuzz("signature headers", make_post, check_post)


def make_secret(chance: Random) -> str:
    """A secret that somebody has copied, more or less."""
    return text_of(chance, chance.choice((SHARED, PRIVATE, PUBLIC)))


def check_secret(secret: str) -> None:
    for use in (scheme_of, public_key, lambda given: Verifier([given])):
        try:
            use(secret)
        except InvalidSecret as error:
            hidden = secret.partition("_")[2][:12]
            check_words(error, most=300, hidden=[hidden] if len(hidden) == 12 else [])


def test_any_secret_is_used_or_refused_without_being_shown() -> None:
    fuzz("secrets", make_secret, check_secret)


# ----------------------------------------------------------------------------------------------------------- the vault
ENCRYPTION_KEY = "Y2FuYXJ5LTQ3MTEtY2FuYXJ5LTQ3MTEtY2FuYXJ5LTE="
SEALED = Vault([ENCRYPTION_KEY]).seal(SHARED, owner="ep_1")


def make_sealed(chance: Random) -> tuple[str, str, str]:
    """An encryption key, what was sealed, and whose it is said to be."""
    key = ENCRYPTION_KEY if chance.random() < 0.8 else text_of(chance, ENCRYPTION_KEY)
    return key, text_of(chance, SEALED), chance.choice(("ep_1", "ep_1", "ep_2", hostile_text(chance)[:300]))


def check_sealed(case: tuple[str, str, str]) -> None:
    key, sealed, owner = case
    try:
        assert Vault([key]).unseal(sealed, owner=owner) == SHARED
        assert owner == "ep_1"
    except (CannotStart, CannotUnseal) as error:
        check_words(error, most=2_000, hidden=[SHARED, ENCRYPTION_KEY[:16]])


def test_a_vault_opens_what_it_sealed_and_nothing_else() -> None:
    fuzz("sealed secrets", make_sealed, check_sealed)


# ------------------------------------------------------------------------------------------------------------ addresses
URLS = (
    "https://acme.example/hook?token=t",
    "https://bücher.example:8443/a/b",
    "http://93.184.215.14:8080/",
    "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/x",
    "https://user:pass@acme.example/",
    "https://127.0.0.1/",
    "https://0x7f.1/",
    "https://[::ffff:10.0.0.1]:443/",
)


def make_url(chance: Random) -> str:
    """A URL that somebody registers."""
    return text_of(chance, chance.choice(URLS))


def check_url(url: str) -> None:
    policy = AddressPolicy()
    try:
        target = policy.check_url(url)
    except ForbiddenTarget as error:
        check_words(error, most=300, hidden=["token"])
        return
    assert target.host.isascii()
    assert target.scheme in {"https", "http"}
    assert target.port in {80, 443, 8080, 8443}
    assert target.address is None or target.address.is_global
    assert policy.check_url(target.url) == target, "what was taken apart is the same when put together"


def test_any_url_leads_to_a_public_host_or_nowhere() -> None:
    fuzz("urls", make_url, check_url)


def test_the_corpus_is_good() -> None:
    """Were it spoilt to begin with, nothing would be proven."""
    Verifier([PUBLIC]).verify(GOOD, BODY, now=NOW)
    assert TEXTS
