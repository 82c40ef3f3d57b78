"""What loading the worker brings along. What it costs is a figure of `make bench`."""

from __future__ import annotations

import json
import subprocess
import sys

OURS = "import comfy_serverless.handlers.generate"


def test_what_a_start_does_not_need_is_not_loaded() -> None:
    program = f"{OURS}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    heavy = {"PIL", "requests", "websocket", "numpy", "aiohttp", "aws_lambda_powertools.event_handler"}
    assert not heavy & set(json.loads(output))


def test_loading_outside_lambda_starts_nothing() -> None:
    program = f"{OURS}\nimport gc, threading\nassert gc.isenabled()\nassert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", program], check=True)
