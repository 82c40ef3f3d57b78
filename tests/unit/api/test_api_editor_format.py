"""The API takes what the editor saved: converted there if workers have told their nodes, and else by the worker."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.api import workflows
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.graph.convert import Conversion
from comfy_serverless.jobs.declarations import DeclarationsReader, DeclarationsWriter
from comfy_serverless.jobs.lines import LineAddress
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.settings import Settings
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.asset_names import digest_of
from comfy_serverless.table.assets import Naming
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.worker.worker import Call, Outcome, Worker
from comfy_serverless.workflows.finding import Finder
from tests.unit.api_world import ASSETS, RESULTS, Answer, ApiWorld, api_world
from tests.unit.editor_samples import (
    OBJECT_INFO,
    PLAIN,
    PLAIN_GRAPH,
    link_in,
    link_out,
    node,
    plain,
    saved,
    with_unknown,
)
from tests.unit.fakes import FakeEngine, FakeInputs, files_in
from tests.unit.jobs_table import REGION

WHERE = ("at the door", "by the worker")


@pytest.fixture(scope="module")
def api() -> Iterator[ApiWorld]:
    with pytest.MonkeyPatch.context() as patch, api_world(patch) as world:
        yield world


@pytest.fixture(params=WHERE)
def doors(request: pytest.FixtureRequest, api: ApiWorld) -> Doors:
    return Doors(api, is_told=request.param == WHERE[0])


class Doors:
    """The API, with or without declarations of nodes, and a worker that runs what it has taken."""

    def __init__(self, api: ApiWorld, *, is_told: bool) -> None:
        self.api, self.is_told = api, is_told
        self.waiting()
        for item in api.s3.list_objects_v2(Bucket=ASSETS, Prefix="engine/").get("Contents", []):
            api.s3.delete_object(Bucket=ASSETS, Key=item["Key"])
        if is_told:
            DeclarationsWriter(api.s3, ASSETS, "nodes").write(OBJECT_INFO)
        for reader in (api.services.declarations, api.services.node_list):
            reader._read_at = float("-inf")
        self.engine, self.inputs = FakeEngine(declares=OBJECT_INFO), FakeInputs()
        settings = Settings(output_bucket=RESULTS, assets_bucket=ASSETS)
        self.worker = Worker(settings=settings, engine=self.engine, s3=api.s3, inputs=self.inputs, named=files_in(None))

    def submit(self, workflow: object, **fields: object) -> Answer:
        return self.api.request("POST", "/api/v2/jobs", body={"workflow": workflow, **fields})

    def generate(self, workflow: object, **fields: object) -> Answer:
        return self.api.request("POST", "/generate", body={"workflow": workflow, "wait_s": 0, **fields})

    def stored(self, message: Mapping[str, Any]) -> dict[str, Any]:
        address = S3Address.parse(message["request"])
        return dict(json.loads(self.api.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"].read()))

    def message(self) -> dict[str, Any]:
        """The message that waits, taken for good."""
        (found,) = self.waiting()
        return found

    def waiting(self) -> list[dict[str, Any]]:
        """All that wait."""
        sqs, url = self.api.sqs, self.api.job_queue_url
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        for message in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [json.loads(message["Body"]) for message in found]

    def run(self) -> Outcome:
        """Have the worker run the job that waits."""
        job = JobMessage.parse(json.dumps(self.message()))
        assert job is not None
        outcome = self.worker.run(job, Call())
        outcome.release()
        return outcome

    def ran(self) -> tuple[dict[str, Any], Mapping[str, Any], Mapping[str, Any]]:
        """The graph that ComfyUI got, the inputs that were fetched for it, and the data beside it."""
        outcome = self.run()
        assert outcome.error is None, outcome.error
        return self.engine.runs[-1]["workflow"], self.inputs.calls[-1]["inputs"], self.engine.runs[-1]["extra_data"]

    def upload(self, name: str, owner: str = "team") -> Asset:
        content = name.encode() + owner.encode()
        return self.api.services.assets.store(
            owner, io.BytesIO(content), digest_of(io.BytesIO(content)), Naming(file_path=name)
        )


def make_old(reader: DeclarationsReader) -> None:
    """Let what it has read have been told long ago."""
    assert reader.told_at() is not None
    assert reader._told is not None
    reader._told = replace(reader._told, at=reader._told.at.replace(year=2020))


def titled(graph: Mapping[str, Any]) -> dict[str, Any]:
    return {node_id: {part: each[part] for part in ("class_type", "inputs")} for node_id, each in graph.items()}


def loading(value: object) -> dict[str, Any]:
    """The editor's workflow that loads a file, and saves it."""
    return saved(
        [
            node(1, "LoadImage", [value, "image"], outputs=[link_out([1]), link_out(None, "MASK")]),
            node(2, "SaveImage", ["editor"], [link_in("images", 1)]),
        ],
        [[1, 1, 0, 2, 0, "IMAGE"]],
    )


def reference(asset: Asset) -> dict[str, Any]:
    return {"__type": "core/ASSET", "info": {"id": asset.id.upper()}}


def test_both_doors_take_it_and_pictures_can_be_opened_again(doors: Doors) -> None:
    for send in (doors.submit, doors.generate):
        answer = send(PLAIN)
        assert answer.status in {201, 202}, answer.text
        graph, _, data = doors.ran()
        assert titled(graph) == PLAIN_GRAPH
        assert data == {"extra_pnginfo": {"workflow": PLAIN}}
        again = doors.api.request("GET", f"/api/v2/jobs/{answer.json['id']}/workflow")
        assert again.json == {"workflow": PLAIN, "format": "save"}


def test_the_same_file_is_the_same_request_whoever_converts_it(doors: Doors) -> None:
    job_id, jobs = f"again-{uuid.uuid4().hex}", doors.api.services.jobs
    doors.generate(PLAIN, job_id=job_id)
    outcome = doors.run()
    assert outcome.job.request_sha256 is not None
    assert jobs.begin(job_id, run="run").state is not None
    assert jobs.finish(job_id, outcome.job, run="run", webhook=False, places=range(0))
    others = Doors(doors.api, is_told=not doors.is_told)
    told = others.generate(PLAIN, job_id=job_id).json["warnings"]
    assert [warning for warning in told if "another request" in warning] == []


def test_only_a_job_that_is_left_to_the_worker_needs_a_newer_one(doors: Doors) -> None:
    doors.submit(PLAIN)
    message = doors.message()
    for document in (doors.stored(message), message["content"]):
        assert document.get("version") == (None if doors.is_told else 2)


def test_a_graph_stays_one(doors: Doors) -> None:
    answer = doors.submit(PLAIN_GRAPH)
    again = doors.api.request("GET", f"/api/v2/jobs/{answer.json['id']}/workflow")
    assert again.json == {"workflow": PLAIN_GRAPH, "format": "api"}
    assert titled(doors.ran()[0]) == PLAIN_GRAPH


def test_values_and_inputs_are_put_into_what_it_becomes(doors: Doors) -> None:
    doors.generate(
        loading("fox.png"), set={"SaveImage.filename_prefix": "set"}, inputs={"1.image": "https://a.example/b.png"}
    )
    graph, inputs, _ = doors.ran()
    assert graph["2"]["inputs"]["filename_prefix"] == "set"
    assert inputs == {"1.image": "https://a.example/b.png"}


def test_names_of_uploads_and_references_become_what_is_fetched(doors: Doors) -> None:
    by_name, by_id = doors.upload("photos/fox.png"), doors.upload("cat.png")
    for value, asset in (("photos/fox.png", by_name), ("photos/fox.png [input]", by_name), (reference(by_id), by_id)):
        answer = doors.submit(loading(value))
        assert answer.status == 201, answer.text
        graph, _, data = doors.ran()
        assert graph["1"]["inputs"]["image"] == str(asset.address)
        assert ASSETS not in json.dumps(data), "nobody who sees the picture learns where it was"
        assert data["extra_pnginfo"]["workflow"]["nodes"][0]["widgets_values"][0] == value
    doors.generate(loading("other.png"), set={"LoadImage.image": reference(by_id)})
    assert doors.ran()[0]["1"]["inputs"]["image"] == str(by_id.address)


def test_several_references_are_a_batch(doors: Doors) -> None:
    assets = [doors.upload(f"{number}.png") for number in range(2)]
    doors.submit(loading([reference(asset) for asset in assets]))
    assert doors.ran()[1] == {"1.image": [str(asset.address) for asset in assets]}


def test_an_asset_of_another_owner_is_none(doors: Doors) -> None:
    theirs = doors.upload("theirs.png", owner="rival")
    answer = doors.submit(loading(reference(theirs)))
    assert (answer.status, answer.code) == (422, "missing_asset"), answer.text
    assert doors.submit(loading("theirs.png")).status == 201
    assert doors.ran()[0]["1"]["inputs"]["image"] == "theirs.png", "a name in ComfyUI's own folder, perhaps"


FOREIGN = (
    f"s3://{ASSETS}/blobs/rival/1",
    f"s3://{RESULTS}/owners/rival/job/9/a.png",
    f"S3://{ASSETS}/requests/rival/1",
)


def test_addresses_of_others_are_refused_wherever_they_hide(doors: Doors) -> None:
    address, *others = FOREIGN
    inner = {"id": "a-subgraph", "nodes": [node(5, "LoadImage", [address])], "links": [], "inputs": [], "outputs": []}
    hidden = {
        "a widget": loading(address),
        "a value by its name": saved([node(1, "LoadImage", None, widgets_values={"image": [f" {address}\n"]})], []),
        "a subgraph": {**PLAIN, "definitions": {"subgraphs": [inner]}},
        "a group node": {**PLAIN, "extra": {"groupNodes": {"g": inner}}},
        "a muted node": saved([*PLAIN["nodes"], node(9, "LoadImage", [address], mode=2)], PLAIN["links"]),
        **{other: loading(other) for other in others},
    }
    for place, workflow in hidden.items():
        answer = doors.submit(workflow)
        assert (answer.status, answer.code) == (422, "missing_asset"), (place, answer.text)
        assert doors.waiting() == []
    answer = doors.generate(loading("a.png"), set={"1.image": address})
    assert (answer.status, answer.code) == (422, "missing_asset")


def test_an_address_that_a_conversion_puts_together_is_refused_too(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dynamic prompt, a name with `%Node.widget%`: what it becomes was in no file."""
    made = {**PLAIN_GRAPH, "1": {"class_type": "LoadImage", "inputs": {"image": FOREIGN[0]}}}
    monkeypatch.setattr("comfy_serverless.graph.convert.convert", lambda *_, **__: Conversion(made, ()))
    answer = doors.submit(PLAIN)
    if doors.is_told:
        assert (answer.status, answer.code) == (422, "missing_asset")
        return
    error = doors.run().error
    assert error is not None
    assert error.code == "missing_asset"
    for sent in (PLAIN, {"workflow": PLAIN, "output": {"prefix": "mine"}}):
        error = doors.worker.run(SentRequest(payload=sent, default_id="of-the-operator"), Call()).error
        assert error is not None
        assert error.code == "invalid_request", "the operator's, who has no owner"
    assert doors.engine.runs == []


def test_the_callers_own_results_are_taken(doors: Doors) -> None:
    own = f"s3://{RESULTS}/owners/team/job/9/a.png"
    assert doors.submit(loading(own)).status == 201
    graph, _, data = doors.ran()
    assert graph["1"]["inputs"]["image"] == own
    assert data["extra_pnginfo"]["workflow"]["nodes"][0]["widgets_values"][0] == "a.png"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://user:hush@a.example/way/fox.png?X-Amz-Signature=hush", "fox.png"),
        ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ", ""),
    ],
)
def test_what_is_fetched_stands_in_pictures_by_its_name_alone(doors: Doors, address: str, name: str) -> None:
    doors.submit(loading(address))
    graph, _, data = doors.ran()
    assert graph["1"]["inputs"]["image"] == address
    workflow = data["extra_pnginfo"]["workflow"]
    assert workflow["nodes"][0]["widgets_values"] == [name, "image"]
    assert workflow == {**loading(name)}


def test_keys_in_the_file_are_kept_nowhere_and_get_into_no_picture(doors: Doors) -> None:
    workflow = {
        **PLAIN,
        "extra": {"ds": {"scale": 1}, "services": {"api_key": "hush-hush"}},
        "api_key_comfy_org": "hush-hush",
        "settings": {"token": "hush-hush"},
        "extra_data": {"api_key_comfy_org": "hush-hush", "extra_pnginfo": {"by": "me"}},
    }
    doors.generate(workflow)
    message = doors.message()
    assert "hush-hush" not in json.dumps(doors.stored(message))
    assert "hush-hush" not in json.dumps(message["content"])
    assert message["extra_data"] == {"api_key_comfy_org": "hush-hush"}
    job = JobMessage.parse(json.dumps(message))
    assert job is not None
    assert doors.worker.run(job, Call()).error is None
    data = doors.engine.runs[-1]["extra_data"]
    assert data["api_key_comfy_org"] == "hush-hush"
    assert data["extra_pnginfo"] == {"workflow": {**PLAIN, "extra": {"ds": {"scale": 1}}}, "by": "me"}


def test_a_workflow_that_is_too_large_for_pictures_runs_without_going_along(doors: Doors) -> None:
    large = {**PLAIN, "groups": [{"title": "x" * 2_100_000}]}
    assert doors.submit(large).status == 201
    outcome = doors.run()
    assert outcome.error is None
    assert any("2,000,000" in warning for warning in outcome.job.warnings)
    assert doors.engine.runs[-1]["extra_data"] == {}


def test_a_nested_one_is_refused(doors: Doors) -> None:
    deep: Any = []
    for _ in range(70):
        deep = [deep]
    answer = doors.submit({**PLAIN, "extra": {"deep": deep}})
    assert (answer.status, answer.code) == (422, "invalid_workflow"), answer.text


def test_named_ones_are_taken_and_checked_as_well(doors: Doors) -> None:
    for bucket, workflow, status in (
        ("inputs-1", PLAIN, 202),
        ("inputs-2", loading(FOREIGN[0]), 422),
        ("inputs-3", {"workflow": PLAIN, "extra_data": {"preview_method": "none"}}, 202),
    ):
        doors.api.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        doors.api.s3.put_object(Bucket=bucket, Key="w.json", Body=json.dumps(workflow).encode())
        answer = doors.generate(f"s3://{bucket}/w.json")
        assert answer.status == status, answer.text
        doors.api.s3.delete_object(Bucket=bucket, Key="w.json")
        doors.api.s3.delete_bucket(Bucket=bucket)
        if status == 202:
            assert titled(doors.ran()[0]) == PLAIN_GRAPH, "as it was when it was submitted"
            again = doors.api.request("GET", f"/api/v2/jobs/{answer.json['id']}/workflow")
            assert again.json == {"workflow": PLAIN, "format": "save"}


def test_what_cannot_be_converted_is_told_with_every_reason(doors: Doors) -> None:
    answer = doors.submit(with_unknown())
    if doors.is_told:
        assert (answer.status, answer.code) == (422, "workflow_format_ui")
        reasons = answer.json["error"]["details"]["reasons"]
    else:
        error = doors.run().error
        assert error is not None
        assert error.code == "workflow_format_ui"
        reasons = error.details["reasons"]
    (reason,) = reasons
    assert (reason["reason"], reason["node_id"], reason["class_type"]) == ("missing_node_type", "2", "NobodysNode")
    assert reason["cnr_id"] == "nobodys-pack"


def test_workers_of_an_older_release_get_none(api: ApiWorld) -> None:
    """They would fail it for good, and the list of their classes, with nothing beside it, tells that they are."""
    doors = Doors(api, is_told=False)
    api.s3.put_object(Bucket=ASSETS, Key="engine/nodes.json", Body=json.dumps(sorted(OBJECT_INFO)).encode())
    answer = doors.submit(PLAIN)
    assert (answer.status, answer.code) == (422, "workflow_format_ui")
    assert "older release" in answer.json["error"]["message"]
    assert doors.submit(PLAIN_GRAPH).status == 201


@pytest.mark.parametrize("image", ["nodes", "worker-lite"])
def test_workers_of_the_first_release_get_none_whatever_their_image(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch, image: str
) -> None:
    """They list their classes under one name. A list that is old says nothing of the workers of today."""
    doors = Doors(api, is_told=False)
    for reader in (api.services.declarations, api.services.node_list):
        monkeypatch.setattr(reader, "image", lambda: image)
    assert doors.submit(PLAIN).status == 201
    api.s3.put_object(Bucket=ASSETS, Key="engine/nodes.json", Body=json.dumps(sorted(OBJECT_INFO)).encode())
    api.services.node_list._read_at = float("-inf")
    assert (doors.submit(PLAIN).code, doors.submit(PLAIN_GRAPH).status) == ("workflow_format_ui", 201)
    monkeypatch.setattr("comfy_serverless.jobs.engine_documents.TRUSTED_S", -1)
    api.services.node_list._read_at = float("-inf")
    assert doors.submit(PLAIN).status == 201


def test_workers_that_were_set_back_to_an_older_release_get_none(api: ApiWorld) -> None:
    """What newer ones had told is still there, and is older than the list of classes."""
    doors = Doors(api, is_told=True)
    api.s3.put_object(Bucket=ASSETS, Key="engine/nodes.json", Body=json.dumps(sorted(OBJECT_INFO)).encode())
    make_old(api.services.declarations)
    assert doors.submit(PLAIN).code == "workflow_format_ui"


def test_dynamic_prompts_are_rolled_by_the_jobs_id(doors: Doors) -> None:
    """So that a second run of the job is the same, and it does not matter who converts."""
    info = {
        **OBJECT_INFO,
        "Text": {"input": {"required": {"text": ["STRING", {"dynamicPrompts": True}]}}, "output": []},
    }
    if doors.is_told:
        DeclarationsWriter(doors.api.s3, ASSETS, "nodes").write(info)
        doors.api.services.declarations._read_at = float("-inf")
    doors.engine.declares = info
    workflow = saved([*PLAIN["nodes"], node(7, "Text", ["{a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p}"])], PLAIN["links"])
    texts = []
    for number in range(4):
        doors.generate(workflow, job_id=f"rolled-{doors.is_told}-{number}")
        texts.append(doors.ran()[0]["7"]["inputs"]["text"])
    assert len(set(texts)) > 1
    source = SentRequest(payload={"workflow": workflow, "job_id": f"rolled-{doors.is_told}-0"}, default_id="x")
    again = Worker(settings=Settings(), engine=doors.engine, s3=doors.api.s3, inputs=doors.inputs, named=files_in(None))
    assert again.run(source, Call()).error is None
    assert doors.engine.runs[-1]["workflow"]["7"]["inputs"]["text"] == texts[0]


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"request": {}, "workflow": "named"}, ("save", PLAIN)),
        ({"request": {}, "workflow": {"prompt": PLAIN_GRAPH}}, ("api", PLAIN_GRAPH)),
        ({"workflow": {"prompt": PLAIN_GRAPH, "workflow": PLAIN}}, ("api", PLAIN_GRAPH)),
        ({"workflow": "unheard-of"}, None),
        ({"workflow": f"s3://{RESULTS}/owners/rival/theirs.json"}, None),
        ({"workflow": {"1": 5}}, None),
        ({"workflow": {}}, None),
        ({"set": {}}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_workflow_of_a_job_that_came_otherwise(
    api: ApiWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: object, shown: tuple[str, object] | None
) -> None:
    """A drop has what its request has, and a line of a manifest too: a name, for instance."""
    (tmp_path / "named.json").write_text(json.dumps(PLAIN))
    here = replace(api.services.settings, workflows_dir=tmp_path)
    named = Finder(api.services.workflows, tmp_path, api.services.declarations.fresh)
    monkeypatch.setattr(api, "services", replace(api.services, settings=here, named=named))
    rival = json.dumps({"prompt": PLAIN_GRAPH}).encode()
    api.s3.put_object(Bucket=RESULTS, Key="owners/rival/theirs.json", Body=rival)
    text = json.dumps(document).encode()
    api.s3.put_object(Bucket=ASSETS, Key="requests/team/dropped.json", Body=text)
    api.s3.put_object(Bucket=ASSETS, Key="requests/batches/many.jsonl", Body=b"{}\n" + text)
    line = LineAddress(ASSETS, "many", 3, len(text)).to_text()
    for number, request in enumerate((f"s3://{ASSETS}/requests/team/dropped.json", line)):
        job_id = f"dropped-{number}-{uuid.uuid4().hex[:8]}"
        result = f"s3://{RESULTS}/{job_id}/result.json"
        api.services.jobs.submit(NewJob(job_id=job_id, owner="team", request_uri=request, result_uri=result))
        answer = api.request("GET", f"/api/v2/jobs/{job_id}/workflow")
        if shown is None:
            assert (answer.status, answer.code) == (404, "not_found"), answer.text
        else:
            assert answer.json == {"format": shown[0], "workflow": shown[1]}


def convert(api: ApiWorld, **body: object) -> Answer:
    return api.request("POST", "/api/v2/workflows/convert", body=body)


def test_convert_answers_the_graph_and_runs_nothing(api: ApiWorld) -> None:
    doors = Doors(api, is_told=True)
    answer = convert(api, workflow=PLAIN, set={"The canvas.color": 9})
    assert answer.status == 200, answer.text
    graph = titled(answer.json["workflow"])
    assert graph == {**PLAIN_GRAPH, "1": {**PLAIN_GRAPH["1"], "inputs": {**PLAIN_GRAPH["1"]["inputs"], "color": 9}}}
    assert (set(answer.json), answer.json["warnings"]) == ({"workflow", "warnings", "nodes_told_at"}, [])
    bare = api.request("POST", "/api/v2/workflows/convert", body=PLAIN)
    assert titled(bare.json["workflow"]) == PLAIN_GRAPH
    assert doors.waiting() == []
    assert convert(api, workflow=PLAIN_GRAPH).json == {"workflow": PLAIN_GRAPH, "warnings": []}
    refused = convert(api, workflow=with_unknown())
    assert (refused.status, refused.code) == (422, "workflow_format_ui")
    assert refused.json["error"]["details"]["reasons"]
    assert doors.engine.runs == []


def test_convert_says_that_an_answer_would_be_too_large(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    Doors(api, is_told=True)
    monkeypatch.setattr(workflows, "REPLY_LIMIT_BYTES", 100)
    answer = convert(api, workflow=PLAIN)
    assert (answer.status, answer.code) == (413, "invalid_request")
    assert "convert it where ComfyUI is" in answer.text


def test_convert_is_as_strict_as_other_routes(api: ApiWorld) -> None:
    Doors(api, is_told=True)
    for body, code in (
        ({"workflow": PLAIN, "sed": 1}, "invalid_request"),
        ({"workflow": "s3://bucket/key.json"}, "invalid_request"),
        ({"workflow": []}, "invalid_request"),
        ({"workflow": PLAIN, "seed": "x" * 300}, "invalid_request"),
        ({"workflow": {"nodes": []}}, "workflow_format_ui"),
        ({"workflow": PLAIN, "set": {"99.x": 1}}, "invalid_workflow"),
    ):
        answer = convert(api, **body)
        assert (answer.status, answer.code) == (422, code), (body, answer.text)
    assert "did you mean 'seed'" in convert(api, workflow=PLAIN, sed=1).text


def test_convert_says_that_nobody_has_told_his_nodes_yet(api: ApiWorld) -> None:
    Doors(api, is_told=False)
    answer = convert(api, workflow=PLAIN)
    assert (answer.status, answer.code) == (503, "engine_unavailable")
    assert convert(api, workflow=PLAIN_GRAPH).status == 200


def test_convert_goes_by_what_workers_have_told_long_ago_and_a_job_does_not(api: ApiWorld) -> None:
    """Another image of the same name may have other nodes: then the worker converts, which has them."""
    Doors(api, is_told=True)
    reader = DeclarationsReader(api.s3, ASSETS, lambda: "nodes")
    assert reader.fresh() is not None
    make_old(reader)
    assert reader.fresh() is None
    assert reader.newest() == OBJECT_INFO
    assert plain() == PLAIN
