"""What `run` is asked for: the workflow with the values of a request in it, and what the options mean there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.assignments import Assignment, Meant, find
from comfy_serverless.cli.documents import Document
from comfy_serverless.cli.habits import one_line, say
from comfy_serverless.cli.paths import is_file, is_folder, local_path
from comfy_serverless.errors import InvalidRequest, MissingAsset
from comfy_serverless.graph.lookup import Specificity, met_several, nodes_in_words
from comfy_serverless.graph.workflow import apply_set
from comfy_serverless.worker.inputs.plan import with_mask_inputs

if TYPE_CHECKING:
    from comfy_serverless.worker.inputs.plan import Origin

_LONGEST_SHOWN = 200

Files = Mapping[str, "Origin | Sequence[Origin]"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is to be run: the graph with the `set` of the request, and what the options put into it.

    Attributes:
        notes: which nodes an address has met, where that is not plain from it.
    """

    graph: dict[str, Any]
    values: Sequence[Meant]
    files: Files
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something about it, now and with the result."""
        self.notes.append(text)
        say(one_line(text))


def wishes_of(document: Document, given_options: Sequence[tuple[str, str]]) -> Wishes:
    """What a document and the options of a command line, as (option, text), ask for; what is not plain is said."""
    assignments = [Assignment(*given) for given in given_options]
    graph = apply_set(document.graph, document.values)
    values = find(graph, [one for one in assignments if one.option != "--input"])
    given = find(with_mask_inputs(graph), [one for one in assignments if one.option == "--input"])
    files: dict[str, Any] = dict(document.inputs)
    for address in dict.fromkeys(one.address for one in given):
        files[address] = [origin(one.value) for one in given if one.address == address]
    notes = [
        *document.warnings,
        *met_several(graph, document.values),
        *met_several(with_mask_inputs(graph), document.inputs),
    ]
    notes += [note for one in [*values, *given] if (note := _note(graph, one))]
    wishes = Wishes(graph, values, files)
    for note in dict.fromkeys(notes):
        wishes.note(note)
    return wishes


def _note(graph: Mapping[str, Any], one: Meant) -> str | None:
    """Which nodes an option has met, if its address does not say it itself."""
    if len(one.targets) == 1 and one.specificity is not Specificity.INPUT:
        return None
    nodes = nodes_in_words(graph, [node_id for node_id, _ in one.targets])
    count = "1 node" if len(one.targets) == 1 else f"{len(one.targets)} nodes"
    return f"{one.option} {one.address}: set on {count}: {nodes}"


def origin(text: str) -> Origin:
    """A file of this machine, or an address that is fetched."""
    return text if text.lower().startswith(("s3://", "https://", "http://", "data:")) else local_path(text)


def check_files(files: Files) -> None:
    """Check that every file is there, before ComfyUI starts."""
    for address, origins in files.items():
        for origin in [origins] if isinstance(origins, str | Path) else origins:
            if isinstance(origin, Path) and not is_file(origin):
                what = "is a folder, not a file" if is_folder(origin) else "there is no such file"
                raise MissingAsset(f"--input {address}={_shortened(origin)}: {what}")


def _shortened(path: Path) -> str:
    """A path for a message: what was pasted in its place may be a whole picture."""
    text = str(path)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def check_folder(folder: Path) -> None:
    """Make the folder of the results, before ComfyUI starts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"--out {folder}: the folder cannot be made: {error.strerror}") from error
