"""A stream of requests of every fate, published by a client that is not ours."""

import json
import threading
from collections.abc import Mapping
from random import Random

from confluent_kafka import KafkaError, Message, Producer

Graph = Mapping[str, Mapping[str, object]]

SCRIPTS: Mapping[str, Mapping[str, object]] = {
    "failed once": {"outcomes": ["TRANSITORY_ERROR", "SUCCESS"]},
    "failed for good": {"outcomes": ["FATAL_ERROR"]},
    "failed too often": {"outcomes": ["TRANSITORY_ERROR"] * 3},
    "in hand": {"http": {"create": [{"status": 202}, {"status": 202}]}},
    "cut after the create": {"http": {"create": [{"cut": "after"}, {"cut": "after"}]}},
    "cut before the create": {"http": {"create": [{"cut": "before"}]}},
    "created, but 500": {"http": {"create": [{"status": 500, "effect": "done"}]}},
    "not created, and 500": {"http": {"create": [{"status": 500}]}},
    "answered too late": {"http": {"create": [{"delay_s": 2}]}},
    "unreadable answer": {"http": {"create": [{"malformed": True}]}},
    "looks go wrong": {"http": {"get": [{"status": 500}, {"malformed": True}, {"cut": "after"}, {"status": 404}]}},
    "failed once, cut": {"outcomes": ["TRANSITORY_ERROR"], "http": {"create": [{"cut": "after"}, {"status": 202}]}},
}
"""What the emulator does with a job, by name; half of all jobs just succeed."""


def graph(request_id: str, **script: object) -> Graph:
    """A graph whose job can be found at the emulator by the request it was made for."""
    return {
        "3": {"classType": "KSampler", "inputs": {"seed": 7, "steps": 20}},
        "script": {"classType": "EmulatorScript", "inputs": {"group": request_id, **script}},
    }


class Load:
    """Publishes requests; knows afterwards what was published, and where the broker put what cannot be read.

    Args:
        bootstrap_servers: the broker.
        topic: the requests topic.
        chance: decides on fates.
    """

    def __init__(self, bootstrap_servers: str, topic: str, chance: Random) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "enable.idempotence": True, "log_level": 0}
        )
        self._topic = topic
        self._chance = chance
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._stream)
        self._pause = 0.0
        self.accepted: list[str] = []
        self.unreadable: list[str] = []
        self.errors: list[str] = []

    def request(self, request_id: str, params: object, **fields: object) -> None:
        """Publish a request."""
        self.accepted.append(request_id)
        self._send(request_id, json.dumps({"params": params, **fields}).encode())

    def cancel(self, request_id: str) -> None:
        """Publish a cancel."""
        self._send(request_id, json.dumps({"cancel": request_id}).encode())

    def start(self, per_second: float) -> None:
        """Publish requests of all kinds from now on."""
        self._pause = 1 / per_second
        self._thread.start()

    def finish(self) -> None:
        """Publish no more; returns once the broker has everything."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        left = self._producer.flush(30)
        assert not left, f"{left} records are still not delivered"
        assert not self.errors, self.errors

    def _stream(self) -> None:
        number = 0
        while not self._stop.wait(self._pause):
            number += 1
            self._publish_one(f"order-{number}")
            self._producer.poll(0)

    def _publish_one(self, request_id: str) -> None:
        chance = self._chance.random()
        known = self._chance.choice(self.accepted[-50:]) if self.accepted else None
        if chance < 0.03:
            self._send(request_id, b'{"params": ', unreadable=True)
        elif chance < 0.06:
            self.request(request_id, {"3": {"classType": "", "inputs": {}}})
        elif chance < 0.09 and known:
            self._send(known, json.dumps({"params": graph(known)}).encode())
        elif chance < 0.13 and known:
            self._send(known, json.dumps({"cancel": known}).encode())
        else:
            self.request(request_id, self._any_graph(request_id), max_attempts=2)

    def _any_graph(self, request_id: str) -> Graph:
        times = {"queue_s": self._chance.uniform(0, 0.4), "run_s": self._chance.uniform(0, 0.8)}
        fate = self._chance.choice(list(SCRIPTS)) if self._chance.random() < 0.5 else ""
        return graph(request_id, **times, **SCRIPTS.get(fate, {}))

    def _send(self, key: str, value: bytes, *, unreadable: bool = False) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.errors.append(error.str())
            elif unreadable:
                self.unreadable.append(f"{message.partition()}/{message.offset()}")

        self._producer.produce(self._topic, key=key.encode(), value=value, on_delivery=delivered)
