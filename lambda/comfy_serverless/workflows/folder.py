"""The workflows of the image: files in WORKFLOWS_DIR, each of them version 0 of a workflow that the operator shares.

poster.json          a graph, or what the editor saved, in any wrapper; named `poster`
portraits/old.json   named `portraits/old`: such names are for `workflow` of a request, and are no named workflows
poster.yaml          which inputs and outputs it has, and what they are called (`workflows.choosing`); may be absent
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from comfy_serverless.graph.editor_format import check_editor_format
from comfy_serverless.graph.inputs import Role
from comfy_serverless.graph.workflow import check_format
from comfy_serverless.graph.wrappers import is_of_editor, unwrap
from comfy_serverless.json_text import parse_json, text_of
from comfy_serverless.workflows.targets import place_of
from comfy_serverless.workflows.version import NamedInput, Version

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
        self._listed: dict[str, Path] | None = None

    def remembering(self) -> Folder:
        """The same files, listed once: for many names in a row."""
        other = copy(self)
        other._listed = self._files()
        return other

    def names(self) -> list[str]:
        """The names that it has, in alphabetical order."""
        return sorted(self._files())

    def texts(self) -> dict[str, tuple[bytes, bytes]]:
        """What is in each file, and in that of its inputs (empty if there is none), by name."""
        found = {}
        for name, path in sorted(self._files().items()):
            choices = _choices_beside(path)
            found[name] = (path.read_bytes(), b"" if choices is None else choices.read_bytes())
        return found

    def version(self, name: str, declared: Declared) -> Version | None:
        """The file of this name, as version 0; None if there is none.

        What runs is the file as it stands (`editors`, if it is more than a graph), as with any request. What the editor
        saved is converted to know its inputs, if the nodes are known. If not, the version has no graph and no inputs.

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
        version = _version(name, path, choices, declared)
        with self._lock:
            self._read[name] = _Read(writings, declared, version)
        return version

    def has_choices(self, name: str) -> bool:
        """Whether somebody has chosen which inputs a file has."""
        path = self._files().get(name)
        return path is not None and _choices_beside(path) is not None

    def _files(self) -> dict[str, Path]:
        if self._listed is not None:
            return self._listed
        if self.path is None:
            return {}
        return {path.relative_to(self.path).with_suffix("").as_posix(): path for path in self.path.rglob(f"*{_ENDING}")}


def version_of(path: Path, declared: Declared) -> Version:
    """A file alone as version 0, by its own name. Arguments and errors as of `Folder.version`."""
    return _version(path.stem, path, _choices_beside(path), declared)


def workflow_of_file(version: Version) -> dict[str, Any]:
    """The workflow that is in a file, in either format, without any wrapper."""
    document = version.graph if version.editors is None else version.editors
    found = unwrap(document)
    return dict(document if found is None else found.workflow)


def _choices_beside(path: Path) -> Path | None:
    return next((other for ending in _CHOICES if (other := path.with_suffix(ending)).is_file()), None)


def _version(name: str, path: Path, choices: Path | None, declared: Declared) -> Version:
    """The version that a file is now. Raises as `Folder.version`."""
    from comfy_serverless.graph.convert import convert  # and what finds inputs: with the first file that is asked for
    from comfy_serverless.workflows.choosing import choose, read_choices
    from comfy_serverless.workflows.proposal import propose

    source = f"the workflow {name!r}"
    document = parse_json(path.read_bytes(), source=source)
    found = unwrap(document)
    workflow = document if found is None else found.workflow
    editors = check_editor_format(workflow) if is_of_editor(workflow) else None
    if editors is None:
        graph = check_format(workflow)
    else:
        graph = convert(editors, declared).graph if declared is not None else {}
    bare = Version(name=name, number=NUMBER, owner="", graph=graph, editors=document if document != graph else None)
    if not graph:
        return bare
    proposal = propose(graph, declared, editors=editors)
    if choices is None:
        inputs = tuple(_as_it_stands(one, graph) for one in proposal.inputs)
        return replace(bare, inputs=inputs, outputs=proposal.outputs)
    text = text_of(choices.read_bytes(), source=choices.name)
    chosen = read_choices(text, source=f"{choices.name}, beside {source},")
    inputs, outputs = choose(
        graph,
        declared,
        inputs=chosen.inputs,
        outputs=chosen.outputs,
        proposal=proposal,
        editors=editors,
        lines=chosen.lines,
    )
    return replace(bare, inputs=inputs, outputs=outputs, description=chosen.description)


def _as_it_stands(one: NamedInput, graph: Mapping[str, Any]) -> NamedInput:
    """An input that nobody has chosen: what was run before, with the file and the seed in the file, still runs so."""
    place = place_of(graph, one.targets[0])
    value = None if place is None else graph[place[0]]["inputs"].get(place[1])
    is_seed = one.role is Role.SEED and isinstance(value, int)
    return replace(one, is_required=False, default=value if is_seed else one.default)
