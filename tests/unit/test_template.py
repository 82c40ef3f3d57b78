"""What template.yaml promises, whatever else changes in it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from samcli.yamlhelper import yaml_parse

from comfy_serverless.settings import Settings

ROOT = Path(__file__).parent.parent.parent
TEMPLATE: dict[str, Any] = yaml_parse((ROOT / "template.yaml").read_text(encoding="utf-8"))
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
FUNCTION: dict[str, Any] = RESOURCES["GenerateFunction"]["Properties"]
POWERTOOLS = {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_METRICS_NAMESPACE", "POWERTOOLS_LOG_LEVEL"}


def of_type(kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in RESOURCES.items() if entry["Type"] == kind}


def statements(document: dict[str, Any], effect: str) -> Iterator[dict[str, Any]]:
    yield from (statement for statement in document["Statement"] if statement["Effect"] == effect)


def role_statements() -> list[dict[str, Any]]:
    (role,) = of_type("AWS::IAM::Role").values()
    return [statement for policy in role["Policies"] for statement in statements(policy["PolicyDocument"], "Allow")]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def policies_of(resource: str) -> Iterator[dict[str, Any]]:
    """The resource policies that belong to a bucket or a queue."""
    for properties in [*of_type("AWS::S3::BucketPolicy").values(), *of_type("AWS::SQS::QueuePolicy").values()]:
        if {"Ref": resource} in as_list(properties.get("Bucket") or properties.get("Queues")):
            yield properties["PolicyDocument"]


BUCKETS = of_type("AWS::S3::Bucket")
QUEUES = of_type("AWS::SQS::Queue")


def test_sam_accepts_the_template_and_its_linter_too() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "sam", "validate", "--lint", "--region", "eu-central-1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "SAM_CLI_TELEMETRY": "0"},
        check=False,
    )
    assert "is a valid SAM Template" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_is_private_encrypted_and_forgets_broken_uploads(name: str) -> None:
    bucket = BUCKETS[name]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    rules = bucket["LifecycleConfiguration"]["Rules"]
    assert any("AbortIncompleteMultipartUpload" in rule and rule["Status"] == "Enabled" for rule in rules)


@pytest.mark.parametrize("name", BUCKETS)
def test_deleting_the_stack_deletes_no_bucket(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize("name", [*BUCKETS, *QUEUES])
def test_nobody_gets_in_without_tls(name: str) -> None:
    denials = [statement for policy in policies_of(name) for statement in statements(policy, "Deny")]
    (denial,) = (entry for entry in denials if entry["Condition"] == {"Bool": {"aws:SecureTransport": False}})
    assert denial["Principal"] == "*"
    assert denial["Action"] in {"s3:*", "sqs:*"}
    assert {"Fn::GetAtt": [name, "Arn"]} in as_list(denial["Resource"])
    if name in BUCKETS:
        assert {"Fn::Sub": f"${{{name}.Arn}}/*"} in denial["Resource"]


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_encrypted(name: str) -> None:
    assert QUEUES[name]["SqsManagedSseEnabled"] is True


def test_a_message_stays_hidden_for_six_times_the_timeout() -> None:
    assert QUEUES["DropQueue"]["VisibilityTimeout"] == 6 * FUNCTION["Timeout"]


def test_what_fails_five_times_is_kept_for_longer_than_the_queue_keeps_it() -> None:
    redrive = QUEUES["DropQueue"]["RedrivePolicy"]
    assert redrive == {"deadLetterTargetArn": {"Fn::GetAtt": ["DropDeadLetterQueue", "Arn"]}, "maxReceiveCount": 5}
    kept_s = QUEUES["DropDeadLetterQueue"]["MessageRetentionPeriod"]
    assert kept_s > QUEUES["DropQueue"]["MessageRetentionPeriod"]
    assert QUEUES["DropQueue"]["MessageRetentionPeriod"] > 5 * QUEUES["DropQueue"]["VisibilityTimeout"]


def test_an_asynchronous_invocation_that_dies_is_kept_too() -> None:
    on_failure = FUNCTION["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
    assert on_failure == {"Type": "SQS", "Destination": {"Fn::GetAtt": ["DropDeadLetterQueue", "Arn"]}}


def test_the_queue_feeds_the_function_one_message_at_a_time_and_hears_of_failures() -> None:
    (event,) = (event["Properties"] for event in FUNCTION["Events"].values() if event["Type"] == "SQS")
    assert event["Queue"] == {"Fn::GetAtt": ["DropQueue", "Arn"]}
    assert event["BatchSize"] == 1
    assert event["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert event["ScalingConfig"]["MaximumConcurrency"] == {"Ref": "MaximumConcurrency"}
    assert FUNCTION["RecursiveLoop"] == "Terminate"


def test_only_the_input_bucket_may_fill_the_queue() -> None:
    (policy,) = policies_of("DropQueue")
    (allowed,) = statements(policy, "Allow")
    assert allowed["Action"] == "sqs:SendMessage"
    assert allowed["Principal"] == {"Service": "s3.amazonaws.com"}
    source = allowed["Condition"]["ArnEquals"]["aws:SourceArn"]["Fn::Sub"]
    assert source.endswith(":s3:::" + BUCKETS["InputBucket"]["BucketName"]["Fn::Sub"])
    assert allowed["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}


def test_the_output_bucket_never_feeds_the_queue() -> None:
    assert "NotificationConfiguration" not in BUCKETS["OutputBucket"]
    assert BUCKETS["OutputBucket"]["BucketName"] != BUCKETS["InputBucket"]["BucketName"]


def test_drops_are_requests_under_jobs_and_anything_under_images() -> None:
    queues = BUCKETS["InputBucket"]["NotificationConfiguration"]["QueueConfigurations"]
    filters = [
        {rule["Name"]: rule["Value"] for rule in queue["Filter"]["S3Key"]["Rules"]}
        for queue in queues
        if queue["Queue"] == {"Fn::GetAtt": ["DropQueue", "Arn"]}
    ]
    assert filters == [{"prefix": "jobs/", "suffix": ".json"}, {"prefix": "images/"}]


def test_the_role_names_every_action_and_every_resource() -> None:
    (role,) = of_type("AWS::IAM::Role").values()
    assert "ManagedPolicyArns" not in role
    assert "Policies" not in FUNCTION  # SAM would make a second role, and give it managed policies
    for statement in role_statements():
        assert not [action for action in as_list(statement["Action"]) if "*" in action], statement["Sid"]
        for resource in as_list(statement["Resource"]):
            assert resource.keys() in ({"Fn::GetAtt"}, {"Fn::Sub"}), statement["Sid"]
            assert "*" not in str(resource.get("Fn::Sub", "")).removesuffix("/*"), statement["Sid"]


def test_the_role_may_read_inputs_and_write_outputs_and_nothing_else_in_s3() -> None:
    rights = {
        (action, name)
        for statement in role_statements()
        for action in as_list(statement["Action"])
        if action.startswith("s3:")
        for resource in as_list(statement["Resource"])
        for name in re.findall(r"-(input|output)-.*", resource["Fn::Sub"])
    }
    assert rights == {
        ("s3:GetObject", "input"),
        ("s3:ListBucket", "input"),
        ("s3:GetObject", "output"),
        ("s3:PutObject", "output"),
        ("s3:AbortMultipartUpload", "output"),
        ("s3:ListBucket", "output"),
    }


def test_every_route_of_the_http_api_asks_for_a_signature() -> None:
    (api,) = of_type("AWS::Serverless::HttpApi").values()
    assert api["Auth"] == {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}
    routes = [event["Properties"] for event in FUNCTION["Events"].values() if event["Type"] == "HttpApi"]
    assert [(route["Method"], route["Path"]) for route in routes] == [("POST", "/generate")]
    assert not any("Auth" in route for route in routes)
    assert {route["ApiId"]["Ref"] for route in routes} == set(of_type("AWS::Serverless::HttpApi"))


def test_every_variable_of_the_function_means_something() -> None:
    known = {setting.metadata["variable"] for setting in fields(Settings)} | POWERTOOLS | {"AWS_ENDPOINT_URL"}
    assert FUNCTION["Environment"]["Variables"].keys() <= known


def test_the_buckets_of_the_environment_are_those_of_the_stack() -> None:
    variables = FUNCTION["Environment"]["Variables"]
    names = [BUCKETS[name]["BucketName"]["Fn::Sub"] for name in ("InputBucket", "OutputBucket")]
    assert variables["OUTPUT_BUCKET"]["Fn::Sub"] == names[1]
    assert variables["ALLOWED_INPUT_BUCKETS"]["Fn::Sub"].split(",") == names


def test_bucket_names_fit_into_what_s3_allows() -> None:
    prefix = "x" * TEMPLATE["Parameters"]["BucketPrefix"]["MaxLength"]
    values = {"${BucketPrefix}": prefix, "${AWS::AccountId}": "123456789012", "${AWS::Region}": "ap-northeast-1"}
    for bucket in BUCKETS.values():
        name = bucket["BucketName"]["Fn::Sub"]
        for variable, value in values.items():
            name = name.replace(variable, value)
        assert re.fullmatch(r"[a-z0-9-]{3,63}", name)


def test_the_image_carries_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_target_is_one_of_the_dockerfile() -> None:
    parameter = TEMPLATE["Parameters"]["ImageTarget"]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(parameter["AllowedValues"]) <= set(targets)
    assert parameter["Default"] == "worker-lite"
    assert RESOURCES["GenerateFunction"]["Metadata"]["DockerBuildTarget"] == {"Ref": "ImageTarget"}


def test_the_repository_keeps_what_the_worker_image_needs_of_comfyui_and_nothing_else() -> None:
    ours = ROOT / "comfyui"
    assert {path.name for path in ours.iterdir()} >= {"README.md", "extra_model_paths.yaml", "start.sh"}
    assert (ours / "start.sh").stat().st_mode & 0o111
    listed = ["git", "-C", str(ROOT), "check-ignore", "--no-index"]
    assert subprocess.run([*listed, "comfyui/start.sh"], capture_output=True, check=False).returncode == 1
    assert subprocess.run([*listed, "comfyui/main.py"], capture_output=True, check=False).returncode == 0
