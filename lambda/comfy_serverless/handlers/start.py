"""The entry point of an image: a Lambda function's handler by name, or `serve`, the only argument SageMaker gives.

awslambdaric streams no response: the handler that streams comes with a runtime of its own.
"""

from __future__ import annotations

import runpy
import sys

#: The handler whose responses are streamed, as the function's configuration names it.
STREAMS = "comfy_serverless.handlers.stream.handler"


def main() -> None:
    """Become Lambda's runtime, or the server of SageMaker."""
    if sys.argv[1:] == ["serve"]:
        from comfy_serverless.handlers import sagemaker_server

        sagemaker_server.main()
    elif sys.argv[1:] == [STREAMS]:
        from comfy_serverless.handlers import stream

        stream.main()
    else:
        runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
