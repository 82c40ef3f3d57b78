"""Tokens of hosts of models: a worker may read those that are named, and no other."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_iam as iam

from infra.sam_stack import allow
from infra.settings import GpuSettings


def token_statements(settings: GpuSettings) -> list[iam.PolicyStatement]:
    """What a worker needs to read the tokens."""
    places = {
        "ReadHuggingFaceToken": settings.hugging_face_token_parameter,
        "ReadCivitaiToken": settings.civitai_token_parameter,
    }
    return [_read(sid, place) for sid, place in places.items() if place]


def _read(sid: str, place: str) -> iam.PolicyStatement:
    if place.startswith("arn:"):
        return allow(sid, ["secretsmanager:GetSecretValue"], [place])
    arn = f"arn:{Aws.PARTITION}:ssm:{Aws.REGION}:{Aws.ACCOUNT_ID}:parameter{place}"
    return allow(sid, ["ssm:GetParameter"], [arn])
