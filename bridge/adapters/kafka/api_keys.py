"""The topic of API keys, written and read directly: whoever may write it is trusted. So the first key comes to be."""

import asyncio

import msgspec
from aiokafka import ConsumerRecord

from bridge.adapters.kafka.publishing import KafkaPublisher
from bridge.adapters.kafka.tail import Tail
from bridge.adapters.kafka.topics import Topics
from bridge.core.keyring import Keyring
from bridge.errors import CannotStart, NotConfirmed
from bridge.ports import Clock
from bridge.settings import Settings
from bridge.webhook_messages import ApiKey


class ApiKeyTopic:
    """`<prefix>.api-keys`, as one person at a terminal needs it.

    Args:
        settings: brokers and topics.
        clock: for pauses after trouble.
    """

    def __init__(self, settings: Settings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def read(self) -> Keyring:
        """The keys in force.

        Raises:
            CannotStart: no broker answers, or the topic is absent.
        """
        name = await self._name()
        keyring = Keyring()

        def take(record: "ConsumerRecord[bytes | None, bytes | None]") -> None:
            if record.key is not None:
                keyring.apply(record.key, record.value)

        tail = Tail(self._settings, {name: 1}, take=take, clock=self._clock)
        reading = asyncio.create_task(tail.run())
        caught_up = asyncio.create_task(tail.caught_up.wait())
        await asyncio.wait({reading, caught_up}, return_when=asyncio.FIRST_COMPLETED)
        caught_up.cancel()
        tail.stop()
        await reading
        return keyring

    async def write(self, key_id: str, key: ApiKey | None) -> None:
        """Put a key in force, or (None) out of force; returns once the brokers have it.

        Raises:
            CannotStart: no broker answers, the topic is absent, or it was perhaps not written.
        """
        name = await self._name()
        value = None if key is None else msgspec.json.encode(key)
        try:
            async with KafkaPublisher(self._settings) as publisher:
                await publisher.publish(name, key_id.encode(), value, partition=0)
        except NotConfirmed as error:
            message = f"{error}: whether key {key_id} is in force tells `tams-bridge keys list`"
            raise CannotStart(message) from error

    async def _name(self) -> str:
        topics = Topics(self._settings.kafka, self._settings.topics)
        name = topics.names.api_keys
        if name not in await topics.partition_counts():
            message = (
                f"kafka: there is no topic {name}: start a process of the bridge, or run `tams-bridge topics create`"
            )
            raise CannotStart(message)
        return name
