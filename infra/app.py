"""The GPU stacks, for `cdk`. `cdk list` names them; only one of them is deployed, and any number of releases.

`-c release=NAME` makes of them workers of that name, which stand beside all others, on processors, too.
"""

from __future__ import annotations

import sys

import cdk_nag
from aws_cdk import App, Stack, Tags, Validations

from infra.lambda_cpu_stack import LambdaCpuStack
from infra.lambda_gpu_stack import LambdaGpuStack
from infra.sagemaker_stack import SageMakerStack
from infra.settings import GpuSettings, InvalidContext


def build(app: App) -> tuple[Stack, ...]:
    """Build the stacks, and the rules that they are checked against."""
    settings = GpuSettings.of(app)
    _tag(app, settings)
    Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app))
    stacks = (
        SageMakerStack(app, f"{settings.stack}-sagemaker{settings.suffix}", settings=settings),
        LambdaGpuStack(app, f"{settings.stack}-lambda-gpu{settings.suffix}", settings=settings),
    )
    if not settings.release:
        return stacks
    return (*stacks, LambdaCpuStack(app, f"{settings.stack}-lambda-cpu{settings.suffix}", settings=settings))


def _tag(app: App, settings: GpuSettings) -> None:
    """Give everything the cost allocation tags that the SAM stack has, too (tools/deploy.py)."""
    tags = Tags.of(app)
    tags.add("app", "comfy-serverless")
    tags.add("stack", settings.stack)
    if settings.owner:
        tags.add("owner", settings.owner)


def main() -> int:
    """Synthesize. Returns the exit code."""
    app = App()
    try:
        build(app)
    except InvalidContext as error:
        print(f"Not synthesized: {error}", file=sys.stderr)
        return 2
    app.synth()
    return 0


if __name__ == "__main__":
    sys.exit(main())
