"""What it costs to load the worker."""

from __future__ import annotations

import json
import subprocess
import sys

#: The libraries nobody can do without, and of each the names we use: they load the rest when asked for them.
BARE = "import boto3\nfrom aws_lambda_powertools import Logger, Metrics\nfrom pydantic import BaseModel"
OURS = "import comfy_serverless.handlers.generate"
ROUNDS = 12


def processor_seconds(statement: str) -> float:
    """Processor time of an import in a new process: other programs on this machine do not count."""
    program = f"import time\nbegun = time.process_time()\n{statement}\nprint(time.process_time() - begun)"
    return float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout)


def test_our_own_code_adds_less_than_a_third_to_the_libraries() -> None:
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(ROUNDS):  # in turns, so that both meet the same moments
        bare.append(processor_seconds(BARE))
        ours.append(processor_seconds(OURS))
    # `make bench` measures it against the limit itself, 1.3; on a busy machine two minima differ by 3 %.
    assert min(ours) <= 4 / 3 * min(bare), f"{min(ours):.3f} s against {min(bare):.3f} s"


def test_what_a_start_does_not_need_is_not_loaded() -> None:
    program = f"{OURS}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    heavy = {"PIL", "requests", "websocket", "numpy", "aiohttp", "aws_lambda_powertools.event_handler"}
    assert not heavy & set(json.loads(output))


def test_loading_outside_lambda_starts_nothing() -> None:
    program = f"{OURS}\nimport gc, threading\nassert gc.isenabled()\nassert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", program], check=True)
