"""Named releases: workers that stand beside all others, with names, queues and a parameter of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App

from infra import worker_image
from infra.app import build
from infra.settings import GpuSettings
from tests import reach
from tests.infra.stacks import CONTEXT, ROOT, Synthesized, of_type, one
from tests.infra.test_gpu_reach import reached, role_of

pytestmark = pytest.mark.timeout(900)
KINDS = ("sagemaker", "lambda-gpu", "lambda-cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the templates of a release are."""
    lock = tmp_path_factory.mktemp("lock") / "comfy-build.lock"
    lock.write_text("{}\n")
    out = tmp_path_factory.mktemp("named")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_image, "LOCK", lock)
        app = App(outdir=str(out), context=CONTEXT | {"release": "next"})
        build(app)
        app.synth()
    return out


@pytest.fixture(scope="module")
def named(folder: Path) -> dict[str, dict[str, Any]]:
    """Its templates, by the kind of stack."""
    found = {path.name.partition(".")[0]: path for path in folder.glob("*.template.json")}
    names = {kind: f"comfy-serverless-{kind}-next" for kind in KINDS}
    assert set(found) == set(names.values())
    return {kind: json.loads(found[name].read_text(encoding="utf-8")) for kind, name in names.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_announces_itself_and_no_job_goes_to_it_by_itself(
    kind: str, named: dict[str, dict[str, Any]]
) -> None:
    parameter = one(named[kind], "AWS::SSM::Parameter")
    assert parameter["Name"] == "/comfy-serverless/comfy-serverless/releases/next"
    text = "".join(
        part if isinstance(part, str) else part.get("Ref", part.get("Fn::GetAtt", [""])[0])
        for part in parameter["Value"]["Fn::Join"][1]
    )
    told = json.loads(text)
    assert (told["stack"], told["backend"]) == (
        f"comfy-serverless-{kind}-next",
        "sagemaker" if kind == "sagemaker" else "queue",
    )
    assert told["release_version"] == hashlib.sha256(b"{}\n").hexdigest()[:12]
    assert told["image"]
    assert told["job_queue_url"] != told["batch_queue_url"]


@pytest.mark.parametrize("kind", KINDS)
def test_its_queues_have_names_that_the_sam_stack_may_send_to(kind: str, named: dict[str, dict[str, Any]]) -> None:
    names = {queue.get("QueueName") for queue in of_type(named[kind], "AWS::SQS::Queue").values()} - {None}
    assert names == {"comfy-serverless-release-next-jobs", "comfy-serverless-release-next-batches"}


def test_nothing_of_it_is_called_like_that_of_another(
    named: dict[str, dict[str, Any]], synthesized: Synthesized
) -> None:
    unnamed = json.dumps([synthesized.sagemaker, synthesized.lambda_gpu])
    for kind in KINDS:
        for resource in named[kind]["Resources"].values():
            properties = resource.get("Properties", {})
            for key in ("QueueName", "EndpointName", "LogGroupName", "FunctionName", "Name"):
                if isinstance(name := properties.get(key), str):
                    assert f'"{name}"' not in unnamed
    endpoint = one(named["sagemaker"], "AWS::SageMaker::Endpoint")["EndpointName"]
    assert endpoint.startswith("comfy-serverless-gpu-next-")
    policies = json.dumps(of_type(named["sagemaker"], "AWS::IAM::Policy"))
    assert "endpoint/comfy-serverless-gpu-next-????????" in policies


def test_on_processors_it_is_an_ordinary_function(named: dict[str, dict[str, Any]]) -> None:
    template = named["lambda-cpu"]
    assert of_type(template, "AWS::Lambda::CapacityProvider") == {}
    function = one(template, "AWS::Lambda::Function", MemorySize=10_240)
    assert (function["Timeout"], function["EphemeralStorage"]["Size"]) == (900, 10_240)
    assert not {"AcceleratorConfig", "CapacityProviderConfig", "FunctionScalingConfig"} & set(function)
    mappings = of_type(template, "AWS::Lambda::EventSourceMapping").values()
    assert [(one["BatchSize"], one["ScalingConfig"]["MaximumConcurrency"]) for one in mappings] == [(1, 4), (1, 4)]


def test_a_worker_on_processors_may_what_one_on_gpus_may(named: dict[str, dict[str, Any]]) -> None:
    def statements(kind: str) -> dict[str, Any]:
        found = [
            statement
            for policy in of_type(named[kind], "AWS::IAM::Policy").values()
            for statement in policy["PolicyDocument"]["Statement"]
        ]
        return {one["Sid"]: one["Action"] for one in found if "Sid" in one and one["Sid"] in _OF_WORKERS}

    assert statements("lambda-cpu") == statements("lambda-gpu")
    assert set(statements("lambda-cpu")) == _OF_WORKERS


def test_it_reaches_what_the_docs_say_of_a_worker_and_nothing_else(named: dict[str, dict[str, Any]]) -> None:
    assert reached(role_of(named["lambda-cpu"], "Role")) == reach.meant("Role")


def test_stacks_without_a_name_are_called_as_before_there_were_releases(synthesized: Synthesized) -> None:
    """One that was deployed before must not be replaced: names of resources, and what the SAM stack looks for."""
    for template in (synthesized.sagemaker, synthesized.lambda_gpu):
        assert one(template, "AWS::SSM::Parameter")["Name"] == "/comfy-serverless/comfy-serverless/dispatch"
        names = {queue.get("QueueName") for queue in of_type(template, "AWS::SQS::Queue").values()} - {None}
        assert names == {"comfy-serverless-gpu-jobs", "comfy-serverless-gpu-batches"}
        assert "Release" not in "".join(template["Resources"])
        assert "-release-" not in json.dumps(template)
    endpoint = one(synthesized.sagemaker, "AWS::SageMaker::Endpoint")["EndpointName"]
    assert re.fullmatch("comfy-serverless-gpu-[0-9a-f]{8}", endpoint)


_OF_WORKERS = {"TellHowJobsAre", "TellWhatJobsHaveMade", "SendWebhooks", "ReadInputs", "SendJobsAgain", "WriteTheLog"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_alarm_of_a_release_has_its_page(kind: str, named: dict[str, dict[str, Any]]) -> None:
    sections = (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8").lower()
    for alarm in of_type(named[kind], "AWS::CloudWatch::Alarm").values():
        assert f"## {alarm['AlarmDescription'].rpartition('#')[2]}" in sections


def test_the_rules_for_good_templates_hold_for_it(folder: Path, named: dict[str, dict[str, Any]]) -> None:
    assert named
    bins = Path(sys.executable).parent
    templates = [str(path) for path in sorted(folder.glob("*.template.json"))]
    arguments = ["--ignore-checks", "W3005", "--regions", "eu-central-1", "--format", "json", "--", *templates]
    linted = subprocess.run([bins / "cfn-lint", *arguments], capture_output=True, text=True, check=False)
    assert [problem["Message"] for problem in json.loads(linted.stdout)] == [
        "Additional properties are not allowed ('AcceleratorConfig' was unexpected)"
    ]
    arguments = ["-d", str(folder), "--framework", "cloudformation", "--output", "json", "--skip-download"]
    environment = {**os.environ, "LOG_LEVEL": "CRITICAL"}  # else it asks its makers' server for news
    checked = subprocess.run(
        [bins / "checkov", *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert [check["check_id"] for check in json.loads(checked.stdout)["results"]["failed_checks"]] == []


@pytest.mark.parametrize(
    ("release", "stack", "said"),
    [
        ("default", "mine", "release must not be default"),
        ("Next", "mine", "release"),
        ("-x", "mine", "release"),
        ("a" * 21, "mine", "release"),
        ("a" * 10, "s" * 45, "must not have more than 49 characters"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(release: str, stack: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GpuSettings(release=release, stack=stack)
