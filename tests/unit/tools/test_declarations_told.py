"""What an image's build has left is told to the API: by `make deploy`, `make declarations`, and after `make cdk`."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.jobs.declarations import DeclarationsReader
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.workflows.store import WorkflowStore
from comfy_serverless.workflows.version import Version
from tests.unit.jobs_table import REGION, aws, create_table
from tools import declarations as tool
from tools import deploy
from tools.declarations import Left, NotTold, builds_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

RELEASE = "3f2a91c07b5e"
INFO: dict[str, Any] = {"KSampler": {"input": {}}, "SaveImage": {"input": {}}}
BUCKET = "assets-bucket"
#: Copies from the folder `image` beside it, as docker copies out of an image.
DOCKER = """#!/bin/sh
here="$(dirname "$0")/image"
case "$1" in
  create) [ "$2" = generatefunction:worker ] && echo c0ffee || { echo "No such image: $2" >&2; exit 1; } ;;
  cp) cp "$here/$(basename "$2")" "$3" ;;
  rm) echo removed >>"$here/removed" ;;
esac
"""


def leave(folder: Path, *, release: str = RELEASE, info: dict[str, Any] = INFO) -> Path:
    """What a build leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "release.json").write_text(json.dumps({"release_version": release, "comfyui": "0.33.0"}))
    (folder / "object_info.json.gz").write_bytes(gzip.compress(json.dumps(info).encode()))
    (folder / "classes.json").write_text("{}")
    return folder


class CloudFormation:
    """A stack with this image."""

    def __init__(self, image: str = "worker", **outputs: str) -> None:
        self.image, self.outputs = image, outputs or {"AssetsBucketName": BUCKET}

    def describe_stacks(self, **_: str) -> Any:
        return {
            "Stacks": [
                {
                    "Parameters": [{"ParameterKey": "ImageTarget", "ParameterValue": self.image}],
                    "Outputs": [{"OutputKey": name, "OutputValue": value} for name, value in self.outputs.items()],
                }
            ]
        }


class World:
    """AWS of this process, with a stack."""

    def __init__(self, session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.session = session
        self.s3: S3Client = session.client("s3")
        self.ssm = session.client("ssm")
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.cloudformation = CloudFormation()
        self.clients: dict[str, Any] = {"s3": self.s3, "ssm": self.ssm}
        for module in (tool, deploy):
            monkeypatch.setattr(module.boto3, "client", lambda name, **_: self.clients.get(name, self.cloudformation))

    def announce(self, name: str, /, **target: str) -> None:
        self.ssm.put_parameter(Name=f"/comfy-serverless/comfy/{name}", Value=json.dumps(target), Type="String")

    def known(self, image: str, release: str = RELEASE) -> Any:
        return DeclarationsReader(self.s3, BUCKET, lambda: image, lambda: release).fresh()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with aws() as session:
        yield World(session, monkeypatch)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container engine with one image; returns the folder with what that has."""
    programs = tmp_path / "programs"
    folder = leave(programs / "image")
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return folder


def run(folder: Path, *words: str) -> int:
    return tool.main(["--stack", "comfy", "--from", str(folder), *words])


def test_the_stacks_own_image_and_gpu_stacks_of_the_same_lock_are_told(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.announce("dispatch", backend="queue", image="gpuhash", release_version=RELEASE)
    world.announce("releases/autumn", backend="queue", image="autumnhash", release_version=RELEASE)
    world.announce("releases/summer", backend="queue", image="summerhash", release_version="0000aaaa1111")
    world.announce("assets-bucket", name="no target")
    assert run(leave(tmp_path / "left")) == 0
    assert world.known("worker") == world.known("gpuhash") == world.known("autumnhash") == INFO
    assert world.known("summerhash", "0000aaaa1111") is None
    printed = capsys.readouterr().out
    assert "is told of the 2 classes of nodes of gpuhash, release 3f2a91c07b5e" in printed
    assert run(tmp_path / "left") == 0
    assert "knows already of" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["", "{", "[]", "5", "{}", '{"image": null}', '{"image": "x"}'])
def test_a_target_that_says_nothing_of_its_build_gets_none(target: str) -> None:
    left = Left(RELEASE, INFO)
    assert builds_of(left, own_image="worker-lite", targets=[target]) == []
    assert builds_of(left, own_image="worker", targets=[target]) == [Build("worker", RELEASE)]


def test_workers_of_another_lock_are_not_spoken_for(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.cloudformation = CloudFormation(image="worker-lite")
    world.announce("dispatch", backend="queue", image="gpuhash", release_version="0000aaaa1111")
    assert run(leave(tmp_path / "left")) == 1
    assert "no workers of the stack 'comfy' were built from the lock of this image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("release.json", None, "build the image first, with `make image`"),
        ("release.json", b"{}", "release_version"),
        ("object_info.json.gz", None, "cannot be read"),
        ("object_info.json.gz", b"x", "Build the image anew"),
    ],
)
def test_what_a_build_has_not_left_is_told(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    folder = leave(tmp_path / "left")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(NotTold, match=told):
        Left.in_folder(folder)


def test_after_cdk_an_image_that_was_not_built_here_is_no_failure(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "nothing", "--if-there") == 0
    assert "make image" in capsys.readouterr().err
    assert run(tmp_path / "nothing") == 1
    capsys.readouterr()


def test_a_stack_without_a_bucket_to_tell_it_in_is_told(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.cloudformation = CloudFormation(JobsTableName="x")
    assert run(leave(tmp_path / "left")) == 1
    assert "AssetsBucketName" in capsys.readouterr().err


def plan(target: str = "worker") -> deploy.Plan:
    return deploy.Plan(stack="comfy", target=target, settings={})


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sam build` has been run."""
    monkeypatch.setattr(deploy, "ROOT", tmp_path)
    template = tmp_path / deploy.BUILT
    template.parent.mkdir(parents=True)
    properties = {"ImageUri": "generatefunction:worker"}
    template.write_text(json.dumps({"Resources": {"GenerateFunction": {"Properties": properties}}}))


@pytest.mark.usefixtures("built")
def test_make_deploy_tells_what_is_in_the_image_that_it_has_built(world: World, docker: Path) -> None:
    left = deploy._left_by(plan())
    assert left == Left(RELEASE, INFO)
    assert (docker / "removed").exists(), "no container stays"
    deploy._tell(left, plan(), world.cloudformation.outputs)
    assert world.known("worker") == INFO
    assert deploy._left_by(plan("worker-lite")) is None


@pytest.mark.usefixtures("built")
def test_a_stack_is_deployed_also_if_the_image_says_nothing_of_itself(
    world: World, docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docker / "release.json").unlink()
    assert deploy._left_by(plan()) is None
    deploy._tell(Left(RELEASE, INFO), plan(), {tool.BUCKET_OUTPUT: "a-bucket-that-is-gone"})
    said = capsys.readouterr().err
    assert said.count("A worker's first job tells it") == 2
    assert "NoSuchBucket" in said


def test_named_workflows_that_would_fail_on_the_image_are_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, _ = create_table(world.session)
    ApiKeyStore(table).create("one", owner="team")
    store = WorkflowStore(table, world.s3, BUCKET)
    for name, class_type in (("good", "SaveImage"), ("bad", "NobodyHasThis")):
        graph = {"1": {"class_type": class_type, "inputs": {}}}
        store.push(Version(name=name, number=0, owner="team", graph=graph))
    info = {"SaveImage": {"input": {}, "output_node": True}}
    world.cloudformation.outputs["JobsTableName"] = table.name
    monkeypatch.setitem(world.clients, "dynamodb", table._client)
    assert run(leave(tmp_path / "left", info=info)) == 0
    [warning] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert f"on release {RELEASE} fails bad@live (version 1) of team: node 1 is of the class NobodyHasThis" in warning
    deploy._tell(Left.in_folder(tmp_path / "left"), plan(), world.cloudformation.outputs)
    assert warning in capsys.readouterr().out
