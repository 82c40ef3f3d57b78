"""Which of ComfyUI's official templates find all their node classes in a release, and in what the image has.

    python -m tools.templates read FOLDER               the templates: of comfyui-workflow-templates-json, unpacked
    python -m tools.templates record ADDRESS COMMIT     the classes of a running ComfyUI: http://127.0.0.1:8188

Both write facts into tests/fixtures/comfyui: names of templates and of classes, nothing else. The tests hold
the pinned ComfyUI against them, and docs/operate.md shows the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
FACTS: Final = ROOT / "tests" / "fixtures" / "comfyui"
TEMPLATES: Final = FACTS / "templates.json"
#: What the editor draws and no engine has.
_DRAWN: Final = frozenset({"Note", "MarkdownNote", "Reroute", "PrimitiveNode"})
#: Modes of nodes that are not run: muted, and bypassed.
_ASLEEP: Final = frozenset({2, 4})
#: Nodes of the contract tests, which lie beside ComfyUI's own.
_OURS: Final = "Contract"
_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Classes:
    """The node classes of one ComfyUI.

    Attributes:
        partner: those of them that call paid services of others ("API nodes").
    """

    version: str
    commit: str
    names: frozenset[str]
    partner: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Classes:
        """Read what `record` wrote."""
        facts = json.loads(path.read_text(encoding="utf-8"))
        return cls(facts["version"], facts["commit"], frozenset(facts["names"]), frozenset(facts["partner"]))

    def finds(self, templates: Mapping[str, frozenset[str]], *, partner: bool = True) -> list[str]:
        """The templates whose classes are all there; without partner nodes if those are off."""
        there = self.names if partner else self.names - self.partner
        return [name for name, needed in templates.items() if needed <= there]


def classes_in(workflow: Mapping[str, Any]) -> frozenset[str]:
    """The classes that a workflow of the editor runs, those inside of its subgraphs too."""
    subgraphs = {part["id"]: part for part in (workflow.get("definitions") or {}).get("subgraphs") or ()}
    return frozenset(
        node["type"]
        for part in (workflow, *subgraphs.values())
        for node in part.get("nodes") or ()
        if node.get("mode") not in _ASLEEP and node["type"] not in subgraphs and node["type"] not in _DRAWN
    )


def templates() -> dict[str, frozenset[str]]:
    """The official templates as they were read: name -> classes."""
    facts = json.loads(TEMPLATES.read_text(encoding="utf-8"))
    return {name: frozenset(facts["classes"][one] for one in used) for name, used in facts["templates"].items()}


def package() -> str:
    """The package that the templates are of, with its version."""
    return str(json.loads(TEMPLATES.read_text(encoding="utf-8"))["package"])


def recorded() -> list[Classes]:
    """Every ComfyUI whose classes were recorded, the one with the fewest first."""
    return sorted(map(Classes.read, FACTS.glob("classes-*.json")), key=lambda one: len(one.names))


def rows() -> Iterator[tuple[str, ...]]:
    """The table of the documentation: a row a ComfyUI."""
    known = templates()
    for one in recorded():
        found, without = one.finds(known), one.finds(known, partner=False)
        counts = (len(one.names), len(one.partner), f"{len(found)} of {len(known)}", len(without))
        yield (f"{one.version} (`{one.commit[:8]}`)", *map(str, counts))


def read(folder: Path) -> None:
    """Write the facts of the templates in an unpacked package."""
    (metadata,) = folder.glob("comfyui_workflow_templates_json-*.dist-info/METADATA")
    about = dict(line.split(": ", 1) for line in metadata.read_text(encoding="utf-8").splitlines() if ": " in line)
    workflows = _workflows(folder.glob("comfyui_workflow_templates_json/templates/*.json"))
    used = {name: classes_in(workflow) for name, workflow in workflows}
    classes = sorted(frozenset().union(*used.values()))
    place = {name: index for index, name in enumerate(classes)}
    facts = {
        "package": f"{about['Name']} {about['Version']}",
        "classes": classes,
        "templates": {name: sorted(place[one] for one in found) for name, found in used.items()},
    }
    _write(TEMPLATES, facts)


def record(address: str, commit: str) -> Classes:
    """Write the classes of a running ComfyUI."""
    stats, declared = _get(f"{address}/system_stats"), _get(f"{address}/object_info")
    version = stats["system"]["comfyui_version"]
    names = sorted(name for name in declared if not name.startswith(_OURS))
    partner = [name for name in names if declared[name]["python_module"].startswith("comfy_api_nodes")]
    path = FACTS / f"classes-{version}-{commit[:8]}.json"
    _write(path, {"version": version, "commit": commit, "names": names, "partner": partner})
    return Classes.read(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read or record; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.templates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("read").add_argument("folder", type=Path)
    recording = commands.add_parser("record")
    recording.add_argument("address")
    recording.add_argument("commit")
    options = parser.parse_args(arguments)
    if options.command == "read":
        read(options.folder)
        print(f"{package()}: {len(templates())} templates")
    else:
        classes = record(options.address.rstrip("/"), options.commit)
        print(f"ComfyUI {classes.version}: {len(classes.names)} classes, {len(classes.partner)} of partners")
    return 0


def _workflows(paths: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(paths):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "nodes" in content:  # the others are indexes
            yield path.stem, content


def _get(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    """One value a line, so that a change shows in a diff."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    text = text.replace("[\n   ", "[").replace(",\n   ", ", ").replace("\n  ]", "]")
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
