"""Buckets of one's own on the GPU stacks, and that no stack here deletes objects."""

from __future__ import annotations

from typing import Any

import pytest

from infra.settings import GpuSettings
from tests.infra.permissions import may, of_role
from tests.infra.stacks import SAM, Synthesized, of_type, one, synthesize

pytestmark = pytest.mark.timeout(600)
OWN = {"input_buckets": ["my-photos", "both"], "output_buckets": ["my-results", "both"]}
ROLES = {"sagemaker": "ExecutionRole", "lambda_gpu": "Role"}


def environment(template: dict[str, Any]) -> dict[str, Any]:
    models = of_type(template, "AWS::SageMaker::Model")
    if models:
        return dict(next(iter(models.values()))["PrimaryContainer"]["Environment"])
    return dict(one(template, "AWS::Lambda::Function")["Environment"]["Variables"])


def ends_of(joined: Any) -> list[str]:
    """The names in a list that are no references."""
    text = "".join(part for part in joined["Fn::Join"][1] if isinstance(part, str)) if isinstance(joined, dict) else ""
    return [name for name in text.split(",") if name]


@pytest.mark.parametrize("stack", ROLES)
def test_a_worker_may_use_buckets_of_ones_own_and_no_more_than_it_needs_there(
    stack: str, synthesized: Synthesized
) -> None:
    before = of_role(getattr(synthesized, stack), ROLES[stack])
    after = of_role(getattr(synthesize(**OWN), stack), ROLES[stack])
    assert after - before == (
        may(("s3:GetObject", "s3:GetObjectVersion"), "s3:::my-photos/*", "s3:::both/*")
        | may(("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"), "s3:::my-results/*", "s3:::both/*")
        | may("s3:ListBucket", "s3:::my-photos", "s3:::my-results", "s3:::both")
    )
    assert before <= after


@pytest.mark.parametrize("stack", ROLES)
def test_a_worker_knows_which_buckets_requests_may_name(stack: str, synthesized: Synthesized) -> None:
    variables = environment(getattr(synthesize(**OWN), stack))
    assert ends_of(variables["ALLOWED_INPUT_BUCKETS"]) == ["my-photos", "both"]
    assert ends_of(variables["ALLOWED_OUTPUT_BUCKETS"]) == ["my-results", "both"]
    # Without any, its own are listed: an empty list would allow all.
    assert environment(getattr(synthesized, stack))["ALLOWED_OUTPUT_BUCKETS"] == {"Ref": "OutputBucket"}


def test_cdk_nag_is_content_with_buckets_of_ones_own() -> None:
    assert synthesize(**OWN).folder.is_dir()  # it raises if a rule is broken and not justified


@pytest.mark.parametrize("name", ["s3://my-photos", "*", "My-Photos", "a/b"])
def test_a_bucket_is_named_and_no_pattern(name: str) -> None:
    for setting in ("input_buckets", "output_buckets"):
        with pytest.raises(ValueError, match=setting):
            GpuSettings.model_validate({setting: [name]})


@pytest.mark.parametrize("setting", ["models", "models_manifest"])
def test_models_are_not_where_objects_are_deleted(setting: str) -> None:
    last = "" if setting == "models" else "models.json"
    for place in ("in-123456789012-x/models/", "my-models/flux/", "my-models/my/jobs/"):
        assert getattr(GpuSettings.model_validate({setting: f"s3://{place}{last}"}), setting)
    for place in ("bucket/jobs/", "bucket/images/x/", "bucket/batches/", "a-output-123456789012-eu-central-1/models/"):
        with pytest.raises(ValueError, match="objects expire there"):
            GpuSettings.model_validate({setting: f"s3://{place}{last}"})


def test_the_sam_stack_has_the_same_lists() -> None:
    assert {"InputBuckets", "OutputBuckets"} <= SAM["Parameters"].keys()


@pytest.mark.parametrize("stack", ROLES)
def test_a_bucket_of_a_gpu_stack_would_name_what_it_deletes(stack: str, synthesized: Synthesized) -> None:
    """There is none yet: results and inputs are in the SAM stack's (tests/unit/template/test_template_buckets.py)."""
    for bucket in of_type(getattr(synthesized, stack), "AWS::S3::Bucket").values():
        rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
        assert all(rule.get("Prefix", "").endswith("/") for rule in rules)
