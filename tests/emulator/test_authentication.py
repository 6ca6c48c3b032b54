from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.emulator.hand_clock import START, Emulate, HandClock

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
TARGET = "/v1/jobs/1?verbose=a=b"
FOUND = 404  # the code of the body tells whether the gateway refused: 5 is a job that does not exist


def signed(
    method: str = "GET",
    target: str = TARGET,
    body: bytes = b"",
    *,
    timestamp: float = START,
    nonce: str = "n=1",
    app: str = "emulator-app",
) -> dict[str, str]:
    text = f"{method}\n{target}\n{timestamp:.0f}\n{nonce}\n".encode() + body
    signature = b64encode(KEY.sign(text, PKCS1v15(), SHA256())).decode()
    fields = f"signature={signature}, nonce_str={nonce},timestamp={timestamp:.0f},app_id={app}"
    return {"Authorization": f"TAMS-SHA256-RSA {fields}"}


async def test_a_signature_over_the_exact_request_is_accepted(emulate: Emulate) -> None:
    client = await emulate(public_keys={"emulator-app": PEM})
    assert (await client.get(TARGET, headers=signed())).json()["code"] == 5
    body = b'{"params": {"1": {"classType": "SaveImage"}}}'
    created = await client.post(
        "/v1/jobs/workflow", content=body, headers=signed("POST", "/v1/jobs/workflow", body, nonce="2")
    )
    assert created.status_code == 200


async def test_a_public_key_may_come_from_a_file(emulate: Emulate, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(PEM)
    client = await emulate(public_key_file=file)
    assert (await client.get(TARGET, headers=signed())).json()["code"] == 5


@pytest.mark.parametrize(
    "headers",
    [
        signed("DELETE"),
        signed(target="/v1/jobs/1"),
        signed(body=b"x"),
        {"Authorization": f"TAMS-SHA256-RSA app_id=emulator-app,nonce_str=1,timestamp={START:.0f},signature=@é"},
    ],
)
async def test_a_signature_over_something_else_is_401(emulate: Emulate, headers: dict[str, str]) -> None:
    client = await emulate(public_keys={"emulator-app": PEM})
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = await client.get(TARGET, headers=encoded)
    assert (answer.status_code, answer.json()["code"]) == (401, 16)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": "Bearer someone-else"}, 100001),
        (signed(app="unknown"), 100001),
        ({"Authorization": ""}, 100002),
        ({"Authorization": "Basic abc"}, 100002),
        ({"Authorization": "TAMS-SHA256-RSA app_id=emulator-app"}, 100002),
        ({"Authorization": "TAMS-SHA256-RSA app_id=a,nonce_str=1,timestamp=now,signature=s"}, 100002),
    ],
)
async def test_the_gateway_has_its_own_shape(emulate: Emulate, headers: dict[str, str], code: int) -> None:
    client = await emulate(public_keys={"emulator-app": PEM})
    answer = await client.get(TARGET, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


async def test_timestamps_may_lie_so_far_from_the_real_clock(emulate: Emulate) -> None:
    client = await emulate(public_keys={"emulator-app": PEM}, clock_skew_s=60)
    late, early = signed(timestamp=START - 61, nonce="1"), signed(timestamp=START + 60, nonce="2")
    assert (await client.get(TARGET, headers=late)).status_code == 401
    assert (await client.get(TARGET, headers=early)).status_code == FOUND
    await client.put("/_emulator/settings", json={"clock_skew_s": None})
    assert (await client.get(TARGET, headers=late)).status_code == FOUND


async def test_a_nonce_serves_once_in_its_window(emulate: Emulate, clock: HandClock) -> None:
    client = await emulate(public_keys={"emulator-app": PEM}, nonce_window_s=60)
    assert [(await client.get(TARGET, headers=signed())).status_code for _ in range(2)] == [FOUND, 401]
    clock.time += 60
    assert (await client.get(TARGET, headers=signed())).status_code == FOUND
    await client.put("/_emulator/settings", json={"nonce_window_s": 0})
    assert (await client.get(TARGET, headers=signed())).status_code == FOUND


async def test_wrong_credentials_can_be_mended_later(emulate: Emulate) -> None:
    client = await emulate(bearer_keys={})
    assert (await client.get("/v1/jobs/1")).json()["code"] == 100001
    await client.put("/_emulator/settings", json={"bearer_keys": {"emulator-key": "emulator-app"}})
    assert (await client.get("/v1/jobs/1")).json()["code"] == 5


async def test_the_status_of_a_malformed_header_is_a_switch(emulate: Emulate) -> None:
    client = await emulate(malformed_authorization_status=401)
    assert (await client.get("/v1/jobs/1", headers={"Authorization": "?"})).status_code == 401


async def test_only_rsa_keys_are_taken(emulate: Emulate) -> None:
    client = await emulate()
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for text in (pem, "no key"):
        answer = await client.put("/_emulator/settings", json={"public_keys": {"app": text}, "rate": 1})
        assert answer.status_code == 400
    assert (await client.get("/_emulator/settings")).json()["rate"] == 0
