"""Runs one prompt, node after node, sends the client ComfyUI's messages and keeps the results."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from comfy_lite.cache import Cache, CachedNode, declared_inputs, signatures_of
from comfy_lite.context import RunContext
from comfy_lite.faults import FaultPoint, OutOfMemory
from comfy_lite.graph import DependencyCycle, Schedule, is_link
from comfy_lite.node import NodeResult, NodeType
from comfy_lite.nodes.tensor_text import tensor_text
from comfy_lite.progress import ProgressBoard
from comfy_lite.prompt_queue import Outcome, QueueItem
from comfy_lite.run import Engine, Interrupted, Run

logger = logging.getLogger("comfy_lite")

_OUT_OF_MEMORY_TIPS = (
    "This error means you ran out of memory on your GPU.\n\n"
    "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
)


class Executor:
    """Runs prompts, one at a time, in the calling thread. Keeps the cache between them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cache = Cache()
        self._succeeded = True

    def forget(self) -> None:
        """Drop every cached result."""
        self._cache.clear()
        self._succeeded = True

    def execute(self, item: QueueItem) -> Outcome:
        """Run a prompt to its end. Failures of nodes are part of the outcome.

        Raises:
            KeyError: a link in an undeclared input leads nowhere. This ends the worker, as in ComfyUI.
        """
        _, prompt_id, prompt, extra_data, outputs = item
        self._engine.interrupts.clear()
        client_id = extra_data.get("client_id")
        run = Run(prompt_id, prompt, extra_data, client_id, ProgressBoard(prompt_id))
        self._engine.messages.running(owner=client_id, node_id=None)
        self._announce(run, "execution_start", {"prompt_id": prompt_id})
        self._engine.faults.strike(FaultPoint.START)
        nodes, directories = self._engine.nodes, self._engine.directories
        self._cache.begin(signatures_of(prompt, nodes=nodes, directories=directories))
        if not self._engine.release.drops_after_success:
            self._cache.drop_others()
        cached = [node_id for node_id in prompt if self._cache.get(node_id)]
        self._announce(run, "execution_cached", {"nodes": cached, "prompt_id": prompt_id})
        if self._run_nodes(run, outputs):
            self._cache.drop_others()
            self._engine.faults.strike(FaultPoint.END)
            self._announce(run, "execution_success", {"prompt_id": prompt_id})
        self._engine.messages.running(owner=client_id, node_id=None)
        return self._outcome(run)

    def _run_nodes(self, run: Run, outputs: list[str]) -> bool:
        """Run everything the outputs need. Returns whether all of it worked."""
        schedule = Schedule(
            run.prompt,
            is_cached=lambda node_id: self._cache.get(node_id) is not None,
            is_output=lambda node_id: self._engine.nodes[run.prompt[node_id]["class_type"]].is_output,
        )
        for output in outputs:
            schedule.add(output)
        while schedule:
            try:
                node_id = schedule.take()
            except DependencyCycle as cycle:
                # ComfyUI does not record this failure: the history repeats the verdict on the node that ran last.
                failure = _failure("graph.DependencyCycleError", str(cycle), [], [])
                self._announce_failure(run, cycle.node_id, failure)
                return False
            self._succeeded = self._run_node(run, node_id)
            if not self._succeeded:
                return False
            schedule.done(node_id)
        return True

    def _run_node(self, run: Run, node_id: str) -> bool:
        cached = self._cache.get(node_id)
        if cached is not None:
            self._send_executed(run, node_id, cached.ui)
            self._finish(run, node_id)
            return True
        self._start(run, node_id)
        node_type = self._engine.nodes[run.prompt[node_id]["class_type"]]
        inputs: dict[str, Any] = {}
        try:
            inputs = self._gather_inputs(run, node_id, node_type)
            self._engine.interrupts.check()
            self._engine.faults.strike(FaultPoint.NODE, node_id=node_id, class_type=node_type.class_type)
            result = node_type.execute(RunContext(self._engine, run, node_id), **inputs)
        except Interrupted:
            self._announce_interrupted(run, node_id)
            return False
        except Exception as error:
            logger.exception("node %s (%s) failed", node_id, node_type.class_type)
            self._announce_failure(run, node_id, _failure_of(error, inputs | _hidden_inputs(run, node_type)))
            return False
        _protect(result)
        ui = result.ui or None
        self._cache.put(node_id, CachedNode(result.outputs, ui, node_id))
        if ui is not None:
            self._send_executed(run, node_id, ui)
        run.executed.append(node_id)
        self._finish(run, node_id)
        return True

    def _gather_inputs(self, run: Run, node_id: str, node_type: NodeType) -> dict[str, Any]:
        """The values of a node's inputs. As in ComfyUI, a link in an undeclared input is passed on (and refused)."""
        declared = declared_inputs(node_type, self._engine.directories)
        inputs: dict[str, Any] = {}
        for name, value in run.prompt[node_id]["inputs"].items():
            if is_link(value):
                source = self._cache.get(value[0])
                assert source is not None, "the schedule runs sources first"  # noqa: S101
                inputs[name] = source.outputs[value[1]]
            elif name in declared:
                inputs[name] = value
        return inputs

    def _start(self, run: Run, node_id: str) -> None:
        self._engine.messages.running(owner=run.client_id, node_id=node_id)
        run.board.start(node_id)
        self._engine.messages.send("progress_state", run.board.snapshot(), run.client_id)
        self._send(run, "executing", {"node": node_id, "display_node": node_id, "prompt_id": run.prompt_id})

    def _finish(self, run: Run, node_id: str) -> None:
        run.board.finish(node_id)
        self._engine.messages.send("progress_state", run.board.snapshot(), run.client_id)

    def _send_executed(self, run: Run, node_id: str, ui: Mapping[str, Any] | None) -> None:
        data = {"node": node_id, "display_node": node_id, "output": ui, "prompt_id": run.prompt_id}
        run.served.append(node_id)
        self._send(run, "executed", data)

    def _announce_interrupted(self, run: Run, node_id: str) -> None:
        logger.info("interrupted at node %s", node_id)
        data = self._where(run, node_id)
        self._announce(run, "execution_interrupted", data, broadcast=True)

    def _announce_failure(self, run: Run, node_id: str, failure: Mapping[str, Any]) -> None:
        data = {**self._where(run, node_id), **failure, "current_outputs": list(run.prompt)}
        self._announce(run, "execution_error", data)

    def _where(self, run: Run, node_id: str) -> dict[str, Any]:
        return {
            "prompt_id": run.prompt_id,
            "node_id": node_id,
            "node_type": run.prompt[node_id]["class_type"],
            "executed": list(run.executed),
        }

    def _announce(self, run: Run, event: str, data: Mapping[str, Any], *, broadcast: bool = False) -> None:
        """Send a message that also becomes part of the history."""
        dated = {**data, "timestamp": int(time.time() * 1000)}
        run.story.append((event, dated))
        if broadcast or run.client_id is not None:
            self._engine.messages.send(event, dated, run.client_id)

    def _send(self, run: Run, event: str, data: Mapping[str, Any]) -> None:
        if run.client_id is not None:
            self._engine.messages.send(event, data, run.client_id)

    def _outcome(self, run: Run) -> Outcome:
        only = run.served if self._engine.release.shows_only_what_ran else run.prompt
        shown = {node_id: made for node_id in only if (made := self._cache.get(node_id)) and made.ui}
        meta = {
            node_id: {
                "node_id": made.ran_as,
                "display_node": made.ran_as,
                "parent_node": None,
                "real_node_id": made.ran_as,
            }
            for node_id, made in shown.items()
        }
        status = {
            "status_str": "success" if self._succeeded else "error",
            "completed": self._succeeded,
            "messages": run.story,
        }
        return Outcome({node_id: made.ui for node_id, made in shown.items()}, meta, status)


def _protect(result: NodeResult) -> None:
    """Make cached arrays read-only: a node that changed its input would change it for all later nodes."""
    for value in result.outputs:
        if isinstance(value, np.ndarray):
            value.flags.writeable = False


def _hidden_inputs(run: Run, node_type: NodeType) -> dict[str, Any]:
    """What a node gets besides its inputs. Our nodes take it from their context, but ComfyUI reports it on failures.

    Nodes in the V3 form get it another way, and it is not reported.
    """
    values = {"PROMPT": run.prompt, "EXTRA_PNGINFO": run.extra_data.get("extra_pnginfo")}
    return {name: values[kind] for name, kind in node_type.hidden.items() if isinstance(kind, str)}


def _failure_of(error: Exception, inputs: Mapping[str, Any]) -> dict[str, Any]:
    name, tips = _full_name(type(error)), ""
    if isinstance(error, OutOfMemory):
        name, tips = "torch.OutOfMemoryError", _OUT_OF_MEMORY_TIPS
    shown = {key: [_shown(value)] for key, value in inputs.items()}
    return _failure(name, f"{error}\n{tips}", traceback.format_tb(error.__traceback__), shown)


def _failure(kind: str, message: str, trace: list[str], inputs: object) -> dict[str, Any]:
    return {"exception_message": message, "exception_type": kind, "traceback": trace, "current_inputs": inputs}


def _full_name(kind: type) -> str:
    """The class with its module, except for built-in ones. Pillow's errors are defined where they are exported."""
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _shown(value: object) -> object:
    if isinstance(value, np.ndarray):
        return tensor_text(value)
    return value if value is None or isinstance(value, int | float | str) else str(value)
