"""What a tool answers: words for a model, the same as data for programs, and the files themselves or links to them.

Names and texts that come out of a workflow are shown as data: shortened, without invisible characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.api.responses import shown
from comfy_serverless.api.tools.texts import as_list, plain
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import ComfyError
from comfy_serverless.files import HEAD_BYTES, OutputKind, bare_type, type_of_head
from comfy_serverless.jobs.document import Job, JobStatus, Output
from comfy_serverless.observability import log

if TYPE_CHECKING:
    from comfy_serverless.api.services import Services

#: Outputs that an answer about a job lists; `get_outputs` has all of them. And files in one answer.
MOST_OUTPUTS, MOST_INLINE = 20, 8
#: Letters of a text that a job has made, and bytes that are read of it.
LONGEST_MADE_TEXT, _MADE_TEXT_BYTES = 10_000, 40_000
#: What models can look at and listen to, and so what clients show.
_INLINE: Final = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "audio/mpeg", "audio/wav", "audio/flac", "audio/ogg"}
)
_FAILED: Final = frozenset({JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.CANCELED})
_LONGEST_NAME, _LONGEST_MESSAGE = 200, 4_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture or a sound that comes with the answer."""

    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLink:
    """A file that anybody with its address can fetch for a while."""

    url: str
    name: str
    content_type: str
    size_bytes: int
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """An answer.

    Attributes:
        texts: for a model, the first of them about everything.
        data: the same for programs; with the links.
    """

    texts: tuple[str, ...]
    data: Mapping[str, Any]
    pictures: tuple[Picture, ...] = ()
    links: tuple[FileLink, ...] = ()
    is_error: bool = False


def of_error(error: ComfyError) -> ToolResult:
    """A refusal or a failure, with every problem of the arguments."""
    told = shown(error)
    details: Mapping[str, Any] = told["details"] or {}
    problems = [_problem(one) for one in details.get("errors", ()) if isinstance(one, Mapping)]
    message = plain(told["message"], _LONGEST_MESSAGE)
    again = " The same call may succeed later." if error.retryable else ""
    words = f"{message}{again} ({told['code']})"
    if problems:  # the message has the first of them already
        lines = as_list(f"{one['field']}: {one['problem']}" for one in problems)
        words = f"{message.partition(':')[0].rstrip('.')} ({told['code']}):\n{lines}"
    return ToolResult(
        texts=(words,),
        data={"error": {"code": told["code"], "message": message, "errors": problems}},
        is_error=True,
    )


def _problem(one: Mapping[str, Any]) -> dict[str, str]:
    """A problem of an argument, by the name that it has for the agent."""
    name = plain(str(one.get("field", "")).removeprefix("inputs."), _LONGEST_NAME, is_line=True)
    return {"field": name, "problem": plain(one.get("problem", ""), 500, is_line=True)}


@dataclass(slots=True)
class Inlined:
    """Takes the files that still fit into an answer.

    Attributes:
        left_bytes: how many bytes of files it may still take.
    """

    services: Services
    left_bytes: int
    texts: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def take(self, output: Output) -> bool:
        """Take an output's bytes along, if they are of a kind that clients show, and fit. Returns whether they are."""
        kind = bare_type(output.content_type)
        is_text = output.type == OutputKind.TEXT and output.size_bytes <= _MADE_TEXT_BYTES
        if not (is_text or kind in _INLINE) or output.size_bytes > self.left_bytes:
            return False
        if len(self.texts) + len(self.pictures) >= MOST_INLINE or (content := self._read(output)) is None:
            return False
        if is_text:
            made = plain(content.decode("utf-8", "replace"), LONGEST_MADE_TEXT)
            name = plain(output.name, _LONGEST_NAME, is_line=True)
            self.texts.append(f"The text of {name}, made by the job:\n{made}")
        elif not _is_of(kind, content):
            return False
        else:
            self.pictures.append(Picture(content, kind))
        self.left_bytes -= len(content)
        return True

    def _read(self, output: Output) -> bytes | None:
        """The bytes; None if the results bucket has them not (any more). The link says the same."""
        if output.s3_uri is None:
            return None
        bucket, key = S3Address.parse(output.s3_uri)
        if bucket != self.services.output_bucket:
            return None
        try:
            content = self.services.s3.get_object(Bucket=bucket, Key=key)["Body"].read(output.size_bytes + 1)
        except (ClientError, BotoCoreError):
            log.exception("an output does not come with the answer", output=output.id)
            return None
        return content if len(content) == output.size_bytes else None


def _is_of(kind: str, content: bytes) -> bool:
    """Whether a file is of the type that it is said to be, by which it is shown; sounds may begin anyhow."""
    found = type_of_head(content[:HEAD_BYTES])
    return found == kind or (found is None and kind.startswith("audio/"))


def of_job(
    job: Job, services: Services, *, inline_bytes: int, names: Mapping[str, str] | None = None, is_run: bool = False
) -> ToolResult:
    """How a job is, with its first outputs if it has succeeded.

    Args:
        names: what the workflow's author calls the outputs of a node, by the node's id.
        is_run: whether the tool was to make the outputs: then a job without is an error of the tool.
    """
    made = job.outputs if job.status is JobStatus.SUCCEEDED else ()
    data: dict[str, Any] = {"job_id": job.id, "status": job.status.value}
    labels = {name: job.metadata[name] for name in ("workflow", "version") if name in job.metadata}
    data |= {name: plain(text, _LONGEST_NAME, is_line=True) for name, text in labels.items()}
    words = [_in_words(job)]
    if job.error is not None:
        told = job.error.model_dump(
            mode="json", include={"code", "message", "node_id", "class_type"}, exclude_none=True
        )
        data["error"] = {name: plain(text, _LONGEST_MESSAGE) for name, text in told.items()}
    if job.progress is not None and not _is_over(job):
        data["progress"] = job.progress.value
    listing = of_outputs(made[:MOST_OUTPUTS], services, inline_bytes=inline_bytes, names=names)
    if job.status is JobStatus.SUCCEEDED:
        data |= {"outputs": listing.data["outputs"], "outputs_total": job.outputs_made, "seeds": _seeds(job)}
        words += listing.texts[:1]
        if job.outputs_made > MOST_OUTPUTS:
            words.append(f"These are {len(made[:MOST_OUTPUTS])} of {job.outputs_made}: get_outputs has all of them.")
    if job.warnings:
        notes = [plain(warning, 500, is_line=True) for warning in job.warnings[:10]]
        data["warnings"] = notes
        words.append(f"Notes:\n{as_list(notes)}")
    return ToolResult(
        texts=("\n".join(filter(None, words)), *listing.texts[1:]),
        data=data,
        pictures=listing.pictures,
        links=listing.links,
        is_error=is_run and job.status in _FAILED,
    )


def of_outputs(
    outputs: Sequence[Output], services: Services, *, inline_bytes: int, names: Mapping[str, str] | None = None
) -> ToolResult:
    """Outputs: each as a link, and itself if it is small enough."""
    inlined = Inlined(services, inline_bytes)
    entries, lines, links = [], [], []
    for output in services.links.of_outputs(outputs):
        called = plain((names or {}).get(output.node_id, ""), _LONGEST_NAME, is_line=True)
        comes_along = inlined.take(output)
        entries.append(_entry(output, called, comes_along=comes_along))
        lines.append(_line(output, called, comes_along=comes_along))
        if output.url is not None:
            links.append(_link(output, called))
    return ToolResult(
        texts=(as_list(lines), *inlined.texts),
        data={"outputs": entries},
        pictures=tuple(inlined.pictures),
        links=tuple(links),
    )


def of_jobs(jobs: Iterable[Mapping[str, Any]]) -> ToolResult:
    """A list of jobs."""
    entries = [
        {**job, "workflow": plain(job["workflow"], _LONGEST_NAME, is_line=True)} if job.get("workflow") else dict(job)
        for job in jobs
    ]
    parts = ([f"{job['job_id']}: {job['status']}", job["created_at"], job.get("workflow")] for job in entries)
    lines = [", ".join(filter(None, told)) for told in parts]
    return ToolResult(texts=(as_list(lines) or "There are no such jobs.",), data={"jobs": entries})


def _seeds(job: Job) -> dict[str, int]:
    """The seeds that were drawn, by address: its node may be called anything."""
    return {plain(address, _LONGEST_NAME, is_line=True): seed for address, seed in job.seeds.items()}


def _is_over(job: Job) -> bool:
    return job.completed_at is not None


def _in_words(job: Job) -> str:
    match job.status:
        case JobStatus.SUCCEEDED:
            made = job.outputs_made
            return f"Job {job.id} has succeeded, and made {made} output{'' if made == 1 else 's'}."
        case JobStatus.FAILED | JobStatus.EXPIRED | JobStatus.CANCELED:
            reason = f": {plain(job.error.message, _LONGEST_MESSAGE)} ({job.error.code})" if job.error else "."
            return f"Job {job.id} {'was' if job.status is JobStatus.CANCELED else 'has'} {job.status.value}{reason}"
        case JobStatus.CANCELING:
            return f"Job {job.id} is being canceled."
    how = f", {job.progress.value:.0%} done" if job.progress is not None else ""
    ask = f'call get_job with {{"job_id": "{job.id}"}} for its end'
    return f"Job {job.id} is {job.status.value}{how}. It goes on: {ask}."


def _entry(output: Output, called: str, *, comes_along: bool) -> dict[str, Any]:
    """An output as data."""
    entry = output.model_dump(
        mode="json",
        include={"name", "node_id", "type", "content_type", "size_bytes", "width", "height", "url", "url_expires_at"},
        exclude_none=True,
    )
    entry |= {name: plain(entry[name], _LONGEST_NAME, is_line=True) for name in ("name", "node_id") if name in entry}
    return {**({"output": called} if called else {}), **entry, "is_in_answer": comes_along}


def _line(output: Output, called: str, *, comes_along: bool) -> str:
    size = f"{output.width}x{output.height}, " if output.width and output.height else ""
    name = plain(output.name, _LONGEST_NAME, is_line=True)
    where = "with this answer" if comes_along else "by its link"
    what = f"{name} ({output.content_type}, {size}{output.size_bytes:,} bytes)"
    return f"{f'{called}: ' if called else ''}{what}, {where}"


def _link(output: Output, called: str) -> FileLink:
    return FileLink(
        url=output.url or "",
        name=plain(output.name, _LONGEST_NAME, is_line=True),
        content_type=output.content_type,
        size_bytes=output.size_bytes,
        title=called or plain(output.title, _LONGEST_NAME, is_line=True),
    )
