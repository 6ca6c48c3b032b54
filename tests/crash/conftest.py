"""The broker of the crash tests: one that forgets a killed worker soon, where it is ours to set up."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from bridge.adapters.brokers import apache_broker
from tests.conftest import CHOICE
from tests.crash.cluster import Cluster, running_cluster
from tests.crash.system import QuickBroker

RUNS = int(os.environ.get("BRIDGE_CRASH_RUNS", "20"))
FEW_RUNS = int(os.environ.get("BRIDGE_CRASH_RUNS", "5"))
"""Where every kill costs a long session, and the guarantees are not proven anyway."""


@pytest.fixture(scope="session")
def quick_broker(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[QuickBroker]:
    """An Apache Kafka of our own with short sessions; a given broker with the shortest that Kafka usually allows."""
    kind = pytestconfig.stash[CHOICE].kind
    if kind == "embedded":
        pytest.skip("the embedded broker leaves a killed member its partitions for more than a minute")
    if kind == "given":
        servers = request.getfixturevalue("broker").bootstrap_servers
        yield QuickBroker(bootstrap_servers=servers, session_s=6.0, runs=FEW_RUNS)
        return
    with asyncio.Runner() as runner:
        context = apache_broker(properties={"group.min.session.timeout.ms": "500"})
        process = runner.run(context.__aenter__())
        try:
            yield QuickBroker(bootstrap_servers=process.bootstrap_servers, session_s=2.0, runs=RUNS)
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """Three Apache Kafka nodes, up from the first test that wants them; who breaks them leaves them whole again."""
    if pytestconfig.stash[CHOICE].kind != "apache":
        pytest.skip("three nodes of Apache Kafka are wanted, to be killed and paused: set BRIDGE_TEST_BROKER=apache")
    with running_cluster() as running:
        yield running
