"""The API in this process: its routes over moto's DynamoDB, S3 and SQS, asked with events as API Gateway makes them."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl

import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from comfy_serverless.api.app import create_app
from comfy_serverless.handlers import wiring_api
from comfy_serverless.settings import Settings
from tests.unit import api_contract
from tests.unit.jobs_table import NAME, REGION, aws, create_table
from tests.unit.wired import wired

ASSETS, RESULTS = "assets-bucket", "results-bucket"


class Context:
    """What Lambda tells a function."""

    function_name = "api"
    aws_request_id = "1"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-central-1:000000000000:function:api"

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


@dataclass(frozen=True)
class Answer:
    """What the function answered."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class ApiWorld:
    """The API, and what stands behind it."""

    def __init__(self, session: Any, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        _, self.calls = create_table(session)
        s3, sqs = session.client("s3"), session.client("sqs")
        for bucket in (ASSETS, RESULTS):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.sqs = sqs
        self.job_queue_url = sqs.create_queue(QueueName="jobs")["QueueUrl"]
        self.webhook_queue_url = sqs.create_queue(QueueName="webhooks")["QueueUrl"]
        settings = {"events_hold_s": 0.01, "poll_hold_s": 0.0, **settings}
        with wired(
            monkeypatch,
            Settings(
                jobs_table=NAME,
                assets_bucket=ASSETS,
                output_bucket=RESULTS,
                job_queue_url=self.job_queue_url,
                webhook_queue_url=self.webhook_queue_url,
                **settings,
            ),
        ):
            self.services = wiring_api.services()
        self.services.table._client.meta.events.register(
            "before-call.dynamodb", lambda model, **_: self.calls.update([model.name])
        )
        self.s3 = self.services.s3
        self.app = create_app(lambda: self.services, cors_origins=self.services.settings.cors_origins)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        owner: str = "team",
        key: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask. `body` is sent as JSON, unless it is text or bytes."""
        path, _, query = path.partition("?")
        given = {"host": "api.example", **{name.lower(): value for name, value in (headers or {}).items()}}
        text: str | None = None
        is_base64 = isinstance(body, bytes)
        if isinstance(body, bytes):
            text = base64.b64encode(body).decode()
        elif isinstance(body, str):
            text = body
        elif body is not None:
            text = json.dumps(body)
        if text is not None:
            given.setdefault("content-type", "application/json")
        event: dict[str, Any] = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": given,
            "requestContext": {
                "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                "stage": "$default",
                "requestId": str(uuid.uuid4()),
                "authorizer": {"lambda": {"owner": owner, "key_id": "key-1", **(key or {})}},
            },
            "isBase64Encoded": is_base64,
        }
        if query:
            event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True))
        if text is not None:
            event["body"] = text
        answer = self.app.resolve(event, cast("LambdaContext", Context()))
        if api_contract.path() is not None:
            content = answer.get("body") or ""
            is_json = content.startswith("{")
            told = api_contract.problems(method, path, answer["statusCode"], json.loads(content) if is_json else None)
            assert not told, told
        many = {name.lower(): value for name, value in (answer.get("headers") or {}).items()}
        return Answer(answer["statusCode"], many, answer.get("body") or "")

    def messages(self, url: str | None = None) -> list[Any]:
        """What waits in a queue; it is taken out."""
        bodies: list[Any] = []
        while True:
            answer = self.sqs.receive_message(QueueUrl=url or self.job_queue_url, MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return bodies
            bodies += [json.loads(message["Body"]) for message in answer["Messages"]]


@contextmanager
def api_world(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[ApiWorld]:
    """The world, from `with` to the end of the block."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with aws() as session:
        yield ApiWorld(session, monkeypatch, **settings)
