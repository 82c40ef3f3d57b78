"""What the commands have in common that convert what the editor saved. No IO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.documents import Document
from comfy_serverless.graph.editor_files import without_addresses
from comfy_serverless.graph.editor_format import with_saved
from comfy_serverless.graph.file_inputs import fetched_addresses
from comfy_serverless.graph.workflow import check_format
from comfy_serverless.graph.wrappers import Unwrapped

if TYPE_CHECKING:
    from comfy_serverless.graph.convert import Conversion


def converted(document: Document, conversion: Conversion) -> Document:
    """The document with the graph that its workflow has become; that goes along, for pictures to be opened again.

    Files that are fetched have their names in it, not their addresses, which may be secret.
    """
    fetched = {address for _, address in fetched_addresses(check_format(conversion.graph), {})}
    saved = Unwrapped(without_addresses(document.editors, fetched), document.extra_data)
    return replace(
        document,
        graph=check_format(conversion.graph),
        editors={},
        extra_data=with_saved(saved),
        warnings=(*document.warnings, *conversion.warnings),
    )


def supplied_by(document: Document, options: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """What the caller gives for inputs, by their addresses, as far as that is plain without a graph.

    Only what a file cannot have, the picture of a camera, is taken from it; in a graph everything is put in again.

    Args:
        options: `--set` and the like, as (option, text).
    """
    given = {text.partition("=")[0]: text.partition("=")[2] for _, text in options}
    return {**first_of(document.inputs), **document.values, **given}


def first_of(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Each input with its file, or the first one of a batch."""
    return {name: next(iter(value), "") if isinstance(value, list) else value for name, value in inputs.items()}
