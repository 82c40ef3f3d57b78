"""Each file that may carry a workflow is read in a process that no other file has had."""

from __future__ import annotations

import pytest

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.jobs.embedded import embedded_in_bytes
from comfy_serverless.sandbox import pool
from comfy_serverless.sandbox.process import Child


def test_what_takes_over_its_decoder_meets_no_file_of_another_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could keep that for whoever sent it, and answer with it the next time."""
    children: list[Child] = []

    class Noted(Child):
        def __init__(self, *arguments: object) -> None:
            super().__init__()
            children.append(self)

    monkeypatch.setattr(pool, "Child", Noted)
    for _ in range(2):
        with pytest.raises(InvalidWorkflow):
            embedded_in_bytes(b"of an owner", what="the file")
    first, second = children
    assert first.pid != second.pid
    assert not any(child.is_alive for child in children), "they end with their file"
