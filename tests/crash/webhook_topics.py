"""The topics of webhooks as a client sees them that was not written here."""

import json
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Message
from typing_extensions import override

from tests.crash.topics import POSITION_KEY, Reader, text
from tests.crash.webhook_judge import Dead, Kept, Ordered, Place, Recorded, Try

EVENT_SUFFIX = "\x1fevent"

Document = Mapping[str, Any]


class WebhookFollower(Reader):
    """Reads orders, attempts, dead deliveries and the ledger of the deliveries.

    Args:
        bootstrap_servers, prefix: see `Reader`.
    """

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        super().__init__(bootstrap_servers, prefix, ("dispatch", "attempts", "deliveries.dead", "deliveries"))
        self._deliveries: dict[str, Document] = {}
        self._events: dict[str, Document] = {}
        self.orders: list[Ordered] = []
        self.ends: dict[int, int] = {}
        self.positions: dict[int, int] = {}
        self.recorded: list[Recorded] = []
        self.dead: list[Dead] = []
        self.delivered: set[Place] = set()

    @override
    def take(self, name: str, message: Message) -> None:
        value = message.value()
        match name:
            case "dispatch":
                order = json.loads(value or b"")
                self.orders.append(Ordered(place=place_of(order), event=order["event"]))
                self.ends[message.partition() or 0] = (message.offset() or 0) + 1
            case "attempts":
                self._take_attempt(json.loads(value or b""))
            case "deliveries.dead":
                self.dead.append(_dead(json.loads(value or b"")))
            case _:
                self._take_state(message.partition() or 0, text(message.key()), value)

    def ledger(self) -> dict[Place, Kept]:
        """What is pending."""
        return {
            place_of(delivery): Kept(tries=_tries(delivery), event_id=self._events.get(key, {}).get("id", ""))
            for key, delivery in self._deliveries.items()
        }

    def leftovers(self) -> list[str]:
        """Keys of the ledger that belong to no delivery."""
        return sorted(self._events.keys() - self._deliveries.keys())

    def _take_attempt(self, record: Document) -> None:
        place = place_of(record["delivery"])
        self.recorded.append(
            Recorded(
                place=place,
                webhook_id=record["webhook_id"],
                made=_try(record["attempt"]),
                tries=_tries(record["delivery"]),
                after=record["after"],
            )
        )
        if record["after"] == "delivered":
            self.delivered.add(place)

    def _take_state(self, partition: int, key: str, value: str | bytes | None) -> None:
        if key == POSITION_KEY:
            self.positions[partition] = int(value or 0)
            return
        name = key.removesuffix(EVENT_SUFFIX)
        kept = self._deliveries if name == key else self._events
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = json.loads(value)


class EventReader(Reader):
    """Reads the events that were published.

    Args:
        bootstrap_servers, prefix: see `Reader`.
    """

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        super().__init__(bootstrap_servers, prefix, ("progress", "success", "failed"))
        self.events: dict[str, Document] = {}

    @override
    def take(self, name: str, message: Message) -> None:
        event = json.loads(message.value() or b"")
        self.events[event["id"]] = event


def place_of(document: Document) -> Place:
    """To whom an order or a delivery goes, and its event."""
    inline = document.get("inline")
    return inline["url"].rpartition("/")[2] if inline else document["endpoint_id"], document["event_id"]


def _dead(record: Document) -> Dead:
    delivery = record["delivery"]
    return Dead(
        place=place_of(delivery),
        reason=record["reason"],
        tries=_tries(delivery),
        event_id=record.get("event", {}).get("id", ""),
    )


def _tries(delivery: Document) -> tuple[Try, ...]:
    return tuple(_try(each) for each in delivery.get("attempts", ()))


def _try(attempt: Document) -> Try:
    return Try(
        number=attempt["number"],
        outcome=attempt["outcome"],
        time=attempt["time"],
        status=attempt.get("status", 0),
    )
