"""Nothing that a file has is left out without a word."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit.graph.convert.editor_files import host, node, prompt, reasons, subgraph, warnings, workflow


def scaled(**more: Any) -> dict[str, Any]:
    """A subgraph with a promoted method, and a factor that is not promoted."""
    return subgraph(
        "s",
        node(101, "ImageScaleBy", ["area", 2]),
        inputs={"image": [(101, "image")], "upscale_method": [(101, "upscale_method")]},
        outputs={"IMAGE": (101, 0)},
        **more,
    )


@pytest.mark.parametrize(
    ("kind", "values", "lost"),
    [
        ("VHS_VideoCombine", {"format": "image/gif", "force_size": "Custom Width", "videopreview": {}}, "force_size"),
        ("EmptyImage", {"width": 8, "height": 8, "batch_size": 1, "color": 0, "colour": 5}, "colour"),
        ("CustomCombo", {"choice": "b", "option1": "a", "option2": "b"}, "option1, option2"),
    ],
)
def test_a_value_by_name_that_no_input_has_is_told(kind: str, values: Any, lost: str) -> None:
    document = workflow(node(1, kind, values))
    assert f"no such inputs, so values are left out: {lost}" in warnings(document)


def test_the_editors_own_values_are_nothing_to_tell() -> None:
    values = {"frame_rate": 8, "format": "image/gif", "start": 1, "videopreview": {"hidden": False}, "upload": "image"}
    buttons = {"upload 3d model": "x", "choose file to upload": "image", "$$canvas-image-preview": "x"}
    assert warnings(workflow(node(1, "VHS_VideoCombine", values | buttons))) == ""
    others = {"upload_path": "a", "refresh_rate": 2, "chooser": "b"}
    told = "the class has no such inputs, so values are left out: upload_path, refresh_rate, chooser"
    assert told in warnings(workflow(node(1, "VHS_VideoCombine", values | others)))


@pytest.mark.parametrize(
    ("values", "properties", "lost"),
    [
        (["lanczos", 3, "more"], {}, "number 2, number 3"),
        (["lanczos", 3], {"proxyWidgets": [["101", "upscale_method"], ["101", "gone"]]}, "number 2"),
        ({"upscale_method": "lanczos", "size": 3}, {}, "size"),
    ],
)
def test_values_of_a_host_that_no_input_takes_are_told(values: Any, properties: Any, lost: str) -> None:
    document = workflow(host(2, scaled(), values, properties=properties), subgraphs=[scaled()])
    assert f"no input of the subgraph takes these of its values, so they are left out: {lost}" in warnings(document)


@pytest.mark.parametrize(
    ("values", "properties"),
    [
        (["lanczos"], {}),
        (["lanczos", 3], {"proxyWidgets": [["101", "upscale_method"], ["101", "scale_by"]]}),
        (["lanczos", "x"], {"proxyWidgets": [["101", "upscale_method"], ["101", "$$canvas-image-preview"]]}),
        (["lanczos", None], {}),
    ],
)
def test_values_of_a_host_that_have_a_place_are_nothing_to_tell(values: Any, properties: Any) -> None:
    assert warnings(workflow(host(2, scaled(), values, properties=properties), subgraphs=[scaled()])) == ""


def test_a_link_to_an_input_that_the_subgraph_has_no_more_is_told() -> None:
    used = host(2, scaled(), image=(1, 0))
    used["inputs"].append({"name": "gone", "type": "IMAGE", "link": None, "from": (1, 0)})
    document = workflow(node(1, "EmptyImage", [8, 8, 1, 0]), used, subgraphs=[scaled()])
    assert "the subgraph has no such inputs, so links are left out: gone" in warnings(document)


def test_of_two_links_with_one_id_the_last_counts_and_it_is_told() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "EmptyImage", [9, 9, 1, 0]),
        node(3, "PreviewImage", images=(1, 0)),
    )
    document["links"].append([1, 2, 0, 3, 0, "IMAGE"])
    assert prompt(document)["3"] == {"images": ["2", 0]}
    assert "two links of the id 1: the last one counts" in warnings(document)
    document["links"][-1] = list(document["links"][0])
    assert warnings(document) == ""


def test_two_that_set_one_name_are_told() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "EmptyImage", [9, 9, 1, 0]),
        node(3, "SetNode", ["x"], v=(1, 0)),
        node(4, "SetNode", ["x"], v=(2, 0)),
        node(5, "GetNode", ["x"], outputs=("IMAGE",)),
        node(6, "PreviewImage", images=(5, 0)),
    )
    assert prompt(document)["6"] == {"images": ["1", 0]}
    assert "node 4 ('SetNode') sets 'x', which another SetNode sets, too" in warnings(document)


GROUP: dict[str, Any] = {
    "nodes": [
        {"type": "EmptyImage", "widgets_values": [8, 8, 1, 0], "outputs": [{"name": "I", "type": "IMAGE"}]},
        {"type": "PreviewImage", "inputs": [{"name": "images", "type": "IMAGE"}]},
    ],
    "links": [[0, 0, 1, 0, 1, "IMAGE"]],
    "external": [],
}


def grouped(values: Any, group: dict[str, Any] = GROUP, name: str = "g") -> dict[str, Any]:
    return workflow(node(1, f"workflow>{name}", values), extra={"groupNodes": {"g": copy.deepcopy(group)}})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([9], "it has 1 of 4 values; the others are those of the group's definition"),
        ({"width": 9}, "its values have names, where a group's are a list: they are left out"),
        ([9, 9, 1, 0, 5], "the last values (1) of the file belong to no widget"),
        ([9, 9, 1, 0], ""),
    ],
)
def test_a_group_with_other_values_than_its_widgets_is_told(values: Any, told: str) -> None:
    said = warnings(grouped(values))
    assert told in said if told else said == ""


def test_a_link_of_a_group_that_ends_nowhere_is_told() -> None:
    group = {**GROUP, "nodes": [GROUP["nodes"][0], {"type": "PreviewImage", "inputs": []}]}
    assert "a link of its group ends at input 0, which it does not have" in warnings(grouped([9, 9, 1, 0], group))


def test_a_group_that_is_not_in_the_file_is_called_one() -> None:
    (reason,) = reasons(grouped([], name="other"))
    assert reason["message"] == "the group 'other' is not in the file (node 1)"


def test_a_primitive_whose_value_does_not_arrive_is_told() -> None:
    document = workflow(
        node(1, "PrimitiveNode", [7], outputs=("INT",)),
        node(2, "EmptyLatentImage", [64, 32, 1], width=(1, 0)),
        node(3, "Reroute", outputs=("*",), _=(1, 0)),
        node(4, "EmptyLatentImage", [64, 32, 1], width=(3, 0)),
    )
    assert prompt(document)["4"]["width"] == 64
    assert "its value does not go on through node 3 (Reroute)" in warnings(document)


def two_hosts_inside(*order: str) -> dict[str, Any]:
    inner, outer = scaled(), None
    outer = subgraph("out", host(201, inner, ["lanczos"]), host(202, inner, ["bicubic"]))
    by_name = {"inner": inner, "outer": outer}
    return workflow(host(1, outer), subgraphs=[by_name[name] for name in order])


def test_hosts_of_a_subgraph_that_stands_after_theirs_lose_their_values_as_in_the_editor_and_it_is_told() -> None:
    found = prompt(two_hosts_inside("outer", "inner"))
    assert [found[f"1:{number}:101"]["upscale_method"] for number in (201, 202)] == ["area", "area"]
    assert "the editor loses its values when it loads the file" in warnings(two_hosts_inside("outer", "inner"))


def test_nor_do_their_proxies_count() -> None:
    inner = subgraph("in", node(101, "ImageScaleBy", ["area", 2], scale_by=(102, 0)), node(102, "PrimitiveFloat", [3]))
    proxies = {"proxyWidgets": [["101", "scale_by"]]}
    outer = subgraph("out", host(201, inner, [6], properties=proxies), host(202, inner))
    assert prompt(workflow(host(1, outer), subgraphs=[outer, inner]))["1:201:101"]["scale_by"] == ["1:201:102", 0]
    assert prompt(workflow(host(1, outer), subgraphs=[inner, outer]))["1:201:101"]["scale_by"] == 6


def test_hosts_of_a_subgraph_that_stands_before_theirs_keep_their_values() -> None:
    found = prompt(two_hosts_inside("inner", "outer"))
    assert [found[f"1:{number}:101"]["upscale_method"] for number in (201, 202)] == ["lanczos", "bicubic"]
    assert warnings(two_hosts_inside("inner", "outer")) == ""


@pytest.mark.parametrize("entry", [[101, "scale_by"], ["101"], ["101", 5], None, {"a": 1}, ["101", "scale_by", 3]])
def test_one_wrong_entry_among_proxies_and_none_counts_and_it_is_told(entry: Any) -> None:
    inner = subgraph("s", node(101, "ImageScaleBy", ["area", 2]), outputs={"IMAGE": (101, 0)})
    proxies = {"proxyWidgets": [["101", "scale_by"], entry]}
    document = workflow(host(2, inner, [6, "x"], properties=proxies), subgraphs=[inner])
    assert prompt(document)["2:101"]["scale_by"] == 2
    assert "its `proxyWidgets` are not all of two or three texts" in warnings(document)
