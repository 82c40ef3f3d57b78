"""`comfy-serverless batch`: manifests on the deployed stack, from the drop to the report.

The libraries for AWS are loaded only when a command runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.orders import Order
from comfy_serverless.cli.habits import add_command, print_json
from comfy_serverless.cli.stack import STACK_VARIABLE, Stack, explained, manifest_key
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.moments import moment_text

if TYPE_CHECKING:
    from comfy_serverless.batches.store import Batch

#: The pause between two checks of `--watch`.
WATCH_EVERY_S = 5.0
#: The longest time from the drop until the batch is known; mostly it is a second or two.
KNOWN_WITHIN_S = 120.0
#: The report has all bad lines.
BAD_LINES_SHOWN = 3
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")

_EXAMPLES = {
    "submit": (
        "export COMFY_STACK=comfy-serverless       or --stack with each command",
        "comfy-serverless batch submit catalogue.jsonl --watch",
    ),
    "status": ("comfy-serverless batch status catalogue", "comfy-serverless batch status catalogue --watch"),
    "pause": ("comfy-serverless batch pause catalogue",),
    "resume": ("comfy-serverless batch resume catalogue",),
    "cancel": ("comfy-serverless batch cancel catalogue",),
    "retry": ("comfy-serverless batch retry catalogue    the lines that failed, as a separate batch: catalogue-again",),
}
_NOTES = """\
A manifest has a job request in each line: {"workflow": "thumbnail", "set": {"1.width": 64}}. The same line is the
same job, in whichever manifest. Bad lines are reported, and cost the others nothing.
When all jobs have ended the output bucket has batches/NAME-….report.json (counts, first failures), .report.csv (every
line) and .failed.jsonl (what can be dropped again).
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `batch` to the commands of the command line."""
    batch = add_command(
        commands,
        "batch",
        summary="submit manifests of many jobs, follow, pause, cancel and repeat them",
        description="Batches of jobs on the deployed stack.",
        examples=[line for lines in _EXAMPLES.values() for line in lines],
        notes=_NOTES,
        prints_data=False,
    )
    actions = batch.add_subparsers(dest="action", required=True, metavar="ACTION")
    submit = _action(actions, "submit", "drop a manifest into the input bucket")
    submit.add_argument("file", type=Path, metavar="FILE", help="a .jsonl file with a job request in each line")
    submit.add_argument("--name", help="what the batch is called (default: the file's name)")
    submit.add_argument("--watch", action="store_true", help="follow it to its end")
    for name, description in {
        "status": "how far a batch is",
        "pause": "begin no more jobs of it",
        "resume": "go on where it was",
        "cancel": "end it; running jobs finish",
        "retry": "drop the lines that failed as a new batch, NAME-again",
    }.items():
        action = _action(actions, name, description)
        action.add_argument("name", metavar="NAME", help="what it is called")
        if name in {"status", "retry"}:
            action.add_argument("--watch", action="store_true", help="follow it to its end")
    batch.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit code. A `ComfyError` says in its message what to do."""
    with explained(options):
        stack = Stack.of(options.stack)
        match options.action:
            case "submit":
                _submit(stack, options.file, options.name or options.file.stem, options)
            case "status":
                _show(stack, stack.find(options.name), options)
            case "retry":
                _retry(stack, options.name, options)
            case action:
                _change(stack, options.name, action)
    return 0


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str
) -> argparse.ArgumentParser:
    action = add_command(actions, name, summary=description, examples=_EXAMPLES[name])
    stack = os.environ.get(STACK_VARIABLE)
    action.add_argument(
        "--stack",
        metavar="NAME",
        default=stack,
        required=stack is None,
        help=f"the deployed stack (default: the environment variable {STACK_VARIABLE})",
    )
    return action


def _submit(stack: Stack, file: Path, name: str, options: argparse.Namespace) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be a batch's name: up to 40 letters, digits, _ and -; give --name.")
    if not file.is_file():
        raise NotFound(f"there is no file {file}.")
    before, since = stack.newest(name), moment_text(datetime.now(UTC))
    key = manifest_key(name)
    bar = (TextColumn("uploading"), BarColumn(), TaskProgressColumn())
    with Progress(*bar, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("uploading", total=file.stat().st_size)
        stack.s3.upload_file(str(file), stack.input_bucket, key, Callback=lambda count: progress.advance(task, count))
    print(
        f"s3://{stack.input_bucket}/{key} is there: `comfy-serverless batch status {name}` follows it.", file=sys.stderr
    )
    if options.watch:
        _show(stack, _dropped_batch(stack, name, before=before, since=since), options)


def _dropped_batch(stack: Stack, name: str, *, before: Batch | None, since: str) -> Batch:
    """The batch of the manifest that was just dropped: a new one, or the one that this very manifest is already.

    Args:
        before: the newest batch of this name before the drop.
        since: the time before the drop.
    """
    if (standing := stack.batch_of_manifest(name)) is not None and standing.created_at < since:
        print(
            f"This very manifest is the batch {standing.id} already, so no new one begins. To run its failed lines "
            f"again: `comfy-serverless batch retry {name}`.",
            file=sys.stderr,
        )
        return standing
    end = time.monotonic() + KNOWN_WITHIN_S
    while time.monotonic() < end:
        batch = stack.newest(name)
        if batch is not None and (before is None or batch.id != before.id):
            return batch
        time.sleep(1.0)
    raise NotFound(
        f"the batch {name} is dropped, but after {KNOWN_WITHIN_S:g} s it is not known yet: see the log of `ingest`, or "
        f"ask again with `comfy-serverless batch status {name}`."
    )


def _show(stack: Stack, batch: Batch, options: argparse.Namespace) -> None:
    if options.watch:
        batch = _watch(stack, batch)
    facts = _facts(stack, batch)
    if options.json:
        print_json(facts)
        return
    for title, value in facts.items():
        match value:
            case None | []:
                continue
            case list():
                print(*(f"{title:<10} {line}" for line in value), sep="\n")
            case dict():
                print(f"{title:<10} {', '.join(f'{count:,} {name}' for name, count in value.items())}")
            case _:
                print(f"{title:<10} {value}")


def _facts(stack: Stack, batch: Batch) -> dict[str, Any]:
    ranges = stack.batches.ranges(batch.id)
    size = max(1, batch.size_bytes)
    bad = list(islice(stack.batches.bad_lines(batch.id), BAD_LINES_SHOWN))
    return {
        "batch": batch.id,
        "status": batch.status.value,
        "lines": sum(part.lines for part in ranges),
        "bad": sum(part.bad for part in ranges),
        "bad line": [
            f"{f'at line {one.line:,}' if one.line else f'at byte {one.offset:,}'}: {one.message}" for one in bad
        ],
        "read": f"{100 * sum(part.offset - part.start for part in ranges) / size:.0f} %" if ranges else "100 %",
        "ended": f"{100 * min(batch.settled, size) / size:.0f} %" if batch.size_bytes else "100 %",
        "jobs": _counts(stack, batch),
        "report": batch.report,
    }


def _counts(stack: Stack, batch: Batch) -> dict[str, int] | None:
    """How many jobs ended how; None before the report is there."""
    if batch.report is None:
        return None
    bucket, key = S3Address.parse(batch.report)
    report = json.loads(stack.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    counts: dict[str, int] = report["statuses"]
    return counts


def _watch(stack: Stack, batch: Batch) -> Batch:
    """Follow a batch, by the part of its lines whose jobs have ended, until its report is there."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(batch.status.value, total=max(1, batch.size_bytes))
        while batch.report is None:
            progress.update(task, completed=batch.settled, description=batch.status.value)
            stack.send(Order(batch_id=batch.id))  # else the caretaker does so each minute
            time.sleep(WATCH_EVERY_S)
            batch = stack.batches.get(batch.id) or batch
        progress.update(task, completed=max(1, batch.size_bytes), description=batch.status.value)
    return batch


def _change(stack: Stack, name: str, action: str) -> None:
    from comfy_serverless.batches.store import BatchStatus

    wanted, was = {
        "pause": (BatchStatus.PAUSED, [BatchStatus.RUNNING]),
        "resume": (BatchStatus.RUNNING, [BatchStatus.PAUSED]),
        "cancel": (BatchStatus.CANCELED, [BatchStatus.RUNNING, BatchStatus.PAUSED]),
    }[action]
    batch = stack.find(name)
    if not stack.batches.set_status(batch.id, wanted, was=was):
        newest = stack.batches.get(batch.id) or batch
        raise InvalidRequest(f"the batch {name} cannot be {wanted.value} now: it is {newest.status.value}.")
    is_resume = action == "resume"
    stack.send(Order(batch_id=batch.id, start=0 if is_resume else None, is_resume=is_resume))
    print(f"The batch {name} is {wanted.value}.", file=sys.stderr)


def _retry(stack: Stack, name: str, options: argparse.Namespace) -> None:
    batch = stack.find(name)
    if batch.report is None:
        raise InvalidRequest(f"the batch {name} has not ended: what has failed is known when its report is there.")
    bucket, key = S3Address.parse(batch.report)
    failed = stack.s3.get_object(Bucket=bucket, Key=key.removesuffix(".report.json") + ".failed.jsonl")
    if failed["ContentLength"] == 0:
        print(f"Nothing of the batch {name} has failed.", file=sys.stderr)
        return
    again = f"{name}-again"
    before, since = stack.newest(again), moment_text(datetime.now(UTC))
    stack.s3.upload_fileobj(failed["Body"], stack.input_bucket, manifest_key(again))
    print(f"The failed lines of {name} are the batch {again}.", file=sys.stderr)
    if options.watch:
        _show(stack, _dropped_batch(stack, again, before=before, since=since), options)
