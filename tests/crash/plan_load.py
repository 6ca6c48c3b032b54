"""The load of a plan: requests of every fate, by a client that is not ours and by the API, for as long as it lasts."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tests.crash.api_process import Api
from tests.crash.load import SCRIPTS, graph
from tests.crash.plan_judge import Header, Letter

_NOT_READABLE: Sequence[tuple[bytes | None, bytes | None]] = (
    (b"k", b'{"params": '),
    (b"\xff\xfe\x00", b"\x00\xff\x80 no text"),
    (None, b"[]"),
    (b"k", b'{"params": 3}'),
    (b"k", None),
    (None, None),
    (b"", b""),
    (b"k", b'{"params": {"3": {}}, "cancel": "k"}'),
    (b"k", b"[" * 5_000),
    (b"two\nlines", b'{"params": {"3": {"classType": "A", "inputs": {}}}}'),
    (b"nobody", b'{"cancel": "nobody"}'),
    (b"k", b'{"params": {"3": {}}, "deadline_s": "soon"}'),
)
"""Keys and values that lead to a dead letter."""

_HEADERS: Sequence[tuple[Header, ...]] = (
    (),
    (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),),
    (("a", None), ("a", b""), ("a", b"\xff\x00")),
    (("dlq-reason", b"of another's"), ("ä", b"1")),
)
_EXPIRES: Mapping[str, object] = {"outcomes": ["HANG"]}
_REMEMBERED = 50


class PlanLoad:
    """Publishes requests; knows afterwards which were acknowledged, and which nobody knows of.

    Args:
        servers: the brokers.
        topic: the requests topic.
        api: the other way in.
        chance: decides on fates.
    """

    def __init__(self, servers: str, topic: str, api: Api, chance: Random) -> None:
        self._producer = Producer(
            {"bootstrap.servers": servers, "linger.ms": 5, "enable.idempotence": True, "log_level": 0}
        )
        self._topic = topic
        self._api = api
        self._stop = threading.Event()
        ways = {"kafka": self._publish_one, "api": self._ask_one}
        self._chances = {name: Random(chance.random()) for name in ways}
        self._threads = {name: threading.Thread(target=self._stream, args=(name, way)) for name, way in ways.items()}
        self._pauses: dict[str, float] = {}
        self._by_kafka: list[str] = []
        self._by_api: list[str] = []
        self.accepted: dict[str, None] = {}
        self.possible: set[str] = set()
        self.unreadable: dict[str, Letter] = {}
        self.answers: Counter[str] = Counter()
        self.refusals: list[bytes] = []
        self.problems: list[str] = []

    def start(self, per_second: float) -> None:
        """Publish requests of all kinds from now on, about a third of them through the API."""
        self._pauses = {"kafka": 1.5 / per_second, "api": 3 / per_second}
        for thread in self._threads.values():
            thread.start()

    def finish(self) -> None:
        """Publish no more; returns once what was begun has an outcome.

        Raises:
            AssertionError: the brokers did not take everything in time.
        """
        self._stop.set()
        for thread in self._threads.values():
            if thread.ident is not None:
                thread.join()
        left = self._producer.flush(60)
        assert not left, f"{left} records are still not delivered"

    def _stream(self, name: str, publish: Callable[[Random, str], None]) -> None:
        number = 0
        try:
            while not self._stop.wait(self._pauses[name]):
                number += 1
                publish(self._chances[name], f"{name}-{number}")
                self._producer.poll(0)
        except Exception as error:
            self.problems.append(f"the load by {name} has ended: {error!r}")
            raise

    # ------------------------------------------------------------------------------------------------------- by Kafka
    def _publish_one(self, chance: Random, request_id: str) -> None:
        what = chance.random()
        known = chance.choice(self._by_kafka[-_REMEMBERED:]) if self._by_kafka else None
        if what < 0.1:
            key, value = chance.choice(_NOT_READABLE)
            self._park(Letter(key=key, value=value, headers=chance.choice(_HEADERS)))
        elif what < 0.15 and known:
            self._send(known, {"params": graph(known)}, ())
        elif what < 0.22 and known:
            self._send(known, {"cancel": known}, ())
        else:
            self._by_kafka.append(request_id)
            self.possible.add(request_id)
            self._send(request_id, _request(chance, request_id), chance.choice(_HEADERS))

    def _park(self, letter: Letter) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.unreadable[f"{message.partition()}/{message.offset()}"] = letter
            else:
                self.problems.append(f"nobody knows of an unreadable record: {error.str()}")

        self._produce(letter.key, letter.value, letter.headers, delivered)

    def _send(self, request_id: str, document: Mapping[str, object], headers: Sequence[Header]) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if "params" in document and error is None:
                self.accepted[request_id] = None

        self._produce(request_id.encode(), json.dumps(document).encode(), headers, delivered)

    def _produce(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        delivered: Callable[[KafkaError | None, Message], None],
    ) -> None:
        self._producer.produce(self._topic, key=key, value=value, headers=list(headers), on_delivery=delivered)

    # --------------------------------------------------------------------------------------------------------- by API
    def _ask_one(self, chance: Random, request_id: str) -> None:
        what = chance.random()
        known = chance.choice(list(self.accepted)[-_REMEMBERED:]) if self.accepted else None
        if what < 0.15 and known:
            self._ask("cancel", "POST", f"/v1/jobs/{known}/cancel")
        elif what < 0.2 and known:
            self._ask("read", "GET", f"/v1/jobs/{known}")
        elif what < 0.25:
            self._ask("unreadable", "POST", "/v1/jobs", {"request_id": request_id, "params": 3})
        elif what < 0.3 and self._by_api:  # one of our own: clients do not agree on a key's partition
            known = chance.choice(self._by_api[-_REMEMBERED:])
            self._ask("repeat", "POST", "/v1/jobs", {"request_id": known, "params": graph(known)})
        else:
            self.possible.add(request_id)
            self._by_api.append(request_id)
            document = {"request_id": request_id, **_request(chance, request_id)}
            if self._ask("submit", "POST", "/v1/jobs", document) == 202:
                self.accepted[request_id] = None

    def _ask(self, what: str, method: str, path: str, document: object = None) -> int:
        try:
            status, answer = self._api.ask(method, path, document)
        except ValueError as error:
            self.problems.append(f"{what}: the API has answered with something that is no JSON: {error}")
            return 0
        self.answers[f"{what}: {status or 'none'}"] += 1
        if status >= 400:
            self.refusals.append(json.dumps(answer).encode())
        return status


def _request(chance: Random, request_id: str) -> dict[str, Any]:
    """Any request that can be read; a few are refused by TAMS, a few never end by themselves."""
    what = chance.random()
    fields: dict[str, Any] = {"max_attempts": 2}
    if chance.random() < 0.5:
        fields["labels"] = {"tenant": "acme"}
    if what < 0.05:
        return {"params": {"3": {"classType": "", "inputs": {}}}, **fields}
    if what < 0.1:
        return {"params": graph(request_id, **_EXPIRES), "deadline_s": chance.uniform(0.5, 4), **fields}
    times = {"queue_s": chance.uniform(0, 0.4), "run_s": chance.uniform(0, 0.8)}
    fate = chance.choice(list(SCRIPTS)) if chance.random() < 0.5 else ""
    return {"params": graph(request_id, **times, **SCRIPTS.get(fate, {})), **fields}
