"""How long a container of the image with ComfyUI itself may take to start: a setting of the tests, `E2E_START_S`.

ComfyUI and torch are gigabytes, of which a machine with a slow disk reads a container's first start for minutes: longer
than the product allows by itself, which knows warm ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "E2E_START_S"
DEFAULT_S: Final = 600
#: What a job may take once ComfyUI runs.
JOB_S: Final = 300


def start_limit_s(environment: Mapping[str, str] = os.environ) -> int:
    """The seconds that a start may take. Raises ValueError for a setting that is no positive whole number."""
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_S
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{VARIABLE} is {text!r}: a number of seconds is wanted, e.g. {DEFAULT_S}")
    return int(text)


def patient(worker: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a worker, which lets its engine start for so long."""
    limit = {"MAX_COMFY_START_ATTEMPTS": str(start_limit_s(environment)), "COMFY_START_ATTEMPTS_SLEEP": "1"}
    return {**worker, **limit}
