"""The policies of template.yaml are in force in `make dev`: a function may do what its role may, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.table import turns
from comfy_serverless.table.job_state import NewJob
from comfy_serverless.table.jobs import JobStore
from local.aws.server import LocalAws, local_client
from local.aws.stack import LocalStack
from local.aws.template import TABLE, name_of
from local.dev import DevStack
from tests.integration.test_dev_stack import small
from tests.patience import PATIENCE_S
from tests.unit.table_clock import TableClock

pytestmark = pytest.mark.timeout(1800)

INPUT, OUTPUT, ASSETS = map(name_of, ("InputBucket", "OutputBucket", "AssetsBucket"))


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with LocalAws() as started:
        LocalStack.create(started)
        started.client().put_object(Bucket=OUTPUT, Key="job/result.json", Body=b"{}")
        started.client().put_object(Bucket=OUTPUT, Key="owners/me/1.png", Body=b"{}")
        yield started


Client = Callable[[str, str], Any]


@pytest.fixture
def client(aws: LocalAws) -> Client:
    def make(role: str, service: Any) -> Any:
        return local_client(service, aws.endpoint_url, role=role)

    return make


def key(pk: str) -> dict[str, Any]:
    return {"TableName": TABLE, "Key": {"pk": {"S": pk}, "sk": {"S": "x"}}}


def denied(ask: Callable[..., Any], **arguments: Any) -> str:
    """What the service says to it."""
    with pytest.raises(ClientError) as caught:
        ask(**arguments)
    error: Any = caught.value.response
    status, code = error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]
    assert (status, code) in {(403, "AccessDenied"), (403, "403"), (400, "AccessDeniedException")}
    message: str = error["Error"]["Message"]
    return message


def test_a_worker_reaches_neither_keys_nor_jobs(client: Client) -> None:
    table = client("GenerateRole", "dynamodb")
    table.get_item(**key("batch#1"))
    assert denied(table.get_item, **key("keys")) == (
        "User: GenerateRole is not authorized to perform: dynamodb:GetItem on resource: "
        f"arn:aws:dynamodb:eu-central-1:123456789012:table/{TABLE} (leading keys: keys) "
        "because no identity-based policy allows the dynamodb:GetItem action"
    )
    query = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": "job#1"}}}
    assert "dynamodb:Query" in denied(table.query, TableName=TABLE, **query)
    assert "dynamodb:Scan" in denied(table.scan, TableName=TABLE)
    for name in ("GenerateRole", "CaretakerRole", "IngestRole", "AuthorizerRole"):
        other = client(name, "dynamodb")
        for ask in (other.get_item, other.update_item, other.delete_item):
            denied(ask, **key("webhook#1"))
    client("WebhookRole", "dynamodb").get_item(**key("webhook#1"))
    writes = [{"Put": {"TableName": TABLE, "Item": {"pk": {"S": pk}, "sk": {"S": "x"}}}} for pk in ("job#1", "keys")]
    table.transact_write_items(TransactItems=writes[:1])
    assert "dynamodb:PutItem" in denied(table.transact_write_items, TransactItems=writes)


def test_a_worker_writes_results_and_nothing_else(client: Client) -> None:
    s3 = client("GenerateRole", "s3")
    s3.put_object(Bucket=OUTPUT, Key="mine/1.png", Body=b"x")
    assert s3.get_object(Bucket=OUTPUT, Key="mine/1.png")["Body"].read() == b"x"
    assert "s3:PutObject" in denied(s3.put_object, Bucket=INPUT, Key="jobs/a b+ü.json", Body=b"x" * 3_000_000)
    assert "s3:DeleteObject" in denied(s3.delete_object, Bucket=OUTPUT, Key="mine/1.png")
    copy = {"Bucket": OUTPUT, "Key": "mine/1.png"}
    assert "s3:PutObject" in denied(s3.copy_object, Bucket=ASSETS, Key="blobs/1", CopySource=copy)


def test_a_multipart_upload_is_begun_and_aborted_only_where_one_may(client: Client) -> None:
    s3 = client("GenerateRole", "s3")
    upload = s3.create_multipart_upload(Bucket=OUTPUT, Key="large")["UploadId"]
    part = s3.upload_part(Bucket=OUTPUT, Key="large", UploadId=upload, PartNumber=1, Body=b"x")
    parts = [{"PartNumber": 1, "ETag": part["ETag"]}]
    s3.complete_multipart_upload(Bucket=OUTPUT, Key="large", UploadId=upload, MultipartUpload={"Parts": parts})
    s3.abort_multipart_upload(
        Bucket=OUTPUT, Key="more", UploadId=s3.create_multipart_upload(Bucket=OUTPUT, Key="more")["UploadId"]
    )
    denied(s3.create_multipart_upload, Bucket=INPUT, Key="large")
    api = client("ApiRole", "s3")
    begun = api.create_multipart_upload(Bucket=ASSETS, Key="blobs/1")["UploadId"]
    assert "s3:Abort" in denied(api.abort_multipart_upload, Bucket=ASSETS, Key="blobs/1", UploadId=begun)


def test_who_may_not_list_a_bucket_is_not_told_what_is_missing(client: Client) -> None:
    worker, webhook = client("GenerateRole", "s3"), client("WebhookRole", "s3")
    for ask in (worker.get_object, worker.head_object):
        with pytest.raises(ClientError, match=r"404|NoSuchKey"):
            ask(Bucket=OUTPUT, Key="owners/none")
    for ask in (webhook.get_object, webhook.head_object):
        denied(ask, Bucket=OUTPUT, Key="owners/none")
    assert webhook.get_object(Bucket=OUTPUT, Key="owners/me/1.png")["Body"].read() == b"{}"


def test_a_link_opens_what_its_signer_may_read(client: Client) -> None:
    def follow(role: str, object_key: str) -> int:
        parameters = {"Bucket": OUTPUT, "Key": object_key}
        url = client(role, "s3").generate_presigned_url("get_object", Params=parameters)
        return requests.get(url, timeout=PATIENCE_S).status_code

    assert follow("WebhookRole", "owners/me/1.png") == 200
    assert follow("WebhookRole", "job/result.json") == 403
    assert follow("ApiRole", "job/result.json") == 200


def test_queues_parameters_and_figures_are_for_those_who_need_them(aws: LocalAws, client: Client) -> None:
    url = aws.sqs().get_queue_url(QueueName=name_of("ManifestQueue"))["QueueUrl"]
    client("CaretakerRole", "sqs").send_message(QueueUrl=url, MessageBody="x")
    assert "sqs:SendMessage" in denied(client("GenerateRole", "sqs").send_message, QueueUrl=url, MessageBody="x")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    times = {"StartTime": moment, "EndTime": moment + timedelta(hours=1), "Period": 60, "Statistics": ["Sum"]}
    figures = {"Namespace": "AWS/SageMaker", "MetricName": "ApproximateBacklogSize", **times}
    client("ApiRole", "cloudwatch").get_metric_statistics(**figures)
    assert "cloudwatch:Get" in denied(client("GenerateRole", "cloudwatch").get_metric_statistics, **figures)
    assert "ssm:GetParameter" in denied(client("WebhookRole", "ssm").get_parameter, Name="/comfy-serverless/local/x")


@pytest.mark.parametrize(("role", "day"), [("ApiRole", 1), ("CaretakerRole", 2), ("OutcomeRole", 3)])
def test_whoever_sends_jobs_again_may_do_so_in_turns(
    role: str, day: int, aws: LocalAws, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = JobStore(Table(client(role, "dynamodb"), TABLE), lease_s=30, max_runs=3)
    all_jobs = JobStore(Table(aws.dynamodb(), TABLE), lease_s=30, max_runs=3)
    new = NewJob(job_id=role, owner="team", request_uri="s3://a/1.json", result_uri="s3://r/result.json")
    all_jobs.submit(new)
    all_jobs.dispatched(role)
    state = all_jobs.read_alone(role)
    assert state is not None
    clock = TableClock(monkeypatch)
    clock.later(day * 86_400)  # no turn of another role lasts that long
    assert own.take_turn(state), "the first turn"
    assert own.take_turn(state), "which has room for more"
    clock.later(turns.FIRST_PAUSE_S)
    assert own.take_turn(state), "and the next one, after a look at the first job"


def test_the_administrator_may_do_everything_and_who_is_no_role_nothing(aws: LocalAws, client: Client) -> None:
    aws.dynamodb().scan(TableName=TABLE)
    assert "template.yaml has no such role" in denied(client("MistypedRole", "dynamodb").get_item, **key("job#1"))


def test_what_was_denied_is_kept(aws: LocalAws, client: Client) -> None:
    before = aws.usage()
    denied(client("OutcomeRole", "s3").list_objects_v2, Bucket=INPUT)
    usage = aws.usage()
    assert usage.requests["OutcomeRole"] == before.requests.get("OutcomeRole", 0) + 1
    assert any("OutcomeRole" in denial and "s3:ListBucket" in denial for denial in usage.denials)


def test_every_function_of_the_whole_service_goes_by_its_own_role(tmp_path_factory: pytest.TempPathFactory) -> None:
    with DevStack(log_folder=tmp_path_factory.mktemp("dev")) as stack:
        bearer = {"Authorization": f"Bearer {stack.api_key}"}
        body = {"workflow": small(1), "wait_s": 20, "webhook_url": "http://127.0.0.1:1/nobody"}
        answer = requests.post(f"{stack.url}/generate", json=body, headers=bearer, timeout=PATIENCE_S).json()
        assert answer["status"] == "succeeded"
        stack.aws.client().put_object(Bucket=INPUT, Key="jobs/some.json", Body=b"{")
        expected = {"ApiRole", "AuthorizerRole", "CaretakerRole", "GenerateRole", "IngestRole", "WebhookRole"}
        until = time.monotonic() + PATIENCE_S
        while not refusal_of_the_drop(stack) and time.monotonic() < until:
            time.sleep(0.1)
        usage = stack.aws.usage()
    assert usage.requests.keys() == expected
    assert usage.denials == []


def refusal_of_the_drop(stack: DevStack) -> list[str]:
    found = stack.aws.client().list_objects_v2(Bucket=OUTPUT).get("Contents", [])
    return [entry["Key"] for entry in found if "some" in entry["Key"]]
