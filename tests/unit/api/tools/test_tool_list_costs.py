"""What it costs to list the tools of a key's owner."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from typing import Any

import pytest

from comfy_serverless.api.tools import listing
from comfy_serverless.api.workflow_lookup import version_of
from comfy_serverless.workflows import kept
from comfy_serverless.workflows.version import Version
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


def test_a_page_of_tools_holds_few_whole_workflows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version may have 6 MB, and a page has 50: at any time there are as many as are read beside each other."""
    seen, at_once = list[weakref.ref[Version]](), list[int]()
    lock = threading.Lock()

    def counted(*given: Any, **named: Any) -> Version | None:
        version = version_of(*given, **named)
        assert version is not None
        with lock:
            seen.append(weakref.ref(version))
            gc.collect()
            at_once.append(sum(one() is not None for one in seen))
        return version

    monkeypatch.setattr(kept, "KEPT_BYTES", 0)
    with api_world(monkeypatch) as api:
        for number in range(12):
            push(api, f"poster-{number}")
        monkeypatch.setattr(listing, "version_of", counted)
        answer = McpWorld(api).ask({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert sum(tool["name"].startswith("run_poster") for tool in answer.json["result"]["tools"]) == 12
        assert len(at_once) == 12
        assert max(at_once) <= api.services.beside._max_workers  # type: ignore[attr-defined]
