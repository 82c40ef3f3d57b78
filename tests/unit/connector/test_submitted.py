"""A run of what the editor saved has its graph when the engine answers, and ends like any other until then."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.connector import all_declared
from comfy_serverless.connector.all_declared import AllDeclared
from comfy_serverless.connector.run import WorkflowRun
from comfy_serverless.connector.submitted import converted_to_submit, with_hint
from comfy_serverless.errors import Canceled, DeadlineExceeded, EngineUnavailable, InvalidWorkflow, UiFormatWorkflow
from comfy_serverless.graph.editor_format import check_editor_format, in_api_format
from comfy_serverless.graph.wrappers import Unwrapped, unwrap
from tests.unit.editor_samples import OBJECT_INFO, PLAIN, PLAIN_GRAPH, plain
from tests.unit.workflow_samples import nested

FRAMES: dict[str, Any] = {"1": {"class_type": "SaveImageWebsocket", "inputs": {}}}


@dataclass
class FakeEngine:
    """An engine whose answers to `wait_ready` are the test's."""

    waits: list[threading.Event | None] = field(default_factory=list)

    def wait_ready(self, timeout_s: float | None, canceled: threading.Event) -> None:
        self.waits.append(canceled)


def run_of(
    convert: Callable[[], tuple[Mapping[str, Any], Sequence[str]]] | None, *, deadline: float | None = None
) -> tuple[WorkflowRun, Any]:
    engine: Any = FakeEngine()
    run = WorkflowRun(
        {},
        engine=engine,
        run_id=str(uuid.uuid4()),
        deadline=deadline,
        stall_s=60,
        on_progress=None,
        on_output=None,
        extra_data=None,
        notes=("before",),
        convert=convert,
    )
    return run, engine


def test_the_graph_is_made_when_the_engine_answers() -> None:
    run, engine = run_of(lambda: (FRAMES, ("guessed",)))
    run.make_graph(engine.wait_ready)
    assert (run.graph, len(engine.waits)) == (FRAMES, 1)
    assert run._notes == ("before", "guessed")
    assert run._frame_nodes == frozenset({"1"})


def test_a_graph_that_is_there_waits_for_nothing() -> None:
    run, engine = run_of(None)
    run.make_graph(engine.wait_ready)
    assert engine.waits == []


def test_an_engine_that_died_just_then_is_asked_again_when_it_is_back() -> None:
    answers = iter([EngineUnavailable("it died")])

    def convert() -> tuple[Mapping[str, Any], Sequence[str]]:
        if (error := next(answers, None)) is not None:
            raise error
        return FRAMES, ()

    run, engine = run_of(convert)
    run.make_graph(engine.wait_ready)
    assert (run.graph, len(engine.waits)) == (FRAMES, 2)


def test_a_run_that_is_canceled_or_late_before_that_asks_for_nothing() -> None:
    def never() -> tuple[Mapping[str, Any], Sequence[str]]:
        raise AssertionError("it was asked for")

    run, engine = run_of(never)
    run.cancel()
    with pytest.raises(Canceled):
        run.make_graph(engine.wait_ready)
    run, engine = run_of(never, deadline=0.0)
    with pytest.raises(DeadlineExceeded):
        run.make_graph(engine.wait_ready)
    assert engine.waits == []


@pytest.mark.parametrize(
    "given",
    [PLAIN, {"workflow": PLAIN}, {"prompt": PLAIN}, [PLAIN], {"prompt": {}, "workflow": PLAIN}],
    ids=["bare", "workflow", "prompt", "list", "an empty prompt beside it"],
)
def test_in_any_wrapper_it_becomes_the_graph_and_goes_along(given: object) -> None:
    found = unwrap(given)
    assert found is not None
    readable = in_api_format(found, OBJECT_INFO)
    graph = {
        node_id: {"class_type": node["class_type"], "inputs": node["inputs"]}
        for node_id, node in readable.found.workflow.items()
    }
    assert graph == PLAIN_GRAPH
    assert readable.found.extra_data == {"extra_pnginfo": {"workflow": PLAIN}}


def test_a_graph_stays_as_it_is_and_the_workflow_of_a_picture_goes_along_unconverted() -> None:
    found = unwrap({"prompt": PLAIN_GRAPH, "workflow": {"nodes": [{"type": "of nobody"}]}})
    assert found is not None
    assert in_api_format(found, {}).found is found


def test_what_was_put_beside_it_counts() -> None:
    found = unwrap({"prompt": PLAIN, "extra_data": {"extra_pnginfo": {"a": 1}, "preview_method": "none"}})
    assert found is not None
    made = in_api_format(found, OBJECT_INFO).found
    assert made.extra_data == {"extra_pnginfo": {"a": 1, "workflow": PLAIN}, "preview_method": "none"}


def test_the_graph_is_judged_as_any_other() -> None:
    readable = in_api_format(Unwrapped(plain(prefix="fox")), OBJECT_INFO)
    readable.found.workflow["2"]["inputs"]["filename_prefix"] = "%EmptyImage.width%"
    graph, notes = converted_to_submit(readable, now=datetime(2026, 3, 7, tzinfo=UTC))
    assert (graph["2"]["inputs"]["filename_prefix"], notes) == ("16", ())


def test_where_the_embedded_engine_lacks_a_class_it_is_said_what_has_it() -> None:
    lacking = UiFormatWorkflow("no class X", details={"reasons": [{"reason": "missing_node_type"}]})
    assert "COMFYUI_DIR" in with_hint(lacking, is_embedded=True).message
    assert with_hint(lacking, is_embedded=False) is lacking
    other = UiFormatWorkflow("a broken link", details={"reasons": [{"reason": "broken_link"}]})
    assert with_hint(other, is_embedded=True) is other


def test_one_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(InvalidWorkflow, match="nested"):
        check_editor_format({**PLAIN, "extra": nested(100)})
    with pytest.raises(InvalidWorkflow, match="nested"):
        in_api_format(Unwrapped({**PLAIN, "extra": nested(100)}), OBJECT_INFO)


class Declaring:
    """An engine that counts how often it is asked."""

    def __init__(self, *, is_elsewhere: bool) -> None:
        self.process: Any = None if is_elsewhere else object()
        self.starts, self.asked_for = 0, 0
        self.answer: Any = OBJECT_INFO

    def asked(self) -> Any:
        return self

    def __enter__(self) -> Any:
        self.asked_for += 1
        return SimpleNamespace(object_info=lambda: self.answer)

    def __exit__(self, *_: object) -> None: ...


def test_declarations_are_read_once_a_start() -> None:
    engine = Declaring(is_elsewhere=False)
    declared = AllDeclared(engine)
    assert declared.object_info() is declared.object_info() is OBJECT_INFO
    assert declared.classes() == tuple(OBJECT_INFO)
    assert engine.asked_for == 1
    engine.starts = 2
    declared.object_info()
    assert engine.asked_for == 2


def test_those_of_an_engine_elsewhere_grow_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(all_declared, "time", SimpleNamespace(monotonic=lambda: now))
    engine = Declaring(is_elsewhere=True)
    declared = AllDeclared(engine)
    declared.object_info()
    declared.object_info()
    assert engine.asked_for == 1
    now += 60
    declared.object_info()
    assert engine.asked_for == 2


@pytest.mark.parametrize("answer", [{}, [], None])
def test_an_engine_that_declares_nothing_is_none(answer: object) -> None:
    engine = Declaring(is_elsewhere=False)
    engine.answer = answer
    declared = AllDeclared(engine)
    with pytest.raises(EngineUnavailable, match="with none"):
        declared.object_info()
    assert declared.classes() == ()
