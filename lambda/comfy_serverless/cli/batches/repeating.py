"""Failed lines of a batch are run again, as a batch of their own."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from comfy_serverless.batches.results import Results
from comfy_serverless.batches.retry import Retry, Selection
from comfy_serverless.cli.batches.check import Findings
from comfy_serverless.cli.batches.submitting import Submitted
from comfy_serverless.cli.habits import counted, say
from comfy_serverless.cli.stack import Stack, manifest_key

if TYPE_CHECKING:
    from comfy_serverless.batches.store import Batch


def retry(stack: Stack, batch: Batch, name: str, *, only: str) -> tuple[Submitted | None, Retry]:
    """Drop the chosen lines of a batch as NAME-again, and say which are left out; None if nothing is to be run.

    Raises NotFound if the batch has not ended, and InvalidRequest if `only` chooses nothing that can be.
    """
    selection = Selection.parse(only)
    results = Results.of(stack.s3, batch)
    chosen = Retry(selection)
    again = f"{name}-again"
    key = manifest_key(again)
    with TemporaryDirectory(prefix="retry-") as folder:
        path = Path(folder) / "again.jsonl"
        with path.open("wb") as file:
            file.writelines(chosen.lines(results.again(), bad_lines=int(results.summary()["bad_lines"])))
        for reason, count in chosen.left_out.most_common():
            say(f"{counted(count, 'line')} left out: {reason}.")
        if not chosen.count:
            rest = " `--only all` runs the failed ones all the same." if chosen.left_out else ""
            say(f"There is nothing to run again of the batch {name}.{rest}")
            return None, chosen
        before = stack.newest(again)
        stack.s3.upload_file(str(path), stack.input_bucket, key)
    say(f"{counted(chosen.count, 'line')} of {name} will run again, as the batch {again}.")
    findings = Findings(requests=chosen.count)
    return Submitted(again, f"s3://{stack.input_bucket}/{key}", findings, 0, before), chosen
