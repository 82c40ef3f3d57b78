"""Events as AWS sends them, and a worker's answers to them."""

from __future__ import annotations

import base64
import json
from typing import Any

from comfy_serverless.handlers.events import recognise
from comfy_serverless.worker.replies import Replies
from comfy_serverless.worker.worker import Call
from tests.unit.fakes import IN, World


def s3_record(key: str, *, name: str = "ObjectCreated:Put", bucket: str = IN, **item: Any) -> dict[str, Any]:
    return {
        "eventSource": "aws:s3",
        "eventName": name,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "eTag": "e1", **item}},
    }


def s3_event(*keys: str, **options: Any) -> dict[str, Any]:
    return {"Records": [s3_record(key, **options) for key in keys]}


def sqs_event(*bodies: object) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"m{n}",
                "eventSource": "aws:sqs",
                "body": body if isinstance(body, str) else json.dumps(body),
            }
            for n, body in enumerate(bodies)
        ]
    }


def http_event(body: object, *, method: str = "POST", encoded: bool = False) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "version": "2.0",
        "requestContext": {"http": {"method": method, "path": "/generate"}},
        "body": base64.b64encode(text.encode()).decode() if encoded else text,
        "isBase64Encoded": encoded,
    }


def answer(here: World, event: object) -> Any:
    """As the handler does it."""
    recognised = recognise(event)
    outcomes = [
        here.worker.run(source, Call(is_heard=recognised.is_heard, is_first=n == 0))
        for n, source in enumerate(recognised.sources())
    ]
    return recognised.answer(outcomes, Replies(here.s3, here.settings))
