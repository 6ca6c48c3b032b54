import re

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.vault import SETTING, Vault, new_encryption_key
from bridge.errors import CannotStart, CannotUnseal
from bridge.settings import Settings
from bridge.webhook_ports import SecretBox

OLD, NEW = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w=", "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU="
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def why_closed(vault: SecretBox, sealed: str, owner: str = "ep_1") -> str:
    with pytest.raises(CannotUnseal) as closed:
        vault.unseal(sealed, owner=owner)
    assert closed.value.__cause__ is None
    return str(closed.value)


@given(st.text(), st.text())
def test_what_was_sealed_opens_for_its_owner(plain: str, owner: str) -> None:
    """Any text, and any tenant's name: both are chosen by people."""
    vault: SecretBox = Vault([NEW])

    assert vault.unseal(vault.seal(plain, owner=owner), owner=owner) == plain


def test_neither_the_secret_nor_its_owner_can_be_read_from_what_is_sealed() -> None:
    """And the same secret twice gives two texts, so that nobody sees which endpoints share one."""
    sealed, again = (Vault([NEW]).seal(SECRET, owner="ep_1") for _ in range(2))

    assert sealed != again
    assert SECRET not in sealed
    assert "ep_1" not in sealed


def test_a_new_key_in_front_seals_and_the_old_one_still_unseals() -> None:
    """The order in which an operator changes keys: add in front, seal anew, drop the old one."""
    before, between, after = Vault([OLD]), Vault([NEW, OLD]), Vault([NEW])
    sealed_before = before.seal(SECRET, owner="ep_1")
    sealed_between = between.seal(SECRET, owner="ep_1")

    assert between.unseal(sealed_before, owner="ep_1") == SECRET
    assert after.unseal(sealed_between, owner="ep_1") == SECRET


def test_without_the_key_it_was_sealed_with_the_operator_is_told_what_to_do() -> None:
    said = why_closed(Vault([NEW]), Vault([OLD]).seal(SECRET, owner="ep_1"))

    assert "'ep_1'" in said
    assert f"put the key it was sealed with back into {SETTING}" in said


@pytest.mark.parametrize("owner", ["ep_2", "", "ep_1 ", "EP_1"])
def test_a_secret_copied_to_another_owner_does_not_open(owner: str) -> None:
    """Who can write to the topic, but has no key, must not sign one endpoint's POSTs with the secret of another."""
    sealed = Vault([NEW]).seal(SECRET, owner="ep_1")

    said = why_closed(Vault([NEW]), sealed, owner=owner)

    assert "sealed for another owner" in said
    assert SECRET not in said


def test_a_changed_letter_is_noticed_wherever_it_is() -> None:
    vault = Vault([NEW, OLD])
    sealed = vault.seal(SECRET, owner="ep_1")

    for place, letter in enumerate(sealed.rstrip("=")):
        changed = sealed[:place] + ("A" if letter != "A" else "Q") + sealed[place + 1 :]
        why_closed(vault, changed)


@pytest.mark.parametrize(
    "sealed",
    [
        "",
        "gAAAA",
        SECRET,
        "ä",
        "\ud800",
        Fernet(NEW).encrypt(b"no JSON").decode(),
        Fernet(NEW).encrypt(b"[1]").decode(),
    ],
    ids=["empty", "too short", "a secret", "no ASCII", "no text", "no JSON inside", "a list inside"],
)
def test_what_never_was_sealed_by_us_does_not_open(sealed: str) -> None:
    """Also if it was made with our key, for something else."""
    assert "no key in force opens" in why_closed(Vault([NEW]), sealed)


def test_a_process_without_a_key_does_not_start_and_says_how_to_get_one() -> None:
    with pytest.raises(CannotStart) as refused:
        Vault([])

    assert SETTING in str(refused.value)
    assert "`tams-bridge keys encryption-key` makes one" in str(refused.value)


@pytest.mark.parametrize(
    "key", ["", "secret", NEW[:-1], NEW + "\n", NEW[1:], NEW.replace("b", "/"), NEW + NEW, "ä" * 44]
)
def test_a_malformed_key_is_told_by_its_place_and_never_shown(key: str) -> None:
    with pytest.raises(CannotStart) as refused:
        Vault([NEW, key, OLD])

    said = str(refused.value)
    assert f"key 2 of 3 in {SETTING}" in said
    assert "`tams-bridge keys encryption-key` makes one" in said
    assert not key or key.strip() not in said


def test_the_setting_named_is_the_setting_there_is() -> None:
    section, name = SETTING.removeprefix("BRIDGE_").lower().split("__")

    assert name in type(getattr(Settings(), section)).model_fields


def test_each_new_key_is_another_and_fits() -> None:
    first, second = new_encryption_key(), new_encryption_key()

    assert first != second
    assert re.fullmatch(r"[\w-]{43}=", first)
    assert Vault([second, first]).unseal(Vault([first]).seal(SECRET, owner=""), owner="") == SECRET


def test_no_key_is_shown_by_the_vault() -> None:
    """Objects end up in logs."""
    vault = Vault([NEW])

    assert NEW not in f"{vault!r} {vars(vault)!r}"
