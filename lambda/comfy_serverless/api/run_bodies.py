"""The body of `POST …/runs`: inputs by name, or `inputs` with options of the job beside them. No IO.

{"prompt": "a fox", "seed": 5}
{"inputs": {"prompt": "a fox"}, "metadata": {"campaign": "autumn"}, "webhook_url": "https://…"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from comfy_serverless.api.bodies import WEBHOOK_SECRET, WEBHOOK_URL, ExtraData
from comfy_serverless.api.field_problems import field_problems
from comfy_serverless.jobs.request import Labels
from comfy_serverless.jobs.shapes import cleaned

_INPUTS = "inputs"
#: The rest of a sentence on an input that stands where options do.
IS_INPUT = "is an input: it goes into `inputs`"


class RunOptions(BaseModel):
    """What a run may have beside its inputs, as a submit of a job has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)

    metadata: Labels = Field(default_factory=dict, description="Labels, to find the job again by.")
    webhook_url: Annotated[str, WEBHOOK_URL] | None = None
    webhook_secret: Annotated[str, WEBHOOK_SECRET] | None = None
    extra_data: ExtraData | None = None
    deadline_s: Annotated[
        float | None, Field(ge=0, allow_inf_nan=False, description="How long the job may take once it has begun.")
    ] = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for.

    Attributes:
        problems: of its options, by field; the inputs are checked by the workflow's own schema.
        is_flat: whether the body is the inputs themselves.
    """

    inputs: Mapping[str, Any]
    options: RunOptions = field(default_factory=RunOptions)
    problems: tuple[tuple[str, str], ...] = ()
    is_flat: bool = False


def read_run(body: Mapping[str, Any]) -> Asked:
    """Read a body: if its `inputs` is an object, whatever else it has are options."""
    inputs = body.get(_INPUTS)
    if not isinstance(inputs, Mapping):
        return Asked(body, is_flat=True)
    given = cleaned({name: value for name, value in body.items() if name != _INPUTS})
    try:
        return Asked(inputs, RunOptions.model_validate(given.fields))
    except ValidationError as error:
        return Asked(inputs, problems=tuple(problems_in(error)))


def hint_at_options(name: str) -> str:
    """The rest of a sentence on a name in flat inputs that is no input, if an option has it; else ""."""
    if name not in RunOptions.model_fields:
        return ""
    return f'is no input: options of a job stand beside `inputs`: {{"inputs": {{…}}, "{name}": …}}'


def problems_in(error: ValidationError) -> list[tuple[str, str]]:
    """What is wrong, by field, in our words."""
    entries = error.errors(include_url=False, include_context=False, include_input=False)
    return [(one["field"], one["problem"]) for one in field_problems(entries, RunOptions)]
