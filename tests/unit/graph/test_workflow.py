"""Reading and checking API-format graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.errors import InvalidWorkflow, NotJson, UiFormatWorkflow
from comfy_serverless.graph import workflow
from tests.unit.workflow_samples import nested, text_to_image


class TestCheckFormat:
    def test_a_graph_is_answered_as_it_is(self) -> None:
        graph = text_to_image()
        assert workflow.check_format(graph) is graph

    def test_the_body_of_a_prompt_request_is_unwrapped(self) -> None:
        assert workflow.check_format({"prompt": text_to_image(), "client_id": "x"}) == text_to_image()

    def test_a_node_may_have_the_id_prompt(self) -> None:
        graph = {"prompt": {"class_type": "EmptyImage", "inputs": {}}}
        assert workflow.check_format(graph) == graph

    @pytest.mark.parametrize("wrap", [lambda ui: ui, lambda ui: {"prompt": ui}])
    def test_a_file_of_the_editor_is_told_how_to_export(self, wrap: Any) -> None:
        ui = {"last_node_id": 9, "last_link_id": 9, "nodes": [{"id": 3, "type": "KSampler"}], "links": []}
        with pytest.raises(UiFormatWorkflow, match=r"Export \(API\)") as caught:
            workflow.check_format(wrap(ui))
        assert caught.value.code == "workflow_format_ui"

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (None, "not null"),
            ([], "not a list"),
            ("{}", "not a string"),
            (True, "not a boolean"),
            (1.5, "not a number"),
            ({}, "no nodes"),
            ({"prompt": {}}, "no nodes"),
        ],
    )
    def test_what_is_no_graph_is_refused(self, value: object, message: str) -> None:
        with pytest.raises(InvalidWorkflow, match=message):
            workflow.check_format(value)

    def test_every_malformed_node_is_named_with_its_reason(self) -> None:
        graph = {
            "1": {"class_type": "EmptyImage", "inputs": {}},
            "2": {"inputs": {}},
            "3": {"class_type": "X", "inputs": []},
            "4": {"class_type": "X"},
            "5": "text",
            6: {"class_type": "X", "inputs": {}},
            "7": {"class_type": "", "inputs": {}},
            "8": {"class_type": "X", "inputs": {1: 2}},
        }
        with pytest.raises(InvalidWorkflow) as caught:
            workflow.check_format(graph)
        errors = caught.value.details["node_errors"]
        assert list(errors) == ["2", "3", "4", "5", "6", "7", "8"]
        assert errors["2"]["errors"][0]["message"] == "has no class_type"
        assert "node '3' must have an object as inputs, not a list" in caught.value.message
        json.dumps(caught.value.details)

    def test_a_deep_graph_is_refused_without_recursion(self) -> None:
        graph = {"1": {"class_type": "X", "inputs": {"deep": nested(100_000)}}}
        with pytest.raises(InvalidWorkflow, match="levels deep"):
            workflow.check_format(graph)

    def test_a_graph_that_contains_itself_is_refused(self) -> None:
        graph = text_to_image()
        graph["3"]["inputs"]["self"] = [graph, graph]
        with pytest.raises(InvalidWorkflow, match="levels deep"):
            workflow.check_format(graph)

    def test_a_message_about_very_many_nodes_stays_short(self) -> None:
        with pytest.raises(InvalidWorkflow, match="and 4980 more") as caught:
            workflow.check_format({str(number): None for number in range(5000)})
        assert len(caught.value.message) < 2000

    def test_a_graph_of_very_many_nodes_is_refused_before_they_are_looked_at(self) -> None:
        node = {"class_type": "X", "inputs": {}}
        assert workflow.check_format({str(number): node for number in range(workflow.MAX_NODES)})
        with pytest.raises(InvalidWorkflow, match="50,001 nodes; at most 50,000"):
            workflow.check_format({str(number): None for number in range(workflow.MAX_NODES + 1)})


class TestCheckLinks:
    def test_a_sound_graph_passes(self) -> None:
        workflow.check_links(text_to_image())

    def test_every_dangling_link_is_named(self) -> None:
        graph = text_to_image()
        graph["9"]["inputs"]["extra"] = ["77", 0]
        graph["3"]["inputs"]["model"] = ["5", 0]
        with pytest.raises(InvalidWorkflow, match=r"'extra' links to node '77'") as caught:
            workflow.check_links(graph)
        assert set(caught.value.details["node_errors"]) == {"3", "9"}

    def test_lists_that_are_no_links_pass(self) -> None:
        graph = {"1": {"class_type": "X", "inputs": {"a": ["b"], "c": [1, 2], "d": ["e", "f"], "g": ["h", 1, 2]}}}
        workflow.check_links(graph)


class TestFindOutputNode:
    def test_the_first_save_image_is_answered_as_a_subscript(self) -> None:
        assert workflow.find_output_node(text_to_image()) == "['9']"

    def test_none_is_answered_where_there_is_none(self) -> None:
        assert workflow.find_output_node({"1": {"class_type": "PreviewImage", "inputs": {}}, "2": 5}) is None

    def test_nested_graphs_are_searched_in_order(self) -> None:
        save = {"class_type": "SaveImage", "inputs": {}}
        assert workflow.find_output_node({"prompt": {"a": {"8": save}}, "9": save}) == "['8']"

    def test_deep_and_circular_graphs_come_to_an_end(self) -> None:
        graph: dict[str, Any] = {"1": nested(50_000)}
        graph["1"]["self"] = graph
        assert workflow.find_output_node(graph) is None


class TestLoadPayload:
    def test_json_is_read_with_or_without_a_byte_order_mark(self, tmp_path: Path) -> None:
        for number, start in enumerate((b"", b"\xef\xbb\xbf")):
            path = tmp_path / f"{number}.json"
            path.write_bytes(start + '{"1": "ä"}'.encode())
            assert workflow.load_payload(path) == workflow.load_payload(str(path)) == {"1": "ä"}

    def test_broken_json_is_a_value_error(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text("{")
        with pytest.raises(ValueError):
            workflow.load_payload(tmp_path / "x.json")

    def test_bottomless_json_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text("[" * 200_000)
        with pytest.raises(NotJson, match="too deeply"):
            workflow.load_payload(tmp_path / "x.json")
