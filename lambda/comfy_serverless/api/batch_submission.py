"""From lines that somebody sends to a batch that nothing can lose.

    checked ──► our copy of the lines to S3 ──► the batch, its range and its rows to the table, at once ──► an order

If it is cut off before the table is written, there is no batch, and the same request makes it; after that the batch
stands, and the caretaker has it read. A manifest that is too large to be read here is copied by `ingest`
(`batches.taking`).
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.aws.sqs import MAX_MESSAGES, NotSent
from comfy_serverless.batches.batch import Batch, BatchStatus
from comfy_serverless.batches.manifest_text import HEAD_BYTES, MANIFEST_TYPE, in_lines, is_in_lines
from comfy_serverless.batches.orders import Order
from comfy_serverless.batches.owned import IdsOfLines, check_line, digest, owned_batch
from comfy_serverless.batches.pinning import pin
from comfy_serverless.batches.ranges import ranges_for
from comfy_serverless.batches.results import Results
from comfy_serverless.batches.retry import Retry, Selection
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound, TooLarge, WrongBatchState
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.extra_data import refuse_unkept
from comfy_serverless.jobs.lines import Line, lines_of, manifest_address
from comfy_serverless.jobs.outward import outward
from comfy_serverless.jobs.stored_request import request_at
from comfy_serverless.jobs.workflow_source import graph_of
from comfy_serverless.json_text import GZIP
from comfy_serverless.observability import log
from comfy_serverless.table.jobs import check_idempotency_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comfy_serverless.api.auth import Caller
    from comfy_serverless.api.batch_bodies import BatchBody
    from comfy_serverless.api.services import Services
    from comfy_serverless.jobs.named import NamedWorkflows
    from comfy_serverless.table.asset_item import Asset

#: The largest manifest that is read here, and the most lines of it.
MAX_SENT_BYTES: Final = 4_000_000
MAX_SENT_LINES: Final = 10_000
#: How long lines are checked, in seconds; those behind are judged when the batch is read.
_CHECKED_WITHIN_S: Final = 12.0
#: Lines that are named one by one.
_MAX_TOLD: Final = 100
_MAX_SAID: Final = 500
#: The report of a larger batch is read by `ingest`.
_MAX_REPORT_LINES: Final = 20_000
#: Batches that a list has counted anew: as many as go in one call.
MAX_ORDERS: Final = MAX_MESSAGES
_SUFFIX: Final = "-again"
_LONGEST_NAME: Final = 40


def submit(body: BatchBody, who: Caller, behind: Services, *, idempotency_key: str | None) -> tuple[Batch, bool]:
    """Take a batch. Returns it, and whether it is new: the same lines under the same name are the same batch.

    Raises a ComfyError if it is refused; nothing was written.
    """
    check_idempotency_key(idempotency_key)
    content: bytes | None = None
    upload: Asset | None = None
    if body.upload_id is None:
        content = (body.manifest or "").encode("utf-8", "surrogatepass")
        if len(content) > MAX_SENT_BYTES:
            raise TooLarge(
                f"the lines have {len(content):,} bytes, and at most {MAX_SENT_BYTES:,} can be sent this way: upload "
                "them as a file (POST /api/v2/uploads), and give its id as `upload_id`."
            )
    else:
        upload = _uploaded(body.upload_id, who, behind)
        if upload.size_bytes <= MAX_SENT_BYTES:
            content = behind.s3.get_object(Bucket=upload.address.bucket, Key=upload.address.key)["Body"].read()
    if content is not None:
        lines = content if is_in_lines(content[:HEAD_BYTES]) else in_lines(content, source="the manifest")
        if upload is None or lines.count(b"\n") <= MAX_SENT_LINES:
            _check(lines, who, behind, force=body.force)
            return _begin(lines, body.name, who, behind, idempotency_key=idempotency_key)
    assert upload is not None  # noqa: S101 - for the type checker: what was sent has returned
    _check_beginning(upload, who, behind, force=body.force)
    batch = owned_batch(
        who.owner,
        body.name,
        of=digest("upload", upload.hash or upload.id),
        bucket=behind.assets_bucket,
        take_from=str(upload.address),
        key_id=who.key_id,
    )
    return _announce(batch, [], behind, idempotency_key=idempotency_key)


def retry(batch: Batch, only: str, who: Caller, behind: Services) -> tuple[Batch, bool, dict[str, int]]:
    """Make a batch of lines that have failed. Returns it, whether it is new, and what was left out, by the reason.

    Raises:
        WrongBatchState: the batch has not ended.
        InvalidRequest: there is nothing to run again.
    """
    chosen = Retry(Selection.parse(only))
    if batch.report is None:
        raise WrongBatchState(
            f"the batch {batch.called!r} has not ended ({batch.status.value}): what has failed is known at the end."
        )
    results = Results.of(behind.s3, batch)
    summary = results.summary()
    if int(summary["lines"]) <= _MAX_REPORT_LINES:
        lines = bytearray()
        for line in chosen.lines(results.again(), bad_lines=int(summary["bad_lines"])):
            lines += line
            if len(lines) > MAX_SENT_BYTES:
                break
        left_out = dict(chosen.left_out)
        if not chosen.count:
            rest = " `all` takes those that failed all the same." if left_out else ""
            raise InvalidRequest(
                f"there is nothing to run again of the batch {batch.called!r} by {only[:100]!r}.{rest}",
                details={"left_out": left_out},
            )
        if len(lines) <= MAX_SENT_BYTES:
            return *_put(_again(batch, only, who, behind), bytes(lines), behind, idempotency_key=None), left_out
    later = replace(_again(batch, only, who, behind), take_from=batch.report, only=only)
    return *_announce(later, [], behind, idempotency_key=None), {}


def order(batch: Batch, behind: Services, *, start: int | None = None, is_resume: bool = False) -> None:
    """Have a batch looked after now. Without the order it is within a minute: so its failure is only logged."""
    if behind.orders is None:
        return
    try:
        text = Order(batch_id=batch.id, start=start, is_resume=is_resume).to_text()
        behind.orders.send(text, tenant=batch.id)
    except (ClientError, BotoCoreError):
        log.exception("an order about a batch could not be sent", batch=batch.id)


def order_some(batches: Sequence[Batch], behind: Services) -> None:
    """Have several looked after now, in one message each and one call; at most `MAX_ORDERS`, those first that were
    counted longest ago. The others are within a minute, as without any order.
    """
    if behind.orders is None or not batches:
        return
    oldest = sorted(batches, key=lambda batch: batch.counted_at or "")[:MAX_ORDERS]
    try:
        behind.orders.send_many([(batch.id, Order(batch_id=batch.id).to_text()) for batch in oldest])
    except (ClientError, BotoCoreError, NotSent):
        log.exception("orders about batches could not be sent", batches=[batch.id for batch in oldest])


def _again(batch: Batch, only: str, who: Caller, behind: Services) -> Batch:
    """The batch of lines that are run again; of a dropped one as if they were dropped, too."""
    name = f"{batch.called[: _LONGEST_NAME - len(_SUFFIX)]}{_SUFFIX}"
    again = owned_batch(
        who.owner, name, of=digest("retry", batch.id, only), bucket=behind.assets_bucket, key_id=who.key_id
    )
    if batch.is_owned:
        return again
    folder = batch.source.partition("/batches/")[0]
    plain = again.id.encode("ascii", "ignore").decode()
    batch_id = "".join(sign if sign.isalnum() or sign in "_-" else "-" for sign in plain)[-64:]
    manifest = str(manifest_address(behind.assets_bucket, batch_id))
    source = f"{folder}/batches/{batch.called}{_SUFFIX}.jsonl"
    return replace(again, id=batch_id, name=None, source=source, manifest=manifest)


def _uploaded(upload_id: str, who: Caller, behind: Services) -> Asset:
    """The file of an upload, which is completed if it was not; or any other asset. Raises NotFound, InvalidRequest."""
    asset_id = upload_id.lower()
    try:
        return behind.assets.get(who.owner, asset_id)
    except NotFound:
        return behind.uploads.complete(behind.uploads.get(who.owner, asset_id))


def _begin(
    lines: bytes, name: str, who: Caller, behind: Services, *, idempotency_key: str | None
) -> tuple[Batch, bool]:
    batch = owned_batch(
        who.owner,
        name,
        of=digest("lines", lines.decode("utf-8", "surrogateescape")),
        bucket=behind.assets_bucket,
        key_id=who.key_id,
    )
    return _put(batch, lines, behind, idempotency_key=idempotency_key)


def _put(batch: Batch, lines: bytes, behind: Services, *, idempotency_key: str | None) -> tuple[Batch, bool]:
    """Store the lines of a batch, then the batch."""
    if (standing := behind.batches.get(batch.id)) is not None:
        return standing, False
    copy = S3Address.parse(batch.manifest)
    behind.s3.put_object(Bucket=copy.bucket, Key=copy.key, Body=lines, ContentType=MANIFEST_TYPE)
    batch = replace(batch, size_bytes=len(lines), sent_lines=sum(not line.is_blank for line in lines_of([lines])))
    return _announce(batch, ranges_for(len(lines)), behind, idempotency_key=idempotency_key)


def _announce(
    batch: Batch, ranges: list[tuple[int, int]], behind: Services, *, idempotency_key: str | None
) -> tuple[Batch, bool]:
    if (standing := behind.batches.get(batch.id)) is not None:
        return standing, False
    if not behind.batches.announce(batch, ranges, idempotency_key=idempotency_key):
        return behind.batches.get(batch.id) or batch, False
    log.info("the batch is taken", batch=batch.id, owner=batch.owner)
    order(batch, behind, start=0 if ranges else None)
    return batch, True


# The lines are judged.


def _check_beginning(upload: Asset, who: Caller, behind: Services, *, force: bool) -> None:
    """Check the first lines of a manifest that is too large to be read here."""
    part = f"bytes=0-{HEAD_BYTES - 1}"
    head = behind.s3.get_object(Bucket=upload.address.bucket, Key=upload.address.key, Range=part)["Body"].read()
    if not head.startswith(GZIP) and is_in_lines(head) and b"\n" in head:
        _check(head[: head.rindex(b"\n") + 1], who, behind, force=force)


def _check(lines: bytes, who: Caller, behind: Services, *, force: bool) -> None:
    """Check the lines of a manifest. Raises InvalidRequest if some would fail, and TooLarge if they are too many."""
    requests = [line for line in lines_of([lines]) if not line.is_blank]
    if not requests:
        raise InvalidRequest("the manifest has no line with a job request.")
    if len(requests) > MAX_SENT_LINES:
        raise TooLarge(
            f"these are {len(requests):,} lines, and at most {MAX_SENT_LINES:,} can be sent this way: upload them as a "
            "file (POST /api/v2/uploads), and give its id as `upload_id`."
        )
    if force:
        return
    problems = list(islice(_problems(requests, who, behind), MAX_SENT_LINES))
    if not problems:
        return
    told = [{"field": f"lines.{number}", "problem": problem} for number, problem in problems[:_MAX_TOLD]]
    shown = "; ".join(f"line {number}: {problem.rstrip('.')}" for number, problem in problems[:10])
    more = f"; and {len(problems) - 10:,} more" if len(problems) > 10 else ""
    raise InvalidRequest(
        f"{len(problems):,} of {len(requests):,} lines would fail: {shown}{more}. Nothing was taken. Mend them, or "
        "send it with `force`: bad lines are reported then, and cost the others nothing.",
        details={"errors": told},
    )


def _problems(lines: Iterable[Line], who: Caller, behind: Services) -> Iterable[tuple[int, str]]:
    """The numbers of lines that would fail, and why, as far as that is known without reading files."""
    named = behind.named.remembering()
    until, ids = time.monotonic() + _CHECKED_WITHIN_S, IdsOfLines()
    for line in lines:
        if time.monotonic() > until:
            return
        try:
            _judge(line, who, behind, named, ids)
        except ComfyError as error:
            if error.retryable:
                raise
            yield line.number, outward(error.message)[:_MAX_SAID]


def _judge(line: Line, who: Caller, behind: Services, named: NamedWorkflows, ids: IdsOfLines) -> None:
    """Raise a ComfyError if a line would fail for certain."""
    found = request_at(line, batch_id="", draws=None, owner=who.owner)
    request = found.request
    ids.check(found, line.number)
    refuse_unkept(request.extra_data)
    check_line(request, who.owner, behind.settings)
    if request.is_named:
        pin(request, named, owner=who.owner)
    elif isinstance(request.workflow, dict) and not is_of_editor(request.workflow):
        behind.node_list.check(graph_of(request, s3=behind.s3, settings=behind.settings).graph or {})


def change(batch: Batch, wanted: BatchStatus, behind: Services) -> Batch:
    """Pause, resume or cancel a batch. One that is so already stays so. Raises WrongBatchState if it has ended."""
    was = {
        BatchStatus.PAUSED: [BatchStatus.RUNNING],
        BatchStatus.RUNNING: [BatchStatus.PAUSED],
        BatchStatus.CANCELED: [BatchStatus.RUNNING, BatchStatus.PAUSED],
    }[wanted]
    has_changed = behind.batches.set_status(batch.id, wanted, was=was)
    newest = behind.batches.get(batch.id) or batch
    if not has_changed and (newest.status is not wanted or newest.report is not None):
        raise WrongBatchState(
            f"the batch {newest.called!r} is {newest.status.value}: it cannot be {_WORDS[wanted]} any more."
        )
    is_resume = wanted is BatchStatus.RUNNING
    order(newest, behind, start=0 if is_resume else None, is_resume=is_resume)
    return newest


_WORDS: Final = {
    BatchStatus.PAUSED: "paused",
    BatchStatus.RUNNING: "resumed",
    BatchStatus.CANCELED: "canceled",
}
