"""The same request everywhere: whatever shape it has, each door makes the same of it, and says the same about it."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import JobQueue
from comfy_serverless.batches.drops import Drops
from comfy_serverless.batches.keeper import Keeper
from comfy_serverless.batches.store import BatchStore
from comfy_serverless.handlers import sagemaker_server, wiring
from comfy_serverless.handlers.events import recognise
from comfy_serverless.jobs.declarations import DeclarationsReader, DeclarationsWriter
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.settings import Settings
from comfy_serverless.table.dispatch import Queues
from comfy_serverless.worker.replies import Replies
from comfy_serverless.worker.worker import Call, Outcome, Worker
from tests.unit import editor_samples
from tests.unit.api_world import ASSETS, RESULTS, ApiWorld, api_world
from tests.unit.event_samples import http_event, s3_event, sqs_event
from tests.unit.fakes import FakeEngine, FakeInputs
from tests.unit.jobs_table import NAME, REGION

DROPS = "drops-bucket"
GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}, "_meta": {"title": "Ü"}},
}
LOADER: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "2": GRAPH["2"],
}
UI: dict[str, Any] = {"nodes": [], "links": [], "version": 0.4}
#: What the editor saved, and what becomes of it.
SAVED = editor_samples.plain(prefix="x")
OF_SAVED: dict[str, Any] = {
    "1": {**GRAPH["1"], "inputs": {**GRAPH["1"]["inputs"], "width": 16, "height": 8}, "_meta": {"title": "The canvas"}},
    "2": {**GRAPH["2"], "_meta": {"title": "Save Image"}},
}
WITH_SAVED = {"extra_pnginfo": {"workflow": SAVED}}
PNGINFO = {"extra_pnginfo": {"workflow": UI}}
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 60).decode()


@dataclass(frozen=True)
class Seen:
    """What a door has made of a request: what the engine got; or the code and the words of its refusal."""

    graph: Any = None
    extra_data: Any = None
    inputs: Any = None
    labels: Any = None
    warnings: tuple[str, ...] = ()
    code: str = ""
    message: str = field(default="", compare=False)


class Doors:
    """Every door, and one worker behind them all."""

    def __init__(self, api: ApiWorld, monkeypatch: pytest.MonkeyPatch, workflows: Path) -> None:
        self.api, services = api, api.services
        self.s3 = api.s3
        self.s3.create_bucket(Bucket=DROPS, CreateBucketConfiguration={"LocationConstraint": REGION})
        self._numbers = itertools.count()
        self.engine, self.inputs = FakeEngine(declares=editor_samples.OBJECT_INFO), FakeInputs()
        settings = Settings(output_bucket=RESULTS, assets_bucket=ASSETS, workflows_dir=workflows)
        self.worker = Worker(settings=settings, engine=self.engine, s3=self.s3, inputs=self.inputs)
        self.batch_queue, self.own_queue = (
            api.sqs.create_queue(QueueName=name)["QueueUrl"] for name in ("batches", "manifests")
        )
        workers = Queues.at(api.job_queue_url, self.batch_queue, sqs=api.sqs)
        self.keeper = Keeper(
            jobs=services.jobs,
            batches=BatchStore(services.table),
            workers=workers,
            own_queue=JobQueue(api.sqs, self.own_queue),
            s3=self.s3,
            settings=settings,
            output_bucket=RESULTS,
        )
        self.drops = Drops(
            jobs=services.jobs, workers=workers, s3=self.s3, settings=settings, assets_bucket=ASSETS, keeper=self.keeper
        )
        self.replies = Replies(self.s3, settings)
        for name, value in {
            "worker": self.worker,
            "replies": self.replies,
            "meter": SimpleNamespace(count=lambda _: None),
            "connector": SimpleNamespace(),
            "node_list": None,
        }.items():
            monkeypatch.setattr(wiring, name, lambda value=value: value)
        monkeypatch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 1e6)  # nobody waits

    def _seen(self, outcome: Outcome) -> Seen:
        outcome.release()
        if outcome.error is not None:
            return Seen(code=outcome.error.code, message=outcome.error.message)
        run, prepared = self.engine.runs[-1], self.inputs.calls[-1]
        labels = {name: value for name, value in outcome.job.metadata.items() if name != "source"}
        return Seen(run["workflow"], run["extra_data"] or {}, prepared["inputs"], labels, outcome.job.warnings)

    def _of_event(self, event: object) -> Seen:
        (source,) = recognise(event).sources()
        return self._seen(self.worker.run(source, Call()))

    def _of_queue(self, url: str) -> Seen:
        (message,) = self._messages(url)
        job = JobMessage.parse(message)
        assert job is not None
        seen = self._seen(self.worker.run(job, Call()))
        self._forget(job.job_id)
        return seen

    def _messages(self, url: str) -> list[str]:
        messages = self.api.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            self.api.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [str(message["Body"]) for message in messages]

    def _forget(self, job_id: str) -> None:
        """The next case may be a job of the same id: that of a line is made of its content."""
        for item in self.s3.list_objects_v2(Bucket=RESULTS, Prefix=f"{job_id}/").get("Contents", []):
            self.s3.delete_object(Bucket=RESULTS, Key=item["Key"])
        table: Any = self.api.services.table
        for kind in ("job", "batch"):
            table._client.delete_item(TableName=NAME, Key={"pk": {"S": f"job#{job_id}"}, "sk": {"S": kind}})

    def direct(self, content: bytes) -> Seen:
        """As Lambda hands over a payload: JSON that is read already."""
        return self._of_event(json.loads(content))

    def text_as_payload(self, content: bytes) -> Seen:
        return self._of_event(content.decode())

    def http(self, content: bytes) -> Seen:
        return self._of_event(http_event(content.decode()))

    def http_of_bytes(self, content: bytes) -> Seen:
        event = http_event("") | {"body": base64.b64encode(content).decode(), "isBase64Encoded": True}
        return self._of_event(event)

    def sqs(self, content: bytes) -> Seen:
        event = sqs_event(content.decode())
        event["Records"][0]["messageId"] = f"message-{next(self._numbers)}"
        return self._of_event(event)

    def sagemaker(self, content: bytes) -> Seen:
        server = sagemaker_server.SageMakerServer(in_flight=1)
        runs = len(self.engine.runs)
        status, document = server.invoke(content, "")
        if status != 200:
            return Seen(code=document["error"]["code"], message=document["error"]["message"])
        assert len(self.engine.runs) == runs + 1
        run, prepared = self.engine.runs[-1], self.inputs.calls[-1]
        warnings = tuple(document["warnings"])
        return Seen(run["workflow"], run["extra_data"] or {}, prepared["inputs"], document["metadata"], warnings)

    def drop_to_the_worker(self, content: bytes) -> Seen:
        key = f"jobs/{next(self._numbers)}.json"
        self.s3.put_object(Bucket=DROPS, Key=key, Body=content)
        return self._of_event(s3_event(key, bucket=DROPS))

    def drop(self, content: bytes) -> Seen:
        dropped = self._put(f"jobs/{next(self._numbers)}.json", content)
        self.drops.drop(dropped)
        return self._of_queue(self.api.job_queue_url) if not self._refused(dropped) else self._refusal(dropped)

    def manifest(self, content: bytes) -> Seen:
        dropped = self._put(f"batches/{next(self._numbers)}.jsonl", content)
        self.drops.drop(dropped)
        if self._refused(dropped):
            return self._refusal(dropped)
        for order in map(json.loads, self._messages(self.own_queue)):
            self.keeper.read_or_pass_on(order["batch"], order["start"], until=float("inf"))
        bad = list(self.keeper.batches.bad_lines(dropped.default_id))
        return Seen(code="invalid_request", message=str(bad)) if bad else self._of_queue(self.batch_queue)

    def generate(self, content: bytes) -> Seen:
        answer = self.api.request("POST", "/generate", body=content)
        if answer.status != 202:
            return Seen(code=answer.code, message=answer.json["error"]["message"])
        return self._of_queue(self.api.job_queue_url)

    def kept_objects(self) -> set[tuple[str, str, str]]:
        """The bucket, key and ETag of everything in our buckets, but the copies of manifests."""
        return {
            (bucket, item["Key"], item["ETag"])
            for bucket in (ASSETS, RESULTS)
            for item in self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
            if not item["Key"].startswith("requests/batches/")
        }

    def kept_since(self, before: Collection[tuple[str, str, str]]) -> str:
        """Everything in the table, and what of our buckets was not there `before`."""
        table: Any = self.api.services.table
        kept = [str(table._client.scan(TableName=NAME)["Items"])]
        for bucket, key, _ in self.kept_objects().difference(before):
            kept.append(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode("latin-1"))
        return " ".join(kept)

    def _put(self, key: str, content: bytes) -> DroppedObject:
        version = self.s3.put_object(Bucket=DROPS, Key=key, Body=content)["ETag"]
        return DroppedObject(address=S3Address(DROPS, key), version=version)

    def _refused(self, dropped: DroppedObject) -> bool:
        return "Contents" in self.s3.list_objects_v2(Bucket=RESULTS, Prefix=f"{dropped.default_id}/result.json")

    def _refusal(self, dropped: DroppedObject) -> Seen:
        body = self.s3.get_object(Bucket=RESULTS, Key=f"{dropped.default_id}/result.json")["Body"].read()
        error = json.loads(body)["error"]
        return Seen(code=error["code"], message=error["message"])


BYTES = ("http_of_bytes", "sagemaker", "drop_to_the_worker", "drop", "manifest", "generate")
TEXTS = (*BYTES, "text_as_payload", "http", "sqs")
ALL = (*TEXTS, "direct")


@contextmanager
def opened(folder: Path) -> Iterator[Doors]:
    """The doors of a new world, with some workflows that have names."""
    (folder / "pair.json").write_bytes(json.dumps({"prompt": GRAPH, "workflow": UI}).encode("utf-16"))
    (folder / "[v2] poster.json").write_text(json.dumps(GRAPH))
    (folder / "saved.json").write_text(json.dumps(SAVED))
    with pytest.MonkeyPatch.context() as patch, api_world(patch, workflows_dir=folder) as api:
        yield Doors(api, patch, folder)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """One world for all cases: each drops under a name of its own."""
    with opened(tmp_path_factory.mktemp("workflows")) as made:
        yield made


def text(value: object) -> str:
    return json.dumps(value)


#: A shape, what it means, and words of what is said about it.
SHAPES: Mapping[str, tuple[object, Seen, tuple[str, ...]]] = {
    "a request": ({"workflow": GRAPH}, Seen(), ()),
    "a bare graph": (GRAPH, Seen(), ()),
    "a body of /prompt": ({"prompt": GRAPH}, Seen(), ()),
    "with what ComfyUI's clients send": (
        {"prompt": GRAPH, "client_id": "a", "prompt_id": "b", "number": 1, "front": True},
        Seen(),
        ("client_id", "prompt_id", "number", "front"),
    ),
    "with a client's id beside a workflow": ({"workflow": GRAPH, "client_id": "a"}, Seen(), ("client_id",)),
    "with data for ComfyUI": ({"prompt": GRAPH, "extra_data": PNGINFO}, Seen(extra_data=PNGINFO), ()),
    "in a workflow": ({"workflow": {"prompt": GRAPH, "extra_data": PNGINFO}}, Seen(extra_data=PNGINFO), ()),
    "a request with it": ({"workflow": GRAPH, "extra_data": PNGINFO}, Seen(extra_data=PNGINFO), ()),
    "with more of the editor": (
        {"workflow": GRAPH, "extra_data": {"preview_method": "auto"}},
        Seen(extra_data={"preview_method": "auto"}),
        (),
    ),
    "beside the prompt": ({"prompt": GRAPH, **PNGINFO}, Seen(extra_data=PNGINFO), ()),
    "a picture's pair": ({"prompt": GRAPH, "workflow": UI}, Seen(extra_data=PNGINFO), ()),
    "a picture's pair of texts": ({"prompt": text(GRAPH), "workflow": text(UI)}, Seen(extra_data=PNGINFO), ()),
    "graphToPrompt": ({"output": GRAPH, "workflow": UI}, Seen(extra_data=PNGINFO), ()),
    "graphToPrompt in a workflow": ({"workflow": {"output": GRAPH, "workflow": UI}}, Seen(extra_data=PNGINFO), ()),
    "a pair in a prompt": ({"prompt": {"output": GRAPH, "workflow": UI}}, Seen(extra_data=PNGINFO), ()),
    "JSON in a text": ({"workflow": text(GRAPH)}, Seen(), ()),
    "a text in a text": ({"workflow": text(text(GRAPH))}, Seen(), ()),
    "a prompt in a text": ({"workflow": text({"prompt": GRAPH})}, Seen(), ()),
    "with a mark in the text": ({"workflow": "\ufeff" + text(GRAPH)}, Seen(), ()),
    "a text in all": (text({"workflow": GRAPH}), Seen(), ()),
    "of RunPod": ({"input": {"workflow": GRAPH}}, Seen(), ()),
    "of RunPod, with more": (
        {"input": {"workflow": GRAPH}, "id": "a", "webhook": "https://a.example", "policy": {}},
        Seen(),
        ("id", "webhook", "policy"),
    ),
    "of RunPod, with pictures": (
        {"input": {"workflow": LOADER, "images": [{"name": "fox.png", "image": f"data:image/png;base64,{PICTURE}"}]}},
        Seen(LOADER, inputs={"1.image": f"data:image/png;base64,{PICTURE}"}),
        (),
    ),
    "with a picture that nobody wants": (
        {"input": {"workflow": LOADER, "images": [{"name": "cat.png", "image": PICTURE}]}},
        Seen(LOADER),
        ("cat.png",),
    ),
    "of cog": ({"input": {"workflow_json": text(GRAPH)}}, Seen(), ()),
    "with workflow_json": ({"workflow_json": text(GRAPH)}, Seen(), ()),
    "with workflow_api": ({"workflow_api": GRAPH}, Seen(), ()),
    "an HTTP envelope": ({"body": text({"workflow": GRAPH}), "headers": {}}, Seen(), ("headers",)),
    "an envelope in an envelope": ({"body": {"input": {"prompt": GRAPH}}}, Seen(), ()),
    "instances": ({"instances": [{"workflow": GRAPH}]}, Seen(), ()),
    "the only one in a list": ([{"workflow": GRAPH}], Seen(), ()),
    "a bare graph in a list": ([GRAPH], Seen(), ()),
    "an entry of the history": (
        {"prompt": [7, "id", GRAPH, {**PNGINFO, "client_id": "a"}, ["2"]]},
        Seen(extra_data=PNGINFO),
        (),
    ),
    "an entry of the history, whole": (
        {"prompt": [7, "id", GRAPH, {}, ["2"]], "outputs": {"2": {}}, "status": {"completed": True}, "meta": {}},
        Seen(),
        ("outputs", "status", "meta"),
    ),
    "an answer of the history": (
        {"an-id": {"prompt": [7, "id", GRAPH, {}, ["2"]], "outputs": {}, "status": {}}},
        Seen(),
        ("outputs", "status"),
    ),
    "nulls": (
        {"workflow": GRAPH, **dict.fromkeys(("set", "inputs", "metadata", "output", "models", "reply", "extra_data"))},
        Seen(),
        (),
    ),
    "numbers for labels": (
        {"workflow": GRAPH, "metadata": {"user": 42, "is": True, "of": 1.5, "no": None}},
        Seen(labels={"user": "42", "is": "true", "of": "1.5"}),
        (),
    ),
    "a number of seconds as a text": ({"workflow": GRAPH, "deadline_s": "60"}, Seen(), ()),
    "an input of null": ({"workflow": LOADER, "inputs": {"1.image": None}}, Seen(LOADER), ("1.image",)),
    "an address with blanks": (
        {"workflow": LOADER, "inputs": {"1.image": " s3://photos/fox.png\n"}},
        Seen(LOADER, inputs={"1.image": "s3://photos/fox.png"}),
        (),
    ),
    "an address with blanks in the graph": (
        {"1": {"class_type": "LoadImage", "inputs": {"image": "https://a.example/fox.png\n"}}, "2": GRAPH["2"]},
        Seen({"1": {"class_type": "LoadImage", "inputs": {"image": "https://a.example/fox.png"}}, "2": GRAPH["2"]}),
        (),
    ),
    "base64 in the graph": (
        {"1": {"class_type": "LoadImage", "inputs": {"image": PICTURE}}, "2": GRAPH["2"]},
        Seen(
            {
                "1": {"class_type": "LoadImage", "inputs": {"image": f"data:image/png;base64,{PICTURE}"}},
                "2": GRAPH["2"],
            }
        ),
        (),
    ),
    "NaN outside of inputs": (
        {"1": {**GRAPH["1"], "is_changed": [float("nan")]}, "2": GRAPH["2"]},
        Seen(),
        (),
    ),
    "NaN for ComfyUI": (
        {"workflow": GRAPH, "extra_data": {"extra_pnginfo": {"a": [float("nan"), 1]}}},
        Seen(extra_data={"extra_pnginfo": {"a": [None, 1]}}),
        ("extra_data",),
    ),
    "numbers in links": (
        {"1": GRAPH["1"], "2": {**GRAPH["2"], "inputs": {"images": [1, 0], "filename_prefix": "x"}}},
        Seen(),
        ("node 2",),
    ),
    "a name": ({"workflow": "pair"}, Seen(extra_data=PNGINFO), ()),
    "a name that begins like a list": ({"workflow": "[v2] poster"}, Seen(), ()),
    "a name with data for ComfyUI beside it": (
        {"workflow": "[v2] poster", **PNGINFO, "extra_data": {"preview_method": "none"}},
        Seen(extra_data={**PNGINFO, "preview_method": "none"}),
        (),
    ),
    "in an envelope, with a field of others": ({"input": {"workflow": GRAPH, "randomise": 1}}, Seen(), ("randomise",)),
    "a name in an envelope, with one": ({"input": {"workflow": "[v2] poster", "randomise": 1}}, Seen(), ("randomise",)),
    "what the editor saved": (SAVED, Seen(OF_SAVED, WITH_SAVED), ()),
    "a request with it, of the editor": ({"workflow": SAVED}, Seen(OF_SAVED, WITH_SAVED), ()),
    "of the editor, in a prompt": ({"prompt": SAVED, "client_id": "a"}, Seen(OF_SAVED, WITH_SAVED), ("client_id",)),
    "of the editor, in a text of RunPod": ({"input": {"workflow": text(SAVED)}}, Seen(OF_SAVED, WITH_SAVED), ()),
    "of the editor, with values": (
        {"workflow": SAVED, "set": {"The canvas.color": 7, "2.filename_prefix": "y"}},
        Seen(
            {
                "1": {**OF_SAVED["1"], "inputs": {**OF_SAVED["1"]["inputs"], "color": 7}},
                "2": {**OF_SAVED["2"], "inputs": {**OF_SAVED["2"]["inputs"], "filename_prefix": "y"}},
            },
            WITH_SAVED,
        ),
        (),
    ),
    "of the editor, with data for ComfyUI in it": (
        {**SAVED, "extra_data": {"preview_method": "none"}, "client_id": "a"},
        Seen(OF_SAVED, {**WITH_SAVED, "preview_method": "none"}),
        ("client_id",),
    ),
    "of the editor, with data beside it": (
        {"workflow": SAVED, "extra_data": PNGINFO},
        Seen(OF_SAVED, PNGINFO),
        (),
    ),
    "a name, of the editor": ({"workflow": "saved"}, Seen(OF_SAVED, WITH_SAVED), ()),
    "words for a prompt beside a graph of RunPod": (
        {"workflow_api": GRAPH, "prompt": "{red|blue} fox: a {study}"},
        Seen(),
        ("prompt",),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_same_request_at_every_door(doors: Doors, name: str) -> None:
    sent, meant, words = SHAPES[name]
    graph = GRAPH if meant.graph is None else meant.graph
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert not seen.code, (door, seen)
        got = Seen(seen.graph, seen.extra_data, seen.inputs, seen.labels)
        assert got == Seen(graph, meant.extra_data or {}, meant.inputs or {}, meant.labels or {}), door
        said = " ".join(seen.warnings)
        assert all(word in said for word in words), (door, said)
        assert bool(said) == bool(words), (door, said)


OF_EDITOR = [name for name in SHAPES if "editor" in name and name != "with more of the editor"]


def test_what_the_editor_saved_is_the_same_where_the_api_knows_the_nodes(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is converted there, and the worker gets a graph: workers of any release run it."""
    declarations = DeclarationsReader(doors.s3, ASSETS, lambda: "nodes")
    DeclarationsWriter(doors.s3, ASSETS, "nodes").write(editor_samples.OBJECT_INFO)
    monkeypatch.setattr(doors.api, "services", replace(doors.api.services, declarations=declarations))
    monkeypatch.setattr(doors.engine, "declares", {})
    for name in OF_EDITOR:
        sent, meant, words = SHAPES[name]
        seen = doors.generate(json.dumps(sent).encode())
        assert (seen.code, seen.graph, seen.extra_data) == ("", meant.graph, meant.extra_data), (name, seen)
        assert all(word in " ".join(seen.warnings) for word in words), (name, seen)


REFUSED: Mapping[str, tuple[object, str, str]] = {
    "a node of the editor that nobody has": (
        editor_samples.with_unknown(),
        "workflow_format_ui",
        "NobodysNode",
    ),
    "values that do not fit what the editor saved": (
        {"workflow": SAVED, "set": {"9.seed": 1}},
        "invalid_workflow",
        "9.seed",
    ),
    "nothing but the editor's frame": ({"workflow": {"nodes": [], "links": []}}, "workflow_format_ui", "no nodes"),
    "two workflows": ({"workflow": GRAPH, "prompt": LOADER}, "invalid_request", "two workflows"),
    "a name and a graph": ({"workflow": "pair", "prompt": LOADER}, "invalid_request", "two workflows"),
    "a slip of the pen": ({"workflow": GRAPH, "deadlin_s": 5}, "invalid_request", "did you mean 'deadline_s'"),
    "a slip beside a prompt": ({"prompt": GRAPH, "deadlin_s": 5}, "invalid_request", "did you mean 'deadline_s'"),
    "a slip in an envelope": (
        {"input": {"workflow": GRAPH, "metdata": {}}},
        "invalid_request",
        "did you mean 'metadata'",
    ),
    "two in a list": ([{"workflow": GRAPH}, {"workflow": LOADER}], "invalid_request", "a list"),
    "no workflow": ({"set": {}}, "invalid_request", "workflow"),
    "broken JSON in a text": ({"workflow": "{'1': {}}"}, "invalid_request", "double quotes"),
    "words for a prompt": (
        {"workflow": GRAPH, "prompt": "{red|blue} fox"},
        "invalid_request",
        "prompt: is not a field",
    ),
    "pictures for a name": (
        {"workflow": "pair", "images": [{"name": "a", "image": PICTURE}]},
        "invalid_request",
        "`inputs`",
    ),
    "data for ComfyUI that is no object": ({"workflow": GRAPH, "extra_data": [1]}, "invalid_request", "extra_data"),
}


def test_how_long_to_wait_is_of_the_api_alone(doors: Doors) -> None:
    content = json.dumps({"workflow": GRAPH, "wait_s": 0}).encode()
    for door in ALL:
        seen: Seen = getattr(doors, door)(content)
        assert (seen.code, "wait_s" in " ".join(seen.warnings)) == ("", door != "generate"), door


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_refused_alike_at_every_door(doors: Doors, name: str) -> None:
    sent, code, words = REFUSED[name]
    for door in ALL:
        if door == "manifest" and isinstance(sent, list):
            continue  # a list there is one request a line
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert (seen.code, words in seen.message) == (code, True), (door, seen)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


ENCODINGS: Mapping[str, Callable[[str], bytes]] = {
    "a mark": lambda it: it.encode("utf-8-sig"),
    "two marks": lambda it: ("\ufeff\ufeff" + it).encode(),
    "UTF-16": lambda it: it.encode("utf-16"),
    "UTF-16 without a mark": lambda it: it.encode("utf-16-le"),
    "UTF-16, the other way": lambda it: b"\xfe\xff" + it.encode("utf-16-be"),
    "UTF-32": lambda it: it.encode("utf-32"),
    "gzip": lambda it: packed(it.encode()),
    "gzip twice": lambda it: packed(packed(it.encode())),
    "gzip of UTF-16": lambda it: packed(it.encode("utf-16")),
    "gzip in members": lambda it: packed(it[:9].encode()) + packed(it[9:].encode()),
    "pretty, of Windows": lambda it: json.dumps(json.loads(it), indent=2).replace("\n", "\r\n").encode(),
    "blanks around": lambda it: f"\r\n\t {it} \r\n\r\n".encode(),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_an_encoding_is_the_same_at_every_door(doors: Doors, name: str) -> None:
    content = ENCODINGS[name](json.dumps({"workflow": GRAPH}, ensure_ascii=False))
    try:
        content.decode()
    except UnicodeDecodeError:
        open_doors: tuple[str, ...] = BYTES
    else:
        open_doors = BYTES if b"\0" in content else TEXTS
    for door in open_doors:
        seen: Seen = getattr(doors, door)(content)
        assert (seen.code, seen.graph) == ("", GRAPH), (door, seen)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"workflow": {"1": 5,}}', "the comma before it is one too many"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 50, "image/png"),
        ('{"workflow": "\xfc"}'.encode("cp1252"), "UTF-8"),
        (packed(b"{" + b" " * 40_000_000), "unpacked|can be a request"),
        (packed(b'{"workflow": "pair"}')[:-9], "breaks off"),
        (b"{'workflow': 1}", "double quotes"),
    ],
    ids=["comma", "picture", "cp1252", "bomb", "cut", "quotes"],
)
def test_what_cannot_be_read_is_refused_at_every_door_with_the_place(doors: Doors, content: bytes, words: str) -> None:
    for door in BYTES:
        seen: Seen = getattr(doors, door)(content)
        assert seen.code == "invalid_request", (door, seen)
        assert re.search(words, seen.message), (door, seen)


#: Under any name, at any depth: nobody can say which of it is a key.
KEYS: Mapping[str, object] = {
    **dict.fromkeys(("api_key_comfy_org", "x-api-key", "privateKey", "bearer", "pwd", "cookie"), "hush-hush"),
    "services": {"openai": {"api_key": "hush-hush"}},
    "headers": {"Authorization": "Bearer hush-hush"},
    "mine": ["hush-hush"],
    "preview_method": {"token": "hush-hush"},
}


def test_keys_reach_the_engine_and_are_kept_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a world that is empty otherwise, since all that is kept there is read after each door."""
    with opened(tmp_path) as doors:
        keys_are_kept_nowhere(doors)
    captured = capfd.readouterr()
    assert "hush-hush" not in captured.out + captured.err


def keys_are_kept_nowhere(doors: Doors) -> None:
    data = {**PNGINFO, **KEYS}
    content = json.dumps({"prompt": GRAPH, "extra_data": data}).encode()
    for door in ALL:
        before = doors.kept_objects()
        seen: Seen = getattr(doors, door)(content)
        if door == "manifest":  # which is kept in S3 itself, and copied
            assert (seen.code, all(name in seen.message for name in KEYS)) == ("invalid_request", True)
            continue
        assert (seen.code, seen.extra_data) == ("", data), door
        assert "hush-hush" not in doors.kept_since(before), door
