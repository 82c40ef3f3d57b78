"""The entry point of an image: a Lambda function's handler by name, or `serve`, the only argument SageMaker gives."""

from __future__ import annotations

import runpy
import sys


def main() -> None:
    """Become Lambda's runtime, or the server of SageMaker."""
    if sys.argv[1:] == ["serve"]:
        from comfy_serverless.handlers import sagemaker_server

        sagemaker_server.main()
    else:
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
