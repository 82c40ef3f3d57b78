"""Whether two runs of a version differ by chance, with the inputs that a request gives (`jobs.line_ids`). No IO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from comfy_serverless.graph.chance import draws, rolls
from comfy_serverless.graph.inputs import Role
from comfy_serverless.graph.nodes import SEED_INPUTS
from comfy_serverless.graph.workflow import is_to_draw
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.workflows.folder import workflow_of_file
from comfy_serverless.workflows.version import NamedInput, Version

if TYPE_CHECKING:
    from comfy_serverless.jobs.line_ids import Question

#: Whether a value asks for a drawn seed is asked as of this input.
_SEED = "seed"


def is_random(version: Version, question: Question) -> bool:
    """Whether a seed is drawn, or a text is rolled, that the request does not set."""
    if version.number == 0 and is_of_editor(workflow_of_file(version)):
        # Which of its values an input replaces is not known for sure until it is converted.
        return bool(question.drawn) or _is_random_file(version, question)
    if version.number == 0 and not question.given:
        return _is_random_file(version, question)
    given = [one for one in version.inputs if one.name in question.given]
    replaced = {target for one in given for target in one.targets}
    if any(one.name in question.drawn and _is_seed(one) for one in given):
        return True
    if any(address not in replaced for address in version.rolled):
        return True
    return not question.is_of_texts and not replaced.issuperset(_seeds_to_draw(version))


def _is_seed(one: NamedInput) -> bool:
    """Whether -1 asks for a drawn number: by its role, or because a worker knows the input for a seed."""
    return one.role is Role.SEED or any(target.rpartition(".")[2] in SEED_INPUTS for target in one.targets)


def _is_random_file(version: Version, question: Question) -> bool:
    """The same of a file in WORKFLOWS_DIR, as releases without named workflows have judged it."""
    workflow = workflow_of_file(version)
    return rolls(workflow) if question.is_of_texts else draws(workflow)


def _seeds_to_draw(version: Version) -> Iterator[str]:
    for node_id, node in version.graph.items():
        yield from (f"{node_id}.{name}" for name, value in node["inputs"].items() if is_to_draw(name, value))
    for one in version.inputs:
        if one.role is Role.SEED and is_to_draw(_SEED, one.default):
            yield from one.targets
