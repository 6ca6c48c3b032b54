"""Kafka brokers started as child processes: no Docker, no installation by hand.

`embedded_broker` starts in a second from a Python wheel and needs nothing else; good for `dev`, `demo` and quick tests.
`apache_broker` starts the real Apache Kafka, which needs Java and Maven; every guarantee of the bridge is proven on it.

    async with embedded_broker() as broker:
        print(broker.bootstrap_servers)
"""

from bridge.adapters.brokers.apache import CLUSTER_ID, apache_broker, apache_obstacle
from bridge.adapters.brokers.embedded import embedded_broker, embedded_obstacle
from bridge.adapters.brokers.process import BrokerProcess, BrokerUnavailable, free_ports

__all__ = [
    "CLUSTER_ID",
    "BrokerProcess",
    "BrokerUnavailable",
    "apache_broker",
    "apache_obstacle",
    "embedded_broker",
    "embedded_obstacle",
    "free_ports",
]
