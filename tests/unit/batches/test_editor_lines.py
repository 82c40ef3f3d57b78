"""Lines with what the editor saved: each is a job, those that are random are jobs of their own, workers convert."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.graph.chance import draws, rolls
from comfy_serverless.jobs.lines import lines_of
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.stored_request import request_at, version_of
from comfy_serverless.settings import Settings
from tests.unit.batch_world import World
from tests.unit.editor_samples import PLAIN, SUBGRAPH, link_in, node, plain, rolling, saved, with_subgraph
from tests.unit.jobs_table import aws
from tests.unit.workflow_samples import text_to_image


def one(class_type: str, values: Any, **more: Any) -> dict[str, Any]:
    return saved([node(4, class_type, values, **more)], [])


def inside(workflow: dict[str, Any]) -> dict[str, Any]:
    """A workflow whose nodes are in a subgraph."""
    definition = {"id": SUBGRAPH, "nodes": workflow["nodes"], "links": [], "inputs": [], "outputs": []}
    return saved([node(1, SUBGRAPH, [])], [], definitions={"subgraphs": [definition]})


RANDOM: dict[str, dict[str, Any]] = {
    "alternatives": {"workflow": rolling()},
    "alternatives, bare": rolling(),
    "alternatives in a text of JSON": {"workflow": json.dumps(rolling())},
    "alternatives in a subgraph": {"workflow": inside(rolling())},
    "alternatives, and a seed that is set": {"workflow": rolling(), "set": {"9.seed": 5}},
    "another text is set": {"workflow": rolling(), "set": {"SaveImage.filename_prefix": "x"}},
    "one of two texts is set": {
        "workflow": one("CLIPTextEncodeSDXL", [64, "{a|b}", "{c|d}"]),
        "set": {"4.text_g": "a"},
    },
    "a seed before its control": {"workflow": one("KSampler", [-1, "randomize", 20])},
    "a seed of 2023": {"workflow": one("KSampler", [-1, True, 20])},
    "a seed as a text": {"workflow": one("KSampler", ["-1", "fixed", 20])},
    "a node that is called so": {"workflow": one("Seed (rgthree)", [-1, "", "", ""])},
    "an input that is called so": {"workflow": one("Mine", [20, -1], inputs=[link_in("noise_seed", None, "INT")])},
    "values by their names": {"workflow": one("Mine", {"seed": -1})},
    "a seed that is set to be drawn": {"workflow": PLAIN, "set": {"KSampler.seed": -1}},
}
SAME: dict[str, dict[str, Any]] = {
    "nothing random": {"workflow": PLAIN},
    "with a subgraph": {"workflow": with_subgraph()},
    "one alternative": {"workflow": rolling("a {red} fox")},
    "escaped ones": {"workflow": rolling("a \\{red\\|green\\} fox")},
    "in a comment": {"workflow": rolling("a fox // {red|green}")},
    "in a note": {"workflow": one("MarkdownNote", ["{red|green}"])},
    "of a host, which is taken as it is": {"workflow": {**with_subgraph(), "nodes": [node(2, SUBGRAPH, ["{a|b}"])]}},
    "the text is set": {"workflow": rolling(), "set": {"2.text": "a fox"}},
    "the text is set by class": {"workflow": rolling(), "set": {"CLIPTextEncode.text": "a fox"}},
    "the text is set in a subgraph": {"workflow": inside(rolling()), "set": {"1:2.text": "a fox"}},
    "the seed is set": {"workflow": one("KSampler", [-1, "randomize"]), "set": {"4.seed": 5}},
    "a minus one elsewhere": {"workflow": one("CLIPSetLastLayer", [-1])},
    "a minus one by another name": {"workflow": one("Mine", {"stop": -1})},
    "a class that is no text": {"workflow": one(["x"], ["{a|b}", -1])},  # type: ignore[arg-type]
    "an input whose name is no text": {"workflow": one("Mine", [-1], inputs=[{"name": ["seed"]}])},
    "in API format they are plain texts": {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "{a|b}"}}},
}


def ids(document: object) -> set[str | None]:
    line = json.dumps(document).encode()
    found = list(lines_of([line + b"\n" + line]))
    return {request_at(each, batch_id="b-1", draws=lambda _: False).request.job_id for each in found}


@pytest.mark.parametrize("document", RANDOM.values(), ids=RANDOM)
def test_lines_that_are_random_are_jobs_of_their_own_and_the_same_ones_again(document: object) -> None:
    assert len(ids(document)) == 2
    assert ids(document) == ids(document)


@pytest.mark.parametrize("document", SAME.values(), ids=SAME)
def test_the_same_line_is_the_same_job(document: object) -> None:
    assert len(ids(document)) == 1


@pytest.mark.parametrize("nodes", [[5], [None], [{}], [{"widgets_values": 5}], [{"type": 5, "inputs": 5, "id": {}}]])
def test_what_is_no_node_has_nothing_random(nodes: list[Any]) -> None:
    workflow = {"nodes": nodes, "definitions": [5], "extra": 5}
    assert not draws(workflow)
    assert not rolls(workflow, replaced=["a"])


def test_a_graph_is_judged_by_its_seeds() -> None:
    assert draws(text_to_image())
    assert not rolls(text_to_image())


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    (tmp_path / "rolling.json").write_text(json.dumps(rolling()))
    (tmp_path / "plain.json").write_text(json.dumps(PLAIN))
    with aws() as session:
        yield World(session, workflows_dir=tmp_path)


def read(world: World) -> list[JobRequest]:
    """The requests of all messages that wait, as a worker reads them."""
    jobs = [JobMessage.parse(json.dumps(body)) for body in world.messages("batches")]
    return [job.read(s3=world.s3, settings=Settings()) for job in jobs if job is not None]


def manifest(*documents: object) -> bytes:
    return b"\n".join(json.dumps(document).encode() for document in documents)


def test_a_worker_gets_the_workflow_as_it_is(world: World) -> None:
    world.begin(manifest({"workflow": PLAIN, "set": {"1.color": 7}}, plain(color=5), {"prompt": PLAIN}))
    world.read_all()
    found = read(world)
    assert sorted(json.dumps([request.workflow, request.values]) for request in found) == sorted(
        json.dumps([workflow, values])
        for workflow, values in ((PLAIN, {"1.color": 7}), (plain(color=5), {}), (PLAIN, {}))
    )


def test_only_a_worker_that_converts_takes_it(world: World) -> None:
    world.begin(manifest(PLAIN, text_to_image()))
    world.read_all()
    assert sorted(body.get("version", 1) for body in world.messages("batches")) == [1, 2]


def test_a_line_in_too_many_wrappers_does_not_hold_up_the_others(world: World) -> None:
    """What is in the innermost one only its worker hears of, which says so in the job's result."""
    wrapped: dict[str, Any] = {"prompt": text_to_image(), "output": {"1": {"class_type": "Other", "inputs": {}}}}
    for _ in range(7):
        wrapped = {"prompt": wrapped}
    assert version_of(JobRequest.parse({"workflow": wrapped})) == 1
    world.begin(manifest({"workflow": wrapped}, PLAIN))
    world.read_all()
    assert len(world.messages("batches")) == 2


def test_named_ones_are_looked_at_for_what_is_random(world: World) -> None:
    world.begin(
        manifest(
            *[{"workflow": "rolling"}] * 3,
            *[{"workflow": "rolling", "set": {"9.seed": 5}}] * 3,
            *[{"workflow": "plain"}] * 3,
            *[{"workflow": "plain", "set": {"9.seed": 5}}] * 3,
        )
    )
    world.read_all()
    assert len(world.messages("batches")) == 8
