"""What tests of agents share."""

from __future__ import annotations

import requests

from tests.patience import PATIENCE_S


def wake(base_url: str, key: str) -> None:
    """Wait until `/mcp` answers at all: the official client gives its first question ten seconds, and no more."""
    asked = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream"}
    requests.post(f"{base_url}/mcp", json=asked, headers=headers, timeout=PATIENCE_S).raise_for_status()
