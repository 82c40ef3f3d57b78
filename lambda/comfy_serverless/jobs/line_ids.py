"""The ids of the jobs that lines of a manifest are, where lines do not name their jobs themselves. No IO.

The same line is the same job, in any manifest and however often it comes: its id is made of what it says. A line that
asks for something random (a seed of -1; alternatives in a text, in the editor's format) is a job of its own each time:
batch and place are in its id, too. Both ids stay the same when a line is read again, by this release or another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from comfy_serverless.errors import ComfyError
from comfy_serverless.graph.chance import has_seed_to_draw, rolls
from comfy_serverless.graph.nodes import SEED_INPUTS
from comfy_serverless.graph.workflow import apply_set, check_format, draws_seeds, is_to_draw
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.request import JobRequest

_TEXTS = "the texts of "


def id_of_text(canonical: str) -> str:
    """The id of a line that says this: its JSON, sorted and without blanks."""
    return f"line-{hashlib.sha256(canonical.encode()).hexdigest()[:40]}"


def id_at(job_id: str, *, batch_id: str, offset: int) -> str:
    """The id of a line that is a job of its own: `job_id` is that of its text, `offset` its place in bytes."""
    return id_of_text(f"{job_id} at {offset} of {batch_id}")


def may_draw(content: bytes) -> bool:
    """Whether a line may have a -1 in it, or alternatives. Costs next to nothing; most lines have none."""
    return b"-1" in content or b"|" in content or b"\\u" in content


def texts_of(workflow: str) -> str:
    """The question for `draws` whether the texts alone of a workflow are random, whatever its seeds are."""
    return f"{_TEXTS}{workflow}"


def asked_about(question: str) -> tuple[str, bool]:
    """The workflow that a question for `draws` is about, and whether it is about its texts alone."""
    return question.removeprefix(_TEXTS), question.startswith(_TEXTS)


def asks_for_chance(request: JobRequest, *, draws: Callable[[str], bool]) -> bool:
    """Whether two runs of this request must differ: a seed is drawn, or alternatives are rolled (`graph.chance`).

    Args:
        draws: says of a workflow that is not in the request, by its name or address, whether it has something random;
            or of its `texts_of`, where the request sets a seed: that decides about all seeds.
    """
    set_seeds = {address: value for address, value in request.values.items() if _input_of(address) in SEED_INPUTS}
    sets_minus_one = any(is_to_draw(_input_of(address), value) for address, value in set_seeds.items())
    workflow = request.workflow
    if isinstance(workflow, str):
        return sets_minus_one or draws(texts_of(workflow) if set_seeds else workflow)
    if is_of_editor(workflow):
        texts = [_node_of(address) for address, value in request.values.items() if isinstance(value, str)]
        return sets_minus_one or rolls(workflow, replaced=texts) or (not set_seeds and has_seed_to_draw(workflow))
    try:
        return draws_seeds(apply_set(check_format(workflow), request.values))
    except ComfyError:  # it will fail; each of its lines says so
        return sets_minus_one


def _node_of(address: str) -> str:
    """The node that an address means, as far as that is plain; of one in a subgraph, the last part of its id."""
    return address.rpartition(".")[0].rpartition(":")[2].strip()


def _input_of(address: str) -> str:
    return address.rpartition(".")[2].strip()
