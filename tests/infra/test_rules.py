"""Public rules for a good template: CDK's own checks, cdk-nag, cfn-lint, checkov."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_sqs as sqs

from infra.app import build
from tests.infra.permissions import plain
from tests.infra.stacks import CONTEXT, EVERYTHING, Synthesized, synthesize

pytestmark = pytest.mark.timeout(600)
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session", params=["as it is", "with everything"])
def folder(request: pytest.FixtureRequest, synthesized: Synthesized) -> Path:
    return synthesized.folder if request.param == "as it is" else synthesize(**EVERYTHING).folder


def lint(folder: Path) -> list[dict[str, Any]]:
    templates = [str(path) for path in sorted(folder.glob("*.template.json"))]
    # W3005: CDK also names dependencies that references already imply.
    arguments = ["--ignore-checks", "W3005", "--regions", "eu-central-1", "--format", "json", "--", *templates]
    done = subprocess.run([BIN / "cfn-lint", *arguments], capture_output=True, text=True, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_cfn_lint_knows_everything_but_the_accelerator(folder: Path) -> None:
    """Its schema of functions is older than GPUs. Once it knows them, this test fails and the exception can go."""
    assert [problem["Message"] for problem in lint(folder)] == [
        "Additional properties are not allowed ('AcceleratorConfig' was unexpected)"
    ]


def test_checkov_is_content_and_every_exception_says_why(folder: Path) -> None:
    arguments = ["-d", str(folder), "--framework", "cloudformation", "--output", "json", "--skip-download"]
    # Otherwise it asks its makers' server for news.
    environment = {**os.environ, "LOG_LEVEL": "CRITICAL"}
    done = subprocess.run([BIN / "checkov", *arguments], capture_output=True, text=True, check=False, env=environment)
    report = json.loads(done.stdout)
    assert [check["check_id"] for check in report["results"]["failed_checks"]] == []
    assert report["summary"]["passed"] > 50
    skipped = report["results"]["skipped_checks"]
    assert skipped
    assert all(len(check["check_result"]["suppress_comment"]) > 30 for check in skipped)


QUEUES = {"CKV_AWS_27"}
LOGS = {"CKV_AWS_158"}
EXCEPTIONS = {
    "sagemaker": {
        "Jobs": QUEUES,
        "JobsDeadLetters": QUEUES,
        "Batches": QUEUES,
        "BatchesDeadLetters": QUEUES,
        "OutcomeDeadLetters": QUEUES,
        "EndpointLog": LOGS,
        "ForwardLog": LOGS,
        "Model": {"CKV_AWS_370"},
        "Forward": {"CKV_AWS_115", "CKV_AWS_116", "CKV_AWS_117", "CKV_AWS_173"},
    },
    "lambda_gpu": {
        "Jobs": QUEUES,
        "JobsDeadLetters": QUEUES,
        "Batches": QUEUES,
        "BatchesDeadLetters": QUEUES,
        "Log": LOGS,
        "GpusLog": LOGS,
        "FlowLog": LOGS,
        "Generate": {"CKV_AWS_115", "CKV_AWS_116", "CKV_AWS_117", "CKV_AWS_173"},
    },
}


def reasons(template: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The reasons for exceptions, by resource and rule of checkov."""
    return {
        plain(name): {skip["id"]: skip["comment"] for skip in entry["Metadata"]["checkov"]["skip"]}
        for name, entry in template["Resources"].items()
        if "checkov" in entry.get("Metadata", {})
    }


@pytest.mark.parametrize("stack", EXCEPTIONS)
def test_these_rules_are_not_followed_and_no_others(stack: str, synthesized: Synthesized) -> None:
    found = reasons(getattr(synthesized, stack))
    assert {name: set(rules) for name, rules in found.items()} == EXCEPTIONS[stack]


@pytest.mark.parametrize(
    ("stack", "resource", "rule", "said"),
    [
        ("sagemaker", "Forward", "CKV_AWS_115", "maximum concurrency of its queues"),
        ("sagemaker", "Forward", "CKV_AWS_116", "EventBridge starts it"),  # it is invoked asynchronously
        ("lambda_gpu", "Generate", "CKV_AWS_116", "Only queues invoke it"),
        ("sagemaker", "Forward", "CKV_AWS_117", "at their public addresses"),
        ("lambda_gpu", "Generate", "CKV_AWS_117", "the capacity provider's VPC"),
        ("lambda_gpu", "Generate", "CKV_AWS_115", "FunctionScalingConfig"),  # the capacity provider counts vCPUs
        ("lambda_gpu", "Jobs", "CKV_AWS_27", "caller's key for partner nodes"),  # `extra_data` travels in messages
        ("sagemaker", "Batches", "CKV_AWS_27", "caller's key for partner nodes"),
    ],
)
def test_a_reason_is_true_of_its_resource(
    stack: str, resource: str, rule: str, said: str, synthesized: Synthesized
) -> None:
    assert said in reasons(getattr(synthesized, stack))[resource][rule]


def test_cdk_nag_and_cdk_itself_are_content(folder: Path) -> None:
    report = json.loads((folder / "validation-report.json").read_text(encoding="utf-8"))
    # cdk-nag is listed only if it has found something (below), CDK's own check always.
    assert {one["pluginName"]: one["violations"] for one in report["pluginReports"]} == {"CloudFormation Validate": []}


def test_cdk_nag_would_say_so_if_it_were_not(tmp_path: Path) -> None:
    app = cdk.App(outdir=str(tmp_path), context=CONTEXT)
    sagemaker, _ = build(app)
    sqs.Queue(sagemaker, "Careless")
    with pytest.raises(RuntimeError, match="AwsSolutions-SQS4"):
        app.synth()
    report = (tmp_path / "validation-report.json").read_text(encoding="utf-8")
    assert "AwsSolutions-SQS4" in report
