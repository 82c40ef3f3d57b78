"""What the authors of ComfyUI's official templates chose as inputs (App mode), beside what we propose.

    python -m tools.app_mode read FOLDER OBJECT_INFO    comfyui-workflow-templates-json, unpacked, and an /object_info
    python -m tools.app_mode table                      writes the table anew

`read` writes tests/fixtures/comfyui/app_mode.json: every template with App mode and ten without, reduced to their
nodes, links and titles, with texts cut short (the package is under the MIT licence), and the declarations of their
classes. The tests hold the table and the rate against it. The declarations are what a ComfyUI 0.33.0 has answered, with
the packs 1038lab/ComfyUI-QwenVL 88d47a8 and cubiq/ComfyUI_essentials 33ff89f, and with CameraAngle of a later ComfyUI
in it. GeminiNodeV3 came after 0.35, which none could be had of: of it the table has what the file itself says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.convert.stand_ins import stand_ins
from comfy_serverless.workflows.proposal import Proposal, propose

ROOT: Final = Path(__file__).parent.parent
FACTS: Final = ROOT / "tests" / "fixtures" / "comfyui" / "app_mode.json"
TABLE: Final = FACTS.with_suffix(".md")
#: Templates without App mode, of all kinds.
PLAIN: Final = (
    *("api_google_gemini_image", "audio_ace_step_1_t2a_song", "flux_schnell", "flux_schnell_full_text_to_image"),
    *("hunyuan_video_text_to_video", "image_qwen_image", "sd3.5_large_canny_controlnet_example"),
    *("sd3.5_simple_example", "sdxl_simple_example", "video_wan2_2_5B_ti2v"),
)
_DRAWN: Final = frozenset({"Note", "MarkdownNote"})
_LONGEST: Final = 60
_MOST_CHOICES: Final = 4
_OF_PORT: Final = ("name", "type", "link", "links", "linkIds", "label", "widget")


@dataclass(frozen=True, slots=True)
class Template:
    """One template and what is proposed for it.

    Attributes:
        chosen: what App mode has: the id of a node and the name of a widget.
        proposal: of the whole file; `unaided` is that without App mode.
        undeclared: its classes that nobody has declared: of those, the file itself is all that is known.
    """

    name: str
    chosen: list[tuple[str, str]]
    proposal: Proposal
    unaided: Proposal
    undeclared: tuple[str, ...] = ()

    @property
    def missed(self) -> list[str]:
        """The author's choices that are no inputs, with the reasons."""
        return [note for note in self.proposal.notes if "as an input" in note]

    @property
    def found_unaided(self) -> int:
        """How many of the inputs would be proposed without App mode, too."""
        targets = {target for one in self.unaided.inputs for target in one.targets}
        return sum(targets.issuperset(one.targets) for one in self.proposal.inputs)


def templates() -> Iterator[Template]:
    """The templates of the fixture."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    for name, workflow in facts["templates"].items():
        instead = stand_ins(workflow, facts["classes"])
        graph = convert(workflow, instead.object_info).graph
        bare = {**workflow, "extra": {}}
        yield Template(
            name,
            [(str(entry[0]), entry[1]) for entry in _linear(workflow)],
            propose(graph, instead.object_info, editors=workflow),
            propose(graph, instead.object_info, editors=bare),
            instead.classes,
        )


def table() -> str:
    """The table: a row a template."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    lines = [
        f"# App mode of {facts['package']}, and what is proposed",
        "",
        "Written by `python -m tools.app_mode table`. *Unaided* says how many of the inputs would be proposed if the",
        "file had no App mode, and among how many. *Undeclared* are classes that no ComfyUI at hand has: what is shown",
        "of them is what the file itself says.",
        "",
        "| template | its author chose | proposed | unaided | undeclared |",
        "|---|---|---|---|---|",
    ]
    for one in templates():
        chosen = ", ".join(f"`{node}.{name}`" for node, name in one.chosen) or "nothing"
        proposed = ", ".join(f"`{each.name}`" for each in one.proposal.inputs)
        notes = f" ({len(one.missed)} gone)" if one.missed else ""
        unaided = f"{one.found_unaided} of {len(one.unaided.inputs)}" if one.chosen else "the same"
        undeclared = ", ".join(f"`{each}`" for each in one.undeclared)
        lines.append(f"| {one.name} | {chosen} | {proposed}{notes} | {unaided} | {undeclared} |")
    return "\n".join(lines) + "\n"


def read(folder: Path, object_info: Path) -> None:
    """Write the fixture."""
    (metadata,) = folder.glob("comfyui_workflow_templates_json-*.dist-info/METADATA")
    about = dict(line.split(": ", 1) for line in metadata.read_text(encoding="utf-8").splitlines() if ": " in line)
    declared = json.loads(object_info.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("comfyui_workflow_templates_json/templates/*.json")):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(workflow, dict) or "nodes" not in workflow:
            continue
        if not (_linear(workflow) or path.stem in PLAIN):
            continue
        found[path.stem] = _reduced(workflow)
    used = {node["type"] for workflow in found.values() for node in _nodes(workflow)}
    classes = {name: _declaration(declared[name], found) for name in sorted(used & declared.keys())}
    facts = {
        "package": f"{about['Name']} {about['Version']}",
        "templates": found,
        "classes": classes,
    }
    FACTS.write_text(_one_a_line(facts), encoding="utf-8")


def _linear(workflow: Mapping[str, Any]) -> list[Any]:
    return ((workflow.get("extra") or {}).get("linearData") or {}).get("inputs") or []


def _nodes(workflow: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in (workflow, *workflow.get("definitions", {}).get("subgraphs", ())):
        yield from part["nodes"]


def _reduced(workflow: Mapping[str, Any]) -> dict[str, Any]:
    subgraphs = (workflow.get("definitions") or {}).get("subgraphs") or ()
    linear = (workflow.get("extra") or {}).get("linearData")
    return {
        "id": workflow.get("id"),
        "last_node_id": workflow.get("last_node_id"),
        **_graph(workflow),
        "extra": {"linearData": linear} if linear else {},
        "definitions": {
            "subgraphs": [
                {
                    "id": one["id"],
                    "name": one["name"],
                    "inputs": [*map(_port, one["inputs"])],
                    "outputs": [*map(_port, one["outputs"])],
                    **_graph(one),
                }
                for one in subgraphs
            ]
        },
    }


def _graph(part: Mapping[str, Any]) -> dict[str, Any]:
    return {"nodes": [_node(one) for one in part["nodes"] if one["type"] not in _DRAWN], "links": part["links"]}


def _node(node: Mapping[str, Any]) -> dict[str, Any]:
    reduced = {name: node[name] for name in ("id", "type", "title", "mode") if node.get(name)}
    reduced |= {side: [*map(_port, node.get(side) or ())] for side in ("inputs", "outputs")}
    if "widgets_values" in node:
        reduced["widgets_values"] = _cut(node["widgets_values"])
    if "widgets_values_named" in node:  # the names alone: the values are those of the list
        reduced["widgets_values_named"] = dict.fromkeys(node["widgets_values_named"])
    proxies = (node.get("properties") or {}).get("proxyWidgets")
    return reduced | ({"properties": {"proxyWidgets": proxies}} if proxies else {})


def _port(port: Mapping[str, Any]) -> dict[str, Any]:
    return {name: port[name] for name in _OF_PORT if port.get(name) is not None}


def _cut(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"
    if isinstance(value, list):
        return [_cut(each) for each in value]
    return {name: _cut(each) for name, each in value.items()} if isinstance(value, dict) else value


def _declaration(declared: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    parts = ("input", "input_order", "output", "output_name", "display_name", "output_node")
    used = {
        value
        for workflow in found.values()
        for node in _nodes(workflow)
        for value in (node.get("widgets_values") or ())
        if isinstance(value, str)
    }
    return {name: _trimmed(declared[name], used) for name in parts if name in declared}


def _trimmed(value: Any, used: set[str]) -> Any:  # noqa: ANN401  (any JSON value)
    """Without what is told to people, and with a few choices only, those in use among them."""
    if isinstance(value, dict):
        return {name: _trimmed(each, used) for name, each in value.items() if name != "tooltip"}
    if not isinstance(value, list):
        return value
    if len(value) > _MOST_CHOICES and all(isinstance(each, str) for each in value):
        return [each for place, each in enumerate(value) if place < _MOST_CHOICES or each in used]
    return [_trimmed(each, used) for each in value]


def _one_a_line(facts: Mapping[str, Any]) -> str:
    """A template and a class a line, so that a change shows in a diff."""
    parts = []
    for name, part in facts.items():
        if name in ("templates", "classes"):
            rows = ",\n".join(
                f"  {json.dumps(each)}: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}"
                for each, value in part.items()
            )
            parts.append(f" {json.dumps(name)}: {{\n{rows}\n }}")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(part)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read or write the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.app_mode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    reading = commands.add_parser("read")
    reading.add_argument("folder", type=Path)
    reading.add_argument("object_info", type=Path)
    commands.add_parser("table")
    options = parser.parse_args(arguments)
    if options.command == "read":
        read(options.folder, options.object_info)
    TABLE.write_text(table(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
