"""Topics: created as the bridge needs them, and what is wrong with those that are there is named."""

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from bridge.adapters.brokers import free_ports
from bridge.adapters.kafka.topics import TopicNames, Topics
from bridge.errors import CannotStart
from bridge.messages import EventType
from bridge.settings import Settings, TopicSettings
from tests.adapters.topics import PARTITIONS, administering, make_topic, settings_for
from tests.brokers import RunningBroker


@pytest.fixture
def settings(broker: RunningBroker, topic_prefix: str) -> Settings:
    return settings_for(broker, topic_prefix)


@pytest.fixture
def topics(settings: Settings) -> Topics:
    return Topics(settings.kafka, settings.topics)


async def problems(topics: Topics) -> dict[str, str]:
    """What is wrong, by the last part of the topic's name, which may hold dots."""
    return {state.name.partition(".")[2]: state.problem for state in await topics.check() if state.problem}


async def partitions(topics: Topics) -> dict[str, int]:
    """How many partitions each topic has, by the last part of its name."""
    return {state.name.partition(".")[2]: state.partitions for state in await topics.check()}


UNDIVIDED = ("endpoints", "endpoints.status", "api-keys", "run-times", "budget")
COMPACTED = ("jobs", "deliveries", "endpoints", "endpoints.status", "api-keys", "run-times")
OTHERS = (
    *("requests", "progress", "success", "failed", "dead-letter", "budget"),
    *("dispatch", "attempts", "deliveries.dead", "endpoints.notices"),
)


async def test_what_was_created_is_fine(topics: Topics) -> None:
    created = await topics.create()

    assert set(created) == set(topics.names.all)
    assert await problems(topics) == {}
    expected = {name: 1 if name in UNDIVIDED else PARTITIONS for name in (*COMPACTED, *OTHERS)}
    assert await partitions(topics) == expected


async def test_creating_again_creates_nothing(topics: Topics) -> None:
    await topics.create()

    assert await topics.create() == []


async def test_absent_topics_are_named_with_the_command_that_creates_them(topics: Topics) -> None:
    found = await problems(topics)

    assert found.keys() == {*COMPACTED, *OTHERS}
    assert set(found.values()) == {"is absent: run `tams-bridge topics create`"}


async def test_created_topics_follow_the_partitions_of_a_requests_topic_that_is_there(
    topics: Topics, settings: Settings
) -> None:
    """Whoever made the requests topic has decided how many partitions the ledger has."""
    await make_topic(settings.kafka.bootstrap_servers, topics.names.requests, 3)

    await topics.create()

    assert {name: count for name, count in (await partitions(topics)).items() if count != 3} == dict.fromkeys(
        UNDIVIDED, 1
    )


async def test_created_deliveries_follow_the_partitions_of_a_dispatch_topic_that_is_there(
    topics: Topics, settings: Settings
) -> None:
    await make_topic(settings.kafka.bootstrap_servers, topics.names.dispatch, 5)

    await topics.create()

    assert await problems(topics) == {}
    assert (await partitions(topics))["deliveries"] == 5


async def test_what_holds_state_is_compacted_and_all_else_is_deleted_with_time(
    topics: Topics, settings: Settings
) -> None:
    """Otherwise a job, a delivery or an endpoint would be forgotten, or a topic grow for ever."""
    await topics.create()

    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in topics.names.all]
    async with administering(settings.kafka.bootstrap_servers) as admin:
        answers = await admin.describe_configs(resources)

    policies = {
        resource[3].partition(".")[2]: {entry[0]: entry[1] for entry in resource[4]}["cleanup.policy"]
        for answer in answers
        for resource in answer.resources
    }
    assert policies == {**dict.fromkeys(COMPACTED, "compact"), **dict.fromkeys(OTHERS, "delete")}


@pytest.mark.parametrize(("ledger", "of"), [("jobs", "requests"), ("deliveries", "dispatch")])
async def test_a_ledger_of_another_partition_count_is_named(
    ledger: str, of: str, topics: Topics, settings: Settings
) -> None:
    name = f"{settings.topics.prefix}.{ledger}"
    await make_topic(settings.kafka.bootstrap_servers, name, 5, cleanup_policy="compact")
    await topics.create()

    assert f"has 5 partitions but {settings.topics.prefix}.{of} has 2" in (await problems(topics))[ledger]


@pytest.mark.parametrize("registry", UNDIVIDED)
async def test_a_registry_whose_records_have_no_order_is_named(
    registry: str, topics: Topics, settings: Settings
) -> None:
    name = f"{settings.topics.prefix}.{registry}"
    await make_topic(settings.kafka.bootstrap_servers, name, 2, cleanup_policy="compact")
    await topics.create()

    assert await problems(topics) == {registry: "has 2 partitions and must have 1"}


@pytest.mark.parametrize("state", COMPACTED)
async def test_state_that_would_be_deleted_with_time_is_named(state: str, topics: Topics, settings: Settings) -> None:
    count = 1 if state in UNDIVIDED else PARTITIONS
    name = f"{settings.topics.prefix}.{state}"
    await make_topic(settings.kafka.bootstrap_servers, name, count, cleanup_policy="delete")
    await topics.create()

    found = await problems(topics)

    assert found.keys() == {state}
    assert "is not compacted" in found[state]


@pytest.mark.parametrize(
    "carrier", ["jobs", "progress", "success", "failed", "dispatch", "deliveries", "deliveries.dead"]
)
async def test_a_topic_that_cannot_hold_the_longest_event_is_named(
    carrier: str, topics: Topics, settings: Settings
) -> None:
    """An event that does not fit would stop its partition."""
    policy = "compact" if carrier in COMPACTED else "delete"
    name = f"{settings.topics.prefix}.{carrier}"
    servers = settings.kafka.bootstrap_servers
    await make_topic(servers, name, max_message_bytes="1000000", cleanup_policy=policy)
    await topics.create()

    strict = Topics(settings.kafka, settings.topics, longest_answer=1_000_000)

    assert "takes records of 1000000 bytes but" in (await problems(strict))[carrier]


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
    assert {name.removeprefix("x.") for name in names.all} == {"events", *COMPACTED, *OTHERS} - {
        "progress",
        "success",
        "failed",
    }
    assert len(set(names.all)) == len(names.all)
