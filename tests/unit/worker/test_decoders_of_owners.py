"""What a worker decodes for one owner, inputs and what was made of them, no child has that decodes for another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.sandbox.process import Child
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.worker import Call
from tests.unit.fakes import FakeEngine, World, made
from tests.unit.input_world import InputFolder, data_url, graph, picture


@pytest.fixture(autouse=True)
def _decoders_are_kept() -> None:
    """Not here: a sandbox's own are looked at."""


@dataclass(frozen=True)
class Of:
    """A request of an owner."""

    sent: SentRequest
    owner_name: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sent, name)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Which process was asked for what, in their order."""
    asked: list[tuple[int, str]] = []
    ask = Child.ask

    def noted(child: Child, task: Any, *arguments: Any, **options: Any) -> Any:
        asked.append((child.pid, task["check"]))
        return ask(child, task, *arguments, **options)

    monkeypatch.setattr(Child, "ask", noted)
    return asked


def test_no_child_of_a_worker_gets_files_of_two_owners(
    world: Callable[..., World], given: list[tuple[int, str]]
) -> None:
    here = world(engine=FakeEngine(outputs=(made("a.png", picture()),)))
    had: dict[str, set[int]] = {}
    with closing(Sandbox()) as sandbox:
        connector: Any = InputFolder()
        here.worker._inputs = InputFetcher(settings=here.settings, s3=here.s3, connector=connector, sandbox=sandbox)
        for number, owner in enumerate(("alice", "bob", "alice", "")):
            inputs = {"10.image": data_url(picture("red" if number % 2 else "blue")), "10.mask": data_url(picture())}
            sent = SentRequest(payload={"job_id": f"j-{number}", "workflow": graph(), "inputs": inputs}, default_id="x")
            source: Any = Of(sent, owner)
            outcome = here.worker.run(source, Call())
            assert outcome.error is None
            assert {check for _, check in given} == {"image", "mask", "thumbnail"}
            had.setdefault(owner, set()).update(pid for pid, _ in given)
            given.clear()
    assert {owner: len(pids) for owner, pids in had.items()} == {"alice": 2, "bob": 2, "": 2}
    assert len(set.union(*had.values())) == 6, "of inputs and of thumbnails, for each of three owners"
