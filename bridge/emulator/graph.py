"""What a workflow graph says: whether it is valid, what it makes, how long that takes. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from bridge.emulator.wire import JsonObject, invalid_argument

DEFAULT_SIDE = 512
DEFAULT_STEPS = 20
SIDE_STEP = 64
LONGEST_SIDE = 8192
VIDEO_FACTOR = 5


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph in ComfyUI's API format."""

    id: str
    class_type: str
    inputs: Mapping[str, object]

    def number(self, name: str) -> int | None:
        """Give a literal whole number among the inputs."""
        value = self.inputs.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def links(self) -> Iterator[tuple[str, str]]:
        """Give the inputs that are links, each with the node it comes from."""
        for name, value in self.inputs.items():
            if isinstance(value, list) and list(map(type, value)) == [str, int]:
                yield name, value[0]


@dataclass(frozen=True)
class Graph:
    """A valid graph; its nodes stand in the order in which they run."""

    nodes: Mapping[str, Node]

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of what is made, as the latent node says."""
        sized = [node for node in self.nodes.values() if node.number("width") and node.number("height")]
        sized.sort(key=lambda node: "Latent" not in node.class_type)
        if not sized:
            return DEFAULT_SIDE, DEFAULT_SIDE
        return sized[0].number("width") or DEFAULT_SIDE, sized[0].number("height") or DEFAULT_SIDE

    @cached_property
    def samples(self) -> int:
        """How many outputs are made."""
        return self._first("batch_size") or 1

    @cached_property
    def seed(self) -> int:
        """The seed of the first node that has one."""
        return self._first("seed") or self._first("noise_seed") or 0

    @cached_property
    def makes_video(self) -> bool:
        """Whether the outputs are videos."""
        return any("Video" in node.class_type for node in self.nodes.values())

    @cached_property
    def last_node(self) -> str:
        """The node whose output nobody takes, which is where the results come out."""
        taken = {source for node in self.nodes.values() for _, source in node.links()}
        return next(node_id for node_id in reversed(list(self.nodes)) if node_id not in taken)

    def run_seconds(self) -> float:
        """Reckon how long a GPU takes: a third of a second per step, megapixel and output."""
        width, height = self.size
        steps = self._first("steps") or DEFAULT_STEPS
        work = steps * self.samples * width * height / 1_000_000 * (VIDEO_FACTOR if self.makes_video else 1)
        return 0.5 + work / 3

    def _first(self, name: str) -> int | None:
        return next((number for node in self.nodes.values() if (number := node.number(name)) is not None), None)


def read_graph(params: object) -> Graph:
    """Read the `params` of a request; raise `Refusal` with everything that is wrong with them."""
    if not isinstance(params, dict) or not params:
        raise invalid_argument("params: required")
    nodes = {node_id: _read_node(node_id, node) for node_id, node in params.items()}
    complaints = [
        f"node id: {node.id}\nclass type: {node.class_type}\n{complaint}"
        for node in nodes.values()
        for complaint in _complaints(node, nodes)
    ]
    if complaints:
        raise invalid_argument(*complaints)
    try:
        order = TopologicalSorter({node.id: [source for _, source in node.links()] for node in nodes.values()})
        return Graph({node_id: nodes[node_id] for node_id in order.static_order()})
    except CycleError as error:
        raise invalid_argument(f"nodes in a circle: {error.args[1]}") from error


def _read_node(node_id: str, node: object) -> Node:
    if not isinstance(node, dict):
        raise invalid_argument(f"node id: {node_id}\nobject expected")
    class_type = field(node, "classType", "class_type")
    inputs = node.get("inputs") or {}
    return Node(node_id, class_type if isinstance(class_type, str) else "", inputs if isinstance(inputs, dict) else {})


def _complaints(node: Node, nodes: Mapping[str, Node]) -> Iterator[str]:
    if not node.class_type:
        yield "classType: required"
    for name, source in node.links():
        if source not in nodes:
            yield f"{name}: node {source} not found"
    samples = node.number("batch_size")
    if samples is not None and samples < 1:
        yield "batch_size: invalid_samples"
    for side in ("width", "height"):
        length = node.number(side)
        if length is not None and (not SIDE_STEP <= length <= LONGEST_SIDE or length % SIDE_STEP):
            yield f"{side}: invalid_height_or_width"


def field(document: JsonObject, camel: str, snake: str) -> object:
    """Give a field of a request, which may be written in lower camel or snake case."""
    return document.get(camel, document.get(snake))
