"""Group nodes, expanded in place: each value goes to the widget that it is for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.graph.convert.editor_files import node, prompt, reasons, warnings, workflow


def inner(
    kind: str, values: Any = None, *inputs: str, outputs: tuple[str, ...] = (), widgets: tuple[str, ...] = ()
) -> Any:
    """A node of a definition."""
    ports: dict[str, Any] = dict.fromkeys(inputs)
    saved = node(0, kind, values, **ports, outputs=outputs or None)
    for entry in saved["inputs"]:
        del entry["from"]
    saved["inputs"] += [{"name": name, "type": "INT", "link": None, "widget": {"name": name}} for name in widgets]
    del saved["id"]
    return saved


def grouped(
    nodes: list[Any], links: list[Any], values: Any, *, external: Any = (), config: Any = None, **more: Any
) -> Any:
    definition = {"nodes": nodes, "links": links, "external": [*external], **({"config": config} if config else {})}
    kind = more.pop("kind", "workflow>mine")
    return workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, kind, values, outputs=more.pop("outputs", ("IMAGE",)), **more),
        node(3, "PreviewImage", images=(2, 0)),
        extra={"groupNodes": {"mine": definition}},
    )


CHAIN = [inner("ImageInvert", None, "image"), inner("ImageScaleBy", ["nearest-exact", 1], "image")]
LINKED = [[0, 0, 1, 0, 1, "IMAGE"]]


@pytest.mark.parametrize("kind", ["workflow>mine", "workflow/mine"])
def test_inner_nodes_get_the_instances_id_and_their_number(kind: str) -> None:
    found = prompt(grouped(CHAIN, LINKED, ["lanczos", 3], kind=kind, image=(1, 0)))
    assert found["2:0"] == {"image": ["1", 0]}
    assert found["2:1"] == {"image": ["2:0", 0], "upscale_method": "lanczos", "scale_by": 3}
    assert found["3"] == {"images": ["2:1", 0]}


def test_inner_values_fill_up_those_of_the_instance() -> None:
    found = prompt(grouped(CHAIN, LINKED, ["area"], image=(1, 0)))
    assert found["2:1"] == {"image": ["2:0", 0], "upscale_method": "area", "scale_by": 1}


def test_each_control_takes_a_place_and_what_is_linked_inside_takes_none() -> None:
    nodes = [
        inner("PrimitiveInt", [5, "fixed"]),
        inner("KSampler", [7, "randomize", 20], "model", widgets=("steps",)),
        inner("EmptyLatentImage", [64, 32, 1]),
    ]
    values = [6, "fixed", 11, "randomize", 4.5, "heun", "karras", 0.5, 96, 48, 2, "surplus"]
    document = grouped(nodes, [[0, 0, 1, 1, 1, "INT"]], values, outputs=("LATENT", "LATENT"))
    found = prompt(document)
    assert found["2:0"] == {"value": 6}
    assert found["2:1"] == {
        "seed": 11,
        "steps": ["2:0", 0],
        "cfg": 4.5,
        "sampler_name": "heun",
        "scheduler": "karras",
        "denoise": 0.5,
    }
    assert found["2:2"] == {"width": 96, "height": 48, "batch_size": 2}
    assert "belong to no widget" in warnings(document)


def test_a_converted_widget_is_an_input_after_the_sockets_and_has_no_place() -> None:
    nodes = [inner("ImageScaleBy", ["area", 2], "image", widgets=("scale_by",))]
    document = grouped(nodes, [], ["lanczos"], image=(1, 0), scale_by=(1, 0))
    assert prompt(document)["2:0"] == {"image": ["1", 0], "upscale_method": "lanczos", "scale_by": ["1", 0]}


def test_an_input_may_have_the_title_of_its_node_before_it() -> None:
    nodes = [
        inner("EmptyLatentImage", [8, 8, 1], widgets=("width",)),
        inner("EmptyImage", [9, 9, 1, 0], widgets=("width",)),
    ]
    document = grouped(
        nodes, [], [16, 1, 24, 1, 0], types={"Empty Image width": "INT"}, **{"Empty Image width": (1, 0)}
    )
    del document["nodes"][1]["inputs"][0]["widget"]
    document["nodes"][1]["inputs"][0]["name"] = "EmptyImage width"
    # `width` of the first node is not offered, so it has a place of its own.
    found = prompt(document)
    assert found["2:0"] == {"width": ["1", 0], "height": 16, "batch_size": 1}


def test_reroutes_inside_lead_in_and_through() -> None:
    nodes = [
        inner("Reroute", None, "_", outputs=("*",)),
        inner("ImageInvert", None, "image"),
        inner("ImageComposite", [0], "destination", "source"),
    ]
    links = [[None, 0, 0, 0, 4, "IMAGE"], [0, 0, 1, 0, 5, "IMAGE"], [0, 0, 2, 0, 6, "IMAGE"], [1, 0, 2, 1, 7, "IMAGE"]]
    document = grouped(nodes, links, [5], IMAGE=(1, 0))
    found = prompt(document)
    assert found["2:1"] == {"image": ["1", 0]}
    assert found["2:2"] == {"destination": ["1", 0], "source": ["2:1", 0], "x": 5}
    assert found["3"] == {"images": ["2:2", 0]}


def test_a_linked_primitive_takes_a_place_and_one_for_its_control() -> None:
    nodes = [
        inner("PrimitiveNode", [5, "fixed"], outputs=("INT",)),
        inner("EmptyImage", [8, 8, 1, 0], widgets=("width",)),
    ]
    document = grouped(nodes, [[0, 0, 1, 0, 1, "INT"]], [97, "randomize", 40, 2, 7])
    assert prompt(document)["2:1"] == {"width": 97, "height": 40, "batch_size": 2, "color": 7}


def test_outputs_are_those_that_lead_nowhere_inside_or_are_led_out() -> None:
    external = [[{"type": "ImageInvert", "index": 0}, 0, "IMAGE"]]
    for given in (external, [[0, 0, "IMAGE"]]):
        document = grouped(CHAIN, LINKED, [], external=given, outputs=("IMAGE", "IMAGE"), image=(1, 0))
        assert prompt(document)["3"] == {"images": ["2:0", 0]}
    hidden = {"0": {"output": {"0": {"visible": False}}}}
    document = grouped(CHAIN, LINKED, [], external=external, config=hidden, image=(1, 0))
    assert prompt(document)["3"] == {"images": ["2:1", 0]}


def test_an_input_that_is_not_visible_is_none_of_the_instance() -> None:
    nodes = [inner("ImageComposite", [0], "destination", "source")]
    hidden = {"0": {"input": {"destination": {"visible": False}}}}
    assert prompt(grouped(nodes, [], [], config=hidden, source=(1, 0)))["2:0"] == {"source": ["1", 0], "x": 0}


def test_groups_within_groups() -> None:
    document = grouped(
        [inner("workflow>other", ["area", 2], "image", outputs=("IMAGE",))], [], ["lanczos", 3], image=(1, 0)
    )
    document["extra"]["groupNodes"]["other"] = {"nodes": CHAIN, "links": LINKED}
    found = prompt(document)
    assert found["2:0:1"] == {"image": ["2:0:0", 0], "upscale_method": "lanczos", "scale_by": 3}
    assert found["3"] == {"images": ["2:0:1", 0]}


@pytest.mark.parametrize(("mode", "expected"), [(2, {}), (4, {"images": ["1", 0]})])
def test_a_muted_or_bypassed_group_is_like_any_such_node(mode: int, expected: Any) -> None:
    document = grouped(CHAIN, LINKED, ["area", 2], mode=mode, types={"image": "IMAGE"}, image=(1, 0))
    assert [*prompt(document)] == ["1", "3"]
    assert prompt(document)["3"] == expected


def test_a_group_that_the_file_does_not_define_is_an_unknown_class() -> None:
    document = grouped(CHAIN, LINKED, [])
    document["extra"] = {}
    assert [reason["class_type"] for reason in reasons(document)] == ["workflow>mine"]


def test_a_linked_input_that_the_group_does_not_have_is_told() -> None:
    (reason,) = reasons(grouped(CHAIN, LINKED, [], image=None, more=(1, 0)))
    assert (reason["reason"], reason["input"]) == ("broken_link", "more")


def test_a_group_that_contains_itself_is_refused() -> None:
    itself = inner("workflow>mine", None, outputs=("IMAGE",))
    assert {reason["reason"] for reason in reasons(grouped([itself, itself], [], []))} == {"too_large"}
