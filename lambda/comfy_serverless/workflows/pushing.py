"""From a workflow to a version that can be kept: what is found in it, what was chosen, what it needs. No IO.

a graph ──► proposal ──► choices ──► inputs and outputs ──► a version, which has no number yet
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.workflows.choosing import choose, with_defaults
from comfy_serverless.workflows.proposal import Proposal, propose
from comfy_serverless.workflows.targets import place_of
from comfy_serverless.workflows.version import Version

#: What is kept of the needs; the rest is told by the version itself.
_KEPT_NEEDS = ("models", "nodes", "partner_nodes")
#: The inputs that one sentence names.
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A version that can be pushed.

    Attributes:
        version: with the inputs and outputs that were chosen; those of the proposal if the choices are refused.
        proposal: what was found, whatever was chosen.
        refusal: what is wrong with the choices; None if nothing is.
    """

    version: Version
    proposal: Proposal
    refusal: InvalidRequest | None = None


def prepare(
    bare: Version,
    object_info: Mapping[str, Any] | None,
    *,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> Prepared:
    """The version with its inputs, outputs and needs.

    Args:
        bare: the workflow, by its graph, and who pushes it.
        object_info: what the workers' ComfyUI declares; None if nobody has told.
        inputs, outputs: as `workflows.choosing.choose` takes them; None for those that are found.

    Raises:
        InvalidWorkflow: it is too large to be looked at.
    """
    from comfy_serverless.graph.needs import needs_of

    proposal = propose(bare.graph, object_info, editors=bare.editors)
    needs = needs_of(bare.graph, object_info, saved=bare.editors).to_json()
    known = replace(bare, needs={name: needs[name] for name in _KEPT_NEEDS if needs.get(name)})
    try:
        chosen = choose(
            bare.graph, object_info, inputs=inputs, outputs=outputs, proposal=proposal, editors=bare.editors
        )
    except InvalidRequest as refusal:
        whole = replace(known, inputs=proposal.inputs, outputs=proposal.outputs)
        return Prepared(version=whole, proposal=proposal, refusal=refusal)
    graph = with_defaults(bare.graph, chosen[0])
    changed = {target for one in chosen[0] for target in one.targets if one.default is not None}
    changed = {target for target in changed if _value_at(graph, target) != _value_at(bare.graph, target)}
    rolled = {address: text for address, text in bare.rolled.items() if address not in changed}
    version = replace(known, graph=graph, rolled=rolled, inputs=chosen[0], outputs=chosen[1])
    return Prepared(version=version, proposal=proposal)


def unknown_ranges(version: Version) -> tuple[str, ...]:
    """A sentence on the inputs whose ranges and choices nobody has told yet; () if there are none."""
    names = [one.name for one in version.inputs if one.is_guessed]
    if not names:
        return ()
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    note = (
        f"which ranges and choices there are is not known yet for {', '.join(names[:_MOST_NAMED])}{more}, because no "
        "worker has told of these nodes: they count, and are shown, as soon as one that has them has run a job, of any "
        "workflow. Push again then to have inputs proposed by them, too"
    )
    return (note,)


def _value_at(graph: Mapping[str, Any], target: str) -> object:
    place = place_of(graph, target)
    return None if place is None else graph[place[0]]["inputs"].get(place[1])
