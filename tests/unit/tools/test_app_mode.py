"""The facts that are taken of the official templates: small, and enough for proposals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.editor_samples import link_in, link_out, node, saved
from tools import app_mode

_TEXT = ["STRING", {"multiline": True, "tooltip": "What to paint"}]
INFO: dict[str, Any] = {
    "Text": {
        "input": {"required": {"text": _TEXT, "style": [["oil", "ink", "chalk", "pen", "wax", "coal"]]}},
        "output": ["CONDITIONING"],
        "description": "told to people",
    },
    "SaveIt": {"input": {"required": {"positive": ["CONDITIONING"]}}, "output": [], "output_node": True},
}


def test_templates_are_reduced_to_what_a_proposal_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_mode, "FACTS", tmp_path / "app_mode.json")
    monkeypatch.setattr(app_mode, "TABLE", tmp_path / "app_mode.md")
    folder = tmp_path / "comfyui_workflow_templates_json" / "templates"
    folder.mkdir(parents=True)
    about = tmp_path / "comfyui_workflow_templates_json-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: comfyui-workflow-templates-json\nVersion: 1.0\n\nText")
    text = node(1, "Text", ["a fox " * 40, "wax"], [], [link_out([7], "CONDITIONING")])
    nodes = [text, node(2, "SaveIt", [], [link_in("positive", 7, "CONDITIONING")]), node(3, "Note", ["hello"])]
    linear = {"linearData": {"inputs": [["1", "text"], ["8", "gone"]], "outputs": ["2"]}}
    workflow = saved(nodes, [[7, 1, 0, 2, 0, "CONDITIONING"]], extra=linear)
    (folder / "poster.json").write_text(json.dumps(workflow))
    (folder / "plain.json").write_text(json.dumps(saved(nodes, [])))
    (folder / "index.json").write_text("[]")
    odd = saved([node(1, "Odd", [])], [], extra={"linearData": {"inputs": [["1", "x"]]}})
    (folder / "odd.json").write_text(json.dumps(odd))
    declared = tmp_path / "object_info.json"
    declared.write_text(json.dumps(INFO))

    assert app_mode.main(["read", str(tmp_path), str(declared)]) == 0

    facts = json.loads(app_mode.FACTS.read_text())
    assert (facts["package"], list(facts["templates"])) == ("comfyui-workflow-templates-json 1.0", ["odd", "poster"])
    kept = facts["templates"]["poster"]["nodes"]
    assert [one["type"] for one in kept] == ["Text", "SaveIt"]
    assert len(kept[0]["widgets_values"][0]) == 60
    assert facts["classes"]["Text"]["input"]["required"] == {
        "text": ["STRING", {"multiline": True}],
        "style": [["oil", "ink", "chalk", "pen", "wax"]],
    }
    table = app_mode.TABLE.read_text()
    assert "| poster | `1.text`, `8.gone` | `prompt` (1 gone) | 1 of 2 |  |" in table
    assert "| odd | `1.x` |  (1 gone) | 0 of 0 | `Odd` |" in table
