"""A manifest goes to where batches are: checked, its local files sent, then itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from comfy_serverless.cli.batches.check import MAX_PROBLEMS, Findings, LocalFiles, Problem, Workflows, check
from comfy_serverless.cli.batches.manifest import Manifest, batch_name, opened
from comfy_serverless.cli.batches.sending import rewritten
from comfy_serverless.cli.habits import counted, say
from comfy_serverless.cli.paths import is_folder
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.settings import Settings

if TYPE_CHECKING:
    from comfy_serverless.cli.batches.place import Place, Taken

#: Kinds of problems, and duplicates, that are named one by one.
SHOWN = 10
#: Of the lines that have one and the same problem.
_LINES_NAMED = 5
_QUOTED = re.compile(r"'[^']*'")


@dataclass(frozen=True, slots=True)
class Submitted:
    """A manifest that was sent.

    Attributes:
        taken: where it is, and the batch that it has become.
        sent: how many local files were sent; those that were there are not counted.
    """

    name: str
    taken: Taken
    findings: Findings
    sent: int

    def to_json(self) -> dict[str, object]:
        """What `--json` prints."""
        return {"name": self.name, "manifest": self.taken.address, **self.findings.to_json(), "files_sent": self.sent}


def inspect(file: Path, name: str | None, *, uploads: bool, force: bool, knows_uploads: bool) -> tuple[str, Findings]:
    """Check a manifest as `submit` does, and send nothing. Returns what its batch would be called, too."""
    with _judged(file, name, input_bucket="", uploads=uploads, force=force, knows_uploads=knows_uploads) as (
        called,
        _,
        findings,
        _,
    ):
        return called, findings


def submit(place: Place, file: Path, name: str | None, *, uploads: bool, force: bool) -> Submitted:
    """Check a manifest, send its local files, and then it.

    Args:
        name: what the batch is called; None for the name of the file.
        uploads: whether local files may be sent.
        force: whether a manifest with lines that would fail is dropped all the same.

    Raises InvalidRequest if lines would fail, NotFound and MissingAsset for files, and as the place.
    """
    with (
        _judged(
            file,
            name,
            input_bucket=place.input_bucket,
            uploads=uploads,
            force=force,
            knows_uploads=place.knows_uploads,
        ) as (called, manifest, findings, workflows),
        TemporaryDirectory(prefix="manifest-") as folder,
    ):
        sent = 0
        if findings.files:
            manifest, sent = _with_files_sent(place, manifest, findings, workflows, Path(folder))
        with transfer_bar("manifest", manifest.lines_file.stat().st_size) as advance:
            taken = place.send(manifest.lines_file, called, force=force, progress=advance)
    return Submitted(called, taken, findings, sent)


def workflows_folder() -> Path | None:
    """The named workflows that are known here: WORKFLOWS_DIR, or `workflows/` in the current folder.

    Raises InvalidSetting.
    """
    folder = Settings.from_environment().workflows_dir or Path("workflows")
    return folder if is_folder(folder) else None


@contextmanager
def transfer_bar(what: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar that is gone at the end, and nothing where there is no terminal; gives what counts bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"sending {what}", total=size_bytes)
        yield lambda count: bar.advance(task, count)


@contextmanager
def _judged(
    file: Path, name: str | None, *, input_bucket: str, uploads: bool, force: bool, knows_uploads: bool
) -> Iterator[tuple[str, Manifest, Findings, Workflows]]:
    with opened(file) as manifest:
        called = batch_name(file, name)  # after that: a picture is told that it is one, and not that its name is wrong
        for note in manifest.notes:
            say(f"{file}: {note}.")
        workflows = Workflows(LocalFiles(file.parent), workflows_folder())
        with Console(stderr=True).status(f"Checking {file}"):
            findings = check(
                manifest.lines(),
                workflows=workflows,
                input_bucket=input_bucket,
                uploads=uploads,
                knows_uploads=knows_uploads,
            )
        _judge(file, findings, force=force)
        yield called, manifest, findings, workflows


def _judge(file: Path, findings: Findings, *, force: bool) -> None:
    """Say what was found. Raises InvalidRequest if the manifest must not be dropped."""
    for note in (*_told(findings), *findings.notes):
        say(f"note: {note}.")
    if not findings.requests:
        raise InvalidRequest(f"{file} has no line with a job request.")
    if not findings.bad:
        return
    shown = "\n".join(_by_reason(findings))
    said = f"{findings.bad:,} of {counted(findings.requests, 'line')} of {file} would fail:\n{shown}"
    if force:
        say(f"note: {said}")
        return
    raise InvalidRequest(
        f"{said}\nNothing was sent. Mend them, or submit with --force: bad lines are reported then, and cost the "
        "others nothing.",
        details={"problems": [{"line": problem.line, "message": problem.text} for problem in findings.problems]},
    )


def _by_reason(findings: Findings) -> Iterator[str]:
    """The problems, those of many lines once, whatever names they quote: else one mistake in each hides every other."""
    kinds: dict[str, list[Problem]] = {}
    for problem in findings.problems:
        kinds.setdefault(_QUOTED.sub("", problem.text), []).append(problem)
    left = findings.bad
    for problems in islice(kinds.values(), SHOWN):
        numbers = ", ".join(str(problem.line) for problem in problems[:_LINES_NAMED])
        more = f" and {len(problems) - _LINES_NAMED:,} more" if len(problems) > _LINES_NAMED else ""
        like = ":" if len({problem.text for problem in problems}) == 1 else ", e.g."
        yield f"  line{'' if len(problems) == 1 else 's'} {numbers}{more}{like} {problems[0].text}"
        left -= len(problems)
    if left:
        yield f"  and {counted(left, 'more line')} (--json lists the first {MAX_PROBLEMS:,})"


def _told(findings: Findings) -> Iterator[str]:
    if duplicates := findings.duplicates:
        pairs = ", ".join(f"{line} (as {first})" for line, first in duplicates[:SHOWN])
        more = f" and {len(duplicates) - SHOWN:,} more" if len(duplicates) > SHOWN else ""
        repeated = counted(len(duplicates), "line")
        yield f"the same line is the same job, and runs once; {repeated} repeated: {pairs}{more}"
    if findings.drawn:
        drawn = counted(findings.drawn, "line")
        yield f"{drawn} with a random seed (-1) or alternatives in a text: equal ones are jobs of their own"


def _with_files_sent(
    place: Place, manifest: Manifest, findings: Findings, workflows: Workflows, folder: Path
) -> tuple[Manifest, int]:
    """The manifest with addresses in place of local files, and how many of those were sent."""
    size_bytes = sum(file.stat().st_size for file in findings.files)
    with transfer_bar(counted(len(findings.files), "file"), size_bytes) as advance:
        chosen = frozenset(findings.workflows)
        sent = place.send_files(list(findings.files), workflows=chosen, progress=advance)
    there = len(findings.files) - sent.sent
    rest = f"; of the others ({there:,}) the content is there" if there else ""
    was = "was" if sent.sent == 1 else "were"
    say(f"{findings.files_in_words}: {sent.sent:,} {was} sent, {counted(sent.sent_bytes, 'byte')}{rest}.")
    target = folder / "manifest.jsonl"
    with target.open("wb") as file:
        file.writelines(rewritten(manifest.lines(), workflows=workflows, addresses=sent.meant))
    return Manifest(manifest.file, target, manifest.notes), sent.sent
