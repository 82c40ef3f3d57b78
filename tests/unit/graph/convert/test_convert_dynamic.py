"""Inputs that depend on values: dynamic combos, inputs that grow, types that match."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.graph.convert.editor_files import inputs, node, prompt, warnings, workflow


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["to size", 64, 32, "lanczos"], {"how": "to size", "how.width": 64, "how.height": 32, "filter": "lanczos"}),
        (["by factor", 1.5, "lanczos"], {"how": "by factor", "how.factor": 1.5, "filter": "lanczos"}),
        (["like another", "center", "area"], {"how": "like another", "how.crop": "center", "filter": "area"}),
        (None, {"how": "to size", "how.width": 512, "how.height": 512, "filter": "area"}),
        (["no such", 1.5, "lanczos"], {"how": "no such", "filter": 1.5}),
        ([None, 1.5], {"how": "to size", "how.width": 512, "how.height": 512, "filter": 1.5}),
    ],
)
def test_the_values_of_the_chosen_option_follow_the_combo(values: Any, expected: Any) -> None:
    assert inputs("Resize", values) == expected


def resized(values: Any, **sources: Any) -> dict[str, Any]:
    return workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]), node(2, "Resize", values, types={"how.width": "INT"}, **sources)
    )


def test_sockets_of_the_chosen_option_are_linked_by_name() -> None:
    found = prompt(resized(["like another", "center", "area"], how__like=(1, 0), input=(1, 0)))["2"]
    assert found["how.like"] == ["1", 0]
    assert found["input"] == ["1", 0]


def test_a_linked_widget_of_the_option_keeps_its_place() -> None:
    found = prompt(resized(["to size", 64, 32, "area"], how__width=(1, 0)))["2"]
    assert found == {"how": "to size", "how.width": ["1", 0], "how.height": 32, "filter": "area"}


@pytest.mark.parametrize("values", [["by factor", 2, "area"], ["no such", 2]])
def test_links_to_inputs_of_other_options_are_left_out_and_told(values: Any) -> None:
    document = resized(values, how__like=(1, 0))
    assert "how.like" not in prompt(document)["2"]
    assert "how.like" in warnings(document)


def test_without_values_sockets_of_any_option_stay() -> None:
    assert prompt(resized(None, how__like=(1, 0)))["2"]["how.like"] == ["1", 0]


def test_inputs_that_grow_are_taken_as_they_are() -> None:
    names = ["image0", "image2", "image5", "image4"]
    linked: dict[str, Any] = {f"images__{name}": (1, 0) for name in names}
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "Batch", images__image1=None, **linked),
    )
    assert prompt(document)["2"] == {f"images.{name}": ["1", 0] for name in names}


def test_inputs_that_grow_within_an_option() -> None:
    linked = {f"how__more__more{number}": (1, 0) for number in (1, 0, 3)}
    document = resized(["like another", "center", "area"], **linked)
    found = prompt(document)["2"]
    assert (found["how.more.more0"], found["how.more.more1"]) == (["1", 0], ["1", 0])
    assert found["filter"] == "area"
    # There is room for one more behind the last that is linked, and not for those after it.
    assert "how.more.more3" not in found
    assert "links are left out: how.more.more3" in warnings(document)


@pytest.mark.parametrize("chosen", ["first", "other"])
def test_the_controls_of_the_first_option_keep_their_places_after_whichever_is_chosen(chosen: str) -> None:
    own = [1, "fixed"] if chosen == "first" else [2]
    found = inputs("Rolled", [chosen, *own, "left over", "last"])
    assert found == {"how": chosen, "how.seed" if chosen == "first" else "how.n": own[0], "last": "last"}


def test_the_first_of_inputs_that_grow_is_handed_on_whatever_their_order_in_the_file() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "Batch", mode=4, images__image1=None, images__image0=(1, 0)),
        node(3, "PreviewImage", images=(2, 0)),
    )
    assert prompt(document)["3"] == {"images": ["1", 0]}


def test_behind_the_last_that_is_linked_one_more_is_free() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "Batch", mode=4, outputs=("IMAGE", "IMAGE"), images__image0=(1, 0)),
        node(3, "PreviewAny", source=(2, 1)),
    )
    assert prompt(document)["3"] == {}


def test_a_bypassed_node_of_matching_types_hands_on_the_first_input() -> None:
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "EmptyImage", [9, 9, 1, 0]),
        node(3, "Switch", [True], mode=4, on_false=(1, 0), on_true=(2, 0)),
        node(4, "PreviewImage", images=(3, 0)),
    )
    assert prompt(document)["4"] == {"images": ["1", 0]}


@pytest.mark.parametrize("linked", ["a", "b"])
def test_inputs_that_match_are_of_the_type_of_what_is_linked_to_one_of_them(linked: str) -> None:
    source: dict[str, Any] = {linked: (1, 0)}
    document = workflow(
        node(1, "EmptyImage", [8, 8, 1, 0]),
        node(2, "Matched", [3], mode=4, **source),
        node(3, "PreviewImage", images=(2, 0)),
        node(4, "MaskToImage", mask=(2, 0)),
    )
    found = prompt(document)
    assert found["3"] == ({"images": ["1", 0]} if linked == "a" else {})
    assert found["4"] == {}


def test_a_matching_input_wants_the_type_of_what_is_linked_to_it() -> None:
    document = workflow(
        node(1, "PrimitiveInt", [8, "fixed"]),
        node(2, "EmptyLatentImage", [8, 8, 1], mode=4, width=(1, 0)),
        node(3, "Switch", [True], on_true=(2, 0)),
    )
    assert prompt(document)["3"] == {"switch": True}
