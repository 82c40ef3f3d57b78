"""Lines of a manifest, written once more for the workers: in the form of a request, and with the job's id. No IO.

    {"job_id": "line-…", "workflow": {…}}
    {"job_id": "line-…", "workflow": "poster@3", "inputs": {…}}
    {"of": "line-…", "extra_data": {…}, "warnings": ["…"]}

A line with the name of a workflow is written so, too, with the version that the name meant when the line was read: it
runs that version, whatever becomes of the name. The graph is not in it.

Workers of older releases know fewer shapes of a request than `jobs.shapes`, and make other ids. So a line that they
would not read as we do is written so, beside the manifest, and its job's request is there. They refuse a request with
`extra_data`: that stands in a line of its own behind it, if there is any, and only newer ones look for it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from comfy_serverless.jobs.lines import Line, LineAddress, document_of
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.shapes import Shaped, shape
from comfy_serverless.json_text import finite

if TYPE_CHECKING:
    from collections.abc import Mapping

#: `lines.named_lines_address`; no batch has such a name, because those end with twenty digits.
_NAMED = re.compile(r"named-[0-9a-f]{40}")


def is_plain(line: Line, document: object) -> bool:
    """Whether workers of every release read this document in the line, and as we do.

    They know a request without `extra_data`, and a graph that stands alone; and JSON with nothing around it.
    """
    bare = (line.content or b"").strip(b" \t\r\n")
    is_bare = bare.startswith(b"{") and bare.endswith(b"}")
    fields = shaped(document).fields
    return is_bare and "extra_data" not in fields and fields in (document, {"workflow": document})


def with_job_id(line: Line, job_id: str, *, workflow: str | None = None) -> str:
    """A line with the same request and this job's id; and with this name of its workflow, if there is one."""
    pin = {} if workflow is None else {"workflow": workflow}
    return _written({**shaped(document_of(line.content or b"{}")).fields, **pin, "job_id": job_id})


def named(line: Line, job_id: str, *, workflow: str | None = None) -> tuple[bytes, bytes]:
    """A line with the same request and this job's id for workers of every release; and the line behind it, or b"".

    Args:
        workflow: the name of its workflow with the version that it runs; None to leave it as it is.
    """
    found = shaped(document_of(line.content or b"{}"))
    pin = {} if workflow is None else {"workflow": workflow}
    fields = {**found.fields, **pin, "job_id": job_id}
    more = {"extra_data": fields.pop("extra_data", None), "warnings": list(found.warnings)}
    behind = {"of": job_id, **{name: value for name, value in more.items() if value}}
    return _written(fields).encode(), _written(behind).encode() if len(behind) > 1 else b""


def is_named(address: LineAddress) -> bool:
    """Whether the line is one that we have written: another may stand behind it."""
    return _NAMED.fullmatch(address.batch_id) is not None


def with_behind(request: JobRequest, behind: bytes) -> JobRequest:
    """The request, with what stands in the line behind its own, if that belongs to it."""
    fields = document_of(behind) if behind.startswith(b'{"of": ') else {}
    if fields.get("of") != request.job_id:
        return request
    extra_data = fields.get("extra_data") or request.extra_data
    return request.model_copy(update={"extra_data": extra_data}).with_warnings(fields.get("warnings") or ())


def shaped(document: object) -> Shaped:
    """The fields of the request in a document. Raises as `shape`."""
    return shape(document, known=JobRequest.field_names())


def _written(fields: Mapping[str, Any]) -> str:
    # Halves of characters, which JSON can hold and a file cannot, stay escaped as in JSON.
    return json.dumps(finite(dict(fields)))
