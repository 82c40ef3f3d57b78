"""Named workflows in the OpenAPI document: one path for each, with its schema and an example that runs. No IO.

What their authors wrote stands in it as text and nothing else: it names no other place, and has an end.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from comfy_serverless.api.run_bodies import RunOptions

GENERIC: Final = "/api/v2/workflows/{name}/runs"
TAG: Final = "your workflows"
#: Of all workflows together, and of one: how many, and how many bytes of their schemas.
MOST_WORKFLOWS: Final = 100
MOST_BYTES: Final = 1_500_000
_MOST_OF_ONE: Final = 200_000
_LONGEST_TITLE, _LONGEST_DESCRIPTION = 200, 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A workflow as the document has it.

    Attributes:
        schema: of its inputs; JSON Schema 2020-12, as OpenAPI 3.1 has it too.
        example: inputs that can be sent as they stand.
    """

    name: str
    title: str
    description: str
    schema: Mapping[str, Any]
    example: Mapping[str, Any]


def with_workflows(document: Mapping[str, Any], workflows: Iterable[Described]) -> dict[str, Any]:
    """A copy of the document with a path for each workflow, as far as there is room.

    Its description says how many are shown, and where the others are.
    """
    whole = copy.deepcopy(dict(document))
    generic = whole["paths"][GENERIC]["post"]
    schemas = whole.setdefault("components", {}).setdefault("schemas", {})
    shown, left, is_all = 0, MOST_BYTES, True
    for one in workflows:
        schema, example = _schema(one), _without_references(one.example)
        size = len(json.dumps([schema, example]))
        if shown >= MOST_WORKFLOWS or size > left:
            is_all = False
            break
        shown, left = shown + 1, left - size
        schemas[f"Inputs-{one.name}"] = schema
        whole["paths"][GENERIC.format(name=one.name)] = {"post": _operation(generic, one, example)}
    told = _told(shown, is_all=is_all)
    whole["info"] |= {"description": f"{whole['info']['description']} {told}", "x-named-workflows": told}
    return whole


def _told(shown: int, *, is_all: bool) -> str:
    if is_all:
        return f"Of your named workflows all {shown} are shown, each with its inputs."
    return (
        f"Of your named workflows the first {shown} are shown, by name, each with its inputs: "
        "GET /api/v2/workflows lists all, and GET /api/v2/workflows/{name} has the `schema` of each."
    )


def _operation(generic: Mapping[str, Any], one: Described, example: Any) -> dict[str, Any]:  # noqa: ANN401
    """The operation of `…/runs` for one workflow."""
    inputs = {"$ref": f"#/components/schemas/Inputs-{one.name}"}
    with_options = {
        "type": "object",
        "title": "With options of the job",
        "required": ["inputs"],
        "properties": {"inputs": inputs, **_options()},
        "additionalProperties": False,
    }
    parameters = [parameter for parameter in generic.get("parameters", ()) if parameter["in"] != "path"]
    return {
        **copy.deepcopy(dict(generic)),
        "summary": f"Run {one.name}{f': {one.title[:_LONGEST_TITLE]}' if one.title else ''}",
        "description": one.description[:_LONGEST_DESCRIPTION] or "A named workflow.",
        "operationId": f"run_workflow_{one.name}",
        "tags": [TAG],
        "parameters": copy.deepcopy(parameters),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"anyOf": [inputs, with_options]}, "example": example}},
        },
    }


@cache
def _options() -> dict[str, Any]:
    """The options of a job, as a run's body has them."""
    told = RunOptions.model_json_schema(ref_template="#/components/schemas/{model}")
    options: dict[str, Any] = told["properties"]
    return options


def _schema(one: Described) -> dict[str, Any]:
    """The schema of its inputs, unless that is huge: then any object."""
    schema: dict[str, Any] = _without_references({name: part for name, part in one.schema.items() if name != "$schema"})
    if len(json.dumps(schema)) <= _MOST_OF_ONE:
        return schema
    return {"type": "object", "description": f"Too large to be shown here: GET /api/v2/workflows/{one.name} has it."}


def _without_references(value: Any) -> Any:  # noqa: ANN401
    """A JSON value without `$ref` and the like: a reader would look for what it names, wherever that is."""
    if isinstance(value, Mapping):
        return {name: _without_references(part) for name, part in value.items() if not str(name).startswith("$")}
    return [_without_references(part) for part in value] if isinstance(value, list | tuple) else value
