"""The GPU stacks, as `cdk` wants them. `cdk list` names them; one of them is deployed."""

from __future__ import annotations

import sys

import cdk_nag
from aws_cdk import App, Validations

from infra.lambda_gpu_stack import LambdaGpuStack
from infra.sagemaker_stack import SageMakerStack
from infra.settings import GpuSettings, InvalidContext


def build(app: App) -> tuple[SageMakerStack, LambdaGpuStack]:
    """Both stacks, and the rules they are held to."""
    settings = GpuSettings.of(app)
    Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app))
    return (
        SageMakerStack(app, f"{settings.stack}-sagemaker", settings=settings),
        LambdaGpuStack(app, f"{settings.stack}-lambda-gpu", settings=settings),
    )


def main() -> int:
    """Synthesize; answers the exit code."""
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
