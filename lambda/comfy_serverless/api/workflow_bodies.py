"""The bodies that the routes of named workflows take, and those of their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.jobs.shapes import NULL_INPUT, shape
from comfy_serverless.workflows.store import LONGEST_DESCRIPTION, LONGEST_NOTE

#: Of a version, and of what it shows.
MAX_CHOSEN = 200


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class _Shown(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True, defer_build=True)


class PushBody(_Body):
    """A workflow to be kept under a name. What else stands in its wrapper is left out, and said."""

    workflow: Annotated[
        dict[str, Any] | str,
        Field(description="In the editor's format or in API format; or the s3:// address of either, or of a picture."),
    ]
    inputs: Annotated[
        dict[str, Any] | None,
        Field(
            max_length=MAX_CHOSEN,
            description='Names, and what they set: `{"prompt": "6.text"}`, `{"prompt": {"target": "6.text", '
            '"description": …}}`, or null for the one of this name that is found. Without it, all that are found.',
        ),
    ] = None
    outputs: Annotated[
        dict[str, Any] | None,
        Field(max_length=MAX_CHOSEN, description='Names, and the nodes that make them: `{"picture": "9"}`.'),
    ] = None
    description: Annotated[str, Field(max_length=LONGEST_DESCRIPTION, description="What it is for.")] = ""
    note: Annotated[str, Field(max_length=LONGEST_NOTE, description="What is new in this version.")] = ""
    alias: Annotated[
        str | None,
        Field(max_length=100, description="Moved to this version. `live` if the workflow is new; none if it is not."),
    ] = None
    force: Annotated[
        bool, Field(description="Keeps it although a run of it would fail on the workers that are deployed now.")
    ] = False
    dry_run: Annotated[
        bool,
        Field(
            description="Shows what would be kept, and what is wrong; writes nothing. Of nodes that nobody has "
            "declared it shows what the file itself says."
        ),
    ] = False
    expected: Annotated[
        int | None,
        Field(ge=0, description="The number that the newest version must have now, 0 for a new name; otherwise 409."),
    ] = None
    extra_data: Annotated[
        dict[str, Any] | None,
        Field(description="`extra_pnginfo.workflow`: the editor's workflow of a graph in API format. Nothing else."),
    ] = None


PUSH_FIELDS = tuple(PushBody.model_fields)


def read_push(document: object) -> tuple[object, Sequence[str]]:
    """The fields of a push, in whatever wrapper its workflow came, and what was left out.

    Raises InvalidRequest for a name in the place of a workflow.
    """
    shaped = shape(document, known=PUSH_FIELDS)
    workflow = shaped.fields.get("workflow")
    if isinstance(workflow, str) and not is_address(workflow):
        raise InvalidRequest(
            f"`workflow` is the name {workflow[:100]!r}: send the workflow itself, or the s3:// address of one."
        )
    given = document.get("inputs") if isinstance(document, Mapping) else None
    if not isinstance(given, Mapping):
        return shaped.fields, shaped.warnings
    # null is no empty field here: it chooses the input of this name that is found.
    kept = {name: value for name, value in given.items() if value is None}
    warnings = [warning for warning in shaped.warnings if not warning.endswith(NULL_INPUT)]
    return {**shaped.fields, "inputs": {**shaped.fields.get("inputs", {}), **kept}}, warnings


class AliasBody(_Body):
    """Where an alias leads from now on: exactly one of `version`, `weights` and `rollback`."""

    alias: Annotated[str, Field(max_length=100, description="`live`, `staging`, …; made if it is not there.")]
    version: Annotated[int | None, Field(description="Every run gets this one.")] = None
    weights: Annotated[
        dict[str, float] | None,
        Field(max_length=10, description='Versions, and how many of all runs each gets: `{"3": 90, "4": 10}`.'),
    ] = None
    rollback: Annotated[bool, Field(description="To where it led before its last move.")] = False
    expected: Annotated[
        dict[str, float] | None,
        Field(max_length=10, description="The weights that it must have now, {} for none; otherwise nothing is moved."),
    ] = None

    def targets(self) -> dict[int, float] | None:
        """The versions with their weights; None for a rollback. Raises InvalidRequest if it says neither, or both."""
        said = [self.version is not None, self.weights is not None, self.rollback]
        if sum(said) != 1:
            raise InvalidRequest(
                "exactly one of `version`, `weights` and `rollback: true` says where the alias leads, and "
                f"{'none' if not any(said) else 'more than one'} is given."
            )
        if self.rollback:
            return None
        return {self.version: 1} if self.version is not None else _numbered("weights", self.weights or {})

    def expects(self) -> dict[int, float] | None:
        """The weights that it must have; None for whatever it has. Raises InvalidRequest for what is no version."""
        return None if self.expected is None else _numbered("expected", self.expected)


def _numbered(field: str, weights: Mapping[str, float]) -> dict[int, float]:
    wrong = [name for name in weights if not (name.isascii() and name.isdecimal() and len(name) <= 6)]
    if wrong:
        problems = [{"field": f"{field}.{name[:60]}", "problem": "is no number of a version"} for name in wrong]
        raise InvalidRequest(
            f"`{field}` goes by the numbers of versions, and {wrong[0][:60]!r} is none.", details={"errors": problems}
        )
    return {int(name): weight for name, weight in weights.items()}


class WorkflowEntry(_Shown):
    """A named workflow in a list.

    Attributes:
        source: `own`, `operator` (shared with everybody) or `image` (a file in the image's folder: version 0).
        latest: the number of the newest version.
        aliases: where each alias leads: `{"live": {"weights": {"3": 90, "4": 10}}}`.
    """

    name: str
    source: str
    title: str = ""
    latest: int
    aliases: dict[str, dict[str, Any]]
    updated_at: str | None = None


class WorkflowList(_Shown):
    """Named workflows, by name. `next_cursor` is absent on the last page."""

    workflows: list[WorkflowEntry]
    next_cursor: str | None = None


class Move(_Shown):
    """A move of an alias, from `before` to `weights`; {} is nothing."""

    alias: str
    weights: dict[str, int]
    before: dict[str, int]
    at: str
    by: str


class Workflow(WorkflowEntry):
    """A named workflow, and the version that its runs get (of two, that with the greater weight).

    Attributes:
        version: which one is described; absent if `live` leads nowhere.
        json_schema: `schema` in JSON: JSON Schema 2020-12 of the inputs of a run, by what the workers have now.
        example: inputs of a run that can be sent as they stand.
    """

    history: list[Move] = Field(default_factory=list)
    version: int | None = None
    description: str = ""
    inputs: list[dict[str, Any]] = Field(default_factory=list)
    outputs: list[dict[str, Any]] = Field(default_factory=list)
    json_schema: Annotated[dict[str, Any], Field(alias="schema")] = Field(default_factory=dict)
    example: dict[str, Any] = Field(default_factory=dict)


class VersionEntry(_Shown):
    """A version in a list."""

    number: int
    created_at: str
    created_by: str
    note: str
    release: str
    sha256: Annotated[str, Field(description="Of its document in the bucket, which has the note and the date, too.")]
    aliases: Annotated[list[str], Field(description="The aliases that lead here, also with a part of their runs.")]


class VersionList(_Shown):
    """Versions, the newest first. `next_cursor` is absent on the last page."""

    versions: list[VersionEntry]
    next_cursor: str | None = None


class WorkflowVersion(_Shown):
    """A version, with its graph. Nothing of it ever changes.

    Attributes:
        workflow: the graph in API format.
        editors: as the editor saved it, if it came so.
        json_schema: `schema` in JSON, by what the workers had when it was pushed.
    """

    name: str
    number: int
    created_at: str
    created_by: str
    note: str
    release: str
    description: str
    sha256: Annotated[str, Field(description="Of graph, inputs and outputs: what is the same runs the same.")]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    needs: dict[str, Any]
    workflow: dict[str, Any]
    editors: dict[str, Any] | None = None


class Problem(_Shown):
    """What is wrong with a part of a request."""

    field: str
    problem: str


class Proposed(_Shown):
    """What was found in a workflow, before anything was chosen."""

    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


class Finding(_Shown):
    """What is wrong with a version on given workers.

    Attributes:
        severity: `breaks`: a run of it fails, or lacks what it promises; or `warns`.
        name: of the input or output of the workflow that it is about.
    """

    kind: str
    severity: str
    message: str
    node_id: str | None = None
    class_type: str | None = None
    input_name: str | None = None
    name: str | None = None


class Pushed(_Shown):
    """What a push has kept, or would.

    Attributes:
        version: its number; absent in a dry run.
        is_new: false if the newest version has the same content already: then nothing was written.
        proposal: in a dry run: what was found, whatever was chosen.
        problems: in a dry run: what would be refused.
        findings: what is wrong with it on the workers that are deployed: what breaks it is refused without `force`.
        notes: what was guessed, left out, or may not fit.
    """

    name: str
    version: int | None = None
    is_new: bool = False
    aliases: dict[str, dict[str, Any]] = Field(default_factory=dict)
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    json_schema: Annotated[dict[str, Any], Field(alias="schema")]
    proposal: Proposed | None = None
    problems: list[Problem] | None = None
    findings: list[Finding] = Field(default_factory=list)
    notes: list[str]
