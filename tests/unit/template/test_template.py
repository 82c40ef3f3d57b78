"""What template.yaml promises, whatever else changes in it."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.jobs.drop_names import IMAGES, JOBS, MANIFESTS
from comfy_serverless.settings import Settings
from comfy_serverless.table.jobs import BATCH_RETENTION_S, QUEUE_RETENTION_S
from tests.unit.template.processed import parse

ROOT = Path(__file__).parents[3]
TEMPLATE: dict[str, Any] = parse()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
FUNCTIONS: dict[str, Any] = {
    name: entry["Properties"] for name, entry in RESOURCES.items() if entry["Type"] == "AWS::Serverless::Function"
}
FUNCTION: dict[str, Any] = RESOURCES["GenerateFunction"]["Properties"]
POWERTOOLS = {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_LOG_LEVEL", "POWERTOOLS_METRICS_NAMESPACE", "MORE_SETTINGS"}


def of_type(kind: str) -> dict[str, Any]:
    return {name: entry["Properties"] for name, entry in RESOURCES.items() if entry["Type"] == kind}


def statements(document: dict[str, Any], effect: str) -> Iterator[dict[str, Any]]:
    yield from (statement for statement in document["Statement"] if statement["Effect"] == effect)


def role_statements(name: str) -> list[dict[str, Any]]:
    role = of_type("AWS::IAM::Role")[name]
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


def test_what_is_left_of_uploads_is_deleted() -> None:
    rules = BUCKETS["AssetsBucket"]["LifecycleConfiguration"]["Rules"]
    [rule] = [rule for rule in rules if rule.get("Prefix") == "uploads/"]
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 2)


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


def test_what_fails_each_time_is_kept_for_longer_than_the_queue_keeps_it() -> None:
    redrive = QUEUES["DropQueue"]["RedrivePolicy"]
    assert redrive == {"deadLetterTargetArn": {"Fn::GetAtt": ["DropDeadLetterQueue", "Arn"]}, "maxReceiveCount": 12}
    kept_s = QUEUES["DropDeadLetterQueue"]["MessageRetentionPeriod"]
    assert kept_s > QUEUES["DropQueue"]["MessageRetentionPeriod"]
    assert QUEUES["DropQueue"]["MessageRetentionPeriod"] > 12 * QUEUES["DropQueue"]["VisibilityTimeout"]


def test_an_asynchronous_invocation_that_dies_is_kept_too() -> None:
    on_failure = FUNCTION["EventInvokeConfig"]["DestinationConfig"]["OnFailure"]
    assert on_failure == {"Type": "SQS", "Destination": {"Fn::GetAtt": ["JobDeadLetterQueue", "Arn"]}}


def test_the_queue_feeds_the_function_one_message_at_a_time_and_hears_of_failures() -> None:
    events = [event["Properties"] for event in FUNCTION["Events"].values() if event["Type"] == "SQS"]
    assert [event["Queue"]["Fn::GetAtt"][0] for event in events] == ["JobQueue", "BatchQueue"]
    drops = FUNCTIONS["IngestFunction"]["Events"]["Drops"]["Properties"]
    assert drops["Queue"]["Fn::GetAtt"][0] == "DropQueue"
    events.append(drops)
    for event in events:
        assert event["BatchSize"] == 1
        assert event["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        is_batch = event["Queue"]["Fn::GetAtt"][0] == "BatchQueue"
        limit = "MaximumBatchConcurrency" if is_batch else "MaximumConcurrency"
        assert event["ScalingConfig"]["MaximumConcurrency"] == {"Ref": limit}
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


def test_whatever_appears_where_drops_belong_is_taken_or_told() -> None:
    queues = BUCKETS["InputBucket"]["NotificationConfiguration"]["QueueConfigurations"]
    filters = [
        {rule["Name"]: rule["Value"] for rule in queue["Filter"]["S3Key"]["Rules"]}
        for queue in queues
        if queue["Queue"] == {"Fn::GetAtt": ["DropQueue", "Arn"]}
    ]
    assert filters == [{"prefix": JOBS}, {"prefix": IMAGES}, {"prefix": MANIFESTS}]


#: Actions that IAM has no resources for, by the statements that allow them.
WITHOUT_RESOURCES = {"SeeHowManyWaitThere": ["cloudwatch:GetMetricStatistics"]}


def role_of(function: str) -> str:
    name: str = FUNCTIONS[function]["Role"]["Fn::GetAtt"][0]
    return name


def test_every_function_has_a_role_and_a_log_of_its_own() -> None:
    assert sorted([*map(role_of, FUNCTIONS), "ManifestMachineRole"]) == sorted(of_type("AWS::IAM::Role"))
    groups = [function["LoggingConfig"]["LogGroup"]["Ref"] for function in FUNCTIONS.values()]
    assert len(set(groups)) == len(FUNCTIONS)
    assert all(of_type("AWS::Logs::LogGroup")[group]["RetentionInDays"] for group in groups)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_role_names_every_action_and_every_resource(function: str) -> None:
    assert "ManagedPolicyArns" not in of_type("AWS::IAM::Role")[role_of(function)]
    assert "Policies" not in FUNCTIONS[function]  # SAM would make a second role, and give it managed policies
    for statement in role_statements(role_of(function)):
        assert not [action for action in as_list(statement["Action"]) if "*" in action], statement["Sid"]
        if statement["Sid"] in WITHOUT_RESOURCES:
            assert (as_list(statement["Action"]), statement["Resource"]) == (WITHOUT_RESOURCES[statement["Sid"]], "*")
            continue
        for resource in as_list(statement["Resource"]):
            assert resource.keys() in ({"Fn::GetAtt"}, {"Fn::Sub"}), statement["Sid"]
            # A release's own name stands in those of its queues, and is chosen later.
            named = re.sub(r":\$\{AWS::StackName\}-release-\*-(jobs|batches)$", "", str(resource.get("Fn::Sub", "")))
            assert "*" not in re.sub(r"[/:]\*$", "", named), statement["Sid"]


def rights(function: str, service: str) -> set[tuple[str, str]]:
    """`("s3:GetObject", "input")`: what a function may do, and with which bucket, queue or table."""
    return {
        (action, name)
        for statement in role_statements(role_of(function))
        for action in as_list(statement["Action"])
        if action.startswith(f"{service}:") and statement["Effect"] == "Allow"
        for resource in as_list(statement["Resource"])
        for name in (
            [resource["Fn::GetAtt"][0]]
            if "Fn::GetAtt" in resource
            else re.findall(r"-(input|output|assets)-.*", resource["Fn::Sub"])
        )
    }


def test_the_worker_may_read_inputs_and_write_outputs_and_nothing_else_in_s3() -> None:
    assert rights("GenerateFunction", "s3") == {
        *(("s3:GetObject", bucket) for bucket in ("input", "output", "assets")),
        ("s3:GetObjectVersion", "input"),
        *(("s3:ListBucket", bucket) for bucket in ("input", "output", "assets")),
        ("s3:PutObject", "output"),
        ("s3:PutObject", "assets"),  # engine/ only: the list of nodes
        ("s3:AbortMultipartUpload", "output"),
    }


def test_only_the_api_the_tools_and_the_caretaker_may_delete_and_only_assets() -> None:
    deleting = {function: rights(function, "s3") for function in FUNCTIONS}
    assert {(function, name) for function, some in deleting.items() for action, name in some if "Delete" in action} == {
        ("ApiFunction", "assets"),
        ("McpFunction", "assets"),
        ("CaretakerFunction", "assets"),
    }


def test_the_authorizer_may_read_a_key_and_nothing_else() -> None:
    assert rights("AuthorizerFunction", "dynamodb") == {("dynamodb:GetItem", "JobsTable")}
    assert rights("AuthorizerFunction", "s3") == set()


def test_every_route_asks_for_a_key_but_those_that_say_what_there_is() -> None:
    (api,) = of_type("AWS::Serverless::HttpApi").values()
    authorizer = api["Auth"]["Authorizers"][api["Auth"]["DefaultAuthorizer"]]
    assert authorizer["FunctionArn"] == {"Fn::GetAtt": ["AuthorizerFunction", "Arn"]}
    assert authorizer["AuthorizerPayloadFormatVersion"] == "2.0"
    assert authorizer["EnableSimpleResponses"] is True
    assert authorizer["Identity"] == {"Headers": ["Authorization"], "ReauthorizeEvery": 60}
    events = FUNCTIONS["ApiFunction"]["Events"].values()
    routes = {(event["Properties"]["Method"], event["Properties"]["Path"]): event["Properties"] for event in events}
    public = {route for route, properties in routes.items() if "Auth" in properties}
    assert public == {
        ("GET", "/api/v2/health"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/"),
        ("GET", "/console/{proxy+}"),
        ("OPTIONS", "/{proxy+}"),
    }
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    assert routes.keys() - public == {*((method, "/api/v2/{proxy+}") for method in methods), ("POST", "/generate")}
    events = FUNCTIONS["McpFunction"]["Events"].values()
    agents = {(event["Properties"]["Method"], event["Properties"]["Path"]): event["Properties"] for event in events}
    assert agents.keys() == {("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp")}
    assert not any("Auth" in properties for properties in agents.values())


def test_the_access_log_has_neither_keys_nor_queries() -> None:
    (api,) = of_type("AWS::Serverless::HttpApi").values()
    logged = set(re.findall(r"\$context\.([a-zA-Z_.]+)", api["AccessLogSettings"]["Format"]))
    assert logged == {
        "requestTime",
        "requestId",
        "identity.sourceIp",
        "httpMethod",
        "path",
        "status",
        "responseLength",
        "responseLatency",
        "authorizer.owner",
        "authorizer.key_id",
    }


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_variable_of_a_function_means_something(function: str) -> None:
    known = {setting.metadata["variable"] for setting in fields(Settings)} | POWERTOOLS | {"AWS_ENDPOINT_URL"}
    assert FUNCTIONS[function]["Environment"]["Variables"].keys() <= known


def test_the_buckets_of_the_environment_are_those_of_the_stack() -> None:
    variables = FUNCTION["Environment"]["Variables"]
    names = [BUCKETS[name]["BucketName"]["Fn::Sub"] for name in ("InputBucket", "OutputBucket", "AssetsBucket")]
    assert variables["OUTPUT_BUCKET"]["Fn::Sub"] == names[1]
    assert variables["ALLOWED_INPUT_BUCKETS"]["Fn::Join"][1][0]["Fn::Sub"].split(",") == names
    for function in ("GenerateFunction", "ApiFunction"):
        assert FUNCTIONS[function]["Environment"]["Variables"]["ASSETS_BUCKET"]["Fn::Sub"] == names[2]


@pytest.mark.parametrize("name", [name for name in QUEUES if not name.endswith("DeadLetterQueue")])
def test_every_queue_has_a_dead_letter_queue(name: str) -> None:
    dead = QUEUES[name]["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
    # Longer, where SQS can keep anything longer.
    assert QUEUES[dead]["MessageRetentionPeriod"] >= min(14 * 86_400, QUEUES[name]["MessageRetentionPeriod"] + 86_400)


@pytest.mark.parametrize(
    ("queue", "function"),
    [
        ("DropQueue", "IngestFunction"),
        ("ManifestQueue", "IngestFunction"),
        ("JobQueue", "GenerateFunction"),
        ("BatchQueue", "GenerateFunction"),
        ("WebhookQueue", "WebhookFunction"),
    ],
)
def test_messages_stay_hidden_for_six_times_the_timeout_of_who_takes_them(queue: str, function: str) -> None:
    assert QUEUES[queue]["VisibilityTimeout"] == 6 * FUNCTIONS[function]["Timeout"]
    assert any(
        event["Properties"].get("Queue") == {"Fn::GetAtt": [queue, "Arn"]}
        for event in FUNCTIONS[function]["Events"].values()
    )


def test_the_job_queue_keeps_messages_for_as_long_as_a_job_waits() -> None:
    assert QUEUES["JobQueue"]["MessageRetentionPeriod"] == QUEUE_RETENTION_S
    assert QUEUES["BatchQueue"]["MessageRetentionPeriod"] == BATCH_RETENTION_S


def test_every_function_has_a_handler_in_its_image() -> None:
    for name, function in FUNCTIONS.items():
        if name != "GenerateFunction":
            target = "mcp" if name == "McpFunction" else "api"
            assert RESOURCES[name]["Metadata"]["DockerBuildTarget"] == target
            module = function["ImageConfig"]["Command"][0].removesuffix(".handler").replace(".", "/")
            assert (ROOT / "lambda" / f"{module}.py").is_file()


def test_bucket_names_fit_into_what_s3_allows() -> None:
    prefix = "x" * TEMPLATE["Parameters"]["BucketPrefix"]["MaxLength"]
    values = {"${BucketPrefix}": prefix, "${AWS::AccountId}": "123456789012", "${AWS::Region}": "ap-northeast-1"}
    for bucket in BUCKETS.values():
        name = bucket["BucketName"]["Fn::Sub"]
        for variable, value in values.items():
            name = name.replace(variable, value)
        assert re.fullmatch(r"[a-z0-9-]{3,63}", name)


def test_the_image_takes_the_version_from_pyproject(tmp_path: Path) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version not in dockerfile
    ((made, script),) = re.findall(r"^RUN mkdir (\S+\.dist-info) (.*?)(?=\n\n)", dockerfile, re.MULTILINE | re.DOTALL)
    command = f"mkdir {made} {script.replace(chr(92) + chr(10), '')}".replace("&& byte-compile /opt/code", "")
    command = command.replace("/opt/code", str(tmp_path)).replace("/build/pyproject.toml", str(ROOT / "pyproject.toml"))
    subprocess.run(["sh", "-ec", command], check=True)
    (found,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert (found.name, found.version) == ("comfy-serverless", version)
    copied = {line.split()[2] for line in dockerfile.splitlines() if line.startswith("COPY --from=code")}
    assert f"{made}/" in copied, "into the API's image, which takes a part of the code"


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


def test_the_page_about_the_stack_names_every_function_and_parameter() -> None:
    text = (ROOT / "docs" / "deploy-lambda.md").read_text(encoding="utf-8").partition("## The stack\n")[2]
    functions, parameters = (
        set(re.findall(r"`(\w+)`", text.partition(start)[2].partition(end)[0]))
        for start, end in (("- the functions", "\n- buckets"), ("\nParameters: ", "What each means"))
    )
    called = {
        each["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]  # as its log and the alarms' page call it
        for each in of_type("AWS::Serverless::Function").values()
    }
    assert functions - {"LiveEvents"} == called
    assert parameters == set(TEMPLATE["Parameters"])
