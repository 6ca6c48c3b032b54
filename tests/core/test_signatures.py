"""Both vectors of the standard, two strangers' verifiers, and everything that must not get through."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.adapters.clock import SystemClock
from bridge.core.signatures import (
    SEED_BYTES,
    TOLERANCE,
    InvalidSecret,
    InvalidSignature,
    Signer,
    Verifier,
    new_secret,
    public_key,
    scheme_of,
    sign,
    verify,
    webhook_id,
)
from bridge.webhook_messages import SignatureScheme

ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
NOW = datetime.fromtimestamp(TIMESTAMP, UTC)
BODY = b'{"test": 2432232314}'

SHARED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SHARED_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
PRIVATE_SIGNATURE = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

OLD = new_secret(SignatureScheme.V1, b"o" * 32)
NEW = new_secret(SignatureScheme.V1, b"n" * 32)
OLD_PRIVATE = new_secret(SignatureScheme.V1A, b"o" * 32)

StrangerVerifies = Callable[[str, bytes, dict[str, str]], object]

STRANGERS: dict[str, StrangerVerifies] = {
    "standardwebhooks": lambda secret, body, headers: standardwebhooks.Webhook(secret).verify(body, headers),
    "svix": lambda secret, body, headers: svix.webhooks.Webhook(secret).verify(body, headers),
}


def signed(
    *secrets: str, body: bytes = BODY, sent_id: str = ID, timestamp: int = TIMESTAMP, **other: str
) -> dict[str, str]:
    """The headers of a POST; `other` replaces some, by the last word of their names."""
    signature = sign(secrets, webhook_id=sent_id, timestamp=timestamp, body=body)
    words = {"id": sent_id, "timestamp": str(timestamp), "signature": signature, **other}
    return {f"webhook-{word}": value for word, value in words.items()}


def why_refused(headers: Mapping[str, str], *secrets: str, body: bytes = BODY, now: datetime = NOW) -> str:
    with pytest.raises(InvalidSignature) as refused:
        verify(secrets or (SHARED,), headers, body, now=now)
    return str(refused.value)


def why_unusable(use: Callable[[], object], secret: str) -> str:
    """What is said of a bad secret; never any of it."""
    with pytest.raises(InvalidSecret) as unusable:
        use()
    said = str(unusable.value)
    kept = secret.partition("_")[2].strip("=") if secret.startswith("wh") else secret
    assert not kept or kept not in said
    assert unusable.value.__cause__ is None
    assert unusable.value.__context__ is None
    return said


# ----------------------------------------------------------------------------------------------------------- webhook-id
@given(st.text(max_size=60), st.text(max_size=60))
@example("ep_1", "order-1041.3")
def test_a_webhook_id_is_short_plain_and_the_same_for_every_retry(endpoint_id: str, event_id: str) -> None:
    """Whatever the ids hold: the header must be ASCII, and a dot would make the signed content ambiguous."""
    made = webhook_id(endpoint_id, event_id)

    assert made == webhook_id(endpoint_id, event_id)
    assert made.startswith("msg_")
    assert len(made) == 31
    assert made.removeprefix("msg_").isalnum()
    assert made.isascii()


@given(*[st.text(alphabet="1:a.", max_size=4)] * 4)
@example("a", "bc", "ab", "c")
@example("1:", "a", "1", ":a")
def test_two_deliveries_never_share_a_webhook_id(endpoint: str, event: str, other: str, another: str) -> None:
    """Not even if what is joined reads the same."""
    same = (endpoint, event) == (other, another)

    assert (webhook_id(endpoint, event) == webhook_id(other, another)) is same


def test_the_webhook_id_of_a_delivery_never_changes_between_versions() -> None:
    """A receiver that has seen it would take the retry after an upgrade for a new event."""
    assert webhook_id("ep_1", "order-1041.3") == "msg_1urfAwQF01KCeNlyZG2kaqReEb8"


# ------------------------------------------------------------------------------------------------------------- secrets
@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_shared_secret_is_whsec_and_base64_of_what_was_drawn(size: int) -> None:
    secret = new_secret(SignatureScheme.V1, bytes(range(size)))

    assert b64decode(secret.removeprefix("whsec_"), validate=True) == bytes(range(size))
    assert scheme_of(secret) is SignatureScheme.V1


def test_a_private_key_is_whsk_and_base64_of_seed_and_public_key() -> None:
    seed = b64decode(PRIVATE.removeprefix("whsk_"))[:SEED_BYTES]

    assert new_secret(SignatureScheme.V1A, seed) == PRIVATE
    assert scheme_of(PRIVATE) is SignatureScheme.V1A


@pytest.mark.parametrize(
    ("scheme", "size"),
    [(SignatureScheme.V1, 23), (SignatureScheme.V1, 65), (SignatureScheme.V1A, 31), (SignatureScheme.V1A, 64)],
)
def test_a_secret_is_not_made_from_too_little_or_too_much_chance(scheme: SignatureScheme, size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} random bytes do not suit {scheme}: give 32"):
        new_secret(scheme, bytes(size))


def test_the_public_key_is_what_receivers_of_v1a_need() -> None:
    assert public_key(PRIVATE) == PUBLIC


@pytest.mark.parametrize("secret", [SHARED, PUBLIC, ""])
def test_only_a_private_key_has_a_public_key(secret: str) -> None:
    assert "only a private key" in why_unusable(lambda: public_key(secret), secret)


def altered(secret: str) -> str:
    """Another public half."""
    whole = bytearray(b64decode(secret.removeprefix("whsk_")))
    whole[-1] ^= 1
    return "whsk_" + b64encode(whole).decode()


UNUSABLE: dict[str, tuple[str, str]] = {
    "empty": ("", "begins with whsec_, whsk_ or whpk_"),
    "no prefix": ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_, whsk_ or whpk_"),
    "wrong prefix": ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begins with whsec_, whsk_ or whpk_"),
    "prefix alone": ("whsec_", "is 0 bytes as base64, 24 to 64 are needed"),
    "padding alone": ("whsec_==", "is 0 bytes as base64, 24 to 64 are needed"),
    "a letter lost": (SHARED[:-1], "not base64, or a part of it is missing"),
    "four letters lost": (SHARED[:-4], "is 21 bytes as base64, 24 to 64 are needed"),
    "no base64": ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!!", "not base64"),
    "not ASCII": ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLäSw", "not base64"),
    "of URLs": ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa-_", "not base64"),
    "a line end": (SHARED + "\n", "not base64"),
    "too long": ("whsec_" + b64encode(bytes(65)).decode(), "is 65 bytes as base64, 24 to 64 are needed"),
    "half a key": ("whsk_" + b64encode(b"o" * 32).decode(), "is 32 bytes as base64, 64 are needed"),
    "halves of two keys": (altered(PRIVATE), "do not belong together"),
}


@pytest.mark.parametrize(("secret", "problem"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_bad_secret_is_refused_with_its_fault_and_without_itself(secret: str, problem: str) -> None:
    """At signing and at naming the scheme alike: the API asks the one, the dispatcher the other."""
    assert problem in why_unusable(lambda: Signer([secret]), secret)
    assert problem in why_unusable(lambda: scheme_of(secret), secret)


@pytest.mark.parametrize("secret", [UNUSABLE["no prefix"][0], SHARED[:-1], "whpk_" + b64encode(bytes(31)).decode()])
def test_a_receiver_is_told_of_a_bad_secret_before_any_post(secret: str) -> None:
    why_unusable(lambda: Verifier([secret]), secret)


def test_a_public_key_cannot_sign_and_a_private_one_is_not_for_receivers() -> None:
    assert "give the private one (whsk_…)" in why_unusable(lambda: Signer([PUBLIC]), PUBLIC)
    assert "receivers check with the public one (whpk_…)" in why_unusable(lambda: Verifier([PRIVATE]), PRIVATE)


def test_without_a_secret_nothing_is_signed_and_nothing_passes() -> None:
    """An empty header would be a POST that anybody could have sent."""
    with pytest.raises(InvalidSecret, match="no secret to sign with"):
        Signer([])
    with pytest.raises(InvalidSecret, match="no secret to check with"):
        Verifier([])


def test_lost_padding_does_not_spoil_a_secret() -> None:
    """A double click selects no equals signs."""
    assert NEW.endswith("=")
    assert signed(NEW.rstrip("=")) == signed(NEW)


def test_what_signs_and_what_checks_shows_no_secret() -> None:
    """Objects end up in logs."""
    for held in (Signer([SHARED, PRIVATE]), Verifier([SHARED, PUBLIC])):
        shown = f"{held!r} {vars(held)!r}"
        assert SHARED.partition("_")[2] not in shown
        assert PRIVATE.partition("_")[2] not in shown
        assert repr(b64decode(SHARED.partition("_")[2])) not in shown


# -------------------------------------------------------------------------------------------------------------- signing
def test_the_vector_of_v1() -> None:
    assert sign([SHARED], webhook_id=ID, timestamp=TIMESTAMP, body=BODY) == SHARED_SIGNATURE


def test_the_vector_of_v1a() -> None:
    assert sign([PRIVATE], webhook_id=ID, timestamp=TIMESTAMP, body=BODY) == PRIVATE_SIGNATURE


def test_each_live_secret_signs_in_its_order() -> None:
    assert sign([PRIVATE, SHARED], webhook_id=ID, timestamp=TIMESTAMP, body=BODY) == (
        f"{PRIVATE_SIGNATURE} {SHARED_SIGNATURE}"
    )


def test_a_signer_remembers_nothing_of_the_posts_before() -> None:
    signer = Signer([SHARED])
    signer.header(webhook_id="msg_other", timestamp=1, body=b"other")

    assert signer.header(webhook_id=ID, timestamp=TIMESTAMP, body=BODY) == SHARED_SIGNATURE


def test_an_id_with_a_dot_is_not_signed() -> None:
    """`a.1` at 2 and `a` at 1 with a body that begins with `2.` would have the same signature."""
    with pytest.raises(ValueError, match="holds no dot"):
        Signer([SHARED]).header(webhook_id="msg_a.1", timestamp=TIMESTAMP, body=BODY)


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
@pytest.mark.parametrize("secrets", [(NEW,), (NEW, OLD), (NEW, OLD_PRIVATE), (OLD_PRIVATE, NEW)], ids=len)
def test_strangers_accept_what_we_sign(stranger: StrangerVerifies, secrets: tuple[str, ...], now: datetime) -> None:
    """With one secret, through a rotation, and through a change of scheme."""
    headers = signed(*secrets, timestamp=int(now.timestamp()))

    for secret in secrets:
        if secret.startswith("whsec_"):
            stranger(secret, BODY, headers)


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
def test_strangers_refuse_the_old_secret_once_the_rotation_is_over(stranger: StrangerVerifies, now: datetime) -> None:
    """So that what the test above shows is ours, and not their leniency."""
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="No matching signature"):
        stranger(OLD, BODY, signed(NEW, timestamp=int(now.timestamp())))


@pytest.fixture
def now() -> datetime:
    """The time of the machine: the strangers go by no other."""
    return SystemClock().now()


# ------------------------------------------------------------------------------------------------------------ verifying
@given(
    st.lists(st.sampled_from([SHARED, OLD, NEW, PRIVATE, OLD_PRIVATE]), min_size=1, max_size=4, unique=True),
    st.binary(max_size=200),
    st.integers(0, 10**11),
    st.data(),
)
def test_whoever_holds_one_of_the_secrets_accepts(
    secrets: list[str], body: bytes, timestamp: int, data: st.DataObject
) -> None:
    """Any body, any time, any rotation; the receiver may also hold secrets of others."""
    mine = data.draw(st.sampled_from(secrets))
    held = public_key(mine) if mine.startswith("whsk_") else mine
    unrelated = new_secret(SignatureScheme.V1, b"u" * 24)
    headers = signed(*secrets, body=body, timestamp=timestamp)

    verify([unrelated, held], headers, body, now=datetime.fromtimestamp(timestamp, UTC))


@given(st.data(), st.sampled_from([(SHARED, SHARED), (PRIVATE, PUBLIC)]))
def test_a_post_changed_anywhere_is_refused(data: st.DataObject, pair: tuple[str, str]) -> None:
    """One bit of the body, one letter of the id, a second of the time, one letter of the signature."""
    signing, held = pair
    headers, body = signed(signing), bytearray(BODY)
    match data.draw(st.sampled_from(["body", "shorter", "longer", "id", "timestamp", "signature"])):
        case "body":
            body[data.draw(st.integers(0, len(BODY) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "shorter":
            del body[data.draw(st.integers(0, len(BODY) - 1))]
        case "longer":
            body.insert(data.draw(st.integers(0, len(BODY))), data.draw(st.integers(0, 255)))
        case "timestamp":
            headers["webhook-timestamp"] = str(TIMESTAMP + data.draw(st.integers(-300, 300).filter(bool)))
        case word:
            name = f"webhook-{word}"
            at = data.draw(st.integers(0, len(headers[name]) - 1))
            letter = data.draw(st.sampled_from("0aZ+/=,x ").filter(lambda letter: letter != headers[name][at]))
            headers[name] = headers[name][:at] + letter + headers[name][at + 1 :]

    why_refused(headers, held, body=bytes(body))


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
        st.text(max_size=40) | st.sampled_from([ID, str(TIMESTAMP), "v1,", "v1a,AAAA", "v1 v1a", "\ud800"]),
    ),
    st.sampled_from([SHARED, PUBLIC]),
)
def test_no_headers_whatever_break_the_verifier(headers: dict[str, str], held: str) -> None:
    """Strangers choose them."""
    why_refused(headers, held)


def test_the_letter_case_of_header_names_does_not_matter() -> None:
    verify([SHARED], {name.title(): value for name, value in signed(SHARED).items()}, BODY, now=NOW)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "empty"])
def test_a_missing_header_is_named(name: str, *, absent: bool) -> None:
    headers = signed(SHARED) | {name: ""}
    if absent:
        del headers[name]

    assert f"the header {name} is missing" in why_refused(headers)


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_five_minutes_are_tolerated_either_way(seconds: int) -> None:
    verify([SHARED], signed(SHARED), BODY, now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(("seconds", "told"), [(301, "is 301 s old, 300 s"), (-301, "is 301 s ahead, 300 s")])
def test_more_than_five_minutes_are_refused_with_the_difference(seconds: int, told: str) -> None:
    """The usual cause is a clock; the developer must see that."""
    said = why_refused(signed(SHARED), now=NOW + timedelta(seconds=seconds))

    assert told in said
    assert "clock" in said


def test_a_receiver_may_choose_its_tolerance() -> None:
    late = NOW + TOLERANCE + timedelta(seconds=1)

    verify([SHARED], signed(SHARED), BODY, now=late, tolerance=2 * TOLERANCE)
    with pytest.raises(InvalidSignature, match="is 2 s old, 1 s are allowed"):
        verify([SHARED], signed(SHARED), BODY, now=NOW + timedelta(seconds=2), tolerance=timedelta(seconds=1))


@pytest.mark.parametrize(
    "timestamp", [" ", "soon", "-5", "+5", "1e9", "1_614_265_330", "1614265330.0", "١٦١٤٢٦٥٣٣٠", "9" * 13, " 5"]
)
def test_a_timestamp_is_plain_digits(timestamp: str) -> None:
    """Not everything that Python reads as a number is one for the standard."""
    assert "is not a number of seconds" in why_refused(signed(SHARED, timestamp=0) | {"webhook-timestamp": timestamp})


@pytest.mark.parametrize("sent_id", ["msg_1.2", "msg_ä"])
def test_an_id_that_is_none_of_the_standard_is_refused(sent_id: str) -> None:
    """With a dot in the id, what was signed could be cut elsewhere, and an old body pass as a new one."""
    assert "webhook-id is not ASCII without a dot" in why_refused(signed(SHARED, id=sent_id))


def test_a_post_cannot_be_cut_anew_into_id_time_and_body() -> None:
    """The signed content is the same; only the places of the dots are read differently."""
    later = TIMESTAMP + 3600
    body = f"{later}.evil".encode()
    headers = signed(SHARED, body=body)
    headers |= {"webhook-id": f"{ID}.{TIMESTAMP}", "webhook-timestamp": str(later)}

    why_refused(headers, body=b"evil", now=NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    "other",
    ["v2,abc", "v1", "v1,", "v1a,", "v1a,!", "v0,g0hM", ",", "v1,ä", "v1,\ud800", SHARED_SIGNATURE[3:]],
)
@pytest.mark.parametrize(("signing", "held"), [(SHARED, SHARED), (PRIVATE, PUBLIC)], ids=["v1", "v1a"])
def test_signatures_of_unknown_kinds_are_skipped(other: str, signing: str, held: str) -> None:
    """A sender may be ahead of its receivers."""
    right = signed(signing)["webhook-signature"]

    for several in (f"{other} {right}", f"{right} {other}", f"{other}  {right} {other}"):
        verify([held], signed(signing, signature=several), BODY, now=NOW)
    why_refused(signed(signing, signature=other), held)


@pytest.mark.parametrize(
    "signature",
    [
        PRIVATE_SIGNATURE.replace("v1a,", "v2,"),
        PRIVATE_SIGNATURE.replace("v1a,", "v1a,,"),
        PRIVATE_SIGNATURE.replace("Ag==", "Ah=="),
        PRIVATE_SIGNATURE.replace("Ag==", "Ag"),
        PRIVATE_SIGNATURE.replace("Ag==", "A!g=="),
        SHARED_SIGNATURE.replace("v1,", "v2,"),
        SHARED_SIGNATURE.replace("OE=", "OF="),
    ],
)
def test_a_right_signature_in_a_form_of_its_own_is_refused(signature: str) -> None:
    """One signature has one form: nothing downstream need wonder whether two texts are the same one."""
    why_refused(signed(SHARED, signature=signature), SHARED, PUBLIC)


def test_a_wrong_secret_or_a_body_written_again_is_the_first_suspicion() -> None:
    said = why_refused(signed(SHARED), NEW)

    assert "no v1 signature fits" in said
    assert "as received" in said


@pytest.mark.parametrize(
    ("signature", "held", "told"),
    [
        (PRIVATE_SIGNATURE, SHARED, "holds no v1 signature; it holds a v1a one, which a whpk_… checks"),
        (SHARED_SIGNATURE, PUBLIC, "holds no v1a signature; it holds a v1 one, which a whsec_… checks"),
        ("v2,abc", PUBLIC, "holds no v1a signature: did it arrive whole?"),
        ("v2,abc", SHARED, "holds no v1 signature: did it arrive whole?"),
    ],
)
def test_a_secret_of_the_other_scheme_is_told_apart(signature: str, held: str, told: str) -> None:
    """Else one would look for a mistake in code that has none."""
    assert told in why_refused(signed(SHARED, signature=signature), held)


def test_with_secrets_of_both_schemes_both_are_looked_for() -> None:
    assert "holds no v1 or v1a signature" in why_refused(signed(SHARED, signature="v2,abc"), SHARED, PUBLIC)
    assert "no v1 or v1a signature fits" in why_refused(signed(OLD), SHARED, PUBLIC)


def test_nothing_received_is_shown() -> None:
    """The reason is answered to whoever sent the POST, and printed on terminals."""
    headers = signed(SHARED, id="msg_\x1b[31mevil", signature="v1,\x1b[31mevil")

    assert "evil" not in why_refused(headers)
    assert "evil" not in why_refused(headers | {"webhook-timestamp": "\x1b[31mevil"})
