"""An answer about a named workflow is never longer than a function can send: its caller is told so."""

from __future__ import annotations

import pytest

from tests.unit.api_world import api_world
from tests.unit.named_world import GRAPH, push, run


def test_a_version_that_is_too_long_to_be_shown_is_refused_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # As JSON in ASCII each letter has six bytes, and in the document two.
    note = {"class_type": "CLIPTextEncode", "inputs": {"text": "é" * 1_200_000}}
    with api_world(monkeypatch) as api:
        assert push(api, workflow={**GRAPH, "note": note}).status == 201
        shown = api.request("GET", "/api/v2/workflows/poster/versions/1")
        assert (shown.status, shown.code) == (413, "invalid_request")
        assert api.request("GET", "/api/v2/workflows/poster").json["version"] == 1
        assert run(api).status == 201
