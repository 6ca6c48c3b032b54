"""Topics: created as the bridge needs them, and what is wrong with those that are there is named."""

import pytest

from bridge.adapters.brokers import free_ports
from bridge.adapters.kafka.topics import TopicNames, Topics
from bridge.errors import CannotStart
from bridge.messages import EventType
from bridge.settings import Settings, TopicSettings
from tests.adapters.topics import PARTITIONS, make_topic, settings_for
from tests.brokers import RunningBroker


@pytest.fixture
def settings(broker: RunningBroker, topic_prefix: str) -> Settings:
    return settings_for(broker, topic_prefix)


@pytest.fixture
def topics(settings: Settings) -> Topics:
    return Topics(settings.kafka, settings.topics)


async def problems(topics: Topics) -> dict[str, str]:
    """What is wrong, by the last part of the topic's name."""
    return {state.name.rpartition(".")[2]: state.problem for state in await topics.check() if state.problem}


async def test_what_was_created_is_fine(topics: Topics) -> None:
    created = await topics.create()

    assert set(created) == set(topics.names.all)
    assert await problems(topics) == {}
    assert {state.partitions for state in await topics.check()} == {PARTITIONS}


async def test_creating_again_creates_nothing(topics: Topics) -> None:
    await topics.create()

    assert await topics.create() == []


async def test_absent_topics_are_named_with_the_command_that_creates_them(topics: Topics) -> None:
    found = await problems(topics)

    assert found.keys() == {"requests", "jobs", "progress", "success", "failed", "dead-letter"}
    assert set(found.values()) == {"is absent: run `tams-bridge topics create`"}


async def test_created_topics_follow_the_partitions_of_a_requests_topic_that_is_there(
    topics: Topics, settings: Settings
) -> None:
    """Whoever made the requests topic has decided how many partitions the ledger has."""
    await make_topic(settings.kafka.bootstrap_servers, topics.names.requests, 3)

    await topics.create()

    assert {state.partitions for state in await topics.check()} == {3}


async def test_a_ledger_of_another_partition_count_is_named(topics: Topics, settings: Settings) -> None:
    await make_topic(settings.kafka.bootstrap_servers, topics.names.jobs, 5, cleanup_policy="compact")
    await topics.create()

    assert "has 5 partitions but" in (await problems(topics))["jobs"]


async def test_a_ledger_that_is_not_compacted_is_named(topics: Topics, settings: Settings) -> None:
    await make_topic(settings.kafka.bootstrap_servers, topics.names.jobs, cleanup_policy="delete")
    await topics.create()

    assert "is not compacted" in (await problems(topics))["jobs"]


async def test_a_dead_letter_topic_that_takes_only_shorter_records_is_named(topics: Topics, settings: Settings) -> None:
    await make_topic(settings.kafka.bootstrap_servers, topics.names.dead_letter, max_message_bytes="1000000")
    await topics.create()

    assert "takes records of 1000000 bytes but" in (await problems(topics))["dead-letter"]


async def test_no_broker_is_one_line_that_names_the_variable(broker: RunningBroker, topic_prefix: str) -> None:
    servers = f"127.0.0.1:{free_ports(1)[0]}"
    kafka = settings_for(broker, topic_prefix, kafka={"bootstrap_servers": servers, "connect_timeout_s": 0.5}).kafka

    with pytest.raises(CannotStart, match=rf"^kafka: no broker answers at {servers}: [^\n]*BOOTSTRAP_SERVERS[^\n]*$"):
        await Topics(kafka, TopicSettings()).check()


async def test_a_refusal_of_the_broker_is_quoted(broker: RunningBroker, topic_prefix: str) -> None:
    settings = settings_for(broker, topic_prefix, topics={"replication_factor": 7})

    with pytest.raises(CannotStart, match=rf"^kafka: topic {topic_prefix}\.\S+ cannot be created: [^\n]+$"):
        await Topics(settings.kafka, settings.topics).create()


def test_all_events_may_go_to_one_topic() -> None:
    names = TopicNames.of(TopicSettings(prefix="x", routes=dict.fromkeys(EventType, "events")))

    assert names.results == ("x.events",)
    assert names.all == ("x.requests", "x.jobs", "x.events", "x.dead-letter")
