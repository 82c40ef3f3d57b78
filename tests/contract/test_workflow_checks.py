"""What breaks a named workflow, beside what ComfyUI refuses: the embedded engine, or a real ComfyUI (COMFYUI_DIR).

Graphs that ComfyUI accepts are changed at random. What it then refuses, or drops an output for, breaks; what it takes,
and runs, does not. The exceptions are named: what only a node can judge by itself (the name of a file), and graphs
that ComfyUI takes although their run fails, or that we refuse ourselves.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.workflow import check_links
from comfy_serverless.workflows.checkup import Finding, Kind
from comfy_serverless.workflows.compat import problems_of
from comfy_serverless.workflows.version import Version
from tests.contract.engines import REAL_COMFYUI, EngineProcess
from tests.patience import PATIENCE_S

HERE = Path(__file__).parent
FILES = [HERE / "test_payload.json", *sorted((HERE.parents[1] / "workflows").glob("*.json"))]
CHANGED = 300 if REAL_COMFYUI else 120
VALUES: tuple[Any, ...] = (-5, 0, 10**9, 1.5, "x", "", True, None, "12", {"a": 1}, [], ["1"], "euler", "disabled")
#: Of what ComfyUI 0.33.0 and later have: inputs that come with a choice, and inputs that grow.
DYNAMIC: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {
        "class_type": "ResizeImageMaskNode",
        "inputs": {
            "input": ["1", 0],
            "resize_type": "scale dimensions",
            "resize_type.width": 8,
            "resize_type.height": 8,
            "resize_type.crop": "center",
            "scale_method": "area",
        },
    },
    "3": {"class_type": "BatchImagesNode", "inputs": {"images.image0": ["1", 0], "images.image1": ["2", 0]}},
    "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    "5": {"class_type": "StringFormat", "inputs": {"values.a": "x", "f_string": "{a}"}},
    "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
}


class Engine:
    """An engine that is asked whether it would take a graph."""

    def __init__(self, engine: EngineProcess) -> None:
        self._url = engine.url
        self._session = requests.Session()
        self._session.trust_env = False
        self.object_info: dict[str, Any] = self._session.get(f"{self._url}/object_info", timeout=PATIENCE_S).json()

    def problems(self, graph: dict[str, Any]) -> list[str] | None:
        """What it says of a graph, by the types of problems; None if it takes all of it. Nothing is run for long."""
        answer = self._session.post(f"{self._url}/prompt", json={"prompt": graph}, timeout=PATIENCE_S)
        self._session.post(f"{self._url}/queue", json={"clear": True}, timeout=PATIENCE_S)
        self._session.post(f"{self._url}/interrupt", json={}, timeout=PATIENCE_S)
        document = answer.json()
        told = [problem["type"] for node in document.get("node_errors", {}).values() for problem in node["errors"]]
        if answer.status_code == requests.codes.ok:
            return told or None
        return told or [document["error"]["type"]]


@pytest.fixture
def asked(engine: EngineProcess) -> Engine:
    return Engine(engine)


def bases(asked: Engine) -> list[dict[str, Any]]:
    """Graphs of classes that the engine has."""
    graphs = [*(json.loads(path.read_text()) for path in FILES), DYNAMIC]
    return [graph for graph in graphs if all(node["class_type"] in asked.object_info for node in graph.values())]


def changed(graph: dict[str, Any], draw: random.Random, classes: list[str]) -> dict[str, Any]:
    """A graph with one to three changes."""
    result = copy.deepcopy(graph)
    for _ in range(draw.choice([1, 1, 2, 3])):
        node_id = draw.choice(list(result))
        node, inputs = result[node_id], result[node_id]["inputs"]
        name = draw.choice(list(inputs)) if inputs else ""
        match draw.choice(["take", "rename", "set", "set", "link", "class", "remove", "copy"]):
            case "take" if name:
                del inputs[name]
            case "rename" if name:
                inputs[f"{name}_x"] = inputs.pop(name)
            case "set" if name:
                inputs[name] = draw.choice(VALUES)
            case "link" if name:
                inputs[name] = [draw.choice([*result, "gone"]), draw.choice([0, 0, 1, 2, 9, -1])]
            case "copy" if name:
                inputs[draw.choice(["images.image2", "images.image9", "resize_type.width", "extra"])] = inputs[name]
            case "class":
                others = [each["class_type"] for each in result.values()]
                node["class_type"] = draw.choice([draw.choice(others), draw.choice(classes), "NobodyHasThis"])
            case "remove" if len(result) > 1:
                del result[node_id]
    return result


def breaking(graph: dict[str, Any], asked: Engine) -> list[Finding]:
    whole = Version(name="any", number=1, owner="team", graph=copy.deepcopy(graph))
    return [one for one in problems_of(whole, asked.object_info) if one.breaks]


def is_an_exception(graph: dict[str, Any], told: list[str] | None, found: list[Finding]) -> bool:
    """Whether we may judge otherwise than ComfyUI does before it runs anything."""
    if told is not None:
        return set(told) == {"custom_validation_failed"}
    try:
        check_links(graph)  # a dangling link ends ComfyUI's worker: we refuse it, wherever it is
    except InvalidWorkflow:
        return True
    fails_later = {Kind.INPUT_UNKNOWN, Kind.CHOICE, Kind.CYCLE}  # of inputs that come and go
    return "ResizeImageMaskNode" in json.dumps(graph) and {one.kind for one in found} <= fails_later


@pytest.mark.parametrize("seed", range(3))
def test_what_breaks_is_what_comfyui_refuses(asked: Engine, seed: int) -> None:
    draw, graphs, classes = random.Random(seed), bases(asked), sorted(asked.object_info)
    verdicts: Counter[tuple[bool, bool]] = Counter()
    for number in range(CHANGED):
        graph = changed(draw.choice(graphs), draw, classes)
        told, found = asked.problems(copy.deepcopy(graph)), breaking(graph, asked)
        verdicts[told is not None, bool(found)] += 1
        if (told is not None) != bool(found) and not is_an_exception(graph, told, found):
            pytest.fail(f"graph {number} of seed {seed}: ComfyUI says {told}, and we {found}: {json.dumps(graph)}")
    assert verdicts[True, True] > CHANGED // 4, "most changes are refused, by both"
    assert verdicts[False, False] > CHANGED // 20, "and some are taken, by both"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"9": {"class_type": "NobodyHasThis"}}, Kind.CLASS),
        ({"5": {"inputs": {"width": 64, "height": 64}}}, Kind.INPUT_MISSING),
        ({"6": {"inputs": {"text": "a fox", "clip": ["4", 0]}}}, Kind.LINK),
        ({"6": {"inputs": {"text": "a fox", "clip": ["4", 7]}}}, Kind.LINK),
        ({"4": {"inputs": {"ckpt_name": "gone.safetensors"}}}, Kind.MODEL),
        ({"5": {"inputs": {"width": 10**9, "height": 64, "batch_size": 1}}}, Kind.RANGE),
        ({"5": {"inputs": {"width": "wide", "height": 64, "batch_size": 1}}}, Kind.VALUE),
        ({"9": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}}}, Kind.OUTPUT),
    ],
    ids=str,
)
def test_each_kind_of_break_is_refused_by_comfyui(asked: Engine, change: dict[str, Any], kind: Kind) -> None:
    graph: dict[str, Any] = json.loads((HERE.parents[1] / "workflows" / "text_to_image.json").read_text())
    assert breaking(graph, asked) == []
    assert asked.problems(copy.deepcopy(graph)) is None
    for node_id, parts in change.items():
        graph[node_id] |= parts
    assert kind in {one.kind for one in breaking(graph, asked)}
    assert asked.problems(graph) is not None
