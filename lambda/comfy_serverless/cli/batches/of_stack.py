"""Batches of a deployed stack, with AWS credentials: manifests are dropped into its input bucket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import MAX_CONNECTIONS, S3Address, read_problem
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.orders import Order
from comfy_serverless.batches.results import Results
from comfy_serverless.batches.retry import Retry
from comfy_serverless.cli.batches.place import Again, Known, NotFetched, SentFiles, Taken
from comfy_serverless.cli.batches.sending import send_files
from comfy_serverless.cli.stack import Stack, manifest_key
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound
from comfy_serverless.jobs.output_list import read_page
from comfy_serverless.jobs.result_file import ResultFile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.batches.progress import BatchProgress
    from comfy_serverless.batches.results import Row
    from comfy_serverless.batches.retry import Selection
    from comfy_serverless.jobs.document import Output

#: The longest time from the drop until the batch is known; mostly it is a second or two.
KNOWN_WITHIN_S = 120.0
#: The bad lines and failures that are told.
_SHOWN = 3
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class OfStack:
    """Implements `Place`."""

    stack: Stack
    knows_uploads: bool = False

    @property
    def input_bucket(self) -> str:
        """See `Place`."""
        return self.stack.input_bucket

    def find(self, name: str) -> Known:
        """See `Place`."""
        return self._known(self.stack.find(name))

    def all(self, limit: int) -> list[Known]:
        """See `Place`."""
        return [self._known(batch, is_brief=True) for batch in self.stack.batches.all(limit=limit)]

    def look(self, known: Known) -> Known:
        """See `Place`."""
        self.stack.send(Order(batch_id=known.id))  # else the caretaker does so each minute
        return self._known(self._batch(known))

    def change(self, known: Known, action: str) -> str:
        """See `Place`."""
        wanted, was = {
            "pause": (BatchStatus.PAUSED, [BatchStatus.RUNNING]),
            "resume": (BatchStatus.RUNNING, [BatchStatus.PAUSED]),
            "cancel": (BatchStatus.CANCELED, [BatchStatus.RUNNING, BatchStatus.PAUSED]),
        }[action]
        if not self.stack.batches.set_status(known.id, wanted, was=was):
            newest = self._batch(known)
            raise InvalidRequest(f"{action} does nothing to the batch {known.name} now: it is {newest.status.value}.")
        is_resume = action == "resume"
        self.stack.send(Order(batch_id=known.id, start=0 if is_resume else None, is_resume=is_resume))
        return wanted.value

    def send_files(
        self,
        files: Sequence[Path],
        *,
        workflows: frozenset[Path],  # noqa: ARG002  (all files are objects in S3)
        progress: Callable[[int], None],
    ) -> SentFiles:
        """See `Place`."""
        sent = send_files(self.stack.s3, self.stack.input_bucket, files, progress=progress)
        return SentFiles(sent.addresses, sent.sent, sent.sent_bytes)

    def send(self, lines: Path, name: str, *, force: bool, progress: Callable[[int], None]) -> Taken:  # noqa: ARG002
        """See `Place`. What is dropped is judged line by line."""
        before = self.stack.newest(name)
        self.stack.s3.upload_file(str(lines), self.stack.input_bucket, manifest_key(name), Callback=progress)
        address = f"s3://{self.stack.input_bucket}/{manifest_key(name)}"
        return Taken(address, lambda: self._becomes_known(name, before))

    def again(self, known: Known, selection: Selection, only: str) -> Again:  # noqa: ARG002
        """See `Place`."""
        results = Results.of(self.stack.s3, self._batch(known))
        chosen = Retry(selection)
        name = f"{known.name}-again"
        with TemporaryDirectory(prefix="retry-") as folder:
            path = Path(folder) / "again.jsonl"
            with path.open("wb") as file:
                file.writelines(chosen.lines(results.again(), bad_lines=int(results.summary()["bad_lines"])))
            left_out = dict(chosen.left_out.most_common())
            if not chosen.count:
                return Again(name, 0, left_out, None)
            taken = self.send(path, name, force=True, progress=lambda _bytes: None)
        return Again(name, chosen.count, left_out, taken)

    def results(self, known: Known) -> OfReport:
        """See `Place`."""
        return OfReport(self.stack.s3, Results.of(self.stack.s3, self._batch(known)))

    def _batch(self, known: Known) -> Batch:
        batch = self.stack.batches.get(known.id)
        if batch is None:
            raise NotFound(f"there is no batch {known.name!r} any more.")
        return batch

    def _becomes_known(self, name: str, before: Batch | None) -> Known:
        """The batch of the manifest that was just dropped. Raises NotFound if it does not become known."""
        end = time.monotonic() + KNOWN_WITHIN_S
        while time.monotonic() < end:
            batch = self.stack.newest(name)
            if batch is not None and (before is None or batch.id != before.id):
                return self._known(batch)
            time.sleep(1.0)
        raise NotFound(
            f"the batch {name} is dropped, but after {KNOWN_WITHIN_S:g} s it is not known yet: see the log of "
            f"`ingest`, or ask again with `comfy-serverless batch status {name}`."
        )

    def _known(self, batch: Batch, *, is_brief: bool = False) -> Known:
        known = Known(
            name=batch.called,
            id=batch.id,
            created_at=batch.created_at,
            progress=self._progress(batch),
            report=batch.report,
            notes=batch.notes,
        )
        if is_brief:
            return known
        summary = Results.of(self.stack.s3, batch).summary() if batch.report is not None else {}
        bad = islice(self.stack.batches.bad_lines(batch.id), _SHOWN)
        failures = [one for one in summary.get("first_failures", ()) if one["status"] != "bad"]
        return replace(
            known,
            completed_at=summary.get("completed_at"),
            bad_lines=[{"line": one.line, "message": one.message} for one in bad],
            first_failures=failures[:_SHOWN],
            codes=summary.get("codes", {}),
            curable=summary.get("curable"),
        )

    def _progress(self, batch: Batch) -> BatchProgress:
        """How far a batch is; of one that has ended, whose lines an older release has not counted, by its report."""
        progress = self.stack.batches.progress(batch)
        if batch.report is None or not progress.queued + progress.running:
            return progress
        summary = Results.of(self.stack.s3, batch).summary()
        counts = {**summary["statuses"], "bad": summary["bad_lines"], "duplicates": summary["duplicates"]}
        return batch.progress_at_end(counts)


@dataclass(frozen=True, slots=True)
class OfReport:
    """The files of a report in S3. Implements `Source`."""

    s3: S3Client
    report: Results | None = None

    def rows(self) -> Iterator[Row]:
        """See `Source`."""
        return self.report.rows() if self.report is not None else iter(())

    def outputs(self, rows: Sequence[Row]) -> list[list[Output] | NotFetched]:
        """See `Source`."""
        with ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="results") as pool:
            return list(pool.map(self._outputs, rows))

    @contextmanager
    def chunks(self, output: Output) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        address = S3Address.parse(str(output.s3_uri))
        with closing(self.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"]) as body:
            yield iter(lambda: body.read(_READ_BYTES), b"")

    def is_broken(self, error: Exception) -> bool:
        """See `Source`."""
        return isinstance(error, BotoCoreError)

    def reason(self, output: Output, error: Exception) -> str | None:
        """See `Source`."""
        if not isinstance(error, ClientError | BotoCoreError):
            return None
        address = S3Address.parse(str(output.s3_uri))
        return f"{address} {read_problem(error, address).reason}"

    def _outputs(self, row: Row) -> list[Output] | NotFetched:
        try:
            return list(outputs_of(self.s3, row.result))
        except ComfyError as error:
            return NotFetched(row.result, row.line, error.message)
        except (ClientError, BotoCoreError) as error:
            return NotFetched(row.result, row.line, read_problem(error, S3Address.parse(row.result)).reason)


def outputs_of(s3: S3Client, result: str) -> Iterator[Output]:
    """All outputs of a job, by the address of its result. Raises as `ResultFile.read`."""
    stored = ResultFile(s3, S3Address.parse(result)).read()
    if stored is None:
        raise NotFound(f"{result} does not exist any more, or may not be read")
    if stored.job.outputs_uri is None:
        yield from stored.job.outputs
        return
    start: int | None = 0
    while start is not None:
        page = read_page(s3, S3Address.parse(stored.job.outputs_uri), start=start, limit=1000)
        yield from page.outputs
        start = page.end
