from bridge.core.health import FAILING, GONE, HealthPolicy
from bridge.core.receivers import Receivers
from bridge.core.registry import Registry, endpoint_key, tenant_key
from bridge.webhook_messages import Delivery, EndpointStatus, InlineWebhook
from tests.core.examples import NOW
from tests.core.webhook_examples import delivery, endpoint, put, registry_of, secrets

URL = "https://acme.example/hook"


def receivers(registry: Registry) -> Receivers:
    return Receivers(registry, HealthPolicy())


def inline(tenant: str = "acme") -> Delivery:
    return delivery("in_a", inline=InlineWebhook(url=URL, tenant=tenant))


def disabled(reason: str) -> EndpointStatus:
    return EndpointStatus(
        endpoint_id="ep_a", epoch=1, failing_since=NOW, disabled_at=NOW, disabled_reason=reason, changed=NOW
    )


def test_registered_endpoint_is_the_one_in_the_registry() -> None:
    """As it stands now: the registry is followed, not copied."""
    registry = registry_of(endpoint(description="old"))
    followed = receivers(registry)
    assert followed.of(delivery()).description == "old"

    put(registry, endpoint(description="new"))

    assert followed.of(delivery()) is registry.endpoints["ep_a"] is followed.registered("ep_a")


def test_webhook_of_a_request_is_signed_with_its_tenants_secrets() -> None:
    """Its endpoint is made up from URL and tenant, with the limits of any endpoint."""
    made_up = receivers(registry_of(secrets("acme"), secrets("other", "x"))).of(inline())

    assert (made_up.id, made_up.url, made_up.tenant) == ("in_a", URL, "acme")
    assert made_up.secrets == secrets("acme").secrets
    assert made_up.max_in_flight == endpoint().max_in_flight


def test_webhook_of_a_request_without_tenant_has_secrets_of_its_own() -> None:
    """Under the empty name."""
    assert receivers(registry_of(secrets("", "x"))).of(inline("")).secrets == secrets("", "x").secrets


def test_tenant_without_secret_signs_nothing() -> None:
    """Whoever sends will say so."""
    assert receivers(Registry()).of(inline()).secrets == ()


def test_changed_secrets_of_a_tenant_sign_from_then_on() -> None:
    """Until then the same endpoint is given for each delivery: who opens secrets may keep them opened."""
    registry = registry_of(secrets("acme", "old"))
    made = receivers(registry)
    before = made.of(inline())
    assert made.of(inline()) is before

    put(registry, secrets("acme", "new"))
    made.forget_secrets()
    assert [secret.sealed for secret in made.of(inline()).secrets] == ["new"]

    registry.apply(tenant_key("acme"), None)
    made.forget_secrets()
    assert made.of(inline()).secrets == ()


def test_endpoint_that_nobody_knows_is_not_made_up_with_an_address() -> None:
    """Nothing can be sent to it."""
    assert receivers(Registry()).of(delivery()).url == ""


def test_endpoints_are_known_once_registered() -> None:
    """Webhooks of requests need no registration."""
    registry = registry_of(endpoint())
    known = receivers(registry)
    assert [known.is_known(each) for each in ("ep_a", "ep_b", "in_a")] == [True, False, True]

    registry.apply(endpoint_key("ep_a"), None)

    assert not known.is_known("ep_a")


def test_endpoint_whose_record_cannot_be_read_is_told_from_one_that_is_not_there() -> None:
    """A newer process has written it: its deliveries must not be thrown away."""
    registry = Registry()
    registry.apply(endpoint_key("ep_a"), b"{}")
    known = receivers(registry)

    assert [known.is_readable(each) for each in ("ep_a", "ep_b")] == [False, True]


def test_answer_counts_for_an_endpoint_that_is_as_it_was() -> None:
    """Other changes than to where it is, and whether it was enabled anew, do not matter."""
    registry = registry_of(endpoint())
    known, sent_to = receivers(registry), endpoint()
    assert known.is_as_at(sent_to)

    put(registry, endpoint(description="new", rate=1.0))
    assert known.is_as_at(sent_to)

    put(registry, endpoint(epoch=2))
    assert not known.is_as_at(sent_to)

    put(registry, endpoint(url="https://elsewhere.example/"))
    assert not known.is_as_at(sent_to)


def test_answer_to_a_webhook_of_a_request_always_counts() -> None:
    """It has no registration that could change."""
    known = receivers(Registry())

    assert known.is_as_at(known.of(inline()))


def test_nothing_is_sent_to_an_endpoint_that_is_paused_or_gone() -> None:
    """One that is disabled for failing is probed, and one that nobody knows is none of this module's business."""
    paused, gone, failing, fine = (
        receivers(registry_of(endpoint(paused=True))),
        receivers(registry_of(endpoint(), disabled(GONE))),
        receivers(registry_of(endpoint(), disabled(FAILING))),
        receivers(registry_of(endpoint())),
    )

    assert [each.accepts("ep_a") for each in (paused, gone, failing, fine)] == [False, False, True, True]
    assert fine.accepts("in_a")


def test_health_begins_as_the_registry_has_it() -> None:
    """A former owner knew; a status of another epoch does not count."""
    assert receivers(registry_of(endpoint(), disabled(FAILING))).health("ep_a").disabled == FAILING
    assert receivers(registry_of(endpoint(epoch=2), disabled(FAILING))).health("ep_a").disabled == ""


def test_health_is_kept_until_it_is_forgotten() -> None:
    """What was seen must not be lost between two answers."""
    kept = receivers(registry_of(endpoint()))
    kept.health("ep_a").gone("410", NOW)
    assert not kept.accepts("ep_a")

    kept.forget("ep_a")
    kept.forget("nobody")

    assert kept.accepts("ep_a")
