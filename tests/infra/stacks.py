"""The GPU stacks as CloudFormation would get them, and the SAM template beside them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from aws_cdk import App
from cfnlint.decode.cfn_yaml import load

from infra import worker_image
from infra.app import build

ROOT = Path(__file__).parent.parent.parent
SAM: dict[str, Any] = load(str(ROOT / "template.yaml"))
#: All that `cdk list` can name: the stacks as they are, and those of the release `next`.
STACKS = ("lambda-cpu-next", "lambda-gpu", "lambda-gpu-next", "sagemaker", "sagemaker-next")
#: A value for each setting that adds something, or leaves something out.
EVERYTHING: dict[str, Any] = {
    "owner": "pictures",
    "alarm_topic_arn": "arn:aws:sns:eu-central-1:111122223333:alarms",
    "models": "s3://my-models/flux/",
    "models_manifest": "s3://comfy-serverless-input-111122223333-eu-central-1/models.json",
    "hugging_face_token_parameter": "/comfy/hf-token",
    "civitai_token_parameter": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:civitai-AbCdEf",
    "input_buckets": ["my-photos"],
    "output_buckets": ["my-results"],
    "more_settings": "ENGINE_MAX_JOBS=500",
    "usd_per_second": 0.5,
    "min_environments": 1,
    "vpc_id": "vpc-0123456789abcdef0",
    "subnet_ids": ["subnet-1", "subnet-2"],
}
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


def every_stack(**context: Any) -> dict[str, dict[str, Any]]:
    """The templates of all stacks, by `STACKS`, with the context of cdk.json, overridden by this one."""
    return _every_stack(json.dumps(CONTEXT | context, sort_keys=True))


@functools.cache
def _every_stack(context: str) -> dict[str, dict[str, Any]]:
    settings = json.loads(context)
    lock = Path(tempfile.mkdtemp(prefix="lock-")) / "comfy-build.lock"
    lock.write_text("{}\n", encoding="utf-8")
    found: dict[str, dict[str, Any]] = {}
    for release in ({}, {"release": "next"}):
        folder = tempfile.mkdtemp(prefix="cdk-")
        with mock.patch.object(worker_image, "LOCK", lock):
            app = App(outdir=folder, context=settings | release)
            build(app)
            app.synth()
        found |= {
            path.name.partition(".")[0].removeprefix("comfy-serverless-"): json.loads(path.read_text(encoding="utf-8"))
            for path in Path(folder).glob("*.template.json")
        }
    assert sorted(found) == list(STACKS)
    return found


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
