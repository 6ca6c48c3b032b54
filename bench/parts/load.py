"""Requests at a given pace, and when their terminal events can be read: by clients that are not ours."""

import json
import time
from collections.abc import Sequence
from threading import Event, Thread

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from bridge.settings import Settings

GRAPH = {
    "3": {
        "classType": "KSampler",
        "inputs": {
            "seed": 7,
            "steps": 20,
            "cfg": 7.5,
            "model": ["4", 0],
            "latent_image": ["5", 0],
            "positive": ["6", 0],
        },
        "properties": {"Node name for S&R": "KSampler"},
    },
    "4": {"classType": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "600423083519508503"}},
    "5": {"classType": "EmptyLatentImage", "inputs": {"width": 768, "height": 768, "batch_size": 1}},
    "6": {
        "classType": "CLIPTextEncode",
        "inputs": {"text": "a lighthouse in a storm, oil on canvas, " * 6, "clip": ["4", 1]},
    },
    "8": {"classType": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
    "9": {"classType": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "lighthouse"}},
}
REQUEST = json.dumps({"params": GRAPH, "labels": {"tenant": "acme"}}).encode()


class Terminals:
    """Reads terminal events (read_committed) in a thread of its own, and notes when each became visible."""

    def __init__(self, settings: Settings) -> None:
        prefix = settings.topics.prefix
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "group.id": f"{prefix}.bench",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "log_level": 0,
                "fetch.min.bytes": 1,
            }
        )
        topics = [f"{prefix}.success", f"{prefix}.failed"]
        partitions = range(settings.topics.partitions)
        self._consumer.assign([TopicPartition(topic, number, OFFSET_END) for topic in topics for number in partitions])
        self._consumer.poll(1)
        self.seen: dict[str, float] = {}
        self._stop = Event()
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def await_all(self, request_ids: Sequence[str], *, seconds: float) -> None:
        """Return once each of these requests has a terminal event."""
        until, left = time.perf_counter() + seconds, set(request_ids)
        while left := left - self.seen.keys():
            assert time.perf_counter() < until, f"{len(left)} of {len(request_ids)} jobs have not ended"
            self._stop.wait(0.02)

    def _read(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)  # one by one: `consume` waits for its batch to fill
            if message is None:
                continue
            now = time.perf_counter()
            assert message.error() is None, message.error()
            key = (message.key() or b"").decode()
            assert key not in self.seen, f"{key} ended twice"
            self.seen[key] = now


class Requests:
    """Publishes requests."""

    def __init__(self, settings: Settings) -> None:
        self._producer = Producer(
            {"bootstrap.servers": settings.kafka.bootstrap_servers, "linger.ms": 0, "log_level": 0}
        )
        self._topic = f"{settings.topics.prefix}.requests"
        self._pace = Event()

    def publish(self, prefix: str, count: int, *, per_second: float = 0) -> dict[str, float]:
        """Publish so many requests, as fast as possible unless a pace is given; when each was handed over, by id."""
        sent, began = {}, time.perf_counter()
        for number in range(count):
            name = f"{prefix}-{number}"
            if per_second:
                self._pace.wait(max(0.0, began + number / per_second - time.perf_counter()))
            sent[name] = time.perf_counter()
            self._producer.produce(self._topic, REQUEST, key=name.encode())
            self._producer.poll(0)
        assert not self._producer.flush(30)
        return sent
