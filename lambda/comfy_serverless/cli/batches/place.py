"""Where batches are: a deployed stack with AWS credentials, or its API with a key alone. Both do the same things.

--stack NAME, or COMFY_STACK ──► the stack (`of_stack`): what was dropped, and batches of all owners
else COMFY_BASE_URL          ──► the API (`over_http`): those of the key's owner
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from comfy_serverless.batches.progress import BatchProgress
    from comfy_serverless.batches.results import Row
    from comfy_serverless.batches.retry import Selection
    from comfy_serverless.jobs.document import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A batch as the commands see it.

    Attributes:
        progress: as of when its lines were last counted.
        report: where its report is; None until it has ended.
        bad_lines, first_failures: the first of them, as far as they are known.
        codes, curable, completed_at: of one that has ended.
        notes: why we have paused it, or read no further.
    """

    name: str
    id: str
    created_at: str
    progress: BatchProgress
    report: str | None = None
    completed_at: str | None = None
    bad_lines: Sequence[Mapping[str, Any]] = ()
    first_failures: Sequence[Mapping[str, Any]] = ()
    codes: Mapping[str, int] = field(default_factory=dict)
    curable: int | None = None
    notes: Sequence[str] = ()

    @property
    def status(self) -> str:
        """What its owner wants of it, or how it has ended."""
        return self.progress.status


@dataclass(frozen=True, slots=True)
class SentFiles:
    """What became of local files.

    Attributes:
        meant: what a line says in the place of each.
        sent: how many contents were sent; the others were there, or are the same as another file's.
        sent_bytes: of those.
    """

    meant: Mapping[Path, Any]
    sent: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A manifest that was sent.

    Attributes:
        address: where it is now, for people.
        known: returns the batch that it has become, once that is known.
    """

    address: str
    known: Callable[[], Known]


@dataclass(frozen=True, slots=True)
class Again:
    """Lines that run again.

    Attributes:
        count: how many.
        left_out: how many failed lines do not, by the reason in words.
        taken: the new batch; None if there is nothing to run.
    """

    name: str
    count: int
    left_out: Mapping[str, int]
    taken: Taken | None


@dataclass(frozen=True, slots=True)
class NotFetched:
    """A file, or the result of a line, that could not be had, and why."""

    what: str
    line: int
    reason: str


class Source(Protocol):
    """The report of a batch that has ended, and the files that it has made."""

    def rows(self) -> Iterator[Row]:
        """A row for each line, in the order of the file. May be asked for again, from the beginning."""

    def outputs(self, rows: Sequence[Row]) -> list[list[Output] | NotFetched]:
        """The outputs of these rows, which come in their order, and never again."""

    def chunks(self, output: Output) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of an output. Raises, also on the way, ComfyError for good and `is_broken` for another try."""

    def is_broken(self, error: Exception) -> bool:
        """Whether a connection has broken off, so that another try may help."""

    def reason(self, output: Output, error: Exception) -> str | None:
        """Why a file could not be had, in words; None if it is no error of this place."""


class Place(Protocol):
    """Where batches are. All methods raise ComfyError; those of a stack also AWS's own exceptions."""

    @property
    def input_bucket(self) -> str:
        """Where no result may go; "" if requests cannot say where it goes."""

    @property
    def knows_uploads(self) -> bool:
        """Whether lines may name files that were uploaded before, by their names or ids."""

    def find(self, name: str) -> Known:
        """The newest batch of a name. Raises NotFound."""

    def all(self, limit: int) -> list[Known]:
        """The newest batches."""

    def look(self, known: Known) -> Known:
        """The batch as it is now; its lines are counted anew soon."""

    def change(self, known: Known, action: str) -> str:
        """`pause`, `resume` or `cancel` it; returns its status then."""

    def send_files(
        self, files: Sequence[Path], *, workflows: frozenset[Path], progress: Callable[[int], None]
    ) -> SentFiles:
        """Send local files that lines name; `workflows` are those of them that are workflows."""

    def send(self, lines: Path, name: str, *, force: bool, progress: Callable[[int], None]) -> Taken:
        """Send a manifest, in lines, that was checked. With `force`, lines may be bad."""

    def again(self, known: Known, selection: Selection, only: str) -> Again:
        """Run lines that have failed again."""

    def results(self, known: Known) -> Source:
        """What it has made. Raises NotFound if it has not ended."""
