"""The demo: requests of every fate through a broker and the emulator, shown live, and judged at the end."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import httpx
from PIL import Image, UnidentifiedImageError
from rich.console import Console
from rich.table import Table

from bridge.adapters.brokers import free_ports
from bridge.adapters.kafka.client import BridgeClient, Parked
from bridge.adapters.telemetry import configure_logging
from bridge.demo_receiver import DemoReceiver, demo_receiver
from bridge.local import BrokerChoice, LocalStack, local_stack
from bridge.messages import EventType, JobEvent
from bridge.screen import STYLES, JobBars, outputs
from bridge.settings import LogSettings

PATIENCE_S = 120.0
"""How long the demo waits for its last event before it says that something is wrong."""

WEBHOOK_PATIENCE_S = 15.0
"""How long it then waits for the last webhook."""

PARKED = "parked"
_RAN = frozenset({EventType.ACCEPTED, EventType.SUBMITTED})
_LINE_WIDTH = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One request of the demo and how it must end.

    Args:
        request_id: its id, which names its fate.
        value: the record that is published.
        end: the event type that must end it, or `PARKED`.
        passes: event types it must pass through.
        outputs: how many files it must make.
        cancel_on: the event upon which the demo cancels it.
        again: whether the request is published twice.
    """

    request_id: str
    value: bytes
    end: EventType | str
    passes: frozenset[EventType] = frozenset()
    outputs: int = 0
    cancel_on: EventType | None = None
    again: bool = False


@dataclass(slots=True)
class Outcome:
    """What happened to one request."""

    events: list[JobEvent] = field(default_factory=list)
    parked: Parked | None = None
    files: list[Path] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    @property
    def end(self) -> EventType | str | None:
        """How it ended, if it has."""
        if self.parked is not None:
            return PARKED
        return next((event.type for event in self.events if event.type.is_terminal), None)


def graph(*, script: Mapping[str, object], width: int = 512, batch: int = 1) -> dict[str, object]:
    """A small text-to-image graph; `script` tells the emulator what is to become of it."""
    sampler = {"seed": 7, "steps": 20, "model": ["1", 0], "positive": ["3", 0], "latent_image": ["2", 0]}
    return {
        "1": {"classType": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "demo.safetensors"}},
        "2": {"classType": "EmptyLatentImage", "inputs": {"width": width, "height": 512, "batch_size": batch}},
        "3": {"classType": "CLIPTextEncode", "inputs": {"text": "a bridge at dawn", "clip": ["1", 1]}},
        "4": {"classType": "KSampler", "inputs": sampler},
        "5": {"classType": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"classType": "SaveImage", "inputs": {"images": ["5", 0]}},
        "9": {"classType": "EmulatorScript", "inputs": dict(script)},
    }


def _request(request_id: str, params: Mapping[str, object], **fields: object) -> bytes:
    return json.dumps({"request_id": request_id, "params": params, "labels": {"demo": "yes"}, **fields}).encode()


def _success(request_id: str, *, passes: Sequence[EventType] = (), again: bool = False, **script: object) -> Story:
    return Story(
        request_id=request_id,
        value=_request(request_id, graph(script={"group": request_id, "run_s": 6, **script})),
        end=EventType.SUCCESS,
        passes=_RAN | set(passes),
        outputs=1,
        again=again,
    )


def _failure(request_id: str, code: str, reason: str) -> Story:
    script = {"group": request_id, "run_s": 6, "outcomes": [code] * 2, "reason": reason}
    value = _request(request_id, graph(script=script), max_attempts=2)
    return Story(request_id=request_id, value=value, end=EventType.FAILED, passes=_RAN)


def _canceled(request_id: str, cancel_on: EventType, **script: object) -> Story:
    value = _request(request_id, graph(script=script))
    return Story(request_id=request_id, value=value, end=EventType.CANCELED, passes=_RAN, cancel_on=cancel_on)


def stories() -> list[Story]:
    """The requests of the demo, in the order they are published."""
    rejected, expired = EventType.REJECTED, EventType.EXPIRED
    four, wide, none = graph(script={}, batch=4), graph(script={}, width=500), graph(script={}, batch=0)
    late = _request("too-late", graph(script={"outcomes": ["HANG"]}), deadline_s=10)
    return [
        *(_success(f"picture-{number}", run_s=4 + number) for number in range(1, 9)),
        Story(request_id="four-pictures", value=_request("four-pictures", four), end=EventType.SUCCESS, outputs=4),
        *(_success(f"waits-first-{number}", queue_s=60, passes=[EventType.WAITING]) for number in range(1, 4)),
        _success("second-try-1", outcomes=["TRANSITORY_ERROR"], passes=[EventType.RETRYING]),
        _success("second-try-2", outcomes=["TRANSITORY_ERROR"], passes=[EventType.RETRYING]),
        _failure("no-try-left", "TRANSITORY_ERROR", "a GPU went away"),
        _failure("fatal-1", "FATAL_ERROR", "node 4: out of memory"),
        _failure("fatal-2", "FATAL_ERROR", "node 1: no such model"),
        _canceled("canceled-early", EventType.SUBMITTED, queue_s=600),
        _canceled("canceled-running", EventType.RUNNING, run_s=600),
        Story(request_id="too-late", value=late, end=expired, passes=_RAN),
        Story(request_id="bad-width", value=_request("bad-width", wide), end=rejected),
        Story(request_id="no-samples", value=_request("no-samples", none), end=rejected),
        _success("not-yet-processed", http={"create": [{"status": 202}]}),
        _success("answer-lost", http={"create": [{"cut": "after"}]}),
        _success("sent-twice", again=True, passes=[EventType.DUPLICATE]),
        Story(request_id="broken-json", value=b'{"params": {', end=PARKED),
        Story(request_id="no-params", value=b'{"labels": {"demo": "yes"}}', end=PARKED),
    ]


class Demo:
    """Publishes the stories, shows them live, and judges how each ended.

    Args:
        console: where it is shown.
        out: where outputs are saved.
        receiver: a webhook that is registered for all its events.
    """

    def __init__(self, console: Console, out: Path, receiver: DemoReceiver) -> None:
        self._console = console
        self._out = out
        self._receiver = receiver
        self._stories = {story.request_id: story for story in stories()}
        self._outcomes = {request_id: Outcome() for request_id in self._stories}

    async def run(self, stack: LocalStack) -> bool:
        """Play all stories on a running stack; True if every one ended as it must."""
        self._out.mkdir(parents=True, exist_ok=True)
        async with BridgeClient(stack.settings) as client, client.following() as events:
            with JobBars(self._console, list(self._stories)) as bars:
                for story in self._stories.values():
                    for _ in range(2 if story.again else 1):
                        await client.publish(story.request_id, story.value)
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await self._follow(events, client, bars)
                except TimeoutError:
                    self._console.print(f"gave up after {PATIENCE_S:.0f} s", style="red")
        await self._save_outputs()
        expected = {request_id: len(outcome.events) for request_id, outcome in self._outcomes.items()}
        await self._receiver.until(expected, seconds=WEBHOOK_PATIENCE_S)
        return self._judge()

    async def _follow(self, events: AsyncIterator[JobEvent | Parked], client: BridgeClient, bars: JobBars) -> None:
        async for event in events:
            bars.show(event)
            if isinstance(event, Parked):
                self._outcomes[event.request_id].parked = event
            else:
                outcome, story = self._outcomes[event.request_id], self._stories[event.request_id]
                outcome.events.append(event)
                if event.type is story.cancel_on and outcome.end is None:
                    await client.cancel(story.request_id)
            if all(outcome.end for outcome in self._outcomes.values()):
                return

    async def _save_outputs(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as http:
            for request_id, outcome in self._outcomes.items():
                for event in outcome.events:
                    if event.type is EventType.SUCCESS:
                        await self._save(http, request_id, event, outcome)

    async def _save(self, http: httpx.AsyncClient, request_id: str, event: JobEvent, outcome: Outcome) -> None:
        for number, output in enumerate(outputs(event), 1):
            response = await http.get(output.url)
            file = self._out / f"{request_id}-{number}.png"
            file.write_bytes(response.content)
            outcome.files.append(file)
            try:
                with Image.open(BytesIO(response.content)) as image:
                    image.load()
                    if image.size != (output.meta.image.width, output.meta.image.height):
                        outcome.trouble.append(f"{file.name} is {image.size}")
            except UnidentifiedImageError:
                outcome.trouble.append(f"{file.name} is not an image (HTTP {response.status_code})")

    def _judge(self) -> bool:
        table = Table("request", "ended as", "attempts", "events", "webhooks", "", title="What became of each request")
        table.add_column("outputs", overflow="fold")
        fine = True
        for request_id, story in self._stories.items():
            outcome = self._outcomes[request_id]
            posts = self._receiver.posts[request_id]
            trouble = [*outcome.trouble, *_differences(story, outcome), *_missing_posts(outcome, posts)]
            fine = fine and not trouble
            last = next((event for event in outcome.events if event.type.is_terminal), None)
            ended = _ending(last, outcome.parked)
            style = STYLES[last.type] if last else "red"
            table.add_row(
                request_id,
                f"[{style}]{ended}",
                str(last.attempt) if last else "-",
                str(len(outcome.events)),
                f"{sum(posts.values())} verified" if posts else "-",
                f"[red]✗ {'; '.join(trouble)}" if trouble else "[green]✓",
                " ".join(file.name for file in outcome.files),
            )
        self._console.print(table)
        files = sum(len(outcome.files) for outcome in self._outcomes.values())
        events = sum(len(outcome.events) for outcome in self._outcomes.values())
        verified = sum(len(self._receiver.posts[request_id]) for request_id in self._stories)
        fine = fine and not self._receiver.forged
        verdict = "all as expected" if fine else "not all as expected"
        self._console.print(
            f"{len(self._stories)} requests, {events} events, {verified} of them verified as webhooks "
            f"({self._receiver.forged} refused), {files} files in {self._out}/: {verdict}.",
            style="bold green" if fine else "bold red",
        )
        return fine


def _missing_posts(outcome: Outcome, posts: Mapping[str, int]) -> list[str]:
    missing = {event.id for event in outcome.events} - posts.keys()
    return [f"no webhook for {event_id}" for event_id in sorted(missing)]


def _ending(last: JobEvent | None, parked: Parked | None) -> str:
    if last is None:
        return f"parked ({parked.reason})" if parked else "not at all"
    word = last.type.rpartition(".")[2]
    return f"{word} ({last.error.code})" if last.error else word


def _differences(story: Story, outcome: Outcome) -> list[str]:
    found = []
    if outcome.end != story.end:
        found.append(f"should have ended as {story.end}")
    missing = story.passes - {event.type for event in outcome.events}
    found += [f"no {kind.value} event" for kind in sorted(missing)]
    if [event.sequence for event in outcome.events] != list(range(1, len(outcome.events) + 1)):
        found.append("events with a gap or a repeat")
    if sum(event.type.is_terminal for event in outcome.events) > 1:
        found.append("ended more than once")
    if len(outcome.files) != story.outputs:
        found.append(f"{story.outputs} outputs expected")
    return found


async def run_demo(console: Console, *, broker: BrokerChoice, kafka: str | None, out: Path, speed: float) -> int:
    """Run the demo; 0 if every request ended as it must.

    Raises:
        CannotStart: a part is missing or cannot begin.
    """
    if not console.is_terminal:
        console.width = max(console.width, _LINE_WIDTH)
    with TemporaryDirectory(prefix="tams-bridge-demo-") as scratch:
        configure_logging(LogSettings(level="warning", format="console"), file=Path(scratch) / "worker.log")
        console.print(
            f"Starting {kafka or f'the {broker} broker'}, the TAMS emulator ({speed:g} times real time), the bridge …"
        )
        token = f"tams-demo-{token_hex(4)}"  # on a broker that is in use, nobody's topics but ours
        overrides: dict[str, dict[str, object]] = {
            "topics": {"partitions": 4, "prefix": token},
            "worker": {"group": token},
            "poll": {"interval_s": 1 / speed},
            "jobs": {"retry_pause_s": 1 / speed, "resubmit_pause_s": 1 / speed},
            "forwarder": {"group": f"{token}-forwarder"},
            "http": {"port": free_ports(1)[0]},
        }
        starting = local_stack(
            broker=broker, kafka=kafka, data_dir=Path(scratch) / "broker", speed=speed, overrides=overrides
        )
        async with demo_receiver() as (receiver, url), starting as stack:
            console.print(f"Registering a webhook at {stack.api_url}: {url} …")
            await receiver.register(api_url=stack.api_url, api_key=stack.api_key, url=url)
            count = len(stories())
            console.print(f"Publishing {count} requests to {stack.settings.kafka.bootstrap_servers} …")
            return 0 if await Demo(console, out, receiver).run(stack) else 1
