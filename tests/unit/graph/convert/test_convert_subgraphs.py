"""Subgraphs: expanded, with promoted widgets in both forms."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.graph.convert.editor_files import host, inputs, node, prompt, reasons, subgraph, warnings, workflow


def scaled(identity: str = "s", *, promoted: tuple[str, ...] = ()) -> dict[str, Any]:
    return subgraph(
        identity,
        node(101, "ImageInvert"),
        node(102, "ImageScaleBy", ["nearest-exact", 2], image=(101, 0)),
        inputs={"image": [(101, "image")], **{name: [(102, name)] for name in promoted}},
        outputs={"IMAGE": (102, 0)},
    )


def with_host(definition: dict[str, Any], values: Any = None, **more: Any) -> dict[str, Any]:
    return workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        host(2, definition, values, image=(1, 0), **more),
        node(3, "PreviewImage", images=(2, 0)),
        subgraphs=[definition],
    )


def values_of(document: dict[str, Any], node_id: str = "2:102") -> list[Any]:
    found = prompt(document)[node_id]
    return [found["upscale_method"], found["scale_by"]]


def test_inner_nodes_get_the_path_as_their_id() -> None:
    found = prompt(with_host(scaled()))
    assert found["2:101"] == {"image": ["1", 0]}
    assert found["2:102"] == {"image": ["2:101", 0], "upscale_method": "nearest-exact", "scale_by": 2}
    assert found["3"] == {"images": ["2:102", 0]}
    assert "2" not in found


def test_each_host_has_its_own_promoted_values() -> None:
    inner = scaled(promoted=("scale_by", "upscale_method"))
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        host(2, inner, [3, "bicubic"], image=(1, 0)),
        host(3, inner, [4], image=(2, 0)),
        subgraphs=[inner],
    )
    assert values_of(document, "2:102") == ["bicubic", 3]
    assert values_of(document, "3:102") == ["nearest-exact", 4]


def test_a_link_from_outside_wins_over_the_promoted_value() -> None:
    inner = scaled(promoted=("scale_by",))
    document = with_host(inner, [3], scale_by=None)
    assert values_of(document) == ["nearest-exact", 3]
    linked = workflow(node(1, "PrimitiveFloat", [1.5]), host(2, inner, [3], scale_by=(1, 0)), subgraphs=[inner])
    assert values_of(linked) == ["nearest-exact", ["1", 0]]


def test_an_input_without_a_link_and_without_a_widget_gives_nothing() -> None:
    inner = scaled()
    assert prompt(workflow(host(2, inner), subgraphs=[inner]))["2:101"] == {}


def test_null_is_a_promoted_value_except_of_a_combo() -> None:
    inner = scaled(promoted=("scale_by", "upscale_method"))
    assert values_of(with_host(inner, [None, None])) == ["nearest-exact", None]


def test_promoted_texts_are_taken_as_they_are() -> None:
    inner = subgraph("s", node(101, "CLIPTextEncode", ["in {a|b}"]), inputs={"text": [(101, "text")]})
    document = workflow(host(2, inner, ["out {a|b} // c"]), host(3, inner), subgraphs=[inner])
    assert prompt(document) == {"2:101": {"text": "out {a|b} // c"}, "3:101": {"text": "in {a|b}"}}


def test_one_input_may_feed_several_widgets() -> None:
    inner = subgraph("s", node(9, "EmptyLatentImage", [64, 32, 1]), inputs={"size": [(9, "width"), (9, "height")]})
    found = prompt(workflow(host(1, inner, [96]), host(2, inner), subgraphs=[inner]))
    assert found["1:9"] == {"width": 96, "height": 96, "batch_size": 1}
    assert found["2:9"] == {"width": 64, "height": 64, "batch_size": 1}


def test_inputs_of_a_host_are_matched_by_name_and_others_are_dropped() -> None:
    inner = scaled(promoted=("scale_by",))
    document = with_host(inner, [3])
    saved = document["nodes"][1]["inputs"]
    saved.reverse()
    saved.insert(0, {"name": "gone", "type": "MASK", "link": None})
    assert prompt(document)["2:101"] == {"image": ["1", 0]}
    assert values_of(document) == ["nearest-exact", 3]


def test_what_the_editor_adds_to_a_class_can_be_promoted_too() -> None:
    inner = subgraph(
        "s", node(9, "LoadImage", ["a.png", "image"]), inputs={"upload": [(9, "upload")], "image": [(9, "image")]}
    )
    document = workflow(host(2, inner, ["image", "b.png"]), subgraphs=[inner])
    assert prompt(document)["2:9"] == {"upload": "image", "image": "b.png"}


def nested() -> tuple[dict[str, Any], dict[str, Any]]:
    inner = scaled("in", promoted=("scale_by",))
    outer = subgraph(
        "out",
        host(201, inner, [9]),
        inputs={"image": [(201, "image")], "factor": [(201, "scale_by")]},
        outputs={"IMAGE": (201, 0)},
    )
    return outer, inner


def test_subgraphs_in_subgraphs() -> None:
    outer, inner = nested()
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        host(2, outer, [2.5], image=(1, 0)),
        host(3, outer),
        subgraphs=[outer, inner],
    )
    found = prompt(document)
    assert found["2:201:101"] == {"image": ["1", 0]}
    assert found["2:201:102"]["scale_by"] == 2.5
    assert found["3:201:102"]["scale_by"] == 9


def test_definitions_may_stand_within_definitions_and_keep_their_ids() -> None:
    inner = scaled("in")
    inner["nodes"][0]["id"] = 101
    outer = subgraph("out", host(101, inner), outputs={"I": (101, 0)}, definitions={"subgraphs": [inner]})
    assert [*prompt(workflow(host(5, outer), subgraphs=[outer]))] == ["5:101:101", "5:101:102"]


@pytest.mark.parametrize(("mode", "expected"), [(2, {}), (4, {"images": ["1", 0]})])
def test_a_muted_or_bypassed_host_at_the_root_leaves_its_inside_out(mode: int, expected: Any) -> None:
    found = prompt(with_host(scaled(), mode=mode))
    assert found["3"] == expected
    assert [*found] == ["1", "3"]


@pytest.mark.parametrize(("mode", "expected"), [(2, {}), (4, {"images": ["1", 0]})])
def test_within_a_subgraph_the_inside_of_such_a_host_stays(mode: int, expected: Any) -> None:
    inner = scaled("in")
    outer = subgraph(
        "out", host(201, inner, mode=mode), inputs={"image": [(201, "image")]}, outputs={"IMAGE": (201, 0)}
    )
    document = with_host(outer)
    document["definitions"]["subgraphs"].append(inner)
    found = prompt(document)
    assert found["3"] == expected
    assert found["2:201:101"] == {"image": ["1", 0]}


def test_inside_everything_works_as_outside() -> None:
    inner = subgraph(
        "s",
        node(101, "ImageInvert", mode=4),
        node(102, "Reroute", outputs=("*",), _=(101, 0)),
        node(103, "ImageScaleBy", ["area", 2], image=(102, 0), scale_by=(104, 0)),
        node(104, "PrimitiveNode", [8, "fixed"], outputs=("FLOAT",)),
        node(105, "SaveImage", ["x"], mode=2, images=(103, 0)),
        inputs={"image": [(101, "image")]},
        outputs={"IMAGE": (103, 0)},
    )
    found = prompt(with_host(inner))
    assert found["2:103"] == {"image": ["1", 0], "upscale_method": "area", "scale_by": 8}
    assert [*found] == ["1", "2:103", "3"]


def test_an_input_that_is_led_straight_out_is_handed_on() -> None:
    inner = subgraph("s", node(101, "ImageInvert"), inputs={"image": [(101, "image")]})
    inner["outputs"] = [{"name": "same", "type": "IMAGE", "linkIds": [77]}, {"name": "none", "type": "IMAGE"}]
    inner["links"].append(
        {"id": 77, "origin_id": -10, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "*"}
    )
    document = with_host(inner)
    document["nodes"].append(node(4, "PreviewImage"))
    document["nodes"][-1]["inputs"] = [{"name": "images", "type": "IMAGE", "link": 50}]
    document["links"].append([50, 2, 1, 4, 0, "IMAGE"])
    assert prompt(document)["3"] == {"images": ["1", 0]}
    assert prompt(document)["4"] == {}


def test_ids_that_are_used_already_are_replaced() -> None:
    first, second = scaled("a"), scaled("b")
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        host(2, first, image=(1, 0)),
        host(3, second, [7], image=(2, 0), properties={"proxyWidgets": [["102", "scale_by"]]}),
        subgraphs=[first, second],
    )
    found = prompt(document)
    assert found["3:103"] == {"image": ["2:102", 0]}
    assert found["3:104"] == {"image": ["3:103", 0], "upscale_method": "nearest-exact", "scale_by": 7}


def test_a_host_without_its_definition_is_of_an_unknown_class() -> None:
    (reason,) = reasons(workflow(node(2, "11111111-1111-4111-8111-000000000099")))
    assert reason["reason"] == "missing_node_type"


# proxyWidgets


def test_proxies_without_values_leave_the_inner_ones() -> None:
    proxies = [
        ["102", "scale_by"],
        ["-1", "nothing"],
        ["102", "$$canvas-image-preview"],
        ["999", "x"],
        ["102", "no"],
        5,
    ]
    assert values_of(with_host(scaled(), properties={"proxyWidgets": proxies})) == ["nearest-exact", 2]


def test_values_of_proxies_are_numbered_as_the_proxies() -> None:
    inner = scaled()
    document = workflow(
        host(2, inner, ["bicubic", 5], properties={"proxyWidgets": [["102", "upscale_method"], ["102", "scale_by"]]}),
        host(3, inner, ["area"], properties={"proxyWidgets": [["102", "upscale_method"]]}),
        subgraphs=[inner],
    )
    assert values_of(document, "2:102") == ["bicubic", 5]
    assert values_of(document, "3:102") == ["area", 2]


def test_the_order_of_proxies_wins_over_that_of_inputs() -> None:
    inner = scaled(promoted=("upscale_method", "scale_by"))
    proxies = [["102", "scale_by"], ["102", "upscale_method"]]
    assert values_of(with_host(inner, [6, "area"], properties={"proxyWidgets": proxies})) == ["area", 6]
    of_host = [["-1", "scale_by"], ["-1", "upscale_method"]]
    assert values_of(with_host(inner, [6, "area"], properties={"proxyWidgets": of_host})) == ["area", 6]


def test_a_proxied_text_is_promoted_for_every_host() -> None:
    inner = subgraph("s", node(101, "CLIPTextEncode", ["in {a|b}"]))
    document = workflow(
        host(2, inner, properties={"proxyWidgets": [["101", "text"]]}), host(3, inner), subgraphs=[inner]
    )
    assert prompt(document) == {"2:101": {"text": "in {a|b}"}, "3:101": {"text": "in {a|b}"}}


def test_a_proxy_replaces_the_link_of_the_inner_widget() -> None:
    inner = subgraph("s", node(101, "ImageScaleBy", ["area", 2], scale_by=(104, 0)), node(104, "PrimitiveFloat", [8]))
    document = workflow(host(2, inner, [6], properties={"proxyWidgets": [["101", "scale_by"]]}), subgraphs=[inner])
    assert values_of(document, "2:101") == ["area", 6]


def test_a_proxy_of_a_primitive_is_an_input_in_its_place_with_a_value_for_each_host() -> None:
    inner = subgraph(
        "s",
        node(101, "EmptyLatentImage", [16, 8, 1], width=(104, 0)),
        node(104, "PrimitiveNode", [64, "fixed"], outputs=("INT",)),
    )
    proxies = {"proxyWidgets": [["104", "value"]]}
    document = workflow(
        host(2, inner, [160], properties=proxies),
        host(3, inner, [], properties=proxies),
        host(4, inner, [72], properties=proxies),
        host(5, inner),
        subgraphs=[inner],
    )
    found = prompt(document)
    assert [found[f"{number}:101"]["width"] for number in (2, 3, 4, 5)] == [160, 16, 72, 16]
    assert warnings(document) == ""


def test_a_proxy_of_a_primitive_with_a_stale_link_keeps_the_primitives_value() -> None:
    inner = subgraph(
        "s",
        node(101, "ImageScaleBy", ["area", 2], scale_by=(104, 0)),
        node(104, "PrimitiveNode", [8, "fixed"], outputs=("FLOAT",)),
    )
    document = workflow(host(2, inner, [6], properties={"proxyWidgets": [["104", "value"]]}), subgraphs=[inner])
    assert values_of(document, "2:101") == ["area", 8]
    assert "no input of the subgraph takes these of its values" in warnings(document)


@pytest.mark.parametrize("ids", [[999], [999, 1002], [1002, 999]])
def test_an_output_whose_first_link_is_gone_leads_out_what_ends_at_it(ids: list[int]) -> None:
    inner = subgraph("s", node(101, "EmptyImage", [8, 8, 1, 0]), node(102, "EmptyImage", [9, 9, 1, 0]))
    inner["outputs"] = [{"name": "I", "type": "IMAGE", "linkIds": ids}]
    inner["links"] = [
        {"id": 1002, "origin_id": 102, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"}
    ]
    document = workflow(host(2, inner), node(3, "PreviewImage", images=(2, 0)), subgraphs=[inner])
    document["nodes"][0]["outputs"] = [{"name": "I", "type": "IMAGE", "links": [1]}]
    assert prompt(document)["3"] == {"images": ["2:102", 0]}


def test_an_output_that_the_subgraph_has_no_more_is_refused() -> None:
    inner = subgraph("s", node(101, "EmptyImage", [8, 8, 1, 0]), outputs={"I": (101, 0)})
    (reason,) = reasons(workflow(host(2, inner), node(3, "PreviewImage", images=(2, 4)), subgraphs=[inner]))
    assert reason["reason"] == "broken_link"
    assert "an input is linked to its output 4, and the subgraph has no such output now" in reason["message"]


@pytest.mark.parametrize("name", ["scale_by", "102: scale_by", "7: 102: scale_by"])
def test_proxies_reach_into_hosts_inside(name: str) -> None:
    inner = scaled("in")
    outer = subgraph(
        "out",
        host(201, inner, [3], properties={"proxyWidgets": [["102", "scale_by"]]}),
        inputs={"image": [(201, "image")]},
        outputs={"IMAGE": (201, 0)},
    )
    document = workflow(
        host(2, outer, [7], properties={"proxyWidgets": [["201", name]]}), host(3, outer), subgraphs=[outer, inner]
    )
    assert values_of(document, "2:201:102") == ["nearest-exact", 7]
    assert values_of(document, "3:201:102") == ["nearest-exact", 3]


@pytest.mark.parametrize("name", ["scale_by", "101: scale_by", "by"])
def test_a_proxy_names_a_promoted_input_of_a_host_inside_or_the_widget_that_it_stands_for(name: str) -> None:
    inner = subgraph("in", node(101, "ImageScaleBy", ["area", 2]), inputs={"by": [(101, "scale_by")]})
    outer = subgraph("out", host(201, inner, [3]))
    document = workflow(host(2, outer, [7], properties={"proxyWidgets": [["201", name]]}), subgraphs=[outer, inner])
    assert values_of(document, "2:201:101") == ["area", 7]


def test_widgets_of_one_name_are_told_apart() -> None:
    inner = subgraph("s", node(101, "ImageScaleBy", ["area", 2]), node(102, "ImageScaleBy", ["area", 3]))
    proxies = [["101", "scale_by"], ["102", "scale_by"], ["101", "upscale_method"], ["102", "upscale_method"]]
    document = workflow(
        host(2, inner, [4, 5, None, "lanczos"], properties={"proxyWidgets": proxies}), subgraphs=[inner]
    )
    assert values_of(document, "2:101") == ["area", 4]
    assert values_of(document, "2:102") == ["lanczos", 5]


def test_a_value_that_an_editor_could_not_place_counts_for_an_input_of_the_host() -> None:
    inner = scaled(promoted=("scale_by",))
    left = [{"originalEntry": ["-1", "scale_by"], "hostValue": 5}, {"originalEntry": ["7", "x"], "hostValue": 6}, None]
    assert values_of(with_host(inner, properties={"proxyWidgetErrorQuarantine": left})) == ["nearest-exact", 5]


def test_a_promoted_dynamic_combo_keeps_the_inner_option() -> None:
    inner = subgraph(
        "s",
        node(101, "Resize", ["to size", 64, 32, "area"]),
        inputs={"how": [(101, "how")], "width": [(101, "how.width")]},
    )
    document = workflow(host(2, inner, ["by factor", 96]), subgraphs=[inner])
    assert prompt(document)["2:101"] == {"how": "by factor", "how.width": 96, "how.height": 32, "filter": "area"}
    assert inputs("Resize", ["by factor", 2, "area"]) == {"how": "by factor", "how.factor": 2, "filter": "area"}
