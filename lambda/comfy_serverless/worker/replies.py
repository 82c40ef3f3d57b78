"""Makes the reply of a job: its document with fresh links, and the files themselves where they fit.

Lambda cuts off replies above 6 MB, so the size is decided here, before: small files first, links for everything, and
never more than the limit. The decision is pure; only links and bytes come from outside.
"""

from __future__ import annotations

import base64
import contextvars
import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import ComfyError, DeliveryFailed
from comfy_serverless.files import OutputKind
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES, Job, JobError, JobStatus, Output, shorten_job
from comfy_serverless.jobs.links import Links

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.settings import Settings
    from comfy_serverless.worker.outcomes import Outcome

#: A file's cost beside its base64: `, "data_base64": ""`, with every quote escaped once more inside an HTTP body.
_FIELD_BYTES = 32
#: Files that are read at once for a reply.
READ_THREADS = 16
#: Kept free for warnings about what did not fit.
_WARNINGS_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Replies:
    """Makes replies of outcomes."""

    s3: S3Client
    settings: Settings
    limit_bytes: int = REPLY_LIMIT_BYTES

    def write(self, outcome: Outcome, wrap: Callable[[dict[str, Any]], Any] = dict) -> dict[str, Any]:
        """The job's document, at most `limit_bytes` long inside the reply that `wrap` makes of it."""

        def size(job: Job) -> int:
            return len(json.dumps(wrap(job.to_json())))

        job = Links(self.s3, self.settings.link_expiry_s).of_job(outcome.job)
        files = self._files(outcome, job, budget_bytes=self.limit_bytes - size(job) - _WARNINGS_BYTES)
        full = _with_files(job, files, reply=outcome.reply)
        while (is_too_long := size(full) > self.limit_bytes) and files:
            del files[max(files, key=lambda output_id: len(files[output_id]))]
            full = _with_files(job, files, reply=outcome.reply)
        return (shorten_job(full, size=size, limit_bytes=self.limit_bytes) if is_too_long else full).to_json()

    def _files(self, outcome: Outcome, job: Job, *, budget_bytes: int) -> dict[str, str]:
        """The base64 of every output that goes into the reply, by output id."""
        sizes = {output.id: output.size_bytes for output in job.outputs if _may_be_inline(output, outcome.reply)}
        chosen = choose_inline(sizes, budget_bytes=budget_bytes)
        by_id = {output.id: output for output in job.outputs}
        if not chosen:
            return {}
        # Of a job that has run before, up to a thousand small files are in S3.
        with ThreadPoolExecutor(min(READ_THREADS, len(chosen)), thread_name_prefix="reply") as pool:
            readings = [
                pool.submit(contextvars.copy_context().run, self._content, outcome, by_id[output_id])
                for output_id in chosen
            ]
            # Another worker of the same job may have made other bytes: only those that the document means are sent.
            return {
                output_id: base64.b64encode(content).decode("ascii")
                for output_id, reading in zip(chosen, readings, strict=True)
                if (content := reading.result()) is not None
                and hashlib.sha256(content).hexdigest() == by_id[output_id].sha256
            }

    def _content(self, outcome: Outcome, output: Output) -> bytes | None:
        """The bytes, from this machine or from S3; None if they are gone, because there is a link."""
        try:
            if output.id in outcome.made:
                return outcome.made[output.id].read()
            address = S3Address.parse(output.s3_uri or "")
            return self.s3.get_object(Bucket=address.bucket, Key=address.key)["Body"].read()
        except (ComfyError, ClientError, BotoCoreError, OSError):
            return None


def choose_inline(sizes: Mapping[str, int], *, budget_bytes: int) -> list[str]:
    """Choose the files that go into a reply with this much room for base64 and field names, the smallest first.

    `sizes` are in bytes, by id.
    """
    chosen: list[str] = []
    for output_id in sorted(sizes, key=lambda output_id: sizes[output_id]):
        budget_bytes -= inline_bytes(sizes[output_id])
        if budget_bytes < 0:
            break
        chosen.append(output_id)
    return chosen


def inline_bytes(size_bytes: int) -> int:
    """The bytes that a file of this size adds to a reply."""
    return (size_bytes + 2) // 3 * 4 + _FIELD_BYTES


def _may_be_inline(output: Output, reply: str) -> bool:
    if output.s3_uri is None or reply == "inline":
        return True
    return reply == "auto" and output.type in {OutputKind.IMAGE, OutputKind.TEXT}


def _with_files(job: Job, files: Mapping[str, str], *, reply: str) -> Job:
    """The job with files put in, and a warning about those that were asked for and are not."""
    outputs = tuple(
        output.model_copy(update={"data_base64": files[output.id]}) if output.id in files else output
        for output in job.outputs
    )
    lost = [output for output in outputs if output.s3_uri is None and output.data_base64 is None]
    if lost:
        return _without_room(job, outputs, lost)
    missing = [output for output in outputs if output.data_base64 is None]
    if reply != "inline" or not missing:
        return job.model_copy(update={"outputs": outputs})
    names = ", ".join(output.name for output in missing[:5]) + (", …" if len(missing) > 5 else "")
    note = f"{len(missing)} of {len(outputs)} outputs do not fit into the reply and are links only: {names}"
    return job.model_copy(update={"outputs": outputs, "warnings": (note, *job.warnings)})


def _without_room(job: Job, outputs: tuple[Output, ...], lost: list[Output]) -> Job:
    """The job without the outputs that its reply cannot carry: without a bucket they were not delivered."""
    total_mb = sum(output.size_bytes for output in outputs) / 1e6
    failure = DeliveryFailed(
        f"{len(lost)} of {len(outputs)} outputs ({total_mb:.1f} MB altogether) do not fit into the reply, and there is "
        "no bucket to put them: set OUTPUT_BUCKET on the worker, or `output.bucket` in the request.",
        details={"outputs": [f"{output.name} of node {output.node_id}" for output in lost[:100]]},
    )
    update: dict[str, Any] = {"outputs": tuple(one for one in outputs if one.s3_uri or one.data_base64 is not None)}
    if job.error is None:
        update |= {"status": JobStatus.FAILED, "error": JobError.of(failure, retryable=False)}
    else:
        update |= {"warnings": (failure.message, *job.warnings)}
    return job.model_copy(update=update)
