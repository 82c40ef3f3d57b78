"""The GPU stacks as CloudFormation would get them, and the SAM template beside them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws_cdk import App
from cfnlint.decode.cfn_yaml import load

from infra.app import build

ROOT = Path(__file__).parent.parent.parent
SAM: dict[str, Any] = load(str(ROOT / "template.yaml"))
CONTEXT: dict[str, Any] = json.loads((ROOT / "infra" / "cdk.json").read_text(encoding="utf-8"))["context"]


@dataclass(frozen=True)
class Synthesized:
    """One synthesis: its folder, and a template for each stack."""

    folder: Path
    sagemaker: dict[str, Any]
    lambda_gpu: dict[str, Any]


def synthesize(**context: Any) -> Synthesized:
    """Synthesize both stacks with the context of cdk.json, overridden by this one."""
    return _synthesize(json.dumps(CONTEXT | context, sort_keys=True))


@functools.cache
def _synthesize(context: str) -> Synthesized:
    folder = Path(tempfile.mkdtemp(prefix="cdk-"))
    app = App(outdir=str(folder), context=json.loads(context))
    build(app)
    app.synth()
    templates = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.template.json"))]
    lambda_gpu, sagemaker = templates
    return Synthesized(folder, sagemaker, lambda_gpu)


def of_type(template: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by their logical ids."""
    return {name: entry.get("Properties", {}) for name, entry in template["Resources"].items() if entry["Type"] == kind}


def one(template: Mapping[str, Any], kind: str, **like: Any) -> dict[str, Any]:
    """The only resource of a type, or the only one with these properties."""
    found = [
        properties
        for properties in of_type(template, kind).values()
        if all(properties.get(name) == value for name, value in like.items())
    ]
    assert len(found) == 1, f"{len(found)} of {kind} with {like}"
    return found[0]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
