"""The children of a sandbox that have nothing to do."""

from __future__ import annotations

from comfy_serverless.sandbox.sandbox import Sandbox


def idle(sandbox: Sandbox) -> dict[int, str | None]:
    """Their processes, and whose they are; None for one that nobody had yet."""
    pool = sandbox._pool
    with pool._lock:
        return {child.pid: owner for owner, child in pool._idle} | {child.pid: None for child in pool._unused}
