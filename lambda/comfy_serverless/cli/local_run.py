"""Runs a workflow on this machine, for `comfy-serverless run`.

file ──► graph ──► addresses and files are looked for ──► ComfyUI starts ──► values by what it declares ──► run
  └─► of the editor: ComfyUI starts, and what it declares makes the graph           outputs saved ◄──┘
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from comfy_serverless.cli.assignments import classes_of, put, put_texts
from comfy_serverless.cli.converting import converted, supplied_by
from comfy_serverless.cli.documents import Document, read_document
from comfy_serverless.cli.habits import one_line, print_json, print_table, say, size_in_words
from comfy_serverless.cli.pace import Memory, Pace
from comfy_serverless.cli.paths import local_path
from comfy_serverless.cli.progress_line import ProgressLine
from comfy_serverless.cli.stack import client_for
from comfy_serverless.cli.wishes import Files, check_files, check_folder, wishes_of
from comfy_serverless.connector.connector import ComfyConnector
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.process import engine_logger
from comfy_serverless.connector.progress import Progress as Snapshot
from comfy_serverless.connector.run import Execution
from comfy_serverless.connector.saving import save
from comfy_serverless.errors import ComfyError, DeliveryFailed, InvalidRequest
from comfy_serverless.graph.workflow import draw_seeds
from comfy_serverless.settings import Settings
from comfy_serverless.worker.inputs.plan import plan_inputs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.worker.inputs.fetcher import PreparedInputs


def run(options: argparse.Namespace) -> int:
    """Run the workflow and save its outputs, also those made before a failure. Returns the exit code."""
    document = read_document(options.workflow)
    settings = Settings.from_environment()
    with ExitStack() as cleanup:
        engine = cache(lambda: cleanup.enter_context(started(options.log, settings)))
        if document.editors:
            check_folder(options.out)
            supplied = supplied_by(document, options.assignments)
            document = converted(
                document, engine().convert(document.editors, supplied=supplied, seed=str(uuid.uuid4()))
            )
        return run_document(document, options, engine, cleanup)


def run_document(
    document: Document, options: argparse.Namespace, engine: Callable[[], ComfyConnector], cleanup: ExitStack
) -> int:
    """The same for a document that has a graph. `engine` starts ComfyUI when it is called first."""
    wishes = wishes_of(document, options.assignments)
    if document.left_out:
        wishes.note(f"the request's {', '.join(document.left_out)} mean nothing for a run on this machine")
    graph, values, files = wishes.graph, wishes.values, wishes.files
    wanted = plan_inputs(put_texts(graph, values), files).wanted
    check_files(files)
    s3 = client_for(wanted)
    check_folder(options.out)
    deadline_s = document.deadline_s if options.deadline is None else options.deadline
    connector = engine()
    graph = put(graph, values, connector.declarations(classes_of(graph, values)))
    graph, seeds = draw_seeds(graph)
    if plan_inputs(graph, files).wanted:
        prepared = _with_files(connector, s3, graph, files, deadline_s=deadline_s)
        cleanup.callback(prepared.release)
        prepared.show(math.inf)
        graph = prepared.graph
    try:
        execution = _execute(connector, graph, document.extra_data, deadline_s=deadline_s)
    except ComfyError as error:
        _keep(error.outputs, options.out)
        raise
    saved = _save_all(execution.outputs, options.out)
    _report(execution, saved, seeds, wishes.notes, engine=connector.engine, as_json=options.json)
    _check_saved(saved, options.out)
    return 0


@contextmanager
def started(log: str | None, settings: Settings) -> Iterator[ComfyConnector]:
    """A ComfyUI, started and ended here. `log`: the file for what it logs, `-` for stderr.

    Raises:
        EngineUnavailable: it did not start.
        InvalidRequest: the file cannot be written.
    """
    with _log_to(log, settings):
        with Console(stderr=True).status("Starting ComfyUI"):
            connector = ComfyConnector(settings=settings)
        try:
            yield connector
        finally:
            connector.kill_api()


def _with_files(
    connector: ComfyConnector, s3: S3Client | None, graph: Mapping[str, Any], files: Files, *, deadline_s: float | None
) -> PreparedInputs:
    """The graph with the names of its inputs in it, which are ready for ComfyUI's input folder."""
    # Most runs have no files, and do without the libraries that read web addresses.
    from comfy_serverless.sandbox.sandbox import Sandbox
    from comfy_serverless.worker.inputs.fetcher import InputFetcher

    settings = Settings.from_environment()
    deadline = time.monotonic() + (settings.default_deadline_s if deadline_s is None else deadline_s)
    with closing(Sandbox()) as sandbox:
        fetcher = InputFetcher(settings=settings, s3=s3, connector=connector, sandbox=sandbox)
        return fetcher.place(graph, files, job_id="", deadline=deadline)


@contextmanager
def _log_to(name: str | None, settings: Settings) -> Iterator[None]:
    """Write what ComfyUI logs into a file, or to stderr for `-`."""
    if name is None:
        yield
        return
    if settings.comfyui_url:
        raise InvalidRequest("--log: the ComfyUI of COMFYUI_URL was started elsewhere, and its log is there.")
    try:
        handler = (
            logging.StreamHandler(sys.stderr)
            if name == "-"
            else logging.FileHandler(local_path(name), encoding="utf-8")
        )
    except OSError as error:
        raise InvalidRequest(f"--log {name}: the file cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = engine_logger.level, engine_logger.propagate
    engine_logger.addHandler(handler)
    engine_logger.setLevel(logging.DEBUG)
    engine_logger.propagate = False
    try:
        yield
    finally:
        engine_logger.removeHandler(handler)
        engine_logger.level, engine_logger.propagate = before
        handler.close()


def _execute(
    connector: ComfyConnector, graph: Mapping[str, Any], extra_data: Mapping[str, Any], *, deadline_s: float | None
) -> Execution:
    prompt_id = str(uuid.uuid4())
    memory = Memory(graph, engine=connector.engine)
    pace = Pace(graph, memory.read())
    with ProgressLine("queued") as line, _ctrl_c_cancels(connector, prompt_id):

        def show(snapshot: Snapshot) -> None:
            estimate = pace.see(snapshot, time.monotonic())
            line.show(estimate.fraction, snapshot.message or "running", left_s=estimate.left_s)

        execution = connector.run(
            graph, deadline_s=deadline_s, on_progress=show, prompt_id=prompt_id, extra_data=extra_data or None
        )
    memory.write(pace.end(time.monotonic()))
    return execution


@contextmanager
def _ctrl_c_cancels(connector: ComfyConnector, prompt_id: str) -> Iterator[None]:
    """The first Ctrl-C cancels the prompt; the second one ends this process."""

    def cancel(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        # Not here: this may come while the main thread holds a lock of the connector.
        threading.Thread(target=connector.cancel, args=(prompt_id,), name="cancel", daemon=True).start()

    previous = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@dataclass(frozen=True, slots=True)
class _Saved:
    """An output, and the file it became or the reason why it is none."""

    output: Output
    path: Path | None
    problem: str = ""


def _save_all(outputs: Sequence[Output], folder: Path) -> list[_Saved]:
    """Save all outputs; one that cannot be saved costs the others nothing."""
    saved = []
    for output in outputs:
        try:
            with output.open() as source:
                saved.append(_Saved(output, save(source, folder, output.name)))
        except (OSError, ComfyError) as error:
            saved.append(_Saved(output, None, str(error)))
    return saved


def _keep(outputs: Sequence[Output], folder: Path) -> None:
    """Save the outputs made before a failure, as far as they can be read; the failure itself is raised after that."""
    for one in _save_all(outputs, folder):
        if one.path is None:
            say(one_line(f"not saved: {one.output.name}: {one.problem}"))
        else:
            say(one_line(f"made before the failure: {one.path}"))


def _check_saved(saved: Sequence[_Saved], folder: Path) -> None:
    """Raise DeliveryFailed if an output could not be saved; the others have been."""
    problems = {f"{one.output.name} of node {one.output.node_id}": one.problem for one in saved if one.path is None}
    if problems:
        listing = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        raise DeliveryFailed(
            f"{len(problems)} of {len(saved)} outputs could not be saved in {folder}: {listing}",
            details={"not_saved": problems, "saved": [str(one.path) for one in saved if one.path is not None]},
        )


def _report(
    execution: Execution,
    saved: Sequence[_Saved],
    seeds: Mapping[str, int],
    notes: Sequence[str],
    *,
    engine: str,
    as_json: bool,
) -> None:
    """Say what was made. As JSON only if all of it was saved: else the error is the one document."""
    whole = [(one.output, one.path) for one in saved if one.path is not None]
    if as_json:
        if len(whole) == len(saved):
            print_json(_as_json(execution, whole, seeds, notes, engine=engine))
        return
    rows = [
        [f"{output.node_id} {output.title}", str(path), output.content_type, size_in_words(path.stat().st_size)]
        for output, path in whole
    ]
    if rows:
        print_table(("node", "output", "type", "size"), rows, folds=("node", "output"), right=("size",))
    for warning in execution.warnings:
        print(one_line(f"warning: {warning}"))
    for address, seed in seeds.items():
        print(f"{one_line(address)} = {seed} (drawn)")
    took_s = execution.timings.total_ms / 1000
    print(f"{len(whole)} output{'' if len(whole) == 1 else 's'} in {took_s:.2f} s by {one_line(engine)}", flush=True)


def _as_json(
    execution: Execution,
    saved: Sequence[tuple[Output, Path]],
    seeds: Mapping[str, int],
    notes: Sequence[str],
    *,
    engine: str,
) -> dict[str, object]:
    return {
        "prompt_id": execution.prompt_id,
        "engine": engine,
        "outputs": [
            {
                "node_id": output.node_id,
                "class_type": output.class_type,
                "title": output.title,
                "index": output.index,
                "type": output.kind.value,
                "content_type": output.content_type,
                "size_bytes": path.stat().st_size,
                "path": str(path),
            }
            for output, path in saved
        ],
        "warnings": [*notes, *execution.warnings],
        "seeds": dict(seeds),
        "total_ms": execution.timings.total_ms,
    }
