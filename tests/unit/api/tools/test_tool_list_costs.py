"""What it costs to list the tools of a key's owner."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.unit.api_world import api_world
from tests.unit.mcp_world import McpWorld
from tests.unit.named_world import push


def test_tools_are_listed_by_the_heads_and_no_workflow_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch) as api:
        for number in range(12):
            push(api, f"poster-{number}")
        before = Counter(api.calls)
        answer = McpWorld(api).ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert sum(tool["name"].startswith("run_poster") for tool in answer.json["result"]["tools"]) == 12
        assert Counter(api.calls) - before == {"Query": 2}, "the heads of the owner, and of the operator"
