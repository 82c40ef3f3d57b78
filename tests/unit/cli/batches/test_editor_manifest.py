"""`batch check`, `batch submit` and `batch run --each` with what the editor saved."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.batches.check import Findings, LocalFiles, Workflows, check
from comfy_serverless.cli.batches.each import manifest_for
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.active_nodes import active_nodes, file_inputs
from comfy_serverless.jobs.lines import lines_of
from tests.unit.editor_samples import PLAIN, SUBGRAPH, node, plain, rolling, saved, with_loader, with_subgraph

PHOTO = "s3://photos/1.jpg"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("COMFYUI_URL", "COMFYUI_DIR", "WORKFLOWS_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "photos").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    return tmp_path


def judged(folder: Path, *requests: object, uploads: bool = True) -> Findings:
    content = "\n".join(map(json.dumps, requests)).encode()
    return check(
        lines_of([content]), workflows=Workflows(LocalFiles(folder), folder), input_bucket="drops", uploads=uploads
    )


def hosts(inner: dict[str, Any], *, count: int = 1, **more: Any) -> dict[str, Any]:
    """Hosts of one subgraph with these nodes."""
    definition = {"id": SUBGRAPH, "nodes": inner["nodes"], "links": [], "inputs": [], "outputs": []}
    nodes = [node(10 + number, SUBGRAPH, []) for number in range(count)]
    return saved(nodes, [], definitions={"subgraphs": [definition, *more.get("others", [])]})


# check


def test_lines_of_every_kind_are_good_and_it_is_said_that_workers_convert(folder: Path) -> None:
    (folder / "mine.json").write_text(json.dumps(with_loader()))
    (folder / "named.json").write_text(json.dumps(PLAIN))
    found = judged(
        folder,
        PLAIN,
        {"workflow": plain(color=3), "set": {"1.color": 5, "SaveImage.filename_prefix": "x", "color": 3}},
        {"workflow": with_subgraph(), "set": {"2:102.scale_by": 2}},
        {"workflow": "./mine.json", "inputs": {"LoadImage.image": "photos/1.jpg"}},
        {"workflow": "named"},
        {"workflow": json.dumps(PLAIN), "metadata": {"a": "b"}},
    )
    assert (found.requests, found.bad, found.problems) == (6, 0, [])
    (note,) = [note for note in found.notes if "a worker converts it" in note]
    assert note.startswith("6 lines with a workflow as the editor saves it")
    assert {path.name for path in found.files} == {"1.jpg", "mine.json"}


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"workflow": {"nodes": []}}, "has no nodes"),
        ({"workflow": PLAIN, "set": {"7.color": 5}}, "7.color"),
        ({"workflow": PLAIN, "inputs": {"7.image": PHOTO}}, "7.image"),
        ({"workflow": PLAIN, "sett": {}}, "did you mean 'set'"),
        ({"workflow": PLAIN, "inputs": {"1.image": "none.jpg"}}, "there is no such file"),
        ({"workflow": PLAIN, "output": {"bucket": "drops"}}, "is the input bucket"),
    ],
)
def test_what_would_fail_for_certain_is_known(folder: Path, request_: object, problem: str) -> None:
    found = judged(folder, request_)
    assert (found.bad, problem in found.problems[0].text) == (1, True), found.problems


def test_a_title_may_begin_like_an_id(folder: Path) -> None:
    workflow = plain()
    workflow["nodes"][0]["title"] = "2.5D"
    assert judged(folder, {"workflow": workflow, "set": {"2.5D.color": 5, "2:3.seed": 1}}).bad == 0


def test_files_that_no_line_brings_are_said(folder: Path) -> None:
    brought = {"workflow": with_loader(), "inputs": {"1.image": PHOTO}}
    found = judged(folder, with_loader("fox.png"), with_loader("fox.png"), brought, hosts(with_loader("fox.png")))
    (note,) = [note for note in found.notes if "only if it is in its image" in note]
    assert note.startswith("3 lines with LoadImage.image = 'fox.png'")


def test_lines_with_alternatives_are_counted(folder: Path) -> None:
    found = judged(folder, rolling(), rolling(), PLAIN)
    assert (found.drawn, found.duplicates) == (2, [])


# run --each


def made(workflow: str, *, values: tuple[str, ...] = (), address: str | None = None) -> list[dict[str, Any]]:
    manifest = manifest_for(
        workflow, ["photos"], folder=None, address=address, values=values, labels={"a": "b"}, name=None, path=None
    )
    return [json.loads(line) for line in manifest.path.read_text().splitlines()]


def test_a_line_for_each_file_names_the_workflow_and_its_one_input_for_a_file(folder: Path) -> None:
    (folder / "w.json").write_text(json.dumps(with_loader()))
    assert made("w.json") == [
        {"workflow": "w.json", "inputs": {"LoadImage.image": f"photos/{name}.jpg"}, "metadata": {"a": "b"}}
        for name in (1, 2)
    ]


def test_what_the_request_has_for_the_same_input_is_left_out(folder: Path) -> None:
    request = {"workflow": with_loader(), "inputs": {"1.image": PHOTO}, "set": {"3.filename_prefix": "x"}}
    (folder / "w.json").write_text(json.dumps(request))
    first, _ = made("w.json", address="1.image")
    assert (first["inputs"], first["set"]) == ({"1.image": "photos/1.jpg"}, {"3.filename_prefix": "x"})


def test_what_is_set_is_typed_by_what_comfyui_declares(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_COMMAND_LINE", f"{sys.executable} -m comfy_lite --base-directory {folder / 'engine'}")
    monkeypatch.setenv("INITIAL_PORT", "18888")
    (folder / "w.json").write_text(json.dumps(with_loader()))
    first, _ = made("w.json", values=("filename_prefix=007",))
    assert first["set"] == {"filename_prefix": "007"}
    assert first["workflow"] == "w.json"


@pytest.mark.parametrize(
    ("workflow", "words"),
    [(PLAIN, "no input of this workflow takes a file"), (hosts(with_loader(), count=2), "10:1.image, 11:1.image")],
)
def test_no_input_for_a_file_or_several_are_told(folder: Path, workflow: object, words: str) -> None:
    (folder / "w.json").write_text(json.dumps(workflow))
    with pytest.raises(InvalidRequest, match=words):
        made("w.json")
    assert not list(folder.glob("*.jsonl"))


# The nodes that will be in the graph.


def paths(workflow: dict[str, Any]) -> list[str]:
    return sorted(found.path for found in active_nodes(workflow))


def test_nodes_in_subgraphs_have_the_way_to_them_in_their_ids() -> None:
    deeper = "11111111-1111-4111-8111-00000000000f"
    inner = {"id": deeper, "nodes": [node(7, "LoadImage", ["a.png"])]}
    assert paths(with_subgraph()) == ["1", "2:101", "2:102", "3"]
    assert paths(hosts(saved([node(5, deeper, [])], []), count=2, others=[inner])) == ["10:5:7", "11:5:7"]


def test_those_that_are_out_are_left_out_with_all_that_is_in_them() -> None:
    workflow = with_subgraph()
    for mode in (2, 4):
        workflow["nodes"][1]["mode"] = mode
        assert paths(workflow) == ["1", "3"]


def test_group_nodes_are_looked_into() -> None:
    group = {"nodes": [node(0, "LoadImage", ["a.png"]), {"type": "ImageInvert"}]}
    workflow = saved([node(5, "workflow>G"), node(6, "workflow/G")], [], extra={"groupNodes": {"G": group}})
    assert paths(workflow) == ["5:0", "5:1", "6:0", "6:1"]
    assert file_inputs(workflow) == ["5:0.image", "6:0.image"]


def test_a_subgraph_in_itself_ends_and_many_in_many_are_bounded() -> None:
    assert paths(hosts(saved([node(5, SUBGRAPH, [])], []))) == []
    ids = [f"{number:08}-1111-4111-8111-000000000000" for number in range(30)]
    definitions = [
        {"id": here, "nodes": [node(1, there, []), node(2, there, []), node(3, "LoadImage", ["a.png"])]}
        for here, there in zip(ids, [*ids[1:], "LoadImage"], strict=True)
    ]
    workflow = saved([node(1, ids[0], [])], [], definitions={"subgraphs": definitions})
    assert 1000 < len(paths(workflow)) <= 20_000


@pytest.mark.parametrize(
    "workflow",
    [
        {"nodes": [None, 5, {}, {"type": 5}, {"id": [], "type": "LoadImage", "widgets_values": 5}]},
        {"nodes": [{"id": 1, "type": "LoadImage", "widgets_values": {"image": 5}}], "definitions": 5, "extra": []},
        {"nodes": [node(1, "a")], "definitions": {"subgraphs": [{"id": "a", "nodes": 5}, 5, {"id": []}]}},
        {"nodes": [node(1, "a")], "extra": {"groupNodes": {"a": 5}}},
    ],
)
def test_what_is_no_node_stops_nothing(workflow: dict[str, Any]) -> None:
    for found in active_nodes(workflow):
        assert [found.file_in(name) for name in found.file_inputs] in ([], [None])
