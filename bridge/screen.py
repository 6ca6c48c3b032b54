"""What a person sees of jobs on a terminal: one live line a job, or one printed line an event."""

from typing import Self

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from bridge.adapters.kafka.client import Parked
from bridge.messages import EventType, JobEvent

STYLES: dict[EventType, str] = {
    EventType.ACCEPTED: "dim",
    EventType.SUBMITTED: "cyan",
    EventType.WAITING: "yellow",
    EventType.RUNNING: "blue",
    EventType.RETRYING: "magenta",
    EventType.DUPLICATE: "magenta",
    EventType.SUCCESS: "green",
    EventType.FAILED: "red",
    EventType.CANCELED: "bright_black",
    EventType.REJECTED: "red",
    EventType.EXPIRED: "red",
    EventType.UNKNOWN: "red",
}


class _Image(msgspec.Struct):
    width: int = 0
    height: int = 0


class _Meta(msgspec.Struct):
    image: _Image = msgspec.field(default_factory=_Image)


class Output(msgspec.Struct):
    """One image or video of a finished job.

    Args:
        id: TAMS' id of it.
        url: where it lies, for about an hour.
        meta: its size.
    """

    id: str = ""
    url: str = ""
    meta: _Meta = msgspec.field(default_factory=_Meta)


class _Progressing(msgspec.Struct):
    progress: float = 0.0


class _Waiting(msgspec.Struct):
    queueRank: str | int = 0  # noqa: N815  TAMS' name
    queueLen: str | int = 0  # noqa: N815  TAMS' name


class _Running(msgspec.Struct):
    processingImages: list[_Progressing] = msgspec.field(default_factory=list)  # noqa: N815  TAMS' name
    workflowFinishItem: _Progressing = msgspec.field(default_factory=_Progressing)  # noqa: N815  TAMS' name


class _Success(msgspec.Struct):
    images: list[Output] = msgspec.field(default_factory=list)
    videos: list[Output] = msgspec.field(default_factory=list)


class _Job(msgspec.Struct):
    waitingInfo: _Waiting = msgspec.field(default_factory=_Waiting)  # noqa: N815  TAMS' name
    runningInfo: _Running = msgspec.field(default_factory=_Running)  # noqa: N815  TAMS' name
    successInfo: _Success = msgspec.field(default_factory=_Success)  # noqa: N815  TAMS' name


def _job(event: JobEvent) -> _Job:
    try:
        return msgspec.json.decode(event.job, type=_Job) if event.job else _Job()
    except msgspec.ValidationError:
        return _Job()


def outputs(event: JobEvent) -> list[Output]:
    """The images and videos of a success."""
    success = _job(event).successInfo
    return [*success.images, *success.videos]


def state(event: JobEvent) -> str:
    """What has become of the job, in a few words."""
    word = event.type.rpartition(".")[2]
    job = _job(event)
    match event.type:
        case EventType.WAITING:
            rank, length = job.waitingInfo.queueRank, job.waitingInfo.queueLen
            return f"waiting, {rank} of {length}" if int(length) else "waiting"
        case EventType.RUNNING:
            return f"running, {progress(event):.0%}"
        case EventType.SUCCESS:
            count = len(outputs(event))
            return f"success, {count} output{'s' if count != 1 else ''}"
        case _ if event.error is not None:
            return f"{word}: {event.error.code}: {event.error.message}"
        case _:
            return word


def progress(event: JobEvent) -> float:
    """How far the job is, 0 to 1."""
    if event.type.is_terminal:
        return 1.0
    running = _job(event).runningInfo
    told = max([item.progress for item in running.processingImages] + [running.workflowFinishItem.progress])
    return min(told / 100 if told > 1 else told, 1.0)


def line(event: JobEvent | Parked) -> Text:
    """One event as a line."""
    if isinstance(event, Parked):
        return Text.assemble((event.request_id or "(no key)", "bold"), " ", (_parked(event), "red"))
    attempt = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    return Text.assemble(
        (f"{event.time.astimezone():%H:%M:%S} ", "dim"),
        (event.request_id, "bold"),
        (f" #{event.sequence} ", "dim"),
        (state(event) + attempt, STYLES[event.type]),
    )


def _parked(parked: Parked) -> str:
    return f"parked: {parked.reason}: {parked.detail}"


class JobBars:
    """Live progress bars, one a job; on anything but a terminal, a line an event.

    Args:
        console: where they are drawn.
        request_ids: the jobs, in the order they are shown.
    """

    def __init__(self, console: Console, request_ids: list[str]) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True, max_width=32)),
            BarColumn(bar_width=20, table_column=Column(min_width=20)),
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True, max_width=48)),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        if console.is_terminal:
            for request_id in request_ids:
                self._tasks[request_id] = self._progress.add_task(escape(request_id), total=1.0, state="published")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def show(self, event: JobEvent | Parked) -> None:
        """Take in an event."""
        task = self._tasks.get(event.request_id)
        if task is None:
            self._console.print(line(event))
        elif isinstance(event, Parked):
            self._update(task, 1.0, f"[red]{escape(_parked(event))}", ended=True)
        else:
            shown = f"[{STYLES[event.type]}]{escape(state(event))}"
            self._update(task, progress(event), shown, ended=event.type.is_terminal)

    def _update(self, task: TaskID, completed: float, shown: str, *, ended: bool) -> None:
        self._progress.update(task, completed=completed, state=shown)
        if ended:
            self._progress.stop_task(task)
