"""What a person sees: `cdk`, and its message about a wrong setting."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import GpuSettings
from tests.infra.stacks import CONTEXT, ROOT

pytestmark = pytest.mark.timeout(600)


def run(tmp_path: Path, **context: str) -> subprocess.CompletedProcess[str]:
    """Run the app as `cdk` starts it: in infra/, with the context in a variable, and without a network."""
    command = json.loads((ROOT / "infra" / "cdk.json").read_text(encoding="utf-8"))["app"]
    environment = {
        **os.environ,
        "CDK_CONTEXT_JSON": json.dumps({**CONTEXT, **context}),
        "CDK_OUTDIR": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return subprocess.run(
        command.replace(".venv/bin/python", sys.executable),
        shell=True,
        cwd=ROOT / "infra",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_stacks_are_synthesized_without_an_account(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.template.json")} == {
        "comfy-serverless-sagemaker.template.json",
        "comfy-serverless-lambda-gpu.template.json",
    }
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("accelerator_memory_gb", "20", "one of 3, 6, 12, 16, 24, 48"),
        ("models", "s3://bucket/no-slash-at-the-end", "models"),
        ("instance_types", "g6.xlarge", "one to five types, such as ml.g6.xlarge"),
        ("max_environments", "5", "max_batch_environments must leave two"),
        ("vpc_id", "vpc-0123", "vpc_id and subnet_ids belong together"),
        ("min_environments", "9", "min_environments must not be more than max_environments"),
        ("max_environments", "1000", "more than 15000 vCPUs"),
        ("lambda_instance_types", "g6.*", "types such as g6.2xlarge, each by its name"),
        ("lambda_instance_types", "g6.2xlarge,g6.xlarge", "g6.xlarge has 4 vCPUs, 1 of them for Lambda"),
        ("accelerator_memory_gb", "48", "GPUs of g6.2xlarge have 24 GB"),
        ("stack", "a" * 51, "stack"),
        ("log_retention_days", "31", "one of 1, 3, 5, 7, 14, 30"),
        ("max_instances", "many", "max_instances"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_synthesized(tmp_path: Path, name: str, value: str, said: str) -> None:
    done = run(tmp_path, **{name: value})
    assert done.returncode == 2
    assert done.stderr.startswith("Not synthesized: infra/cdk.json or `-c name=value`: ")
    assert name.split("_")[0] in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_command_line_writes_lists_with_commas(tmp_path: Path) -> None:
    assert run(tmp_path, instance_types="ml.g6e.xlarge,ml.g5.xlarge", max_instances="2").returncode == 0
    template = (tmp_path / "comfy-serverless-sagemaker.template.json").read_text(encoding="utf-8")
    (variant,) = json.loads(template)["Resources"]["EndpointConfig"]["Properties"]["ProductionVariants"]
    assert [pool["InstanceType"] for pool in variant["InstancePools"]] == ["ml.g6e.xlarge", "ml.g5.xlarge"]


def test_cdk_json_and_the_documentation_name_every_setting_and_no_other() -> None:
    settings = set(GpuSettings.model_fields)
    assert {name for name in CONTEXT if not name.startswith("@")} == settings
    page = (ROOT / "docs" / "deploy-gpu.md").read_text(encoding="utf-8")
    table = page[page.index("## GPU settings") : page.index("## The container")]
    first_cells = "".join(re.findall(r"^\|[^|]*\|", table, re.MULTILINE))
    assert set(re.findall(r"`([a-z_]+)`", first_cells)) == settings
    assert GpuSettings() == GpuSettings.model_validate({name: CONTEXT[name] for name in settings})


def test_zones_are_for_a_vpc_of_the_stacks_own(tmp_path: Path) -> None:
    done = run(tmp_path, vpc_id="vpc-0123", subnet_ids="subnet-1", availability_zones="eu-central-1a")
    assert done.returncode == 2
    assert "availability_zones are for the stack's own VPC" in done.stderr
