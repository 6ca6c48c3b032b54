"""What our settings become for aiokafka and for FastStream."""

from pathlib import Path

import pytest
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512
from pydantic import SecretStr

from bridge.adapters.kafka.connection import broker_security, connection_options
from bridge.errors import CannotStart
from bridge.settings import KafkaSettings


@pytest.mark.parametrize(
    ("mechanism", "kind"),
    [("PLAIN", SASLPlaintext), ("SCRAM-SHA-256", SASLScram256), ("SCRAM-SHA-512", SASLScram512)],
)
def test_sasl_passes_through(mechanism: str, kind: type[BaseSecurity]) -> None:
    """The password reaches both clients, and only them: it is in no settings printed."""
    kafka = KafkaSettings.model_validate(
        {"security_protocol": "SASL_SSL", "sasl_mechanism": mechanism, "sasl_username": "u", "sasl_password": "hush"}
    )

    options, security = connection_options(kafka), broker_security(kafka)

    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == (mechanism, "u")
    assert options["sasl_plain_password"] == "hush"
    assert options["ssl_context"] is not None
    assert type(security) is kind
    assert security.use_ssl
    assert "hush" not in repr(kafka)


def test_tls_checks_the_host_unless_told_otherwise() -> None:
    """Turning it off is a decision, never a default."""
    checked = connection_options(KafkaSettings(security_protocol="SSL"))["ssl_context"]
    unchecked = connection_options(KafkaSettings(security_protocol="SSL", ssl_check_hostname=False))["ssl_context"]

    assert checked is not None
    assert checked.check_hostname
    assert unchecked is not None
    assert not unchecked.check_hostname


def test_plain_connections_have_no_security() -> None:
    """The default, for a broker on this machine."""
    kafka = KafkaSettings()

    assert connection_options(kafka)["ssl_context"] is None
    assert not broker_security(kafka).use_ssl


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A mistyped path must not become a time-out."""
    kafka = KafkaSettings(
        security_protocol="SSL", ssl_cafile=tmp_path / "absent.pem", ssl_key_password=SecretStr("hush")
    )

    with pytest.raises(CannotStart, match="the TLS files cannot be used") as refused:
        connection_options(kafka)

    assert "hush" not in str(refused.value)
