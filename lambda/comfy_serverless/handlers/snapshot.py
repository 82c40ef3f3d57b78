"""SnapStart: Lambda keeps a process that has started, and sandboxes go on from it, on any machine, weeks later.

    imports, clients, ComfyUI ──► `before` ──► snapshot … restore ──► `after` ──► invocations

awslambdaric calls the hooks, around its `GET …/restore/next`. What restored sandboxes must not share:

- random numbers: Python's and OpenSSL's generators begin anew. (Ids and keys come from the kernel's, which does so
  itself.)
- connections: nothing that starts makes any, but those to ComfyUI, which are closed. A test looks at the sockets.
- the time: what is remembered for a while is first read in an invocation. Credentials come with a date, which botocore
  compares with the clock.
"""

from __future__ import annotations

import os
import random
import ssl
from collections.abc import Callable

#: Whether this process is to be a snapshot.
IS_TAKEN = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
_ENTROPY_BYTES = 64


def hooks(*, before: Callable[[], object] | None = None, after: Callable[[], object] | None = None) -> None:
    """Have these called before the snapshot and after each restore, beside what every process needs; else do nothing.

    What `before` raises fails the publishing of the version, and what `after` raises ends the sandbox.
    """
    if not IS_TAKEN:
        return
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    if before is not None:
        register_before_snapshot(before)
    register_after_restore(renew_random_numbers)
    if after is not None:
        register_after_restore(after)


def renew_random_numbers() -> None:
    """Let the generators of this process go on from what no other process has."""
    random.seed()
    ssl.RAND_add(os.urandom(_ENTROPY_BYTES), _ENTROPY_BYTES)
