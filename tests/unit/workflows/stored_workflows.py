"""Named workflows over moto's DynamoDB and S3, with a count of the calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.items import Head
from comfy_serverless.workflows.schema import InputCheck
from comfy_serverless.workflows.store import Pushed, WorkflowStore
from comfy_serverless.workflows.version import NamedInput, Version
from tests.unit.jobs_table import REGION, aws, create_table

BUCKET = "assets-bucket"
GRAPH: dict[str, Any] = {
    "3": {"class_type": "KSampler", "inputs": {"seed": -1, "steps": 20, "positive": ["6", 0]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
}
PROMPT = NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT, role=Role.PROMPT, default="a fox")
STEPS = NamedInput(name="steps", targets=("3.steps",), kind=InputKind.INTEGER, default=20, minimum=1, maximum=100)
SEED = NamedInput(name="seed", targets=("3.seed",), kind=InputKind.INTEGER, role=Role.SEED, default=-1, minimum=0)
PHOTO = NamedInput(name="photo", targets=("10.image",), kind=InputKind.FILE, role=Role.IMAGE, media="image")
INPUTS = (PROMPT, STEPS, SEED, PHOTO)


def version(name: str = "poster", *, owner: str = "alice", text: str = "a fox", **more: Any) -> Version:
    """A version whose graph says this text."""
    graph = {**GRAPH, "6": {**GRAPH["6"], "inputs": {**GRAPH["6"]["inputs"], "text": text}}}
    return Version(**{"name": name, "number": 0, "owner": owner, "graph": graph, "inputs": INPUTS, **more})


def check(one: Version) -> InputCheck:
    return InputCheck.of(one)


class World:
    """A store, and what it has asked of AWS."""

    def __init__(self, session: Any) -> None:
        self.table, self.calls = create_table(session)
        self.s3 = session.client("s3")
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.s3.meta.events.register("before-call.s3", lambda model, **_: self.calls.update([model.name]))
        self.store = WorkflowStore(self.table, self.s3, BUCKET)

    def push(self, text: str = "a fox", *, name: str = "poster", owner: str = "alice", **more: Any) -> Pushed:
        """Push a workflow that says this text."""
        how = {one: more.pop(one) for one in ("alias", "if_head") if one in more}
        return self.store.push(version(name, owner=owner, text=text, **more), **how)

    def finder(self, folder: Path | None = None, declared: Mapping[str, Any] | None = None) -> Finder:
        """A process that finds workflows."""
        return Finder(self.store, folder, lambda: declared)

    def documents(self) -> list[str]:
        """The documents in S3."""
        return [one["Key"] for one in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """The calls of AWS within the block."""
        before, told = Counter(self.calls), Counter[str]()
        yield told
        told.update(self.calls - before)


@contextmanager
def stored() -> Iterator[World]:
    """The world, from `with` to the end of the block."""
    with aws() as session:
        yield World(session)


def text_of(found: Version) -> str:
    return str(found.graph["6"]["inputs"]["text"])


def head_of(world: World, name: str, owner: str = "alice") -> Head:
    head = world.store.head(owner, name)
    assert head is not None
    return head
