"""Who deliveries go to: registered endpoints, and those made up for webhooks that were given inside requests."""

from bridge.core.fanout import is_inline
from bridge.core.health import GONE, EndpointHealth, HealthPolicy
from bridge.core.registry import Registry
from bridge.webhook_messages import Delivery, Endpoint


class Receivers:
    """The endpoints of one partition, and how they do.

    Args:
        registry: who is registered; followed, not copied.
        policy: how long endpoints may fail.
    """

    def __init__(self, registry: Registry, policy: HealthPolicy) -> None:
        self._registry = registry
        self._policy = policy
        self._made_up: dict[str, Endpoint] = {}
        self._health: dict[str, EndpointHealth] = {}

    def registered(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint, if it is registered."""
        return self._registry.endpoints.get(endpoint_id)

    def of(self, delivery: Delivery) -> Endpoint:
        """The endpoint of a delivery."""
        endpoint_id = delivery.endpoint_id
        return self._registry.endpoints.get(endpoint_id) or self._made_up.get(endpoint_id) or self._make_up(delivery)

    def is_known(self, endpoint_id: str) -> bool:
        """False while the registry has not yet, or not any more, an endpoint; inline ones need no registration."""
        return is_inline(endpoint_id) or endpoint_id in self._registry.endpoints

    def is_readable(self, endpoint_id: str) -> bool:
        """False while what the registry says of an endpoint makes no sense to this process: a newer one knows it."""
        return endpoint_id not in self._registry.unreadable

    def is_as_at(self, sent_to: Endpoint) -> bool:
        """Whether an answer still says something of an endpoint: not if it has been enabled anew, or moved, since."""
        endpoint = self._registry.endpoints.get(sent_to.id, sent_to)
        return (endpoint.epoch, endpoint.url) == (sent_to.epoch, sent_to.url)

    def health(self, endpoint_id: str) -> EndpointHealth:
        """How an endpoint does."""
        health = self._health.get(endpoint_id)
        if health is None:
            endpoint = self._registry.endpoints.get(endpoint_id)
            epoch, status = endpoint.epoch if endpoint else 0, self._registry.status(endpoint_id)
            health = self._health[endpoint_id] = EndpointHealth(endpoint_id, epoch, status, self._policy)
        return health

    def accepts(self, endpoint_id: str) -> bool:
        """Whether anything may be sent: not to a paused endpoint, nor to one that has answered 410.

        One that is disabled for failing gets a probe from time to time.
        """
        endpoint = self._registry.endpoints.get(endpoint_id)
        return not (endpoint is not None and endpoint.paused) and self.health(endpoint_id).disabled != GONE

    def forget_secrets(self) -> None:
        """Some tenant's secrets have changed."""
        self._made_up.clear()

    def forget(self, endpoint_id: str) -> None:
        """Nothing goes to an endpoint any more."""
        self._made_up.pop(endpoint_id, None)
        self._health.pop(endpoint_id, None)

    def _make_up(self, delivery: Delivery) -> Endpoint:
        inline = delivery.inline
        tenant = self._registry.tenants.get(inline.tenant) if inline else None
        endpoint = Endpoint(
            id=delivery.endpoint_id,
            url=inline.url if inline else "",
            tenant=inline.tenant if inline else None,
            secrets=tenant.secrets if tenant else (),
            created=delivery.ordered,
            changed=delivery.ordered,
        )
        self._made_up[endpoint.id] = endpoint
        return endpoint
