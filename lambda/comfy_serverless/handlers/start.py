"""What an image starts with: a Lambda function's handler by name, or `serve`, the only word that SageMaker says."""

from __future__ import annotations

import runpy
import sys


def main() -> None:
    """Become the one or the other."""
    if sys.argv[1:] == ["serve"]:
        from comfy_serverless.handlers import sagemaker_server

        sagemaker_server.main()
    else:
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
