from typing import Any

import pytest

from bridge.emulator.graph import read_graph
from bridge.emulator.script import read_script
from bridge.emulator.wire import Refusal


def complaint(params: Any) -> str:
    with pytest.raises(Refusal) as refused:
        read_graph(params)
    assert refused.value.answer.status == 400
    assert isinstance(refused.value.answer.body, bytes)
    return refused.value.answer.body.decode()


def test_what_a_graph_makes_is_read_from_its_nodes(graph: dict[str, Any]) -> None:
    read = read_graph(graph)
    assert (read.size, read.samples, read.seed, read.makes_video) == ((768, 512), 1, 7, False)


def test_a_latent_node_goes_before_other_sizes(graph: dict[str, Any]) -> None:
    crop = {"1": {"classType": "ImageCrop", "inputs": {"width": 64, "height": 64}}}
    assert read_graph({**crop, **graph}).size == (768, 512)


def test_without_a_size_images_are_512_square() -> None:
    assert read_graph({"1": {"class_type": "LoadImage"}}).size == (512, 512)


def test_nodes_stand_in_the_order_in_which_they_run(graph: dict[str, Any]) -> None:
    nodes = list(read_graph(graph).nodes)
    assert nodes.index("5") < nodes.index("3") < nodes.index("8") < nodes.index("9")
    assert read_graph(graph).last_node == "9"


def test_a_node_that_combines_a_video_makes_one_and_takes_longer(graph: dict[str, Any]) -> None:
    video = {**graph, "9": {"classType": "VHS_VideoCombine", "inputs": {"images": ["8", 0]}}}
    assert read_graph(video).makes_video
    assert read_graph(video).run_seconds() > read_graph(graph).run_seconds()


@pytest.mark.parametrize("params", [None, {}, [], "text"])
def test_params_are_required(params: object) -> None:
    assert "params: required" in complaint(params)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (7, "object expected"),
        ({"inputs": {}}, "classType: required"),
        ({"classType": "A", "inputs": {"image": ["99", 0]}}, "image: node 99 not found"),
        ({"classType": "A", "inputs": {"image": ["1", 0]}}, "circle"),
        ({"classType": "A", "inputs": {"batch_size": 0}}, "invalid_samples"),
        ({"classType": "A", "inputs": {"width": 500}}, "width: invalid_height_or_width"),
        ({"classType": "A", "inputs": {"height": 0}}, "height: invalid_height_or_width"),
    ],
)
def test_what_is_wrong_is_told_in_the_details(node: object, said: str) -> None:
    body = complaint({"1": node})
    assert said in body
    assert "tams_api.ArgumentError" in body
    assert "Params Valid" in body


def test_links_to_sizes_are_not_checked() -> None:
    read_graph({"1": {"classType": "A", "inputs": {"width": ["2", 0]}}, "2": {"classType": "B", "inputs": None}})


def test_a_script_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(Refusal):
        read_script(read_graph({"s": {"classType": "EmulatorScript", "inputs": {"run_seconds": 3}}}))
