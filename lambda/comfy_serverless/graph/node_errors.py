"""`details["node_errors"]`: what is wrong with each node of a workflow, shaped as ComfyUI has it. No IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.lookup import listing

#: A workflow may be wrong at each of its nodes: of more than these the number is told. No reply has room for more.
MOST_NODES_TOLD: Final = 500
_Problem = TypeVar("_Problem")


def raise_node_errors(
    heading: str, problems: Mapping[Any, tuple[str, object]], *, error_type: str, called: str = "node {!r} {}"
) -> None:
    """Raise InvalidWorkflow for `{node id: (reason, node)}`, if any, with details shaped like ComfyUI's.

    Args:
        called: how the message puts id and reason together.
    """
    if not problems:
        return
    raise InvalidWorkflow(
        f"{heading}: {listing(problems, form=called, reason=lambda problem: problem[0])}.",
        details=node_errors_of(problems, lambda _, problem: (_class_of(problem[1]), problem[0]), error_type=error_type),
    )


def node_errors_of(
    problems: Mapping[Any, _Problem], told: Callable[[Any, _Problem], tuple[object, str]], *, error_type: str
) -> dict[str, Any]:
    """The details of a refusal: `node_errors` of the first nodes, and `more_node_errors`, the number of the others.

    Args:
        told: returns the class and the reason of a node, by its id and what stands for it in `problems`.
    """
    entries: dict[str, Any] = {}
    for node_id, problem in islice(problems.items(), MOST_NODES_TOLD):
        class_type, reason = told(node_id, problem)
        entries[str(node_id)] = {
            "errors": [{"type": error_type, "message": reason, "details": "", "extra_info": {}}],
            "dependent_outputs": [],
            "class_type": class_type,
        }
    more = len(problems) - MOST_NODES_TOLD
    return {"node_errors": entries, **({"more_node_errors": more} if more > 0 else {})}


def _class_of(node: object) -> object:
    return node.get("class_type") if isinstance(node, dict) else None
