"""Completes the OpenAPI document: examples that run as they stand, and what Powertools has no word for. No IO.

The page at `/docs` fills its forms with them, and a test sends every one to the API.
"""

from __future__ import annotations

import json
from typing import Any, Final

from comfy_serverless.api.auth import PUBLIC

#: A picture of one colour: it needs no model, no file and no custom node.
_WORKFLOW: Final = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 16744448}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "example"}},
}
_FILE: Final = "hello, world\n"
#: The hash of that file.
_HASH: Final = "blake3:" + "623a5460d841b6d1c13d080e85500e0043fd4ba4a8ba9c1aa9b4f6e0d212276c"

_BODIES: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("post", "/api/v2/jobs"): {"workflow": _WORKFLOW, "metadata": {"campaign": "autumn"}},
    ("post", "/api/v2/jobs/{id}/again"): {"seed": "new"},
    ("post", "/generate"): {"workflow": _WORKFLOW, "set": {"EmptyImage.color": 255}, "wait_s": 20},
    ("post", "/api/v2/workflows/needs"): {"workflow": _WORKFLOW},
    ("post", "/api/v2/workflows/convert"): {"workflow": _WORKFLOW, "set": {"EmptyImage.color": 255}},
    ("put", "/api/v2/workflows/{name}"): {
        "workflow": _WORKFLOW,
        "inputs": {"color": "EmptyImage.color", "width": {"target": "EmptyImage.width", "maximum": 512}},
        "description": "A picture of one color.",
    },
    ("post", "/api/v2/workflows/{name}/alias"): {"alias": "staging", "version": 1},
    ("post", "/api/v2/workflows/{name}/runs"): {"color": 255},
    ("post", "/api/v2/workflows/read"): {"file": json.dumps(_WORKFLOW), "file_path": "workflow.json"},
    ("post", "/api/v2/batches"): {
        "name": "example",
        "lines": [{"workflow": _WORKFLOW, "set": {"EmptyImage.color": color}} for color in (255, 65280)],
    },
    ("post", "/api/v2/batches/{name}/retry"): {"only": "curable"},
    ("post", "/api/v2/assets"): {"file": _FILE, "content_type": "text/plain", "file_path": "hello.txt"},
    ("post", "/api/v2/assets/from-hash"): {"hash": _HASH, "file_path": "again.txt"},
    ("post", "/api/v2/keys"): {"name": "ci", "owner": "team", "max_in_flight": 5, "budget_usd": 20},
    ("patch", "/api/v2/keys/{id}"): {"budget_usd": 50},
    ("post", "/api/v2/uploads"): {
        "file_path": "hello.txt",
        "content_type": "text/plain",
        "size_bytes": len(_FILE),
        "hash": _HASH,
    },
}
_LABELS: Final[dict[str, Any]] = {
    "name": "metadata",
    "in": "query",
    "description": "Only jobs with these labels: `metadata[campaign]=autumn`, once for each. Ours.",
    "style": "deepObject",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}
_PARAMETERS: Final[dict[tuple[str, str], list[dict[str, Any]]]] = {
    ("get", "/api/v2/jobs"): [_LABELS],
    ("get", "/api/v2/outputs"): [_LABELS],
    ("get", "/api/v2/health"): [
        {
            "name": "detail",
            "in": "query",
            "description": "Also how many packs of custom nodes the workers lack.",
            "allowEmptyValue": True,
            "schema": {"type": "string"},
        }
    ],
}
#: Answers that have none, for which Powertools writes one down all the same.
_WITHOUT_BODY: Final = frozenset({"204", "302"})
#: Parameters in paths, by their names: what is made by the examples themselves.
_VALUES: Final = {"alias": "live", "class_type": "SaveImage", "hash": _HASH, "name": "example", "number": "1"}


def completed(document: dict[str, Any]) -> dict[str, Any]:
    """The document, completed in place: bodies and parameters with examples, and no lock where no key is needed."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if (method.upper(), path) in PUBLIC:
                operation["security"] = []
            if (body := _BODIES.get((method, path))) is not None:
                (content,) = operation["requestBody"]["content"].values()
                content["example"] = body
            for status in _WITHOUT_BODY & operation["responses"].keys():
                operation["responses"][status].pop("content", None)
            operation.setdefault("parameters", []).extend(_PARAMETERS.get((method, path), ()))
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and (value := _VALUES.get(parameter["name"])) is not None:
                    parameter["example"] = value
    return document
