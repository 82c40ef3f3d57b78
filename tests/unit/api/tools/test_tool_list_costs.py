"""What it costs to list the tools of a key's owner."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.api_world import api_world
from tests.unit.held_versions import HeldVersions
from tests.unit.mcp_world import McpWorld
from tests.unit.named_world import push

LISTING = "comfy_serverless.api.tools.listing"


def test_tools_are_listed_by_the_heads_and_no_workflow_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch) as api:
        for number in range(12):
            push(api, f"poster-{number}")
        before = Counter(api.calls)
        answer = McpWorld(api).ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert sum(tool["name"].startswith("run_poster") for tool in answer.json["result"]["tools"]) == 12
        assert Counter(api.calls) - before == {"Query": 2}, "the heads of the owner, and of the operator"


def test_a_page_of_tools_holds_few_whole_workflows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version may have 6 MB, and a page has 50: at any time there are as many as are read beside each other."""
    with api_world(monkeypatch) as api:
        for number in range(12):
            push(api, f"poster-{number}")
        held = HeldVersions(monkeypatch, LISTING, made_by=f"{LISTING}.tool_of", of=12)
        answer = McpWorld(api).ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert sum(tool["name"].startswith("run_poster") for tool in answer.json["result"]["tools"]) == 12
        assert len(held.at_once) == 12
        beside = api.services.beside
        assert isinstance(beside, ThreadPoolExecutor)
        assert max(held.at_once) <= beside._max_workers
