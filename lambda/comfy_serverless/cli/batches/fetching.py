"""`batch download` and `batch sheet`: the files of a batch in a folder, what was not had, and something to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from comfy_serverless.cli.batches.download import Download, Downloaded
from comfy_serverless.cli.batches.gallery import Failure
from comfy_serverless.cli.batches.memory import remember, template_in
from comfy_serverless.cli.batches.names import NOTHING, NameTemplate
from comfy_serverless.cli.batches.sheet import RESERVED, draw
from comfy_serverless.cli.batches.values import default_template, known_fields
from comfy_serverless.cli.habits import FAILED, counted, print_json, say, size_in_words
from comfy_serverless.errors import InvalidRequest

if TYPE_CHECKING:
    from comfy_serverless.batches.results import Row
    from comfy_serverless.cli.batches.place import Known, Place, Source
    from comfy_serverless.jobs.document import Output

_SHOWN = 10


@dataclass(slots=True)
class _Survey:
    """What the report says of all lines together.

    Attributes:
        fields: those that names can be made of, and how many lines have them.
        lines: with results of their own.
        outputs: their files, as far as the report tells.
        failures: the lines without results.
        duplicates: lines whose results are those of an earlier one.
    """

    fields: dict[str, int] = field(default_factory=dict)
    lines: int = 0
    outputs: int = 0
    failures: list[Failure] = field(default_factory=list)
    duplicates: int = 0


def fetch(
    place: Place, batch: Known, name: str, *, folder: Path, template: str | None, draws: bool, as_json: bool
) -> int:
    """Fetch the files of a batch, and draw them if that is wanted. Returns the exit code.

    Raises NotFound if the batch has not ended, and InvalidRequest if the folder or the template cannot be used.
    """
    results = place.results(batch)
    survey = _survey(results)
    text = template or template_in(folder, batch.id) or default_template(survey.fields, survey.lines)
    wanted = NameTemplate.parse(text)
    wanted.check(survey.fields)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remember(folder, batch.id, text)
    except OSError as error:
        raise InvalidRequest(f"--out {folder}: files cannot be written there: {error.strerror}") from error
    done = _download(results, survey, wanted, name, folder)
    drawn: list[Path] = []
    if draws:
        drawn = _draw(folder, done, survey.failures, name)
    _tell(done, survey, folder, name)
    for path in drawn:
        say(f"drawn: {path}")
    if as_json:
        print_json(_as_json(done, survey, drawn, folder, batch))
    return FAILED if done.failed or survey.failures else 0


def _survey(results: Source) -> _Survey:
    survey = _Survey()

    def with_results() -> Iterator[Row]:
        for row in results.rows():
            if row.duplicate_of is not None:
                survey.duplicates += 1
            elif row.status == "succeeded":
                survey.lines += 1
                survey.outputs += len(row.outputs)
                yield row
            else:
                survey.failures.append(Failure(row.line, row.status, row.code, row.message))

    survey.fields = known_fields(with_results())
    return survey


def _download(results: Source, survey: _Survey, template: NameTemplate, name: str, folder: Path) -> Downloaded:
    with _bar(survey.outputs or None) as advance:
        download = Download(
            source=results, folder=folder, template=template, batch=name, reserved=RESERVED, progress=advance
        )
        try:
            return download.run(results.rows())
        except KeyboardInterrupt:
            say(f"What is fetched so far is in {folder}; the same command goes on with the rest.")
            raise


def _draw(folder: Path, done: Downloaded, failures: Sequence[Failure], name: str) -> list[Path]:
    size_bytes = sum(fetched.output.size_bytes for fetched in done.files)
    subtitle = f"{counted(len(done.files), 'file')}, {size_in_words(size_bytes)}"
    if failures:
        subtitle += f"  ·  {counted(len(failures), 'line')} without a result"
    columns = (TextColumn("drawing"), BarColumn(bar_width=30), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(done.files))
        return draw(folder, done.files, failures, title=name, subtitle=subtitle, progress=lambda: bar.advance(task))


class _Advance:
    """Counts files and bytes on a bar."""

    def __init__(self, bar: Progress, files: int | None) -> None:
        self._bar, self._files, self._done = bar, files, 0
        self._task = bar.add_task(self._words(), total=files)
        self._size_bytes = 0

    def __call__(self, output: Output) -> None:
        self._done += 1
        self._size_bytes += output.size_bytes
        self._bar.update(self._task, completed=self._done, description=self._words())

    def _words(self) -> str:
        return f"{self._done:,}{'' if self._files is None else f'/{self._files:,}'} files"


@contextmanager
def _bar(files: int | None) -> Iterator[_Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield _Advance(bar, files)


def _tell(done: Downloaded, survey: _Survey, folder: Path, name: str) -> None:
    size_bytes = sum(fetched.output.size_bytes for fetched in done.files)
    there = sum(not fetched.is_new for fetched in done.files)
    were = f"; {there:,} were there already" if there else ""
    say(f"{counted(len(done.files), 'file')} in {folder}, {size_in_words(size_bytes)}{were}.")
    for missing, count in done.missing.items():
        say(f"note: {counted(count, 'file')} without {{{missing}}}: {NOTHING!r} stands in the name.")
    if survey.duplicates:
        say(f"note: {counted(survey.duplicates, 'line')} that repeat an earlier one have the results of that.")
    for failed in done.failed[:_SHOWN]:
        say(f"not fetched: {failed.what} of line {failed.line}: {failed.reason}")
    if len(done.failed) > _SHOWN:
        say(f"and {len(done.failed) - _SHOWN:,} more were not fetched.")
    if done.failed:
        say("The same command fetches what is missing.")
    if survey.failures:
        codes = Counter(failure.code or failure.status for failure in survey.failures)
        listing = ", ".join(f"{count:,} {code}" for code, count in codes.most_common(5))
        say(f"{counted(len(survey.failures), 'line')} without a result: {listing}.")
        say(f"`comfy-serverless batch status {name}` says why.")


def _as_json(done: Downloaded, survey: _Survey, drawn: Sequence[Path], folder: Path, batch: Known) -> dict[str, object]:
    return {
        "batch": batch.id,
        "folder": str(folder),
        "files": [
            {
                "path": str(folder / fetched.path),
                "line": fetched.row.line,
                "job_id": fetched.row.job_id,
                "node_id": fetched.output.node_id,
                "content_type": fetched.output.content_type,
                "size_bytes": fetched.output.size_bytes,
                "sha256": fetched.output.sha256,
                "is_new": fetched.is_new,
            }
            for fetched in done.files
        ],
        "not_fetched": [{"what": failed.what, "line": failed.line, "reason": failed.reason} for failed in done.failed],
        "lines_without_result": len(survey.failures),
        "duplicates": survey.duplicates,
        "drawn": [str(path) for path in drawn],
    }
