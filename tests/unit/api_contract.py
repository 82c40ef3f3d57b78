"""The Comfy API v2's document, and whether an answer is what it says.

The document is not part of this repository: COMFY_API_CONTRACT names it, or it lies beside the checkout.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from openapi_schema_validator import OAS30Validator
from referencing import Registry
from referencing.jsonschema import DRAFT4

ROOT = Path(__file__).parents[2]
BESIDE = ROOT.parent / "shared" / "comfy-api-v2" / "openapi.yaml"
_HERE = "urn:contract"
#: Statuses that the document does not have for an operation, and that we answer all the same.
ADDED = {413, 415, 422, 429}


def path() -> Path | None:
    """Where the document is, if it is anywhere."""
    chosen = Path(os.environ["COMFY_API_CONTRACT"]) if os.environ.get("COMFY_API_CONTRACT") else BESIDE
    return chosen if chosen.is_file() else None


@cache
def document() -> dict[str, Any]:
    """The document, with nulls allowed where it means them to be."""
    found = path()
    assert found is not None, "there is no contract: set COMFY_API_CONTRACT"
    parsed: dict[str, Any] = _with_nulls(yaml.safe_load(found.read_text(encoding="utf-8")))
    return parsed


def problems(method: str, url: str, status: int, body: Any) -> list[str]:
    """What of an answer is not as the document has it; nothing for routes that are ours alone."""
    operation = operation_of(method, url.partition("?")[0])
    if operation is None:
        return []
    response = operation["responses"].get(str(status))
    if response is None:
        if status not in ADDED:
            return [f"{method} {url}: status {status} is not in the document"]
        response = {"$ref": "#/components/responses/NotFound"}
    if "$ref" in response:
        response = document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response.get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        return []
    registry: Registry[Any] = Registry().with_resource(_HERE, DRAFT4.create_resource(document()))
    validator = OAS30Validator({"$ref": _HERE + schema["$ref"]}, registry=registry)
    where = f"{method} {url} {status}"
    return [f"{where}: {error.json_path}: {error.message[:300]}" for error in validator.iter_errors(body)]


def operation_of(method: str, url_path: str) -> Mapping[str, Any] | None:
    """The operation of a request, if the document has it."""
    for template, operations in document()["paths"].items():
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", template)
        if re.fullmatch(pattern, url_path) and method.lower() in operations:
            found: Mapping[str, Any] = operations[method.lower()]
            return found
    return None


def _with_nulls(value: Any) -> Any:
    """`allOf` beside `nullable` allows null by the document's own examples, and not by OpenAPI 3.0's letter."""
    if isinstance(value, dict):
        inner = {name: _with_nulls(item) for name, item in value.items()}
        if inner.get("nullable") and "allOf" in inner:
            return {"anyOf": [{"allOf": inner["allOf"]}, {"enum": [None], "nullable": True}]}
        return inner
    return [_with_nulls(item) for item in value] if isinstance(value, list) else value
