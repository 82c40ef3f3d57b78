"""The workflows of the image: files in WORKFLOWS_DIR, each of them version 0 of a workflow that the operator shares.

poster.json          a graph, or what the editor saved, in any wrapper; named `poster`
portraits/old.json   named `portraits/old`: such names are for `workflow` of a request, and are no named workflows
poster.yaml          which inputs and outputs it has, and what they are called (`workflows.choosing`); may be absent
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from comfy_serverless.graph.convert import convert
from comfy_serverless.graph.editor_format import check_editor_format
from comfy_serverless.graph.workflow import check_format
from comfy_serverless.graph.wrappers import is_of_editor, unwrap
from comfy_serverless.json_text import parse_json
from comfy_serverless.workflows.proposal import propose
from comfy_serverless.workflows.version import Version

#: The number of what is in the image.
NUMBER: Final = 0
_ENDING: Final = ".json"
_CHOICES: Final = (".yaml", ".yml")

Declared = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Read:
    """A version as it was read: of these writings of its files, with these declarations."""

    writings: tuple[tuple[int, int], ...]
    declared: Declared
    version: Version


class Folder:
    """The named files of one folder. Thread-safe; a file that is written anew is read anew."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._read: dict[str, _Read] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The names that it has, in alphabetical order."""
        return sorted(self._files())

    def version(self, name: str, declared: Declared) -> Version | None:
        """The file of this name, as version 0; None if there is none.

        What the editor saved is converted if the nodes are known. If not, the version has no graph and no inputs: a
        worker converts what `editors` has, as with any request.

        Raises:
            InvalidRequest, InvalidWorkflow: the file, or that of its inputs, cannot be used; the message names it.
        """
        path = self._files().get(name.removesuffix(_ENDING))  # a look-up, never a path: names cannot lead out of here
        if path is None:
            return None
        name = name.removesuffix(_ENDING)
        choices = _choices_beside(path)
        writings = tuple((one.stat().st_mtime_ns, one.stat().st_size) for one in (path, choices) if one is not None)
        with self._lock:
            known = self._read.get(name)
        if known is not None and known.writings == writings and known.declared is declared:
            return known.version
        version = _version(name, path, declared)
        with self._lock:
            self._read[name] = _Read(writings, declared, version)
        return version

    def has_choices(self, name: str) -> bool:
        """Whether somebody has chosen which inputs a file has."""
        path = self._files().get(name)
        return path is not None and _choices_beside(path) is not None

    def _files(self) -> dict[str, Path]:
        if self.path is None:
            return {}
        return {path.relative_to(self.path).with_suffix("").as_posix(): path for path in self.path.rglob(f"*{_ENDING}")}


def workflow_of_file(version: Version) -> dict[str, Any]:
    """The workflow that is in a file, in either format, without any wrapper."""
    document = version.graph if version.editors is None else version.editors
    found = unwrap(document)
    return dict(document if found is None else found.workflow)


def _choices_beside(path: Path) -> Path | None:
    return next((other for ending in _CHOICES if (other := path.with_suffix(ending)).is_file()), None)


def _version(name: str, path: Path, declared: Declared) -> Version:
    source = f"the workflow {name!r}"
    document = parse_json(path.read_bytes(), source=source)
    found = unwrap(document)
    workflow = document if found is None else found.workflow
    if not is_of_editor(workflow):
        graph, editors = check_format(workflow), None
    else:
        editors = check_editor_format(workflow)
        graph = convert(editors, declared).graph if declared is not None else {}
    proposal = propose(graph, declared, editors=editors)
    return Version(
        name=name,
        number=NUMBER,
        owner="",
        graph=graph,
        editors=None if workflow is document and editors is None else document,
        # Nobody has chosen them: what was run before by its address alone, or with the file that it names, still is.
        inputs=tuple(replace(one, is_required=False) for one in proposal.inputs),
        outputs=proposal.outputs,
    )
