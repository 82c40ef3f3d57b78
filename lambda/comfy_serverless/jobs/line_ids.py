"""The ids of the jobs that lines of a manifest are, where lines do not name their jobs themselves. No IO.

The same line is the same job, in any manifest and however often it comes: its id is made of what it says. A line that
asks for something random (a seed of -1) is a job of its own each time: batch and place are in its id, too. Both ids
stay the same when a line is read again, by this release or another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from comfy_serverless.errors import ComfyError
from comfy_serverless.graph.nodes import SEED_INPUTS
from comfy_serverless.graph.workflow import apply_set, check_format, draws_seeds, is_to_draw
from comfy_serverless.jobs.request import JobRequest


def id_of_text(canonical: str) -> str:
    """The id of a line that says this: its JSON, sorted and without blanks."""
    return f"line-{hashlib.sha256(canonical.encode()).hexdigest()[:40]}"


def id_at(job_id: str, *, batch_id: str, offset: int) -> str:
    """The id of a line that is a job of its own: `job_id` is that of its text, `offset` its place in bytes."""
    return id_of_text(f"{job_id} at {offset} of {batch_id}")


def may_draw(content: bytes) -> bool:
    """Whether a line may have a -1 in it. Costs next to nothing; most lines have none."""
    return b"-1" in content or b"\\u" in content


def asks_for_chance(request: JobRequest, *, draws: Callable[[str], bool]) -> bool:
    """Whether two runs of this request must differ: whether a seed is drawn for it (`graph.workflow.draw_seeds`).

    Args:
        draws: says of a workflow that is not in the request, by its name or address, whether it has seeds of -1. If
            the request sets a seed, that decides.
    """
    set_seeds = {address: value for address, value in request.values.items() if _input_of(address) in SEED_INPUTS}
    sets_minus_one = any(is_to_draw(_input_of(address), value) for address, value in set_seeds.items())
    if isinstance(request.workflow, str):
        return sets_minus_one or (not set_seeds and draws(request.workflow))
    try:
        return draws_seeds(apply_set(check_format(request.workflow), request.values))
    except ComfyError:  # it will fail; each of its lines says so
        return sets_minus_one


def _input_of(address: str) -> str:
    return address.rpartition(".")[2].strip()
