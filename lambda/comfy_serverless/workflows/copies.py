"""What jobs get of a version: copies of its graph, and of the editor's workflow for pictures. No IO.

A copy is read from a text that was written once: several times as fast as `deepcopy`, and what a job does to its own
reaches neither the version nor another job. The texts live as long as the version that they are made of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from comfy_serverless.jobs.workflow_source import goes_along


@dataclass(frozen=True, slots=True)
class Copies:
    """Those of one version.

    Attributes:
        warnings: why nothing goes into pictures, if nothing does.
    """

    _workflow: str
    _along: str
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, graph: Mapping[str, Any], editors: Mapping[str, Any] | None, *, is_file: bool) -> Self:
        """Write the texts of a version.

        Args:
            editors: as the editor saved it, or all that is in a file; None if that is the graph alone.
            is_file: whether it is a file in WORKFLOWS_DIR: what runs is the file as it stands, with its own data.
        """
        if editors is None:
            return cls(json.dumps(graph), "{}", ())
        if is_file:
            return cls(json.dumps(editors), "{}", ())
        along, warnings = goes_along(editors, graph)
        return cls(json.dumps(graph), json.dumps(along), tuple(warnings))

    def workflow(self) -> Any:  # noqa: ANN401  (JSON)
        """What runs: of a file, as it stands there; of a version, its graph."""
        return json.loads(self._workflow)

    def along(self) -> dict[str, Any]:
        """The data that lets ComfyUI's pictures be opened in the editor again; {} if there is none."""
        data: dict[str, Any] = json.loads(self._along)
        return data
