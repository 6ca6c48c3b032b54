import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.keyring import ID_BYTES, SECRET_BYTES, Keyring, allows, hash_secret, make_key
from bridge.webhook_messages import ApiKey, Scope
from tests.core.examples import NOW

CHANCE = bytes(range(ID_BYTES + SECRET_BYTES))


def record(chance: bytes = CHANCE, *scopes: Scope) -> tuple[str, ApiKey]:
    made = make_key(chance)
    key = ApiKey(id=made.id, name="n", secret_hash=made.secret_hash, scopes=scopes, created=NOW)
    return made.text, key


def keyring(*keys: ApiKey) -> Keyring:
    ring = Keyring()
    for key in keys:
        ring.apply(key.id.encode(), msgspec.json.encode(key))
    return ring


@given(st.binary(min_size=ID_BYTES + SECRET_BYTES, max_size=ID_BYTES + SECRET_BYTES))
def test_whoever_holds_a_key_is_found_by_it(chance: bytes) -> None:
    """Whatever characters its secret is written with: `_` and `-` stand in some."""
    text, key = record(chance)

    assert keyring(key).find(text) == key


def test_a_key_is_written_as_the_contract_says() -> None:
    text, key = record()
    prefix, key_id, secret = text.split("_", 2)

    assert (prefix, len(key_id), len(secret)) == ("tbk", 12, 43)
    assert key.id == key_id
    assert key.secret_hash == hash_secret(secret)


def test_neither_secret_nor_key_is_in_the_record_or_in_a_log() -> None:
    made = make_key(CHANCE)
    secret = made.text.split("_", 2)[2]

    assert secret not in repr(made)
    assert secret.encode() not in msgspec.json.encode(record()[1])


@given(st.text())
def test_nothing_else_lets_anybody_in(text: str) -> None:
    assert keyring(record()[1]).find(text) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
        lambda text: text.upper(),
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text.replace("tbk_", "tbk__"),
        lambda text: text.split("_", 2)[2],
    ],
)
def test_a_spoilt_key_lets_nobody_in(spoil: object) -> None:
    text, key = record()
    assert callable(spoil)

    assert keyring(key).find(spoil(text)) is None


def test_a_secret_fits_its_own_id_alone() -> None:
    (first, key), (second, other) = record(CHANCE), record(CHANCE[::-1])
    mixed = "_".join([*first.split("_", 2)[:2], second.split("_", 2)[2]])

    assert keyring(key, other).find(mixed) is None


def test_a_revoked_key_lets_nobody_in() -> None:
    text, key = record()
    ring = keyring(key)

    ring.apply(key.id.encode(), None)

    assert ring.find(text) is None
    assert ring.keys == {}


def test_a_record_that_cannot_be_read_lets_nobody_in_and_is_remembered() -> None:
    """Also if it takes the place of one that could be."""
    text, key = record()
    ring = keyring(key)

    ring.apply(key.id.encode(), b'{"id": 7}')

    assert ring.find(text) is None
    assert ring.unreadable == {key.id}
    ring.apply(key.id.encode(), msgspec.json.encode(key))
    assert ring.find(text) == key
    assert ring.unreadable == set()


def test_a_record_of_a_later_release_lets_nobody_in() -> None:
    """What it allows is not known; a revoked key may look so."""
    text, key = record()
    ring = keyring(key)

    ring.apply(key.id.encode(), msgspec.json.encode(msgspec.structs.replace(key, version=2)))

    assert ring.find(text) is None
    assert ring.unreadable == {key.id}


@pytest.mark.parametrize("scope", Scope)
def test_admin_may_do_everything_and_others_what_they_are_for(scope: Scope) -> None:
    _, key = record(CHANCE, scope)
    _, admin = record(CHANCE, Scope.ADMIN)

    assert [each for each in Scope if allows(key, each)] == (list(Scope) if scope is Scope.ADMIN else [scope])
    assert allows(admin, scope)


@pytest.mark.parametrize("length", [0, ID_BYTES + SECRET_BYTES - 1, ID_BYTES + SECRET_BYTES + 1])
def test_a_key_is_made_from_enough_chance(length: int) -> None:
    with pytest.raises(ValueError, match=f"not from {length}"):
        make_key(bytes(length))
