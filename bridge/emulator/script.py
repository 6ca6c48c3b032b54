"""The fate of a job, scripted by whoever creates it: a reserved node of class `EmulatorScript` among its params.

```json
{"script": {"classType": "EmulatorScript", "inputs": {
    "run_s": 3, "outcomes": ["TRANSITORY_ERROR", "SUCCESS"], "group": "order-7",
    "http": {"create": [{"status": 202}, {"cut": "after"}], "get": [{"delay_s": 20}]}}}}
```
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge.emulator.faults import Fault
from bridge.emulator.graph import Graph
from bridge.emulator.settings import Seconds
from bridge.emulator.wire import invalid_argument

SCRIPT_CLASS = "EmulatorScript"


class Outcome(StrEnum):
    """How a job ends, if it does."""

    SUCCESS = "SUCCESS"
    TRANSITORY_ERROR = "TRANSITORY_ERROR"
    FATAL_ERROR = "FATAL_ERROR"
    CANCELED = "CANCELED"
    HANG = "HANG"


class HttpFaults(BaseModel):
    """Faults by kind of request, used up one per request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    create: tuple[Fault, ...] = ()
    """Counted over the group."""
    get: tuple[Fault, ...] = ()
    """Counted for each job."""
    delete: tuple[Fault, ...] = ()
    """Counted for each job."""


class Script(BaseModel):
    """What the inputs of an `EmulatorScript` node may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_s: Seconds | None = None
    """Time from creation until the job may run."""
    run_s: Seconds | None = None
    """Run time."""
    outcomes: tuple[Outcome, ...] = ()
    """Used up one per job created in the group; SUCCESS when none is left."""
    reason: str = "emulated failure"
    """Reason of a FAILED job."""
    group: str | None = None
    """Requests that share the lists; by default those with the same requestId, or else the same params."""
    images: Annotated[int, Field(ge=0)] | None = None
    """How many outputs are made."""
    http: HttpFaults = HttpFaults()
    """Faults of the requests about the job."""


NO_SCRIPT = Script()


def read_script(graph: Graph) -> Script:
    """Give the script in a graph, an empty one if there is none; raise `Refusal` if it cannot be read."""
    node = next((node for node in graph.nodes.values() if node.class_type == SCRIPT_CLASS), None)
    if node is None:
        return NO_SCRIPT
    try:
        return Script.model_validate(node.inputs)
    except ValidationError as error:
        raise invalid_argument(f"node id: {node.id}\nclass type: {SCRIPT_CLASS}\n{error}") from error


def nth(faults: tuple[Fault, ...], number: int) -> Fault | None:
    """Give the fault for the request with this number, counted from 0."""
    return faults[number] if number < len(faults) else None
