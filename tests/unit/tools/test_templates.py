"""The pinned ComfyUI against the official templates: facts from the package, and from a ComfyUI that really ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools import templates

ROOT = Path(__file__).parents[3]
KNOWN = templates.templates()
RECORDED = {classes.commit: classes for classes in templates.recorded()}
#: A new pin may find more templates, and no fewer.
BAR = 530
#: What ComfyUI itself has taken out between the two.
GONE = {
    *("Load3DAnimation", "Preview3DAnimation", "SaveLoRANode"),
    *("LoadImageSetFromFolderNode", "LoadImageTextSetFromFolderNode"),
}
BEFORE = "a125cd84b054a57729b5eecab930ca9408719832"


def pinned() -> str:
    lock = json.loads((ROOT / "comfyui" / "comfy-build.lock").read_text(encoding="utf-8"))
    return str(lock["comfyui"]["commit"])


def test_the_pinned_comfyui_runs_the_official_templates() -> None:
    assert pinned() in RECORDED, "record its classes: `python -m tools.templates record ADDRESS COMMIT`"
    classes = RECORDED[pinned()]
    assert len(classes.finds(KNOWN)) >= BAR
    lock = json.loads((ROOT / "comfyui" / "comfy-build.lock").read_text(encoding="utf-8"))
    assert (classes.version, lock["comfyui"]["ref"]) == (lock["comfyui"]["version"], pinned())


def test_it_has_what_the_one_before_it_had() -> None:
    """What a stored workflow may name. Partners' nodes come and go with what they sell."""
    before, now = RECORDED[BEFORE], RECORDED[pinned()]
    assert set(before.finds(KNOWN)) <= set(now.finds(KNOWN))
    assert len(before.finds(KNOWN)) == 121
    assert before.names - before.partner - now.names == GONE


def test_without_partner_nodes_fewer_templates_are_found() -> None:
    classes = RECORDED[pinned()]
    assert classes.partner < classes.names
    without = classes.finds(KNOWN, partner=False)
    assert set(without) < set(classes.finds(KNOWN))
    assert all(not KNOWN[name] & classes.partner for name in without)


def node(kind: str, mode: int = 0) -> dict[str, Any]:
    return {"type": kind, "mode": mode}


@pytest.mark.parametrize(
    ("workflow", "classes"),
    [
        ({"nodes": [node("A"), node("A"), node("Note"), node("Reroute")]}, {"A"}),
        ({"nodes": [node("A"), node("Muted", 2), node("Bypassed", 4), node("Always", 0)]}, {"A", "Always"}),
        ({"nodes": [node("sub")], "definitions": {"subgraphs": [{"id": "sub", "nodes": [node("Inner")]}]}}, {"Inner"}),
        ({"nodes": None, "definitions": None}, set()),
    ],
)
def test_what_a_workflow_runs_is_counted(workflow: dict[str, Any], classes: set[str]) -> None:
    assert templates.classes_in(workflow) == classes


def test_a_package_is_read_into_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "TEMPLATES", tmp_path / "facts" / "templates.json")
    folder = tmp_path / "comfyui_workflow_templates_json" / "templates"
    folder.mkdir(parents=True)
    about = tmp_path / "comfyui_workflow_templates_json-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: comfyui-workflow-templates-json\nVersion: 1.0\n\nText")
    (folder / "index.json").write_text("[]")
    (folder / "one.json").write_text(json.dumps({"nodes": [node("B"), node("A")], "author": "somebody"}))
    assert templates.main(["read", str(tmp_path)]) == 0
    assert templates.templates() == {"one": frozenset("AB")}
    assert templates.package() == "comfyui-workflow-templates-json 1.0"
    assert "somebody" not in templates.TEMPLATES.read_text()
