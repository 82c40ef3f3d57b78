"""`make deploy` from its words to SAM's: all steps, with a SAM that writes down what it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.unit.template.processed import ROOT, parse
from tools import deploy as tool

DESCRIBED: dict[str, dict[str, Any]] = {
    "comfy": {
        "Parameters": [{"ParameterKey": "ImageTarget", "ParameterValue": "worker"}],
        "Tags": [{"Key": "owner", "Value": "studio"}],
    },
    "comfy-repositories": {
        "Outputs": [
            {"OutputKey": f"{name}Uri", "OutputValue": f"1.ecr/comfy/{name.lower()}"}
            for name in ("Api", "Mcp", "Worker")
        ]
    },
}


class CloudFormation:
    """Says of a stack what it was given."""

    def __init__(self, described: dict[str, dict[str, Any]]) -> None:
        self.described = described

    def describe_stacks(self, **of: str) -> dict[str, Any]:
        if of["StackName"] not in self.described:
            message = f"Stack with id {of['StackName']} does not exist"
            raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "DescribeStacks")
        return {"Stacks": [self.described[of["StackName"]]]}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that were run, in a folder of their own. `sam package` writes the template with images."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> None:
        commands.append(command)
        if command[1] == "build":
            built = tmp_path / tool.BUILT
            built.parent.mkdir(parents=True, exist_ok=True)
            properties = {"ImageUri": "generatefunction:worker"}
            built.write_text(json.dumps({"Resources": {"GenerateFunction": {"Properties": properties}}}))
        if command[1] == "package":
            template = parse()
            for name, image in (("ApiFunction", "api"), ("GenerateFunction", "worker")):
                template["Resources"][name]["Properties"]["ImageUri"] = f"1.ecr/comfy/{image}:1"
            (tmp_path / tool.PACKAGED).write_text(json.dumps(template), encoding="utf-8")

    (tmp_path / "template.yaml").write_bytes((ROOT / "template.yaml").read_bytes())
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "_run", run)
    monkeypatch.setattr(tool, "copy_out", no_image)
    return commands


def no_image(image: str, folder: Path) -> None:
    raise FileNotFoundError(f"there is no docker to copy {image} to {folder}")


def deploy(monkeypatch: pytest.MonkeyPatch, described: dict[str, dict[str, Any]], *words: str) -> int:
    monkeypatch.setattr(boto3, "client", lambda *_, **__: CloudFormation(described))
    return tool.main(["--stack", "comfy", *words])


def test_repositories_come_before_images_and_images_before_the_stack(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deploy(monkeypatch, DESCRIBED) == 0
    assert [command[1] for command in ran] == ["deploy", "build", "package", "deploy"]
    assert "repositories.yaml" in ran[0]
    assert tool.PACKAGED in ran[3]
    assert "GenerateFunction=1.ecr/comfy/worker" in ran[3]


def test_image_and_owner_stay_as_they_are_unless_others_are_named(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(monkeypatch, DESCRIBED)
    assert "ImageTarget=worker" in ran[1]
    assert {"ImageTarget=worker", "owner=studio"} <= set(ran[3])
    deploy(monkeypatch, DESCRIBED, "--target", "worker-lite", "--owner", "lab", "--yes", "--", "MemorySize=1024")
    assert {"ImageTarget=worker-lite", "owner=lab", "MemorySize=1024", "--no-confirm-changeset"} <= set(ran[7])


def test_the_image_is_built_with_the_comfyui_that_was_chosen_now_or_before(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(monkeypatch, DESCRIBED)
    assert not [word for word in ran[1] if word.startswith("ComfyuiRef")]
    deploy(monkeypatch, DESCRIBED, "--", "ComfyuiRef=v0.33.0")
    assert "ComfyuiRef=v0.33.0" in ran[5]
    chosen = {"ParameterKey": "ComfyuiRef", "ParameterValue": "v0.32.0"}
    stack = DESCRIBED["comfy"]
    deploy(monkeypatch, {**DESCRIBED, "comfy": {**stack, "Parameters": [*stack["Parameters"], chosen]}})
    assert "ComfyuiRef=v0.32.0" in ran[9]
    assert "ComfyuiRef=v0.32.0" in ran[11]


def test_a_new_stack_has_the_defaults(ran: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert deploy(monkeypatch, {"comfy-repositories": DESCRIBED["comfy-repositories"]}) == 0
    assert "ImageTarget=worker-lite" in ran[3]
    assert not [word for word in ran[3] if word.startswith("owner=")]


def test_another_setting_of_the_api_is_another_release(ran: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    releases = []
    for words in ([], ["--", "CorsOrigins=https://app.example"], []):
        deploy(monkeypatch, DESCRIBED, *words)
        releases += [word for word in ran[-1] if word.startswith("ApiRelease=")]
    assert releases[0] == releases[2] != releases[1]


def test_another_setting_of_the_worker_is_another_release_of_it(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    releases: dict[str, list[str]] = {"ApiRelease": [], "WorkerRelease": []}
    for words in ([], ["--", "TemporaryStorage=5000"]):
        deploy(monkeypatch, DESCRIBED, *words)
        for name, values in releases.items():
            values += [word for word in ran[-1] if word.startswith(f"{name}=")]
    assert releases["ApiRelease"][0] == releases["ApiRelease"][1]
    assert releases["WorkerRelease"][0] != releases["WorkerRelease"][1]


def test_a_wrong_word_ends_it_before_the_first_step(
    ran: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy(monkeypatch, DESCRIBED, "MemorySise=1") == 1
    assert ran == []
    assert "no parameter MemorySise" in capsys.readouterr().err


def test_a_step_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A program of the same kind in the place of SAM."""
    monkeypatch.setattr(tool.Plan, "make_repositories", lambda _: ["python", "-c", "raise SystemExit(3)"])
    assert deploy(monkeypatch, DESCRIBED) == 1
    assert "`python -c` has failed (exit code 3)" in capsys.readouterr().err
