"""One POST: what it says, how it is signed, what may be shown of it, and what keeps it from being sent."""

from datetime import timedelta
from hashlib import sha256

import msgspec
import pytest

from bridge.core.deliveries import Unsendable, take_in
from bridge.core.dispatch import Send
from bridge.core.fanout import inline_id
from bridge.core.receivers import Receivers
from bridge.core.registry import Registry
from bridge.core.signatures import InvalidSignature, Verifier, new_secret, public_key, webhook_id
from bridge.forwarder import moment_of
from bridge.poster import Poster
from bridge.webhook_messages import Endpoint, Exchange, InlineWebhook, SealedSecret, SignatureScheme
from bridge.webhook_ports import NoResponse, Post, Response
from tests.core.webhook_examples import POLICY, endpoint, event, order, put, secrets, value_of
from tests.roles.fakes import START, HandClock
from tests.roles.forwarder_fakes import DELIVERED, FakeSecretBox, FakeSender

HOUR = timedelta(hours=1)
TOKEN = "Bearer t0ken"
INLINE = InlineWebhook(url="https://inline.example/hook", tenant="acme")


class Desk:
    """A poster, and all it needs."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.sender = FakeSender(self.clock)
        self.box = FakeSecretBox()
        self.poster = Poster(
            self.sender, secret_box=self.box, clock=self.clock, source="/tams-bridge", user_agent="tams-bridge/1"
        )

    def sealed(self, secret: str, *, owner: str = "ep_a", expires: timedelta | None = None) -> SealedSecret:
        until = None if expires is None else START + expires
        return SealedSecret(sealed=self.box.seal(secret, owner=owner), created=START, expires=until)

    def endpoint(self, *those: SealedSecret, **fields: object) -> Endpoint:
        return endpoint("ep_a", secrets=those or (self.sealed(SECRET),), **fields)

    def headers(self, **custom: str) -> str:
        """Custom headers at rest; underlines for hyphens."""
        named = {name.replace("_", "-"): value for name, value in custom.items()}
        return self.box.seal(msgspec.json.encode(named).decode(), owner="ep_a")

    def send_to(self, receiver: Endpoint, *, inline: InlineWebhook | None = None) -> Send:
        now = moment_of(self.clock)
        placed = order(receiver.id, "order-1", 7, inline=inline)
        return Send(delivery=take_in(placed, now.now), endpoint=receiver, event=bytes(placed.event), began=now)

    async def post(
        self, receiver: Endpoint, *, inline: InlineWebhook | None = None
    ) -> tuple[Response | NoResponse | Unsendable, Exchange | None]:
        return await self.poster.post(self.send_to(receiver, inline=inline))

    @property
    def last(self) -> Post:
        return self.sender.posted[-1].post

    def fits(self, *those: str, post: Post | None = None) -> bool:
        """Whether a receiver that knows these secrets would trust the POST."""
        post = post or self.last
        try:
            Verifier(those).verify(post.headers, post.body, now=self.clock.now())
        except InvalidSignature:
            return False
        return True


def secret_named(name: str) -> str:
    return new_secret(SignatureScheme.V1, sha256(name.encode()).digest())


SECRET, NEWER = secret_named("one"), secret_named("two")


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_post_is_a_structured_cloud_event_with_the_event_as_its_data(desk: Desk) -> None:
    answer, _ = await desk.post(desk.endpoint())

    assert answer is DELIVERED
    assert msgspec.json.decode(desk.last.body) == {
        "specversion": "1.0",
        "id": "order-1.7",
        "source": "/tams-bridge",
        "type": "tams.job.success",
        "time": event("order-1", 7).time.isoformat(),
        "subject": "order-1",
        "sequence": "0000000007",
        "datacontenttype": "application/json",
        "data": msgspec.json.decode(value_of(event("order-1", 7))),
    }
    assert value_of(event("order-1", 7)) in desk.last.body


async def test_it_goes_to_the_endpoint_within_its_time(desk: Desk) -> None:
    await desk.post(desk.endpoint(url="https://acme.example/hook?key=1", timeout_s=2.5))

    assert desk.last.url == "https://acme.example/hook?key=1"
    assert desk.last.timeout == timedelta(seconds=2.5)
    assert desk.last.method == "POST"


async def test_its_headers_are_those_of_standard_webhooks(desk: Desk) -> None:
    await desk.post(desk.endpoint())

    headers = dict(desk.last.headers)
    assert headers.pop("webhook-signature").startswith("v1,")
    assert headers == {
        "content-type": "application/cloudevents+json; charset=UTF-8",
        "user-agent": "tams-bridge/1",
        "webhook-id": webhook_id("ep_a", "order-1.7"),
        "webhook-timestamp": str(int(START.timestamp())),
    }


async def test_it_is_signed_anew_at_every_attempt_and_keeps_its_id(desk: Desk) -> None:
    receiver = desk.endpoint()
    await desk.post(receiver)
    await desk.clock.advance(3600.0)
    await desk.post(receiver)

    first, second = [posted.post for posted in desk.sender.posted]
    assert desk.fits(SECRET, post=second)
    assert not desk.fits(NEWER, post=second)
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 3600


async def test_a_key_pair_signs_what_its_public_key_checks(desk: Desk) -> None:
    private = new_secret(SignatureScheme.V1A, bytes(32))

    await desk.post(desk.endpoint(desk.sealed(private), scheme="v1a"))

    assert desk.last.headers["webhook-signature"].startswith("v1a,")
    assert desk.fits(public_key(private))


async def test_while_secrets_overlap_each_receiver_finds_its_own_signature(desk: Desk) -> None:
    await desk.post(desk.endpoint(desk.sealed(NEWER), desk.sealed(SECRET, expires=HOUR)))

    assert len(desk.last.headers["webhook-signature"].split(" ")) == 2
    assert desk.fits(SECRET)
    assert desk.fits(NEWER)


async def test_an_expired_secret_no_longer_signs_though_nothing_was_registered_since(desk: Desk) -> None:
    receiver = desk.endpoint(desk.sealed(NEWER), desk.sealed(SECRET, expires=HOUR))
    await desk.post(receiver)
    await desk.clock.advance(3599.0)
    await desk.post(receiver)
    assert desk.fits(SECRET)

    await desk.clock.advance(1.0)
    await desk.post(receiver)

    assert not desk.fits(SECRET)
    assert desk.fits(NEWER)


async def test_a_rotation_counts_from_the_next_post_on(desk: Desk) -> None:
    await desk.post(desk.endpoint())

    await desk.post(desk.endpoint(desk.sealed(NEWER)))

    assert desk.fits(NEWER)
    assert not desk.fits(SECRET)


async def test_secrets_are_opened_once_for_many_posts(desk: Desk) -> None:
    receiver = desk.endpoint(sealed_headers=desk.headers(x_key=TOKEN))

    for _ in range(50):
        await desk.post(receiver)

    assert desk.box.unsealed == 2


async def test_of_very_many_endpoints_not_all_secrets_stay_open(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be as many inline webhooks as there are requests."""
    monkeypatch.setattr("bridge.poster._KEPT", 3)
    receivers = [endpoint(f"ep_{n}", secrets=(desk.sealed(SECRET, owner=f"ep_{n}"),)) for n in range(5)]

    for receiver in (*receivers, *receivers):
        await desk.post(receiver)
        assert desk.fits(SECRET)

    assert len(desk.poster._kept) <= 3


async def test_custom_headers_are_sent_and_cannot_take_the_place_of_ours(desk: Desk) -> None:
    sealed = desk.headers(authorization=TOKEN, webhook_id="forged", user_agent="forged", content_type="forged")

    await desk.post(desk.endpoint(sealed_headers=sealed))

    assert desk.last.headers["authorization"] == TOKEN
    assert "forged" not in desk.last.headers.values()
    assert desk.fits(SECRET)


async def test_what_may_be_seen_of_an_exchange_holds_no_secret(desk: Desk) -> None:
    receiver = desk.endpoint(
        desk.sealed(NEWER), desk.sealed(SECRET, expires=HOUR), sealed_headers=desk.headers(authorization=TOKEN)
    )
    desk.sender.answers[receiver.url].append(
        Response(status=500, headers={"set-cookie": "session=1", "server": "theirs"}, body=b"out of \xff order")
    )

    _, seen = await desk.post(receiver)

    assert seen is not None
    assert seen.request_headers["authorization"] == "***"
    assert seen.request_headers["webhook-signature"] == "v1,*** v1,***"
    assert seen.request_headers["webhook-id"] == webhook_id("ep_a", "order-1.7")
    assert seen.response_headers == {"set-cookie": "***", "server": "theirs"}
    assert seen.response_body == "out of \ufffd order"
    sent = [signature.removeprefix("v1,") for signature in desk.last.headers["webhook-signature"].split(" ")]
    shown = msgspec.json.encode(seen).decode()
    assert not [secret for secret in (TOKEN, *sent, SECRET, NEWER) if secret in shown]


async def test_an_exchange_without_an_answer_shows_what_was_sent(desk: Desk) -> None:
    receiver = desk.endpoint()
    desk.sender.answers[receiver.url].append(NoResponse(error="connection refused"))

    answer, seen = await desk.post(receiver)

    assert answer == NoResponse(error="connection refused")
    assert seen is not None
    assert seen.request_headers["webhook-timestamp"] == str(int(START.timestamp()))
    assert (seen.response_headers, seen.response_body) == ({}, "")


async def test_an_inline_webhook_is_signed_with_the_secret_of_its_tenant(desk: Desk) -> None:
    registry = Registry()
    put(registry, secrets("acme", desk.box.seal(SECRET, owner="acme")))
    send = desk.send_to(endpoint(inline_id(INLINE)), inline=INLINE)
    made_up = Receivers(registry, POLICY.health).of(send.delivery)

    await desk.post(made_up, inline=INLINE)

    assert desk.last.url == INLINE.url
    assert desk.last.headers["webhook-id"] == webhook_id(inline_id(INLINE), "order-1.7")
    assert desk.fits(SECRET)


async def test_requests_without_a_tenant_have_a_secret_of_their_own(desk: Desk) -> None:
    inline = InlineWebhook(url=INLINE.url)
    receiver = endpoint(inline_id(inline), tenant="", secrets=(desk.sealed(SECRET, owner=""),))

    await desk.post(receiver, inline=inline)

    assert desk.fits(SECRET)


# ------------------------------------------------------------------------------------------------- what cannot be sent
async def unsendable(desk: Desk, receiver: Endpoint) -> str:
    """Why nothing was sent; it costs no attempt and holds no secret."""
    answer, seen = await desk.post(receiver)
    assert isinstance(answer, Unsendable), answer
    assert answer.pause == timedelta(minutes=1)
    assert seen is None
    assert desk.sender.posted == []
    assert SECRET.removeprefix("whsec_") not in answer.error
    return answer.error


async def test_nothing_is_sent_unsigned(desk: Desk) -> None:
    """All of them have expired."""
    why = await unsendable(desk, desk.endpoint(desk.sealed(SECRET, expires=timedelta(0))))

    assert why == "the endpoint has no secret to sign with: rotate its secret"


@pytest.mark.parametrize(("tenant", "name"), [("acme", "acme"), ("", "-")])
async def test_a_tenant_without_a_secret_is_told_how_to_make_one(desk: Desk, tenant: str, name: str) -> None:
    inline = InlineWebhook(url=INLINE.url, tenant=tenant)

    why = await unsendable(desk, endpoint(inline_id(inline), tenant=tenant))

    assert f"`tams-bridge webhooks tenant-secret {name} --rotate`" in why


async def test_a_secret_that_no_key_opens_is_told_and_used_once_the_key_is_back(desk: Desk) -> None:
    receiver = desk.endpoint()
    desk.box.is_locked = True
    assert "no key in force opens a secret of 'ep_a'" in await unsendable(desk, receiver)

    desk.box.is_locked = False
    await desk.post(receiver)

    assert desk.fits(SECRET)


async def test_headers_that_no_key_opens_are_not_left_out(desk: Desk) -> None:
    foreign = desk.box.seal("{}", owner="ep_b")

    assert "no key in force" in await unsendable(desk, desk.endpoint(sealed_headers=foreign))


async def test_a_secret_copied_from_another_endpoint_signs_nothing(desk: Desk) -> None:
    assert "no key in force" in await unsendable(desk, desk.endpoint(desk.sealed(SECRET, owner="ep_b")))


async def test_a_secret_that_is_none_is_told_and_not_shown(desk: Desk) -> None:
    why = await unsendable(desk, desk.endpoint(desk.sealed("whsec_c2hvcnQ=")))

    assert why.startswith("the endpoint's secret cannot be used: ")
    assert why.endswith(": rotate it")
    assert "c2hvcnQ" not in why


@pytest.mark.parametrize("headers", ["no JSON", "[]", '{"x-token": 7}'])
async def test_headers_that_are_none_are_told_and_not_shown(desk: Desk, headers: str) -> None:
    why = await unsendable(desk, desk.endpoint(sealed_headers=desk.box.seal(headers, owner="ep_a")))

    assert why == "the endpoint's headers cannot be used: set them anew"
