"""Runs one workflow to its one end: submits it, follows it and, if that can help, runs it once more."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.connector import recovery, unsendable
from comfy_serverless.connector.collector import OutputCollector, frame_nodes_of
from comfy_serverless.connector.engine import Engine
from comfy_serverless.connector.fact_queue import ON_THE_WAY, FactQueue
from comfy_serverless.connector.facts import CancelAsked, Outcome, Timings
from comfy_serverless.connector.follower import PromptFollower
from comfy_serverless.connector.gpu_memory import PeakGauge
from comfy_serverless.connector.memory import gpu_bytes
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.own_folder import in_own_folder, writes_there_alone
from comfy_serverless.connector.partners import check_partner_nodes
from comfy_serverless.connector.progress import Progress
from comfy_serverless.connector.recovery import Recovery
from comfy_serverless.connector.refusals import explained
from comfy_serverless.connector.run_lines import RunLines
from comfy_serverless.connector.runner import PromptRunner
from comfy_serverless.connector.saving import save
from comfy_serverless.connector.submitted import EMBEDDED_LACKS
from comfy_serverless.errors import (
    Canceled,
    ComfyError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    InvalidWorkflow,
)
from comfy_serverless.files import OutputKind
from comfy_serverless.graph.nodes import SMALLEST_GRAPH, TEXT_JOINER, TEXT_REPLACER, loaders_in

if TYPE_CHECKING:
    from PIL import Image

    from comfy_serverless.connector.process import ComfyProcess

logger = logging.getLogger(__name__)

_SUBMIT_TIMEOUT_S = 30.0

WaitReady = Callable[[float | None, threading.Event], object]


@dataclass(frozen=True, slots=True)
class Execution:
    """The result of a workflow that ran.

    Attributes:
        prompt_id: its id in ComfyUI's history.
        outputs: every output of every node, in the order of the graph.
        warnings: what was not made although ComfyUI accepted the workflow, and why.
        timings: where the time of the attempt that counts went, by node too.
        cached_nodes: nodes that did not need to run again.
        attempts: 2 if it had to be run again, for instance after a crash or a lack of memory.
    """

    prompt_id: str
    outputs: tuple[Output, ...]
    warnings: tuple[str, ...]
    timings: Timings
    cached_nodes: tuple[str, ...]
    attempts: int

    @property
    def images(self) -> list[Image.Image]:
        """All its images, previews included, in the order of its nodes; read anew each time.

        Raises:
            OSError: one cannot be read, or is no image that Pillow knows.
        """
        from comfy_serverless.connector.pictures import picture_of  # Pillow takes a while to load

        return [picture_of(output.read()) for output in self.outputs if output.kind is OutputKind.IMAGE]

    def save(self, folder: str | Path) -> list[Path]:
        """Write every output into a folder, which is made if it is not there. No file is ever overwritten.

        Returns:
            Where each is, in their order: under its own name or, where that was taken, with the next free number.

        Raises:
            OSError: one cannot be read or written; those before it are there.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        return [self._saved(output, Path(folder)) for output in self.outputs]

    @staticmethod
    def _saved(output: Output, folder: Path) -> Path:
        with output.open() as source:
            return save(source, folder, output.name)

    def __repr__(self) -> str:
        made = ", ".join(output.name for output in self.outputs[:3]) + (", …" if len(self.outputs) > 3 else "")
        warned = f", {len(self.warnings)} warnings" if self.warnings else ""
        return f"<Execution: {len(self.outputs)} outputs ({made}) in {self.timings.total_ms / 1000:.1f} s{warned}>"

    def _repr_html_(self) -> str:
        """Its pictures, for notebooks."""
        from comfy_serverless.connector.notebooks import as_html

        return as_html(self.outputs, self.warnings)


@dataclass(frozen=True, slots=True)
class _Success:
    """A successful attempt, and what it lacks, if anything."""

    outcome: Outcome
    outputs: tuple[Output, ...]
    collector: OutputCollector
    attempt: int
    lost: str | None

    def size(self) -> int:
        return len(self.outputs)


class WorkflowRun:
    """A run of one workflow on one engine.

    Args:
        graph: checked, in API format; empty as long as `convert` has not made it.
        run_id: the prompt id of the first attempt; those of further attempts are derived from it.
        deadline: on the monotonic clock; None for none.
        execution_s: how long each attempt may execute; None for as long as the deadline allows.
        stall_s: how long the engine may show no sign of life.
        on_progress, on_output, on_log, extra_data, apart_as, recalls_as: as for `ComfyConnector.run`.
        notes: warnings about the graph itself, which come before those of the run.
        convert: makes the graph, and warnings about it, by what the engine declares; None if there is one already.
    """

    def __init__(
        self,
        graph: Mapping[str, Any],
        *,
        engine: Engine,
        run_id: str,
        deadline: float | None,
        stall_s: float,
        on_progress: Callable[[Progress], None] | None,
        on_output: Callable[[Output], None] | None,
        extra_data: Mapping[str, Any] | None,
        on_log: Callable[[Sequence[str]], None] | None = None,
        execution_s: float | None = None,
        apart_as: str | None = None,
        recalls_as: str = "",
        notes: Sequence[str] = (),
        convert: Callable[[], tuple[Mapping[str, Any], Sequence[str]]] | None = None,
    ) -> None:
        self.run_id = run_id
        self.graph = graph
        self._convert = convert
        self._engine = engine
        self._deadline = deadline
        self._execution_s = execution_s
        self._stall_s = stall_s
        self._on_progress = on_progress
        self._on_output = on_output
        self._lines = RunLines(run_id, on_log)
        self._extra_data = extra_data
        self._apart_as = apart_as
        self._recalls_as = recalls_as
        self._notes = notes
        self._frame_nodes = frame_nodes_of(graph)
        self._quiet = frozenset() if on_progress else ON_THE_WAY
        self._facts = FactQueue(self._quiet)
        #: Still set after an attempt has taken the fact out of its queue.
        self._canceled = threading.Event()

    def cancel(self) -> None:
        """Ask it to end. May be called from any thread, and from a signal handler."""
        self._canceled.set()
        self._facts.put(CancelAsked())

    def make_graph(self, wait_ready: WaitReady) -> None:
        """Convert what the editor saved, as soon as the engine answers. `wait_ready`: as for `execute`.

        Raises:
            UiFormatWorkflow: it cannot be converted.
            ComfyError: the engine does not answer, or the run must not wait any longer.
        """
        if self._convert is None:
            return
        self._prepare(wait_ready)
        try:
            self.graph, about = self._convert()
        except EngineUnavailable as error:
            # It died, or was replaced by a fresh one, just then.
            logger.info("what ComfyUI declares is asked for again: %s", error)
            self._prepare(self._engine.wait_ready)
            self.graph, about = self._convert()
        self._notes = (*self._notes, *about)
        self._frame_nodes = frame_nodes_of(self.graph)

    def execute(self, *, wait_ready: WaitReady) -> Execution:
        """Run the workflow in the caller's thread.

        Args:
            wait_ready: makes the engine ready for the first submit; is called with the seconds left, and with the
                event that ends the wait early.

        Raises:
            ComfyError: it failed; `.outputs` has what was made before the failure.
        """
        made: tuple[Output, ...] = ()
        timings: Timings | None = None
        kept: _Success | None = None
        attempt, was_refused = 1, False
        try:
            while True:
                # A second attempt is a test of its own; a TEST_PAYLOAD that crashes ComfyUI would go on forever.
                self._prepare(wait_ready if attempt == 1 else self._engine.wait_ready)
                outcome, collector, outputs = self._attempt(
                    attempt_id(self.run_id, attempt),
                    self.graph,
                    on_progress=self._on_progress,
                    on_output=self._on_output,
                )
                made, timings = max(outputs, made, key=len), outcome.timings
                if outcome.error is not None:
                    lost = None
                else:
                    lost = self._lost(outcome, collector)
                    success = _Success(outcome, outputs, collector, attempt, lost)
                    kept = success if kept is None or lost is None else max(success, kept, key=_Success.size)
                step = recovery.after(outcome, attempt=attempt, lost=lost)
                if step is Recovery.DELIVER:
                    return self._conclude(outcome, kept, attempt)
                logger.warning("running the workflow again (%s): %s", step.value, outcome.error or lost)
                if step is Recovery.FREE_MEMORY_AND_RETRY:
                    self._free_memory(unload_models=outcome.error is not None)
                attempt += 1
        except ComfyError as error:
            was_refused = isinstance(error, InvalidWorkflow)
            if kept is not None and kept.lost == recovery.FRAMES_ARE_MISSING and not isinstance(error, Canceled):
                return self._execution(kept, attempt)
            # Those of the first attempt, if the next one could not begin or made fewer.
            error.outputs, error.timings = made, timings
            raise
        finally:
            self._lines.end(self._engine.process, was_refused=was_refused)

    def _prepare(self, wait_ready: WaitReady) -> None:
        """Make the engine ready for a submit."""
        self._check()
        wait_ready(left_until(self._deadline), self._canceled)
        self._check()

    def _free_memory(self, *, unload_models: bool) -> None:
        """Have ComfyUI drop cached results, and unload models; return once no later prompt can meet them.

        ComfyUI only notes the wish, and looks at it after the prompt that it executes: one that is sent at once may
        still run on what was cached. Prompts run one after the other, so the end of any that is sent after the wish is
        the proof. If that fails, the next attempt meets what it has failed of.
        """
        self._engine.free_memory(unload_models=unload_models)
        prompt_id = str(uuid.uuid5(uuid.UUID(self.run_id), "free"))
        outcome, _, _ = self._attempt(prompt_id, SMALLEST_GRAPH, on_progress=None, on_output=None)
        if outcome.error is not None:
            logger.info("whether ComfyUI has freed its memory is not known: %s", outcome.error)
        self._engine.forget([prompt_id])

    def _attempt(
        self,
        prompt_id: str,
        graph: Mapping[str, Any],
        *,
        on_progress: Callable[[Progress], None] | None,
        on_output: Callable[[Output], None] | None,
    ) -> tuple[Outcome, OutputCollector, tuple[Output, ...]]:
        given, is_plain = graph, False
        with self._folders():
            if self._apart_as is not None:
                classes = {TEXT_JOINER, TEXT_REPLACER, *(str(node["class_type"]) for node in graph.values())}
                declarations = self._engine.declared(classes)
                check_partner_nodes(graph, declarations, self._extra_data)
                graph = in_own_folder(graph, self._apart_as, declarations, recalls_as=self._recalls_as)
                is_plain = writes_there_alone(graph, self._apart_as, declarations)
            files = self._engine.made_files(self._apart_as, owner=self._recalls_as, is_plain=is_plain)
            collector = OutputCollector(graph, files, on_progress=on_progress, on_output=on_output, given=given)
            try:
                outcome = self._follow(prompt_id, graph, collector)
                return outcome, collector, collector.collect(outcome)
            finally:
                files.leave()

    def _folders(self) -> AbstractContextManager[None]:
        """The engine's folders, if the run is apart: no other process that has them may run anything meanwhile."""
        own = self._engine.own_folders if self._apart_as is not None else None
        return own.hold(self._check) if own is not None else nullcontext()

    def _check(self) -> None:
        """Raise if the run must not wait any longer."""
        remaining = left_until(self._deadline)
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded("the job's deadline passed before it could be submitted")
        if self._canceled.is_set():
            raise Canceled("the job was canceled on request before it was submitted")

    def _follow(self, prompt_id: str, graph: Mapping[str, Any], collector: OutputCollector) -> Outcome:
        if self._engine.process is None:  # others may have run what is cached: nothing is known of it
            return self._followed(prompt_id, graph, collector, frozenset)
        classes = self._engine.silent_classes
        with classes.run(graph) as silent:
            outcome = self._followed(prompt_id, graph, collector, silent)
            classes.learn(graph, outcome)
            return outcome

    def _followed(
        self,
        prompt_id: str,
        graph: Mapping[str, Any],
        collector: OutputCollector,
        silent: Callable[[], Collection[str]],
    ) -> Outcome:
        # Each attempt has its own queue: unread facts of the previous attempt must not reach this one.
        self._facts = FactQueue(self._quiet)
        if self._canceled.is_set():
            self._facts.put(CancelAsked())
        follower = PromptFollower(
            prompt_id,
            graph,
            now=time.monotonic(),
            deadline=self._deadline,
            execution_s=self._execution_s,
            stall_s=self._stall_s,
            frame_nodes=self._frame_nodes,
            is_elsewhere=self._engine.process is None,
            silent=silent,
            given=self.graph,
        )
        process = self._engine.process
        has_own_gpu = process is not None and gpu_bytes(self._engine.stats)[1] > 0
        gauge = PeakGauge() if has_own_gpu else None
        runner = PromptRunner(
            client=self._engine.client,
            events=self._engine.events,
            process=process,
            follower=follower,
            facts=self._facts,
            watch=self._lines.begin(process, collector.see),
            submit_timeout_s=self._submit_timeout_s(),
            gauge=gauge,
        )
        outcome = runner.run(graph, extra_data=self._extra_data)
        outcome = replace(outcome, timings=self._told(outcome.timings, gauge))
        if outcome.error is not None and process is not None and process.starts == runner.generation:
            outcome = replace(outcome, error=self._with_reason(outcome.error, collector.last_begun, process))
        if outcome.engine_is_broken:
            self._engine.replace(runner.generation)
        return outcome

    def _with_reason(self, error: ComfyError, last_begun: str | None, process: ComfyProcess) -> ComfyError:
        """The error, or the one that says why ComfyUI has ended, if its own words do."""
        node = None if last_begun is None else self.graph.get(last_begun)
        if last_begun is None or node is None:
            return error
        lines = process.output.lines()
        return unsendable.explained(error, lines, node_id=last_begun, class_type=str(node["class_type"]))

    def _told(self, timings: Timings, gauge: PeakGauge | None) -> Timings:
        """The times of an attempt by the nodes of the graph that was given, without those that we have added."""
        node_ms = {node: took_ms for node, took_ms in timings.node_ms.items() if node in self.graph}
        loading_ms = sum(node_ms.get(node, 0) for node in loaders_in(self.graph))
        peak_mb = None if gauge is None else gauge.peak_mb
        spans = tuple(one for one in timings.node_spans if one.node_id in self.graph)
        return replace(timings, node_ms=node_ms, node_spans=spans, loading_ms=loading_ms, gpu_memory_peak_mb=peak_mb)

    def _submit_timeout_s(self) -> float:
        """Long enough for ComfyUI to check thousands of nodes, but not longer than the job has left."""
        remaining = left_until(self._deadline)
        return _SUBMIT_TIMEOUT_S if remaining is None else max(1.0, min(_SUBMIT_TIMEOUT_S, remaining))

    def _lost(self, outcome: Outcome, collector: OutputCollector) -> str | None:
        """What a success lacks, if anything."""
        if collector.are_files_gone:
            return recovery.FILES_ARE_GONE
        return recovery.FRAMES_ARE_MISSING if self._frame_nodes and outcome.events_missed else None

    def _conclude(self, outcome: Outcome, kept: _Success | None, attempts: int) -> Execution:
        if outcome.error is not None:
            raise self._explained(outcome.error)
        assert kept is not None  # noqa: S101  (every success is kept)
        return self._execution(kept, attempts)

    def _execution(self, success: _Success, attempts: int) -> Execution:
        success.collector.announce_rest()
        outcome = success.outcome
        lost = () if success.lost is None else (success.lost,)
        warnings = (*self._notes, *outcome.warnings, *success.collector.warnings, *lost)
        prompt_id = attempt_id(self.run_id, success.attempt)
        cached_nodes = tuple(node for node in outcome.cached_nodes if node in self.graph)
        return Execution(prompt_id, success.outputs, warnings, outcome.timings, cached_nodes, attempts)

    def _explained(self, error: ComfyError) -> ComfyError:
        """Add what ComfyUI's own words lack: every problem at once, suggestions, and where the workflow would run."""
        if not isinstance(error, InvalidWorkflow) or "type" not in error.details.get("error", {}):
            return error
        declarations = self._engine.declarations(str(node.get("class_type")) for node in self.graph.values())
        unknown = any(declaration is None for declaration in declarations.values())
        classes, lost = (self._engine.all_declared.classes(), self._engine.lost_packs()) if unknown else ((), ())
        info = (self._extra_data or {}).get("extra_pnginfo")
        saved = info.get("workflow") if isinstance(info, Mapping) else None
        error = explained(error, self.graph, declarations, classes, lost, saved)
        if error.details["unknown_nodes"] and self._engine.is_embedded:
            error.message += f". {EMBEDDED_LACKS}"
            error.args = (error.message,)
        return error


def checked_prompt_id(prompt_id: str | None) -> str:
    """Check the id: ComfyUI 0.25 and later accept canonical lower-case UUIDs only."""
    if prompt_id is None:
        return str(uuid.uuid4())
    try:
        canonical = str(uuid.UUID(prompt_id))
    except ValueError:
        canonical = ""
    if canonical != prompt_id:
        raise InvalidRequest(f"prompt_id {prompt_id!r} is not a lower-case UUID")
    return prompt_id


def attempt_id(run_id: str, attempt: int) -> str:
    """The prompt id of the n-th attempt of a run, counted from 1. Each attempt has its own."""
    return run_id if attempt == 1 else str(uuid.uuid5(uuid.UUID(run_id), str(attempt)))


def deadline_in(seconds: float | None) -> float | None:
    """A point on the monotonic clock; None for never."""
    return None if seconds is None else time.monotonic() + seconds


def left_until(deadline: float | None) -> float | None:
    """Seconds until a deadline; None for never."""
    return None if deadline is None else deadline - time.monotonic()
