"""The Lambda function behind `/mcp`: the tools of agents. One of its own: the protocol's library takes a second."""

from __future__ import annotations

from typing import Any

from comfy_serverless import tracing
from comfy_serverless.api.tools.endpoint import AgentsEndpoint
from comfy_serverless.handlers import snapshot, wiring, wiring_api

wiring.at_start(wiring_api.services)
_endpoint = AgentsEndpoint(wiring_api.services)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Answer one request."""
    try:
        return _endpoint.answer(event, remaining_s=context.get_remaining_time_in_millis() / 1000)
    finally:
        tracing.flush(wiring.FLUSH_ANSWER_S)


snapshot.hooks()
