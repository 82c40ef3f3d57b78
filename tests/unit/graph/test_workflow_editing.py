"""Editing API-format graphs: addresses, `set`, seeds, and the original's replace_key_value."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph import workflow
from tests.unit.workflow_samples import nested, text_to_image

#: Property tests judge results, not the speed of a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class TestTargets:
    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("3.seed", [("3", "seed")]),
            ("KSampler.steps", [("3", "steps")]),
            ("CLIPTextEncode.text", [("6", "text"), ("7", "text")]),
            ("Negative.text", [("7", "text")]),
            ("Positive v1.5.text", [("6", "text")]),
        ],
    )
    def test_an_address_names_nodes_by_id_class_or_title(self, address: str, expected: list[tuple[str, str]]) -> None:
        assert workflow.targets(text_to_image(), address) == expected

    def test_a_node_id_wins_over_a_class_and_a_class_over_a_title(self) -> None:
        def node(class_type: str, title: str) -> dict[str, Any]:
            return {"class_type": class_type, "inputs": {"a": 1}, "_meta": {"title": title}}

        graph = {"K": node("X", "L"), "1": node("K", "T"), "2": node("L", "K")}
        assert workflow.targets(graph, "K.a") == [("K", "a")]
        assert workflow.targets(graph, "L.a") == [("2", "a")]
        assert workflow.targets(graph, "T.a") == [("1", "a")]

    def test_dots_may_stand_in_ids_and_in_input_names(self) -> None:
        graph = {
            "7.0.1": {"class_type": "X", "inputs": {"a": 1}},
            "3": {"class_type": "Y", "inputs": {"model.scale": 1, "1.2": 3}},
        }
        assert workflow.targets(graph, "7.0.1.a") == [("7.0.1", "a")]
        assert workflow.targets(graph, "3.model.scale") == [("3", "model.scale")]
        assert workflow.targets(graph, "Y.1.2") == [("3", "1.2")]

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("sedd", "form node.input"),
            ("text", "2 nodes: .6.text. .Positive v1.5., .7.text. .Negative.; name one of them.$"),
            ("", "form node.input"),
            (".", "form node.input"),
            (".seed", "form node.input"),
            ("3.", "form node.input"),
            ("99.text", "no node has the id, class_type or title '99'"),
            ("KSampelr.steps", "did you mean 'KSampler.steps'"),
            ("3.sede", "node 3 .KSampler. has no input 'sede', it has: model, .*did you mean '3.seed'"),
            ("x." * 400 + "y", "longer than 500"),
        ],
    )
    def test_what_means_nothing_is_refused_with_a_reason(self, address: str, message: str) -> None:
        with pytest.raises(InvalidWorkflow, match=message):
            workflow.targets(text_to_image(), address)

    @unhurried
    @given(st.text(max_size=40))
    def test_any_text_is_an_address_or_a_clear_refusal(self, address: str) -> None:
        graph = text_to_image()
        try:
            found = workflow.targets(graph, address)
        except InvalidWorkflow:
            return
        assert all(name in graph[node_id]["inputs"] for node_id, name in found)


class TestApplySet:
    def test_values_are_put_into_a_copy(self) -> None:
        graph = text_to_image()
        result = workflow.apply_set(graph, {"3.seed": 42, "KSampler.steps": 5, "Negative.text": "x"})
        assert graph == text_to_image()
        assert (result["3"]["inputs"]["seed"], result["3"]["inputs"]["steps"]) == (42, 5)
        assert result["7"]["inputs"]["text"] == "x"
        assert result["6"] == graph["6"]

    def test_a_class_address_sets_every_node_of_the_class(self) -> None:
        result = workflow.apply_set(text_to_image(), {"CLIPTextEncode.text": "same"})
        assert [result[node_id]["inputs"]["text"] for node_id in ("6", "7")] == ["same", "same"]

    def test_the_more_specific_address_wins_whatever_the_order(self) -> None:
        values = {"7.text": "by id", "CLIPTextEncode.text": "by class", "Negative.text": "by title"}
        for order in (list(values), list(reversed(values))):
            result = workflow.apply_set(text_to_image(), {address: values[address] for address in order})
            assert (result["6"]["inputs"]["text"], result["7"]["inputs"]["text"]) == ("by class", "by id")

    def test_a_link_is_replaced_like_any_value(self) -> None:
        assert workflow.apply_set(text_to_image(), {"3.model": ["8", 0]})["3"]["inputs"]["model"] == ["8", 0]

    def test_an_input_the_node_does_not_have_is_not_added(self) -> None:
        with pytest.raises(InvalidWorkflow, match="has no input 'unheard_of'"):
            workflow.apply_set(text_to_image(), {"3.unheard_of": 1})

    def test_all_mistakes_are_told_at_once(self) -> None:
        with pytest.raises(InvalidWorkflow) as caught:
            workflow.apply_set(text_to_image(), {"3.seed": 1, "3.sede": 1, "nobody.text": "x", "stps": 2})
        reasons = caught.value.details["set"]
        assert list(reasons) == ["3.sede", "nobody.text", "stps"]
        assert "did you mean '3.seed'" in reasons["3.sede"]
        assert all(address in caught.value.message for address in reasons)

    def test_thousands_of_mistakes_cost_little(self) -> None:
        graph = {str(number): {"class_type": "X", "inputs": {"a": 1}} for number in range(3000)}
        with pytest.raises(InvalidWorkflow, match="and 980 more"):
            workflow.apply_set(graph, {f"{number}.b": 1 for number in range(1000)})

    @unhurried
    @given(
        st.dictionaries(
            st.sampled_from(["3.seed", "3.steps", "6.text", "7.text", "9.filename_prefix", "4.ckpt_name"]),
            st.integers() | st.text() | st.none() | st.lists(st.integers()),
        )
    )
    def test_what_was_set_is_read_back_and_nothing_else_changes(self, values: dict[str, Any]) -> None:
        result = workflow.apply_set(text_to_image(), values)
        expected = text_to_image()
        for address, value in values.items():
            node_id, name = address.split(".")
            expected[node_id]["inputs"][name] = value
        assert result == expected


class TestDrawSeeds:
    def test_seeds_of_minus_one_are_drawn_and_reported(self) -> None:
        graph = text_to_image()
        graph["5"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": -1}}
        result, seeds = workflow.draw_seeds(graph)
        assert set(seeds) == {"3.seed", "5.noise_seed"}
        assert result["3"]["inputs"]["seed"] == seeds["3.seed"]
        assert all(0 <= seed < 2**53 for seed in seeds.values())
        assert graph["3"]["inputs"]["seed"] == -1

    @pytest.mark.parametrize("value", [0, 7, ["4", 0], "-1x", "-12", "", True, None, -2])
    def test_any_other_seed_stays(self, value: object) -> None:
        graph = {"1": {"class_type": "KSampler", "inputs": {"seed": value, "cfg": -1}}}
        assert workflow.draw_seeds(graph) == (graph, {})

    @pytest.mark.parametrize("value", [-1, -1.0, "-1", " -1\n"])
    def test_minus_one_is_drawn_however_it_is_written(self, value: object) -> None:
        graph = {"1": {"class_type": "KSampler", "inputs": {"seed": value}}}
        assert list(workflow.draw_seeds(graph)[1]) == ["1.seed"]

    def test_draws_can_be_repeated(self) -> None:
        first, second = (workflow.draw_seeds(text_to_image(), draw=random.Random(7).randrange) for _ in "12")
        assert first == second


JSON = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "seed", "inputs", "b"]), children, max_size=3)
        | st.fixed_dictionaries({"class_type": st.sampled_from(["A", "B"]), "inputs": children})
    ),
    max_leaves=12,
)
GRAPHS = st.dictionaries(st.sampled_from("1234"), JSON, max_size=4)


def values_of(value: Any, key: str, enclosing: str | None = None, top: bool = True) -> list[tuple[str | None, Any]]:
    """Every value of a key below the top, each with the class of the node that encloses it; depth first."""
    found: list[tuple[str | None, Any]] = []
    if isinstance(value, dict):
        enclosing = value.get("class_type", enclosing)
        if key in value and not top:
            found.append((enclosing, value[key]))
        for child in value.values():
            if isinstance(child, dict):
                found += values_of(child, key, enclosing, top=False)
            if isinstance(child, list):
                for item in child:
                    if isinstance(item, dict):
                        found += values_of(item, key, enclosing, top=True)
    return found


class TestReplaceKeyValue:
    def test_a_key_is_replaced_wherever_it_is_nested(self) -> None:
        graph = {"1": {"class_type": "X", "inputs": {"seed": 1, "deep": {"list": [{"more": {"seed": 2}}]}}}}
        workflow.replace_key_value(graph, "seed", 9)
        assert graph["1"]["inputs"] == {"seed": 9, "deep": {"list": [{"more": {"seed": 9}}]}}

    def test_keys_of_the_top_are_left_alone(self) -> None:
        graph: dict[str, Any] = {"seed": 1, "list": [{"seed": 2}], "1": {"seed": 3}}
        workflow.replace_key_value(graph, "seed", 9)
        assert graph == {"seed": 1, "list": [{"seed": 2}], "1": {"seed": 9}}

    def test_listed_classes_are_spared(self) -> None:
        graph = text_to_image()
        graph["10"] = {"class_type": "Other", "inputs": {"seed": 5, "more": {"seed": 6}}}
        workflow.replace_key_value(graph, "seed", 9, ["KSampler"])
        assert graph["3"]["inputs"]["seed"] == -1
        assert graph["10"]["inputs"] == {"seed": 9, "more": {"seed": 9}}

    def test_only_listed_classes_are_changed_when_they_are_included(self) -> None:
        graph = text_to_image()
        workflow.replace_key_value(graph, "text", "new", class_type_list=["CLIPTextEncode"], exclude=False)
        workflow.replace_key_value(graph, "seed", 9, class_type_list=["CLIPTextEncode"], exclude=False)
        assert [graph[node_id]["inputs"]["text"] for node_id in ("6", "7")] == ["new", "new"]
        assert graph["3"]["inputs"]["seed"] == -1

    def test_including_no_class_changes_nothing(self) -> None:
        graph = text_to_image()
        workflow.replace_key_value(graph, "seed", 9, exclude=False)
        assert graph == text_to_image()

    def test_what_was_put_in_is_not_searched(self) -> None:
        graph = {"1": {"class_type": "X", "inputs": {"a": 1}}}
        workflow.replace_key_value(graph, "a", {"a": {"a": 1}})
        assert graph["1"]["inputs"] == {"a": {"a": {"a": 1}}}

    def test_a_single_node_can_be_edited(self) -> None:
        node = text_to_image()["3"]
        workflow.replace_key_value(node, "seed", 9, ["KSampler"], exclude=False)
        assert node["inputs"]["seed"] == 9

    def test_deep_and_circular_graphs_come_to_an_end(self) -> None:
        graph: dict[str, Any] = {"1": {"class_type": "X", "inputs": nested(50_000)}}
        graph["1"]["inputs"]["self"] = graph
        graph["1"]["inputs"]["seed"] = 1
        workflow.replace_key_value(graph, "seed", 9)
        assert graph["1"]["inputs"]["seed"] == 9

    @unhurried
    @given(GRAPHS, st.sampled_from([None, [], ["A"], ["A", "B"]]), st.booleans())
    def test_every_key_in_reach_is_replaced_and_no_other(
        self, graph: dict[str, Any], classes: list[str] | None, exclude: bool
    ) -> None:
        before = values_of(copy.deepcopy(graph), "seed")
        workflow.replace_key_value(graph, "seed", "NEW", classes, exclude)
        after = values_of(graph, "seed")

        def replaced(class_type: str | None) -> bool:
            return exclude if classes is None else (class_type in classes) != exclude

        spared = [entry for entry in after if not replaced(entry[0])]
        assert all(value == "NEW" for class_type, value in after if replaced(class_type))
        assert all(entry in before or "NEW" in json.dumps(entry) for entry in spared)
        assert all(value != "NEW" for _, value in spared)
