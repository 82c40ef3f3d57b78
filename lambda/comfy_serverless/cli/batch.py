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
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from comfy_serverless.batches.orders import Order
from comfy_serverless.cli.stack import batch_store, explained, outputs_of, s3, sqs
from comfy_serverless.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

    from comfy_serverless.batches.store import Batch, BatchStore

#: Between two looks of `--watch`, in seconds.
WATCH_EVERY_S = 5.0
#: From the drop until the batch is known, mostly a second or two.
KNOWN_WITHIN_S = 120.0
#: The report has all of them.
BAD_LINES_SHOWN = 3
#: The environment variable that names the stack.
STACK_VARIABLE = "COMFY_STACK"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")

_EPILOG = """\
examples:
  export COMFY_STACK=comfy-serverless       or --stack with each command
  comfy-serverless batch submit catalogue.jsonl --watch
  comfy-serverless batch status catalogue
  comfy-serverless batch pause catalogue    (resume, cancel)
  comfy-serverless batch retry catalogue    the lines that failed, as a batch of its own: catalogue-again

A manifest has a job request in each line: {"workflow": "thumbnail", "set": {"1.width": 64}}. The same line is the
same job, in whichever manifest. Bad lines are reported, and cost the others nothing.
When all jobs have ended the output bucket has batches/NAME-….report.json (counts, first failures), .report.csv (every
line) and .failed.jsonl (what can be dropped again).

exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `batch` to the commands of the command line."""
    batch = commands.add_parser(
        "batch",
        help="submit manifests of many jobs, follow, pause, cancel and repeat them",
        description="Batches of jobs on the deployed stack.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where the batches of a stack are."""

    batches: BatchStore
    s3: S3Client
    sqs: SQSClient
    input_bucket: str
    manifest_queue_url: str

    @classmethod
    def of(cls, stack: str) -> Place:
        """Find them by the stack's outputs.

        Raises:
            NotFound: it has none of these.
        """
        outputs = outputs_of(stack, "JobsTableName", "InputBucketName", "ManifestQueueUrl")
        return cls(
            batch_store(outputs["JobsTableName"]), s3(), sqs(), outputs["InputBucketName"], outputs["ManifestQueueUrl"]
        )

    def tell(self, order: Order) -> None:
        """Have `ingest` do something with a batch."""
        self.sqs.send_message(QueueUrl=self.manifest_queue_url, MessageBody=order.to_text())

    def newest(self, name: str) -> Batch | None:
        """The newest batch of a name."""
        return self.batches.newest(f"s3://{self.input_bucket}/batches/{name}.jsonl")

    def find(self, name: str) -> Batch:
        """The newest batch of a name.

        Raises:
            NotFound: there is none (yet).
        """
        batch = self.newest(name)
        if batch is None:
            raise NotFound(f"there is no batch {name!r}: it takes a moment from the drop until it is known.")
        return batch


def run(options: argparse.Namespace) -> int:
    """Do what was asked. Answers the exit code.

    Raises:
        ComfyError: it could not be done; the message says what to do.
    """
    with explained(options):
        place = Place.of(options.stack)
        match options.action:
            case "submit":
                _submit(place, options.file, options.name or options.file.stem, options)
            case "status":
                _show(place, place.find(options.name), options)
            case "retry":
                _retry(place, options.name, options)
            case action:
                _change(place, options.name, action)
    return 0


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str
) -> argparse.ArgumentParser:
    action = actions.add_parser(name, help=description, description=f"{description[0].upper()}{description[1:]}.")
    stack = os.environ.get(STACK_VARIABLE)
    action.add_argument(
        "--stack",
        metavar="NAME",
        default=stack,
        required=stack is None,
        help=f"the deployed stack (default: the environment variable {STACK_VARIABLE})",
    )
    action.add_argument("--json", action="store_true", help="print JSON")
    return action


def _submit(place: Place, file: Path, name: str, options: argparse.Namespace) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be a batch's name: up to 40 letters, digits, _ and -; give --name.")
    if not file.is_file():
        raise NotFound(f"there is no file {file}.")
    size_bytes = file.stat().st_size
    before = place.newest(name)
    bar = (TextColumn("uploading"), BarColumn(), TaskProgressColumn())
    with Progress(*bar, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("uploading", total=size_bytes)
        place.s3.upload_file(
            str(file),
            place.input_bucket,
            f"batches/{name}.jsonl",
            Callback=lambda count: progress.advance(task, count),
        )
    _say(f"s3://{place.input_bucket}/batches/{name}.jsonl is there: `comfy-serverless batch status {name}` follows it.")
    if options.watch:
        _show(place, _wait_until_known(place, name, before=before), options)


def _wait_until_known(place: Place, name: str, *, before: Batch | None) -> Batch:
    """The batch that was just dropped, not one of that name from before.

    Raises:
        NotFound: it does not become known.
    """
    end = time.monotonic() + KNOWN_WITHIN_S
    while time.monotonic() < end:
        batch = place.newest(name)
        if batch is not None and (before is None or batch.id != before.id):
            return batch
        time.sleep(1.0)
    raise NotFound(
        f"the batch {name} is dropped, but after {KNOWN_WITHIN_S:g} s it is not known yet: see the log of `ingest`, or "
        f"ask again with `comfy-serverless batch status {name}`."
    )


def _show(place: Place, batch: Batch, options: argparse.Namespace) -> None:
    if options.watch:
        batch = _watch(place, batch)
    facts = _facts(place, batch)
    if options.json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return
    for title, value in facts.items():
        match value:
            case None | []:
                continue
            case list():
                sys.stdout.write("".join(f"{title:<10} {line}\n" for line in value))
            case dict():
                sys.stdout.write(f"{title:<10} {', '.join(f'{count:,} {name}' for name, count in value.items())}\n")
            case _:
                sys.stdout.write(f"{title:<10} {value}\n")


def _facts(place: Place, batch: Batch) -> dict[str, Any]:
    ranges = place.batches.ranges(batch.id)
    size = max(1, batch.size_bytes)
    bad = list(islice(place.batches.bad_lines(batch.id), BAD_LINES_SHOWN))
    return {
        "batch": batch.id,
        "status": batch.status.value,
        "lines": sum(part.lines for part in ranges),
        "bad": sum(part.bad for part in ranges),
        "bad line": [f"at byte {offset:,}: {message}" for offset, message in bad],
        "read": f"{100 * sum(part.offset - part.start for part in ranges) / size:.0f} %" if ranges else "100 %",
        "ended": f"{100 * min(batch.settled, size) / size:.0f} %" if batch.size_bytes else "100 %",
        "jobs": _counts(place, batch),
        "report": batch.report,
    }


def _counts(place: Place, batch: Batch) -> dict[str, int] | None:
    """How many jobs ended how; None before the report tells."""
    if batch.report is None:
        return None
    from comfy_serverless.aws.s3 import S3Address

    bucket, key = S3Address.parse(batch.report)
    report = json.loads(place.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    counts: dict[str, int] = report["statuses"]
    return counts


def _watch(place: Place, batch: Batch) -> Batch:
    """Follow it by the part of its lines whose jobs have ended, until its report is there."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(batch.status.value, total=max(1, batch.size_bytes))
        while batch.report is None:
            progress.update(task, completed=batch.settled, description=batch.status.value)
            place.tell(Order(batch_id=batch.id))  # else somebody looks each minute
            time.sleep(WATCH_EVERY_S)
            batch = place.batches.get(batch.id) or batch
        progress.update(task, completed=max(1, batch.size_bytes), description=batch.status.value)
    return batch


def _change(place: Place, name: str, action: str) -> None:
    from comfy_serverless.batches.store import BatchStatus

    wanted, was = {
        "pause": (BatchStatus.PAUSED, [BatchStatus.RUNNING]),
        "resume": (BatchStatus.RUNNING, [BatchStatus.PAUSED]),
        "cancel": (BatchStatus.CANCELED, [BatchStatus.RUNNING, BatchStatus.PAUSED]),
    }[action]
    batch = place.find(name)
    if not place.batches.set_status(batch.id, wanted, was=was):
        newest = place.batches.get(batch.id) or batch
        raise InvalidRequest(f"the batch {name} cannot be {wanted.value} now: it is {newest.status.value}.")
    is_resume = action == "resume"
    place.tell(Order(batch_id=batch.id, start=0 if is_resume else None, is_resume=is_resume))
    _say(f"The batch {name} is {wanted.value}.")


def _retry(place: Place, name: str, options: argparse.Namespace) -> None:
    batch = place.find(name)
    if batch.report is None:
        raise InvalidRequest(f"the batch {name} has not ended: what has failed is known when its report is there.")
    from comfy_serverless.aws.s3 import S3Address

    bucket, key = S3Address.parse(batch.report)
    failed = place.s3.get_object(Bucket=bucket, Key=key.removesuffix(".report.json") + ".failed.jsonl")
    if failed["ContentLength"] == 0:
        _say(f"Nothing of the batch {name} has failed.")
        return
    again = f"{name}-again"
    before = place.newest(again)
    place.s3.upload_fileobj(failed["Body"], place.input_bucket, f"batches/{again}.jsonl")
    _say(f"The failed lines of {name} are the batch {again}.")
    if options.watch:
        _show(place, _wait_until_known(place, again, before=before), options)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
