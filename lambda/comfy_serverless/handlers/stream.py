"""The Lambda function behind the streaming REST API: live events of jobs. One watcher occupies one of its processes.

awslambdaric streams nothing, so `start` runs `main` in its place. Everything else of an invocation is as elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from comfy_serverless.api.event_streams import Asked, Streamed
from comfy_serverless.handlers import wiring_api
from comfy_serverless.handlers.runtime_api import ClientGone, Invocation, RuntimeApi
from comfy_serverless.observability import begin_invocation, log

#: The longest stream. API Gateway and Lambda cut one off after 15 minutes; ours ends before that, and says so.
LONGEST_S = 14 * 60.0
#: The part of an invocation that is kept back for the end.
_RESERVE_S = 20.0


def handler(event: Mapping[str, Any], remaining_s: float) -> Streamed:
    """Answer one request: an event of a REST API (v1), and how long the invocation may still take."""
    until = time.monotonic() + min(LONGEST_S, remaining_s - _RESERVE_S)
    return wiring_api.event_streams().answer(asked_of(event), until=until)


def asked_of(event: Mapping[str, Any]) -> Asked:
    """The request in an event."""
    headers = {str(name).lower(): str(value) for name, value in (event.get("headers") or {}).items()}
    console = str((event.get("stageVariables") or {}).get("console") or "")
    return Asked(
        method=str(event["httpMethod"]),
        path=str(event["path"]),
        query=event.get("queryStringParameters") or {},
        headers=headers,
        origins=(console,) if console else (),
    )


def main() -> NoReturn:
    """Serve invocations, until Lambda ends this process."""
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        wiring_api.event_streams()  # a function that starts has a whole processor, and missing settings are named
    except BaseException as error:
        api.fail_init(error)
        raise
    while True:
        serve(api, api.next())


def serve(api: RuntimeApi, invocation: Invocation) -> None:
    """Answer one invocation, whatever comes."""
    begin_invocation(invocation.id)
    os.environ["_X_AMZN_TRACE_ID"] = invocation.trace
    try:
        answer = handler(invocation.event, invocation.deadline_s - time.time())
    except Exception as error:  # noqa: BLE001  (of one invocation: the next one may be good)
        log.exception("bug: the event is not one of a REST API")
        api.fail(invocation, error)
        return
    try:
        with api.respond(invocation, status=answer.status, headers=answer.headers) as response:
            for part in answer.body:
                response.write(part.encode())
    except ClientGone:
        log.info("a watcher has left")
    except Exception:  # noqa: BLE001  (its client is told by the trailers)
        log.exception("bug: a stream failed in our own code")
    finally:
        answer.close()
