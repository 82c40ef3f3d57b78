"""The Lambda authorizer of the HTTP API: whose key is it?

A bad key passes with no owner: an HTTP API cannot shape its own refusal, so the api function refuses such a request
with the contract's 401. API Gateway keeps each result for a minute, so that is how long a revoked key may still work.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.handlers import wiring
from comfy_serverless.table.api_keys import bearer

wiring.at_start(wiring.keys)


def handler(event: Mapping[str, Any], _context: Any) -> dict[str, Any]:  # noqa: ANN401  (Lambda's context)
    """Return who has sent a request. Fails if the table does not answer: then no request passes and nothing is kept."""
    headers = event.get("headers") or {}
    text = bearer(next((str(value) for name, value in headers.items() if name.lower() == "authorization"), ""))
    key = wiring.keys().find(text) if text else None
    context = {
        "owner": key.owner if key else "",
        "key_id": key.id if key else "",
        "key_name": key.name if key else "",
        "max_in_flight": str(key.max_in_flight or "") if key else "",
        "requests_per_minute": str(key.requests_per_minute or "") if key else "",
        "is_admin": "true" if key and key.is_admin else "",
        "budget_nanousd": str(key.budget_nanousd or "") if key else "",
        "budget_action": key.budget_action.value if key and key.budget_nanousd else "",
    }
    return {"isAuthorized": True, "context": context}
