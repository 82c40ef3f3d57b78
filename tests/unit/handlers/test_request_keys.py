"""Keys that a request brings along: they reach ComfyUI, and are kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.request_doors import ALL, GRAPH, PNGINFO, Doors, Seen, opened

#: Under any name, at any depth: nobody can say which of it is a key.
KEYS: Mapping[str, object] = {
    **dict.fromkeys(("api_key_comfy_org", "x-api-key", "privateKey", "bearer", "pwd", "cookie"), "hush-hush"),
    "services": {"openai": {"api_key": "hush-hush"}},
    "headers": {"Authorization": "Bearer hush-hush"},
    "mine": ["hush-hush"],
    "preview_method": {"token": "hush-hush"},
}


def test_keys_reach_the_engine_and_are_kept_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In a world of its own, since all that is kept there is read after each door."""
    with opened(tmp_path) as doors:
        keys_are_kept_nowhere(doors)
    captured = capfd.readouterr()
    assert "hush-hush" not in captured.out + captured.err


def keys_are_kept_nowhere(doors: Doors) -> None:
    data = {**PNGINFO, **KEYS}
    content = json.dumps({"prompt": GRAPH, "extra_data": data}).encode()
    for door in ALL:
        before = doors.kept_objects()
        seen: Seen = getattr(doors, door)(content)
        if door == "manifest":  # which is kept in S3 itself, and copied
            assert (seen.code, all(name in seen.message for name in KEYS)) == ("invalid_request", True)
            continue
        assert (seen.code, seen.extra_data) == ("", data), door
        assert "hush-hush" not in doors.kept_since(before), door
