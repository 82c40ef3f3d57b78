"""What a line of a manifest asks for. A line that cannot be read, for whatever reason, keeps no other from running."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.batches.owned import check_line
from comfy_serverless.errors import ComfyError, InvalidRequest
from comfy_serverless.jobs.extra_data import refuse_unkept
from comfy_serverless.jobs.stored_request import LineRequest, request_at
from comfy_serverless.observability import log

if TYPE_CHECKING:
    from comfy_serverless.batches.batch import Batch
    from comfy_serverless.jobs.lines import Line
    from comfy_serverless.jobs.reserved import Reserved

#: What a fault of ours in reading is. What another try may help with (AWS, the network) is none of these.
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def request_in(line: Line, batch: Batch, reserved: Reserved, *, draws: Callable[[str], bool] | None) -> LineRequest:
    """The request in a line.

    Raises:
        KeyInManifest: it has data that may be or hold a key.
        InvalidRequest: there is none, its results would come back as input, it names what is the API's, or it meets a
            fault of ours, which is logged.

    Args:
        draws: as for `request_at`.
    """
    try:
        return _request_in(line, batch, reserved, draws=draws)
    except ComfyError:
        raise
    except _FAULTS as error:
        log.exception("a line could not be read", batch=batch.id, line=line.number)
        told = f"This line could not be read by a fault of ours ({type(error).__name__}), which the log of ingest has."
        raise InvalidRequest(told) from error


def _request_in(line: Line, batch: Batch, reserved: Reserved, *, draws: Callable[[str], bool] | None) -> LineRequest:
    found = request_at(line, batch_id=batch.id, draws=draws, owner=batch.owner if batch.is_owned else "")
    request = found.request
    refuse_unkept(request.extra_data)
    if batch.is_owned:
        check_line(request, batch.owner, reserved.settings)
        return found
    if request.output.bucket == S3Address.parse(batch.source).bucket:
        raise InvalidRequest("`output.bucket` is the input bucket: every result would start a job again.")
    reserved.check(request, job_id=str(request.job_id))
    return found
