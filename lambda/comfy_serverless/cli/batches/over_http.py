"""Batches of a key's owner, over HTTP: no AWS credentials. Local files become uploads, which lines name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

from comfy_serverless.batches.progress import BatchProgress
from comfy_serverless.batches.results import Row
from comfy_serverless.cli import remote
from comfy_serverless.cli.batches.check import read_workflow
from comfy_serverless.cli.batches.place import Again, Known, NotFetched, SentFiles, Taken
from comfy_serverless.cli.habits import say
from comfy_serverless.cli.remote_answers import Document, reason_of
from comfy_serverless.cli.uploading import upload_file
from comfy_serverless.errors import InvalidRequest, MissingAsset, NotFound, TooLarge, UpstreamError
from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.keys import safe_name

if TYPE_CHECKING:
    from comfy_serverless.batches.retry import Selection

_PATH = "/api/v2/batches"
#: Without these fields an answer is none of the API's.
_BATCH, _LIST, _OUTPUTS = ("id", "name", "status", "lines"), ("batches",), ("outputs",)
#: What is sent as a text; larger manifests are uploaded. A body has 6 MB, and JSON has more signs than its text.
_MAX_TEXT_BYTES = 2_000_000
_PAGE, _OUTPUTS_PAGE = 50, 100
_UPLOADS_AT_ONCE = 4
_READ_BYTES = 256 * 1024
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class OverHttp:
    """Implements `Place`."""

    api: remote.Api
    input_bucket: str = ""
    knows_uploads: bool = True

    def find(self, name: str) -> Known:
        """See `Place`."""
        return _known(self._document(name))

    def all(self, limit: int) -> list[Known]:
        """See `Place`."""
        found: list[Known] = []
        cursor: str | None = None
        while len(found) < limit:
            query = {"limit": min(_PAGE, limit - len(found)), **({"cursor": cursor} if cursor else {})}
            page = remote.ask(self.api, "GET", _PATH, _LIST, params=query)
            found += map(_known, page["batches"])
            cursor = page.get("next_cursor")
            if not cursor:
                break
        return found

    def look(self, known: Known) -> Known:
        """See `Place`."""
        return _known(self._document(known.id))

    def change(self, known: Known, action: str) -> str:
        """See `Place`."""
        return str(remote.ask(self.api, "POST", f"{_one(known.id)}/{action}", _BATCH)["status"])

    def send_files(
        self, files: Sequence[Path], *, workflows: frozenset[Path], progress: Callable[[int], None]
    ) -> SentFiles:
        """See `Place`. Workflows are written into the lines: a request can name no file of an upload as its own."""
        meant: dict[Path, Any] = {path: read_workflow(path) for path in files if path in workflows}
        others = [path for path in files if path not in workflows]

        def send(path: Path) -> tuple[str, int]:
            called = f"batches/{_digest(path)[:20]}/{safe_name(path.name)}"
            sent = upload_file(self.api, path, show=lambda *_: None, naming={"file_path": called})
            progress(sent.size_bytes)
            return called, sent.size_bytes if sent.was_sent else 0

        with ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="upload") as pool:
            try:
                done = list(pool.map(send, others))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        meant |= {path: called for path, (called, _) in zip(others, done, strict=True)}
        sizes = [size for _, size in done if size]
        return SentFiles(meant, len(sizes), sum(sizes))

    def send(self, lines: Path, name: str, *, force: bool, progress: Callable[[int], None]) -> Taken:
        """See `Place`."""
        document = self._sent_as_text(lines, name, force=force)
        if document is None:
            called = f"manifests/{name}.jsonl"
            sent = upload_file(self.api, lines, show=lambda *_: None, naming={"file_path": called})
            body = {"name": name, "upload_id": sent.asset["id"], "force": force}
            document = remote.ask(self.api, "POST", _PATH, _BATCH, json=body)
        progress(lines.stat().st_size)
        return self._taken(document)

    def again(self, known: Known, selection: Selection, only: str) -> Again:  # noqa: ARG002  (the API reads it)
        """See `Place`."""
        try:
            document = remote.ask(self.api, "POST", f"{_one(known.id)}/retry", _BATCH, json={"only": only})
        except InvalidRequest as error:
            left_out = error.details.get("left_out")
            if not isinstance(left_out, dict):
                raise
            return Again(f"{known.name}-again", 0, left_out, None)
        count, left_out = int(document["lines_total"]), document.get("left_out") or {}
        return Again(str(document["name"]), count, left_out, self._taken(document))

    def results(self, known: Known) -> OfApi:
        """See `Place`."""
        if known.report is None:
            raise NotFound(f"the batch {known.name} has not ended ({known.status}): its report comes at the end.")
        return OfApi(self.api, known)

    def _sent_as_text(self, lines: Path, name: str, *, force: bool) -> Document | None:
        """The batch; None if the lines are too many for that, or no text."""
        if lines.stat().st_size > _MAX_TEXT_BYTES:
            return None
        try:
            body = {"name": name, "manifest": lines.read_text(encoding="utf-8"), "force": force}
            return remote.ask(self.api, "POST", _PATH, _BATCH, json=body)
        except (TooLarge, UnicodeDecodeError):
            return None

    def _taken(self, document: Document) -> Taken:
        for warning in document.get("warnings", ()):
            say(f"Note: {warning}.")
        return Taken(f"{self.api.shown}{_one(str(document['id']))}", lambda: _known(document))

    def _document(self, name: str) -> Document:
        return remote.ask(self.api, "GET", _one(name), _BATCH)


@dataclass(slots=True)
class OfApi:
    """The files of a batch, by signed links. Implements `Source`."""

    api: remote.Api
    known: Known
    _entries: Iterator[Document] | None = None
    _held: Document | None = field(default=None)

    def rows(self) -> Iterator[Row]:
        """See `Source`."""
        self._entries, self._held = self._outputs(), None
        link = remote.ask(self.api, "GET", _one(self.known.id), _BATCH).get("rows_url")
        if not link:
            raise UpstreamError("the API tells of no `rows_url` of a batch that has ended: is it of an older release?")
        try:
            with closing(self.api.send("GET", str(link), with_key=False, stream=True)) as answer:
                if not answer.ok:
                    raise UpstreamError(f"the report was refused with {answer.status_code}: ask again.")
                for line in answer.iter_lines(_READ_BYTES, delimiter=b"\n"):
                    if line:
                        yield Row.parse(json.loads(line))
        except requests.RequestException as error:
            raise UpstreamError(f"the report could not be read: {reason_of(error)}") from error

    def outputs(self, rows: Sequence[Row]) -> list[list[Output] | NotFetched]:
        """See `Source`."""
        return [self._outputs_or_problem(row) for row in rows]

    @contextmanager
    def chunks(self, output: Output) -> Iterator[Iterator[bytes]]:
        """See `Source`."""
        with closing(remote.open_output(self.api, output.to_json())) as answer:
            yield answer.iter_content(_READ_BYTES)

    def is_broken(self, error: Exception) -> bool:
        """See `Source`."""
        return isinstance(error, requests.RequestException)

    def reason(self, output: Output, error: Exception) -> str | None:
        """See `Source`."""
        if not isinstance(error, requests.RequestException):
            return None
        return f"{output.name}: the connection has broken off ({reason_of(error)})"

    def _outputs_or_problem(self, row: Row) -> list[Output] | NotFetched:
        try:
            return self._outputs_of(row)
        except NotFound as error:
            return NotFetched(row.job_id, row.line, error.message)

    def _outputs_of(self, row: Row) -> list[Output]:
        """The outputs of the line; both lists are in the order of the lines."""
        found: list[Output] = []
        entries = self._entries if self._entries is not None else iter(())
        while (entry := self._held or next(entries, None)) is not None:
            self._held = entry
            if entry["line"] > row.line:
                break
            if entry["line"] == row.line:
                found.append(Output.model_validate(entry))
            self._held = None
        if not found and row.outputs:  # of lines that are the same, another one's job has made them
            found = [Output.model_validate(one) for one in remote.outputs(self.api, remote.job(self.api, row.job_id))]
        return found

    def _outputs(self) -> Iterator[Document]:
        cursor: str | None = None
        while True:
            query = {"limit": _OUTPUTS_PAGE, **({"cursor": cursor} if cursor else {})}
            page = remote.ask(self.api, "GET", f"{_one(self.known.id)}/outputs", _OUTPUTS, params=query)
            yield from page["outputs"]
            cursor = page.get("next_cursor")
            if not cursor:
                return


def _one(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"


def _known(document: Document) -> Known:
    failures = list(document.get("first_failures") or ())
    bad = [one for one in failures if not one.get("job_id")]
    others = [one for one in failures if one.get("job_id")]
    counts: dict[str, Any] = {name: document.get(name) for name in BatchProgress.__dataclass_fields__}
    return Known(
        name=str(document["name"]),
        id=str(document["id"]),
        created_at=str(document["created_at"]),
        progress=BatchProgress(**counts),
        report=document.get("report_url"),
        completed_at=document.get("completed_at"),
        bad_lines=[{"line": one["line"], "message": one["message"]} for one in bad[:_SHOWN]],
        first_failures=[{**one, "status": "failed"} for one in others[:_SHOWN]],
        codes=document.get("codes") or {},
        notes=tuple(map(str, document.get("notes") or ())),
        curable=document.get("curable"),
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise MissingAsset(f"{path} cannot be read: {error.strerror}") from error
