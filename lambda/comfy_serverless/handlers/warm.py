"""The warm engine of this process. Imported first, so that ComfyUI starts while the rest is still being imported.

Imports leave nothing to collect, and searching for it takes a fifth of their time: the garbage collector rests from
here until `imports_done`.

Under Lambda, importing this starts ComfyUI, without waiting for it. Should Lambda run the initialisation a second
time, the new process starts its own: the connector looks for a free port. On managed instances the runtime forks a
worker, and some of its versions import the handler before that, for its pre-fork hooks: the worker then starts ComfyUI,
since threads and connections do not survive a fork.

The credentials of the role are in this process's environment, and in that of the one it is forked from: both are closed
to ComfyUI.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import os
from collections.abc import Callable

from comfy_serverless.connector.confinement import hide_process
from comfy_serverless.handlers import wiring, wiring_worker

#: Whether workers will be forked from this process. The variable is there on managed instances only.
FORKS_WORKERS = "AWS_LAMBDA_MAX_CONCURRENCY" in os.environ and multiprocessing.parent_process() is None


def imports_done() -> None:
    """Let the garbage collector work again, on objects made from now on."""
    gc.freeze()
    gc.enable()


def in_worker(begin: Callable[[], object]) -> None:
    """Call this now, under Lambda, or in the worker that is forked from this process."""
    if not wiring.IS_LAMBDA:
        return
    if FORKS_WORKERS:
        os.register_at_fork(after_in_child=functools.cache(begin))  # a worker that forks has begun already
    else:
        begin()


gc.disable()
hide_process()
in_worker(wiring_worker.connector)
