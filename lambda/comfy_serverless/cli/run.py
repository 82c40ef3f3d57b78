"""`comfy-serverless run`: runs a workflow on this machine and saves everything it makes."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from comfy_serverless.cli.habits import add_command, seconds, size_in_words
from comfy_serverless.cli.stack import client_for
from comfy_serverless.connector.connector import ComfyConnector
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.progress import Progress as Snapshot
from comfy_serverless.connector.run import Execution
from comfy_serverless.errors import ComfyError, DeliveryFailed, InvalidRequest, MissingAsset
from comfy_serverless.graph import workflow as workflow_module
from comfy_serverless.settings import Settings
from comfy_serverless.worker.inputs.plan import plan_inputs

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.worker.inputs.fetcher import PreparedInputs

_EXAMPLES = (
    "comfy-serverless run workflow.json",
    'comfy-serverless run workflow.json --set 3.seed=42 --set "KSampler.steps=20" --set "6.text=a red fox"',
    "comfy-serverless run edit.json --input 10.image=photo.png --out out/",
    "comfy-serverless run inpaint.json --input 10.image=photo.png --input 10.mask=mask.png",
    "comfy-serverless run edit.json --input 10.image=first.png --input 10.image=second.png",
)
_NOTES = """\
An input is named by node id, class or title: 3.seed, KSampler.seed, "My sampler.seed".
Which ComfyUI runs it: COMFYUI_URL (one that runs), COMFYUI_DIR (a checkout; COMFYUI_PYTHON, COMFYUI_ARGS="--cpu"),
API_COMMAND_LINE, or ComfyUI/ in this folder. Without any of them the embedded engine runs it: it needs no GPU,
executes ComfyUI's model-free nodes for real, and paints a stand-in for text-to-image.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run` to the commands of the command line."""
    parser = add_command(
        commands,
        "run",
        summary="run a workflow and save everything it makes",
        description="Run a workflow exported by ComfyUI (Workflow > Export (API)) and save everything it makes.",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    parser.add_argument("workflow", type=Path, help="the exported workflow, a JSON file")
    parser.add_argument(
        "--set", action="append", default=[], type=_assignment, metavar="NODE.INPUT=VALUE", help="set an input (repeat)"
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=_assignment,
        metavar="NODE.INPUT=FILE",
        help="give an input a file of this machine (repeat; for the same input: a batch of images)",
    )
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where results go (default: out/)")
    parser.add_argument("--deadline", type=seconds, metavar="SECONDS", help="interrupt it after this long")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the workflow and save its outputs, also those made before a failure. Returns the exit code."""
    graph = workflow_module.check_format(_load(options.workflow))
    graph = workflow_module.apply_set(graph, {address: _value(text) for address, text in options.set})
    seeds: Mapping[str, int]
    graph, seeds = workflow_module.draw_seeds(graph)
    files = _files(options.input)
    wanted = plan_inputs(graph, files).wanted
    _check_files(files)
    s3 = client_for(wanted)
    _check_folder(options.out)

    console = Console(stderr=True)
    with console.status("Starting ComfyUI"):
        connector = ComfyConnector()
    with ExitStack() as cleanup:
        cleanup.callback(connector.kill_api)
        if wanted:
            prepared = _with_files(connector, s3, graph, files, deadline_s=options.deadline)
            cleanup.callback(prepared.release)
            prepared.show(math.inf)
            graph = prepared.graph
        try:
            execution = _execute(connector, graph, console, deadline_s=options.deadline)
        except ComfyError as error:
            _keep(error.outputs, options.out)
            raise
        try:
            saved: list[Path] = []
            for output in execution.outputs:
                saved.append(_write(output, options.out, taken=saved))
        except OSError as error:
            raise DeliveryFailed(f"the results could not be saved in {options.out}: {error}") from error
    _report(execution, saved, seeds, engine=connector.engine, as_json=options.json)
    return 0


def _assignment(text: str) -> tuple[str, str]:
    address, separator, value = text.partition("=")
    if not separator or "." not in address:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NODE.INPUT=VALUE, e.g. 3.seed=42")
    return address, value


def _load(path: Path) -> object:
    try:
        return workflow_module.load_payload(path)
    except OSError as error:
        raise InvalidRequest(f"the workflow {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidRequest(f"the workflow {path} is not JSON: {error}") from error


def _value(text: str) -> Any:  # noqa: ANN401
    """Numbers, booleans and lists as JSON; everything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _files(assignments: Sequence[tuple[str, str]]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for address, text in assignments:
        files.setdefault(address, []).append(Path(text))
    return files


def _check_files(files: Mapping[str, Sequence[Path]]) -> None:
    """Check that every file is there, before ComfyUI starts."""
    for address, paths in files.items():
        for path in paths:
            if not path.is_file():
                raise MissingAsset(f"--input {address}={path}: there is no such file")


def _with_files(
    connector: ComfyConnector,
    s3: S3Client | None,
    graph: Mapping[str, Any],
    files: Mapping[str, Sequence[Path]],
    *,
    deadline_s: float | None,
) -> PreparedInputs:
    """The graph with the names of its inputs in it, which are ready for ComfyUI's input folder."""
    # Most runs have no files, and do without the libraries that read web addresses.
    from comfy_serverless.sandbox.sandbox import Sandbox
    from comfy_serverless.worker.inputs.fetcher import InputFetcher

    settings = Settings.from_environment()
    deadline = time.monotonic() + (deadline_s or settings.default_deadline_s)
    with closing(Sandbox()) as sandbox:
        fetcher = InputFetcher(settings=settings, s3=s3, connector=connector, sandbox=sandbox)
        return fetcher.place(graph, files, job_id="", deadline=deadline)


def _check_folder(folder: Path) -> None:
    """Make the folder of the results, before ComfyUI starts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"--out {folder}: the folder cannot be made: {error.strerror}") from error


def _keep(outputs: Sequence[Output], folder: Path) -> None:
    """Save the outputs made before a failure, as far as they can be read; the failure itself is raised after that."""
    saved: list[Path] = []
    for output in outputs:
        try:
            saved.append(_write(output, folder, taken=saved))
        except OSError as error:
            print(f"not saved: {output.name}: {error}", file=sys.stderr)
        else:
            print(f"made before the failure: {saved[-1]}", file=sys.stderr)


def _execute(
    connector: ComfyConnector, graph: Mapping[str, Any], console: Console, *, deadline_s: float | None
) -> Execution:
    prompt_id = str(uuid.uuid4())
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar, _ctrl_c_cancels(connector, prompt_id):
        task = bar.add_task("queued", total=1.0)

        def show(snapshot: Snapshot) -> None:
            bar.update(task, completed=snapshot.value, description=(snapshot.message or "running")[:32])

        return connector.run(graph, deadline_s=deadline_s, on_progress=show, prompt_id=prompt_id)


@contextmanager
def _ctrl_c_cancels(connector: ComfyConnector, prompt_id: str) -> Iterator[None]:
    """The first Ctrl-C cancels the prompt; the second one ends this process."""

    def cancel(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        connector.cancel(prompt_id)

    previous = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _write(output: Output, folder: Path, *, taken: Sequence[Path]) -> Path:
    """Write an output; later ones of the same name go into a folder named after their node."""
    name = Path(output.name).name
    target = folder / name
    if target in taken:
        target = folder / f"node_{Path(output.node_id).name}_{output.index}" / name
        target.parent.mkdir(exist_ok=True)
    with output.open() as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
    return target


def _report(
    execution: Execution, saved: Sequence[Path], seeds: Mapping[str, int], *, engine: str, as_json: bool
) -> None:
    if as_json:
        print(json.dumps(_as_json(execution, saved, seeds, engine=engine), indent=2))
        return
    console = Console(highlight=False)
    table = Table("node", "output", "type", "size", box=None, pad_edge=False)
    for output, path in zip(execution.outputs, saved, strict=True):
        table.add_row(
            f"{output.node_id} {output.title}"[:32], str(path), output.content_type, size_in_words(path.stat().st_size)
        )
    console.print(table)
    for warning in execution.warnings:
        console.print(f"[yellow]warning[/]: {warning}")
    for address, seed in seeds.items():
        console.print(f"{address} = {seed} (drawn)")
    took_s = execution.timings.total_ms / 1000
    console.print(f"{len(saved)} output{'' if len(saved) == 1 else 's'} in {took_s:.2f} s by {engine}")


def _as_json(
    execution: Execution, saved: Sequence[Path], seeds: Mapping[str, int], *, engine: str
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
            for output, path in zip(execution.outputs, saved, strict=True)
        ],
        "warnings": list(execution.warnings),
        "seeds": dict(seeds),
        "total_ms": execution.timings.total_ms,
    }
