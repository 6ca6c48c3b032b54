"""From our settings to what aiokafka's clients take."""

import ssl
from typing import TypedDict

from aiokafka.helpers import create_ssl_context
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from bridge.errors import CannotStart
from bridge.settings import KafkaSettings


class ConnectionOptions(TypedDict):
    """Arguments shared by aiokafka's consumer, producer and admin client."""

    bootstrap_servers: str
    client_id: str
    request_timeout_ms: int
    security_protocol: str
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    ssl_context: ssl.SSLContext | None


def connection_options(kafka: KafkaSettings) -> ConnectionOptions:
    """How to reach the brokers.

    Raises:
        CannotStart: a certificate file cannot be used.
    """
    return ConnectionOptions(
        bootstrap_servers=kafka.bootstrap_servers,
        client_id=kafka.client_id,
        request_timeout_ms=milliseconds(kafka.request_timeout_s),
        security_protocol=kafka.security_protocol,
        sasl_mechanism=kafka.sasl_mechanism,
        sasl_plain_username=kafka.sasl_username,
        sasl_plain_password=kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        ssl_context=_ssl_context(kafka) if kafka.security_protocol.endswith("SSL") else None,
    )


def broker_security(kafka: KafkaSettings) -> BaseSecurity:
    """The same, as FastStream wants it.

    Raises:
        CannotStart: a certificate file cannot be used.
    """
    context = _ssl_context(kafka) if kafka.security_protocol.endswith("SSL") else None
    if not kafka.security_protocol.startswith("SASL"):
        return BaseSecurity(ssl_context=context, use_ssl=context is not None)
    password = kafka.sasl_password.get_secret_value() if kafka.sasl_password else ""
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[kafka.sasl_mechanism](
        username=kafka.sasl_username or "", password=password, ssl_context=context, use_ssl=context is not None
    )


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, as Kafka's clients count."""
    return max(1, round(seconds * 1000))


def _ssl_context(kafka: KafkaSettings) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=str(kafka.ssl_cafile) if kafka.ssl_cafile else None,
            certfile=str(kafka.ssl_certfile) if kafka.ssl_certfile else None,
            keyfile=str(kafka.ssl_keyfile) if kafka.ssl_keyfile else None,
            password=kafka.ssl_key_password.get_secret_value() if kafka.ssl_key_password else None,
        )
    except (OSError, ssl.SSLError) as error:
        message = f"kafka: the TLS files cannot be used: {error} (check BRIDGE_KAFKA__SSL_…)"
        raise CannotStart(message) from error
    context.check_hostname = kafka.ssl_check_hostname
    return context
