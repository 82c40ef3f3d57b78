"""What jobs get of a version: copies of its graph, and of the editor's workflow for pictures. No IO.

A copy is read from a text that was written once: several times as fast as `deepcopy`, and what a job does to its own
reaches neither the version nor another job. The texts live as long as the version that they are made of.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from comfy_serverless.jobs.workflow_source import goes_along

if TYPE_CHECKING:
    from comfy_serverless.workflows.version import Version


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
    def of(cls, version: Version) -> Self:
        """Write the texts of a version: what runs of a file is the file as it stands, which brings its own data."""
        if version.number == 0 and version.editors is not None:
            return cls(json.dumps(version.editors), "{}", ())
        along: dict[str, Any] = {}
        warnings: list[str] = []
        if version.number and version.editors is not None:
            along, warnings = goes_along(version.editors, version.graph)
        return cls(json.dumps(version.graph), json.dumps(along), tuple(warnings))

    def workflow(self) -> Any:  # noqa: ANN401  (JSON)
        """What runs: of a file, as it stands there; of a version, its graph."""
        return json.loads(self._workflow)

    def along(self) -> dict[str, Any]:
        """The data that lets ComfyUI's pictures be opened in the editor again; {} if there is none."""
        data: dict[str, Any] = json.loads(self._along)
        return data
