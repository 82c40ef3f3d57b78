"""The ids of the jobs that lines of a manifest are, where lines do not name their jobs themselves. No IO.

The same line is the same job, in any manifest and however often it comes: its id is made of what it says. A line that
asks for something random (a seed of -1; alternatives in a text, in the editor's format) is a job of its own each time:
batch and place are in its id, too. Both ids stay the same when a line is read again, by this release or another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

from comfy_serverless.errors import ComfyError
from comfy_serverless.graph.chance import has_seed_to_draw, rolls
from comfy_serverless.graph.file_inputs import is_address
from comfy_serverless.graph.nodes import SEED_INPUTS
from comfy_serverless.graph.workflow import apply_set, check_format, draws_seeds, is_to_draw
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.jobs.request import JobRequest

_TEXTS: Final = "the texts of "
_GIVEN: Final = "with inputs "
#: Any of them: whether a value asks for a drawn seed is asked as of this input.
_SEED: Final = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a workflow that is not in the request: is something random left in it?

    Attributes:
        workflow: its name or address.
        is_of_texts: whether its texts alone are asked about: the request sets a seed, which decides about all seeds.
        given: the inputs of a named workflow that the request has values for, by their names.
        drawn: those of them whose value is -1.
    """

    workflow: str
    is_of_texts: bool = False
    given: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()

    @classmethod
    def about(cls, request: JobRequest, workflow: str, *, is_of_texts: bool) -> Self:
        """The question about the workflow that a request names."""
        # What has a dot is an address, and gets a file.
        names = sorted(name for name in request.inputs if "." not in name) if not is_address(workflow) else []
        drawn = tuple(name for name in names if is_to_draw(_SEED, request.inputs[name]))
        return cls(workflow=workflow, is_of_texts=is_of_texts, given=tuple(names), drawn=drawn)

    def to_text(self) -> str:
        """As ranges remember it: questions without inputs as earlier releases have asked them."""
        if self.given:
            return f"{_GIVEN}{json.dumps([self.workflow, self.is_of_texts, self.given, self.drawn])}"
        return f"{_TEXTS}{self.workflow}" if self.is_of_texts else self.workflow

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `to_text` has made."""
        if text.startswith(f"{_GIVEN}["):
            workflow, is_of_texts, given, drawn = json.loads(text.removeprefix(_GIVEN))
            return cls(workflow=workflow, is_of_texts=is_of_texts, given=tuple(given), drawn=tuple(drawn))
        return cls(workflow=text.removeprefix(_TEXTS), is_of_texts=text.startswith(_TEXTS))

    @property
    def without_inputs(self) -> Self:
        """The same question as earlier releases have asked it."""
        return replace(self, given=(), drawn=())


def id_of_text(canonical: str, *, owner: str = "") -> str:
    """The id of a line that says this: its JSON, sorted and without blanks.

    Args:
        owner: whose line it is, if the same text of another owner is another job.
    """
    said = f"{owner}\n{canonical}" if owner else canonical  # no JSON begins as the name of an owner does
    return f"line-{hashlib.sha256(said.encode()).hexdigest()[:40]}"


def id_at(job_id: str, *, batch_id: str, offset: int) -> str:
    """The id of a line that is a job of its own: `job_id` is that of its text, `offset` its place in bytes."""
    return id_of_text(f"{job_id} at {offset} of {batch_id}")


def may_draw(content: bytes) -> bool:
    """Whether a line may have a -1 in it, or alternatives. Costs next to nothing; most lines have none."""
    return b"-1" in content or b"|" in content or b"\\u" in content


def asks_for_chance(request: JobRequest, *, draws: Callable[[str], bool]) -> bool:
    """Whether two runs of this request must differ: a seed is drawn, or alternatives are rolled (`graph.chance`).

    Args:
        draws: answers a `Question`, as text, about a workflow that is not in the request.
    """
    set_seeds = {address: value for address, value in request.values.items() if _input_of(address) in SEED_INPUTS}
    sets_minus_one = any(is_to_draw(_input_of(address), value) for address, value in set_seeds.items())
    workflow = request.workflow
    if isinstance(workflow, str):
        return sets_minus_one or draws(Question.about(request, workflow, is_of_texts=bool(set_seeds)).to_text())
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
