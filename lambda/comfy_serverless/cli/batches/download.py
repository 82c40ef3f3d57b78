"""Fetches what a batch has made: several files at once, checked, and each under a name of its own.

    lines of the report ──► their results ──► names ──► what is there already is left ──► the rest is fetched

What a folder has is never replaced. The names of a batch are the same each time, so that a download that was broken off
goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.s3 import MAX_CONNECTIONS
from comfy_serverless.cli.batches.names import NameTemplate, TakenNames
from comfy_serverless.cli.batches.place import NotFetched
from comfy_serverless.cli.batches.values import values_of
from comfy_serverless.errors import ComfyError
from comfy_serverless.retry import attempts

if TYPE_CHECKING:
    from comfy_serverless.batches.results import Row
    from comfy_serverless.cli.batches.place import Source
    from comfy_serverless.jobs.document import Output

#: Results that are read ahead of the files.
_AHEAD = 4 * MAX_CONNECTIONS
_PAUSES_S = (0.5, 2.0, 5.0)
_AWS = (ClientError, BotoCoreError)
_ENDING = re.compile(r"\.[A-Za-z0-9]{1,20}")
_PART = ".comfy-part"


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file of the batch in the folder.

    Attributes:
        path: below the folder.
        is_new: whether it was fetched now.
    """

    path: PurePosixPath
    row: Row
    output: Output
    is_new: bool


@dataclass(slots=True)
class Downloaded:
    """What has become of a batch's files.

    Attributes:
        missing: how many files lack a field of the template, by field.
    """

    files: list[Fetched] = field(default_factory=list)
    failed: list[NotFetched] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)


class _Interrupted(Exception):
    """The download is broken off."""


class _Changed(Exception):
    """The bytes are not those that the result tells of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """The files of one batch, into one folder.

    Attributes:
        source: has them.
        batch: its name, for `{batch}`.
        reserved: names in the folder that no file may have.
        progress: is called with each file that is there, fetched or not, in no order.
    """

    source: Source
    folder: Path
    template: NameTemplate
    batch: str
    reserved: tuple[PurePosixPath, ...] = ()
    progress: Callable[[Output], None] = lambda _output: None

    def run(self, rows: Iterable[Row]) -> Downloaded:
        """Fetch the outputs of all lines that have a result; a duplicate has those of its first line."""
        done, interrupted = Downloaded(), Event()
        with _pool(interrupted) as pool:
            taken = TakenNames(self.reserved)
            wanted = (row for row in rows if row.result and row.status == "succeeded" and row.duplicate_of is None)
            while chunk := list(islice(wanted, _AHEAD)):
                pending: list[tuple[Fetched, Future[None] | None]] = []
                for row, outputs in zip(chunk, self.source.outputs(chunk), strict=True):
                    if isinstance(outputs, NotFetched):
                        done.failed.append(outputs)
                        continue
                    pending += [self._begin(row, output, taken, done, pool, interrupted) for output in outputs]
                self._settle(pending, done)
        return done

    def _begin(
        self,
        row: Row,
        output: Output,
        taken: TakenNames,
        done: Downloaded,
        pool: ThreadPoolExecutor,
        interrupted: Event,
    ) -> tuple[Fetched, Future[None] | None]:
        """Give an output its name, and have it fetched unless it is there."""
        values = values_of(row, output, batch=self.batch)
        done.missing.update(self.template.missing(values))
        ending = PurePosixPath(output.name).suffix
        ending = ending if _ENDING.fullmatch(ending) else ""
        for path in taken.candidates(self.template.name(values), ending):
            target = self.folder / path
            if not os.path.lexists(target):
                taken.take(path)
                future = pool.submit(self._fetch, output, target, interrupted)
                return Fetched(path, row, output, is_new=True), future
            if is_same(target, output):
                taken.take(path)
                self.progress(output)
                return Fetched(path, row, output, is_new=False), None
        raise AssertionError("unreachable: there is always another candidate")

    def _settle(self, pending: Iterable[tuple[Fetched, Future[None] | None]], done: Downloaded) -> None:
        for fetched, future in pending:
            try:
                if future is not None:
                    future.result()
            except (ComfyError, _Changed, OSError, *_AWS) as error:
                said = error.message if isinstance(error, ComfyError) else str(error)
                reason = self.source.reason(fetched.output, error) or said
                done.failed.append(NotFetched(str(fetched.path), fetched.row.line, reason))
            else:
                done.files.append(fetched)

    def _fetch(self, output: Output, target: Path, interrupted: Event) -> None:
        for attempt in attempts(_PAUSES_S, pause=interrupted.wait):
            try:
                self._fetch_once(output, target, interrupted)
            except Exception as error:
                if attempt.is_last or not (isinstance(error, _Changed) or self.source.is_broken(error)):
                    raise
            else:
                self.progress(output)
                return
        raise _Interrupted

    def _fetch_once(self, output: Output, target: Path, interrupted: Event) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}{_PART}")
        try:
            digest = hashlib.sha256()
            with part.open("wb") as file, self.source.chunks(output) as chunks:
                for chunk in chunks:
                    if interrupted.is_set():
                        raise _Interrupted
                    file.write(chunk)
                    digest.update(chunk)
            if digest.hexdigest() != output.sha256:
                raise _Changed(f"{output.s3_uri} is not what its result tells: its SHA-256 is {digest.hexdigest()}")
            _put_in_place(part, target)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()


def is_same(file: Path, output: Output) -> bool:
    """Whether a file is this output, byte by byte."""
    if not file.is_file() or file.stat().st_size != output.size_bytes:
        return False
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == output.sha256


def _put_in_place(part: Path, target: Path) -> None:
    """Give a whole file its name. Raises FileExistsError if that has become another's meanwhile."""
    try:
        os.link(part, target)
    except FileExistsError as error:
        raise FileExistsError(f"{target}: another file has appeared there meanwhile") from error
    except OSError:  # a file system without links
        with target.open("xb") as file, part.open("rb") as whole:
            shutil.copyfileobj(whole, file)


@contextmanager
def _pool(interrupted: Event) -> Iterator[ThreadPoolExecutor]:
    """Threads that end at once if the caller is interrupted."""
    pool = ThreadPoolExecutor(MAX_CONNECTIONS, thread_name_prefix="download")
    try:
        yield pool
    except BaseException:
        interrupted.set()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
