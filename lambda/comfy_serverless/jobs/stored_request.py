"""A request as it is kept in S3 for the worker: a document with the workflow as it was submitted, or a manifest's line.

    {"request": {…JobRequest…}, "workflow": {…}, "extra_data": {…}, "warnings": ["…"], "files": {…}, "version": 2}

Version 2 is for jobs whose workflow is the editor's: their worker converts it. `files` has the addresses of what such a
workflow names (`jobs.known_files`). Version 3 is for those that name a version of a workflow, `poster@3`, or give
inputs by name: their worker looks them up. Version 4 is for lines of an owner's batch: each is such a document, in a
line among those of others (`lines.stored_lines_address`).

Workers of another release read it too: those of 0.1.0 refuse a `request` with a field that they do not know, so new
ones, like `extra_data`, stand beside it. A field that they may ignore is simply added. One that they must understand
raises the version of the jobs that need it: a worker that knows only older versions gives them back
(`worker_outdated`). `version` is left out for jobs that need only 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import S3Address, read_json, read_problem
from comfy_serverless.errors import AssetUnavailable, InvalidRequest, WorkerOutdated
from comfy_serverless.graph.wrappers import is_of_editor, unwrap
from comfy_serverless.jobs.extra_data import split
from comfy_serverless.jobs.known_files import KnownFiles
from comfy_serverless.jobs.line_ids import asks_for_chance, id_at, id_of_text, may_draw
from comfy_serverless.jobs.lines import MAX_LINE_BYTES, Line, LineAddress, document_of, lines_of
from comfy_serverless.jobs.named_lines import is_named, is_plain, with_behind
from comfy_serverless.jobs.request import JobRequest, is_plain_input
from comfy_serverless.json_text import finite, parse_json

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: The newest version that this release can run. A line of a manifest has its version in its message and in the job's
#: item (`JobItem.version`), of which the caretaker makes new messages.
VERSION = 4
#: That of jobs which a worker of any release can run, of those whose worker converts the editor's workflow, of those
#: with a model that has no sha256, and of those that name a version of a workflow.
_PLAIN, _OF_EDITOR, _UNHASHED, _NAMED = 1, 2, 2, 3
#: That of a job whose stored request is in a line: a worker must know to look for it there.
IN_A_LINE = 4
#: The most of a request that goes with the message. SQS counts, and bills, each 64 KB of a message.
MAX_IN_MESSAGE_BYTES = 48_000
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """The document.

    Attributes:
        request: the worker's request: with a job id, and with addresses in place of assets.
        workflow: the workflow as it was submitted, for people.
    """

    request: JobRequest
    workflow: dict[str, Any] | str

    def to_bytes(self) -> bytes:
        """The document as it is kept."""
        request = self.request.model_dump(mode="json", by_alias=True, exclude={"extra_data"})
        document: dict[str, Any] = {"request": request, "workflow": self.workflow}
        if extra_data := split(self.request.extra_data)[0]:  # never what may hold a key
            document["extra_data"] = extra_data
        if self.request.warnings:
            document["warnings"] = list(self.request.warnings)
        if self.request.files is not None:
            document["files"] = self.request.files.to_json()
        if (version := version_of(self.request)) != _PLAIN:
            document["version"] = version
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")

    def in_message(self) -> dict[str, Any] | None:
        """The document for the job's message, without the workflow as it was submitted; None if it is too large."""
        content = self.to_bytes()
        if len(content) > 4 * MAX_IN_MESSAGE_BYTES:
            return None
        document: dict[str, Any] = json.loads(content)
        del document["workflow"]
        return document if len(json.dumps(document)) <= MAX_IN_MESSAGE_BYTES else None

    @classmethod
    def parse(cls, document: object) -> Self:
        """Read a document of any release.

        Raises:
            InvalidRequest: it is no request.
            WorkerOutdated: only a newer release can run it.
        """
        fields = document if isinstance(document, Mapping) else {}
        check_version(fields.get("version", 1))
        request = JobRequest.stored(fields.get("request"))
        if isinstance(extra_data := fields.get("extra_data"), dict):
            request = request.model_copy(update={"extra_data": extra_data})
        if isinstance(warnings := fields.get("warnings"), list):
            request = request.with_warnings(map(str, warnings))
        if "files" in fields:
            request = request.with_files(KnownFiles.parse(fields["files"]))
        return cls(request, fields.get("workflow", request.workflow))

    def write(self, s3: S3Client, address: S3Address) -> None:
        """Write it to S3."""
        body = self.to_bytes()
        s3.put_object(Bucket=address.bucket, Key=address.key, Body=body, ContentType="application/json")

    @classmethod
    def read(cls, s3: S3Client, address: S3Address) -> Self:
        """Read it from S3. Raises as `parse` and `read_json`."""
        return cls.parse(read_json(s3, address, what="the request"))


def version_of(request: JobRequest) -> int:
    """The version that a worker must know to run a request."""
    return max(
        _OF_EDITOR if _is_of_editor(request.workflow) else _PLAIN,
        _UNHASHED if any(model.sha256 is None for model in request.models) else _PLAIN,
        _NAMED if _is_of_newer(request) else _PLAIN,
    )


def _is_of_newer(request: JobRequest) -> bool:
    """Whether older workers would not find the workflow that it names, or would not know its inputs."""
    by_name = not all("." in name and is_plain_input(value) for name, value in request.inputs.items())
    return request.is_named and ("@" in str(request.workflow) or by_name)


def _is_of_editor(workflow: dict[str, Any] | str) -> bool:
    """Whether it is what the editor saved; no, if it cannot be read: the job ends with the reason, on any worker."""
    try:
        found = None if isinstance(workflow, str) else unwrap(workflow)
    except InvalidRequest:
        return False
    return found is not None and is_of_editor(found.workflow)


def submitted_workflow(s3: S3Client, address: S3Address) -> Any:  # noqa: ANN401  (as it was submitted)
    """The workflow as it was submitted, whichever release may run it."""
    answer = s3.get_object(Bucket=address.bucket, Key=address.key)
    return finite(json.loads(answer["Body"].read())["workflow"])


def check_version(version: object) -> None:
    """Check that this release can run a job. Raises WorkerOutdated if a newer release has written it."""
    if not isinstance(version, int) or version > VERSION:
        raise WorkerOutdated(
            f"the job was written by a newer release (version {str(version)[:20]}, and this worker knows {VERSION}): "
            "it waits for a newer worker. Deploy the worker's image of the release that the API and ingest have: on "
            "Lambda, on SageMaker, or on both."
        )


def read_line(s3: S3Client, line: LineAddress) -> JobRequest:
    """Read the request in a line that was judged when its job was made; what this release does not know is ignored.

    Raises InvalidRequest if the line has no request, and AssetUnavailable if S3 does not answer.
    """
    content, behind = _content_of(s3, line, may_have_more=is_named(line))
    return with_behind(request_of(Line(line.offset, line.length, content), parse=JobRequest.stored), behind)


def read_stored_line(s3: S3Client, line: LineAddress) -> dict[str, Any]:
    """Read what a line of an owner's batch has become, as `StoredRequest.parse` takes it. Raises as `read_line`."""
    content, _ = _content_of(s3, line, may_have_more=False)
    return dict(parse_json(content, source="the stored line", most_bytes=len(content)))


def _content_of(s3: S3Client, line: LineAddress, *, may_have_more: bool) -> tuple[bytes, bytes]:
    """The bytes of a line, and those of the line behind it, if it may have more there."""
    end = "" if may_have_more else line.offset + line.length - 1
    try:
        answer = s3.get_object(Bucket=line.bucket, Key=line.manifest.key, Range=f"bytes={line.offset}-{end}")
        with closing(answer["Body"]) as body:
            content = body.read(line.length)
            return content, _line_behind(body.iter_chunks(_READ_BYTES)) if may_have_more else b""
    except (ClientError, BotoCoreError) as error:
        reason, is_transient = read_problem(error, line.manifest)
        kind = AssetUnavailable if is_transient else InvalidRequest
        raise kind(f"the line {line.to_text()} of the manifest {reason}.") from error


def _line_behind(rest: Iterator[bytes]) -> bytes:
    """The next line, from the end of one on; b"" if there is none."""
    line = next(islice(lines_of(rest), 1, 2), None)
    return line.content or b"" if line is not None else b""


def request_of(line: Line, *, parse: Callable[[object], JobRequest] = JobRequest.parse) -> JobRequest:
    """The request in a line, with its job's id: its own, or one made of its content. Raises InvalidRequest.

    Args:
        parse: reads the request; `JobRequest.stored` if the line has been judged before.
    """
    request, canonical = _request_and_text(_document_of(line), parse)
    return request if request.job_id is not None else request.model_copy(update={"job_id": id_of_text(canonical)})


class LineRequest(NamedTuple):
    """The request in a line of a batch.

    Attributes:
        is_of_place: whether its id is that of the line's place, which is not in the line itself.
        is_plain: whether workers of every release read the line as we do (`named_lines`).
        asked_sha256: of what it asks for, if it names its job itself (`JobRequest.digest`).
    """

    request: JobRequest
    is_of_place: bool
    is_plain: bool
    asked_sha256: str | None = None


def request_at(line: Line, *, batch_id: str, draws: Callable[[str], bool] | None, owner: str = "") -> LineRequest:
    """As `request_of`; but a line that asks for something random is a job of its own (`jobs.line_ids`).

    Args:
        owner: whose lines of this text are one job; "" for those of everybody who may drop.
        draws: as for `asks_for_chance`, of workflows outside of the lines; None if the same text is always the same
            job, as it was in older releases.
    """
    document = _document_of(line)
    request, canonical = _request_and_text(document, JobRequest.parse)
    plain = is_plain(line, document)
    if request.job_id is not None:
        return LineRequest(request, is_of_place=False, is_plain=plain, asked_sha256=request.digest())
    job_id, content = id_of_text(canonical, owner=owner), line.content or b""
    may_be_random = draws is not None and (isinstance(request.workflow, str) or may_draw(content))
    is_of_place = draws is not None and may_be_random and asks_for_chance(request, draws=draws)
    if is_of_place:
        job_id = id_at(job_id, batch_id=batch_id, offset=line.offset)
    return LineRequest(request.model_copy(update={"job_id": job_id}), is_of_place, plain)


def _document_of(line: Line) -> Any:  # noqa: ANN401  (any JSON value)
    if line.content is None:
        raise InvalidRequest(f"the line has {line.length:,} bytes; at most {MAX_LINE_BYTES:,} can be a request.")
    return document_of(line.content)


def _request_and_text(document: object, parse: Callable[[object], JobRequest]) -> tuple[JobRequest, str]:
    """The request in a line's document as it is, and its JSON, sorted."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    if "\\ud" in canonical:
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"the line has half of a character, as of an emoji that was cut: {error}") from error
    return parse(document), canonical
