"""Which inputs and outputs a workflow has, as somebody chooses them. No IO.

    inputs:
      prompt: 6.text                        # an address, as everywhere
      photo: {target: 10.image, description: The product, required: false}
      seed:                                 # nothing: as it was proposed
    outputs:
      picture: "9"

Every mistake is told at once. What is chosen may be narrower than what ComfyUI takes, and never wider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless.errors import InvalidRequest, UiFormatWorkflow
from comfy_serverless.graph.inputs import InputKind, Role, input_at
from comfy_serverless.graph.lookup import MAX_LISTED, NodeLookup, NothingMeant, nodes_in_words, title_of
from comfy_serverless.graph.near import Guesses
from comfy_serverless.graph.workflow import copy_graph, is_link
from comfy_serverless.workflows.candidates import Candidates
from comfy_serverless.workflows.choices_file import Choices, read_choices
from comfy_serverless.workflows.chosen_fields import Fields, Tell, read_fields, restricted
from comfy_serverless.workflows.describing import described, plain_text
from comfy_serverless.workflows.leads import Leads
from comfy_serverless.workflows.naming import unfit
from comfy_serverless.workflows.proposal import Proposal
from comfy_serverless.workflows.targets import Target, place_of
from comfy_serverless.workflows.version import NamedInput, NamedOutput

if TYPE_CHECKING:
    from comfy_serverless.graph.convert.places import Places

__all__ = ["Choices", "choose", "read_choices", "with_defaults"]

#: The most inputs, and the most outputs, that a workflow can have by name; and the longest message.
MOST_NAMED: Final = 200
#: The most inputs of the graph that all names together set: an address may mean every node of a class.
MOST_PLACES: Final = 5_000
_LONGEST_MESSAGE: Final = 8_000
#: The most mistakes that are told: an answer has an end.
_MOST_PROBLEMS: Final = 500


def choose(
    graph: Mapping[str, Any],
    object_info: Mapping[str, Any] | None,
    *,
    inputs: Mapping[str, Any] | None,
    outputs: Mapping[str, Any] | None,
    proposal: Proposal,
    editors: Mapping[str, Any] | None = None,
    lines: Mapping[str, int] | None = None,
) -> tuple[tuple[NamedInput, ...], tuple[NamedOutput, ...]]:
    """The inputs and outputs that somebody chooses; those of the proposal where nothing is chosen (None).

    Args:
        inputs: by name: an address, several in a list, an object with more (`chosen_fields.FIELDS`), or None for the
            one of this name in the proposal.
        outputs: by name: a node, by its id, title or class.
        editors: the same workflow as the editor saved it, for the ids and names that it shows.
        lines: where the choices stand in a file, for messages: `inputs.photo.minimum` is in line 4.

    Raises:
        InvalidRequest: something cannot be chosen so; `details["errors"]` has every mistake.
    """
    choosing = _Choosing(graph, object_info, proposal, editors)
    chosen = (
        proposal.inputs if inputs is None else choosing.inputs(inputs),
        proposal.outputs if outputs is None else choosing.outputs(outputs),
    )
    if choosing.problems:
        raise refusal(choosing.problems, lines or {})
    return chosen


def with_defaults(graph: Mapping[str, Any], inputs: tuple[NamedInput, ...]) -> dict[str, Any]:
    """A copy of the graph with the defaults that were chosen in it: they need not be set for each job.

    A seed that is drawn for each job stays as it is, and so does what a default is the value of already.
    """
    result = copy_graph(graph)
    for one in inputs:
        places = [place for target in one.targets if (place := place_of(graph, target)) is not None]
        is_drawn = one.role is Role.SEED and one.default == -1
        if not places or one.default is None or is_drawn:
            continue
        first, name = places[0]
        if graph[first]["inputs"].get(name) != one.default:
            for node_id, name in places:
                result[node_id]["inputs"][name] = one.default
    return result


def refusal(problems: Mapping[str, str], lines: Mapping[str, int]) -> InvalidRequest:
    """The error that names every mistake, with its line where that is known."""
    errors: list[dict[str, Any]] = []
    for name, problem in problems.items():
        line = _line(name, lines)
        errors.append({"field": name, "problem": problem, **({} if line is None else {"line": line})})
    told = [f"{_place(one)}{one['field']} {one['problem']}" for one in errors]
    more = [f"and {len(told) - MAX_LISTED} more"] if len(told) > MAX_LISTED else []
    message = f"The choices cannot be used: {'; '.join([*told[:MAX_LISTED], *more])}."
    return InvalidRequest(message[:_LONGEST_MESSAGE], details={"errors": errors})


def _place(error: Mapping[str, Any]) -> str:
    return f"line {error['line']}, " if "line" in error else ""


def _line(name: str, lines: Mapping[str, int]) -> int | None:
    """The line of a field, or of what it stands in."""
    while name not in lines and "." in name:
        name = name.rpartition(".")[0]
    return lines.get(name)


class _Choosing:
    """One reading of choices.

    Attributes:
        problems: what is wrong, by field: `inputs.photo.minimum`.
    """

    def __init__(
        self,
        graph: Mapping[str, Any],
        object_info: Mapping[str, Any] | None,
        proposal: Proposal,
        editors: Mapping[str, Any] | None,
    ) -> None:
        self.problems: dict[str, str] = {}
        self._graph = graph
        self._info = object_info
        self._proposed = {one.name: one for one in proposal.inputs}
        self._editors = editors
        self._places: Places | None = None
        self._lookup = NodeLookup(graph)
        self._left = MOST_PLACES
        self._within: dict[str, list[str]] | None = None
        self._nodes_called: tuple[Mapping[str, list[str]], ...] | None = None
        self._candidates = Candidates(graph, object_info, Leads(graph, object_info), None)
        self._guesses = Guesses()

    def inputs(self, given: Mapping[str, Any]) -> tuple[NamedInput, ...]:
        """The inputs that are chosen. Mistakes are noted."""
        found: list[NamedInput] = []
        owners: dict[str, str] = {}
        for name, raw in self._named(given, "inputs"):
            if self._left < 0:
                break
            tell = self._teller(f"inputs.{name}")
            fields = read_fields(raw, tell)
            one = None if fields is None else self._input(name, fields, tell)
            if one is None:
                continue
            for target in one.targets:
                if (other := owners.setdefault(target, name)) != name:
                    tell("", f"sets {target}, which {other!r} sets already")
            found.append(one)
        if self._left < 0:
            self.problems["inputs"] = f"set too many inputs of the graph: {MOST_PLACES:,} together at most"
        return tuple(found)

    def outputs(self, given: Mapping[str, Any]) -> tuple[NamedOutput, ...]:
        """The outputs that are chosen. Mistakes are noted."""
        found: list[NamedOutput] = []
        for name, raw in self._named(given, "outputs"):
            tell = self._teller(f"outputs.{name}")
            said: object = ""
            if isinstance(raw, Mapping):
                said, raw = raw.get("title", ""), raw.get("node")
            title = said if isinstance(said, str) else ""
            if isinstance(raw, bool) or not isinstance(raw, str | int) or raw == "":
                tell("", "names no node: write its id, title or class")
            elif node_id := self._node(str(raw), tell):
                found.append(NamedOutput(name=name, node_id=node_id, title=plain_text(title, 200)))
        return tuple(found)

    def _named(self, given: Mapping[str, Any], part: str) -> list[tuple[str, Any]]:
        if not isinstance(given, Mapping):
            self.problems[part] = "are no mapping: write `name: address`"
            return []
        if len(given) > MOST_NAMED:
            self.problems[part] = f"are {len(given)}, and can be {MOST_NAMED} at most"
        good: list[tuple[str, Any]] = []
        for name, raw in [*given.items()][:MOST_NAMED]:
            if problem := unfit(name):
                self.problems[f"{part}.{str(name)[:100]}"] = problem
            else:
                good.append((name, raw))
        return good

    def _teller(self, prefix: str) -> Tell:
        def tell(name: str, problem: str) -> None:
            if len(self.problems) < _MOST_PROBLEMS:
                self.problems.setdefault(f"{prefix}.{name}" if name else prefix, problem)

        return tell

    def _input(self, name: str, fields: Fields, tell: Tell) -> NamedInput | None:
        proposed = self._proposed.get(name)
        if not fields.targets:
            if proposed is None:
                near = self._guesses.near(name, self._proposed)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                tell("", f"has no `target`, and no input of this name was proposed{hint}: write an address like 6.text")
                return None
            return restricted(proposed, fields, tell)
        before = len(self.problems)
        targets = dict.fromkeys(target for address in fields.targets for target in self._targets(address, tell))
        if len(self.problems) > before or not targets:
            return None
        same = next((one for one in self._proposed.values() if one.targets == tuple(map(".".join, targets))), None)
        role = self._candidates.candidate([*targets]).role
        one = described(
            self._graph,
            self._info,
            [*targets],
            name=name,
            role=role,
            title=same.title if same is not None else "",
            is_random=same is not None and same.default == -1,
        )
        return restricted(one, fields, tell)

    def _targets(self, address: str, tell: Tell) -> list[Target]:
        if self._left < 0:
            return []
        self._left -= 1
        try:
            found = self._lookup.resolve(address)[1]
        except NothingMeant as nothing:
            found = self._as_editor_shows(address)
            if not found and address in self._proposed:
                places = (place_of(self._graph, target) for target in self._proposed[address].targets)
                found = [place for place in places if place is not None]
            if not found:
                tell("target", f"{address[:200]!r} {nothing}{self._lookup.suggestion(address)}")
                return []
        self._left -= len(found) - 1
        if self._left < 0:
            return []
        for node_id, name in found:
            value = self._graph[node_id]["inputs"].get(name)
            one = input_at(self._graph, node_id, name, self._info)
            if is_link(value) and one.kind is InputKind.OTHER:
                better = next(self._candidates.constant_behind(value), None)
                hint = f": {'.'.join(better)} has the value" if better is not None else ""
                tell("target", f"{address[:200]!r} is connected to node {value[0]}{hint}")
        return found

    def _as_editor_shows(self, address: str) -> list[Target]:
        """What an address means by an id within a subgraph, or by what a subgraph shows."""
        node, dot, name = address.partition(".")
        if self._within is None:
            self._within = _by_name(self._graph, _inner_id)
        within = [each for each in self._within.get(node, ()) if name in self._graph[each]["inputs"]]
        if dot and len(within) == 1:
            return [(within[0], name)]
        places = self._read_places() if dot else None
        seen = places.widget(node, name) if places is not None else None
        return [] if seen is None else [each for each in seen.targets if each[0] in self._graph]

    def _read_places(self) -> Places | None:
        if self._places is None and self._editors is not None and self._info:
            from comfy_serverless.graph.convert.places import Places

            try:
                self._places = Places(self._editors, self._info)
            except UiFormatWorkflow:
                self._editors = None  # the graph alone has to do: the proposal has told why
        return self._places

    def _node(self, called: str, tell: Tell) -> str:
        """The node that is called so; "" if there is none, which is told."""
        if called in self._graph:
            return called
        if self._nodes_called is None:
            self._nodes_called = tuple(_by_name(self._graph, of) for of in (_class_of, _title_of, _inner_id))
        for nodes in self._nodes_called:
            found = nodes.get(called, [])
            if len(found) > 1:
                tell("", f"means {len(found)} nodes: {nodes_in_words(self._graph, found)}; write the id of one of them")
                return ""
            if found:
                return found[0]
        titles = (title for title in self._nodes_called[1] if title not in self._graph)
        known = islice(chain(self._graph, titles), 2_000)
        near = self._guesses.near(called, known)
        tell("", f"names no node of the workflow: {called[:100]!r}{f' (did you mean {near[0]!r}?)' if near else ''}")
        return ""


def _by_name(graph: Mapping[str, Any], name_of_node: Callable[[str, Mapping[str, Any]], str]) -> dict[str, list[str]]:
    """The ids of the nodes, by what they are called in one way."""
    found: dict[str, list[str]] = {}
    for node_id, node in graph.items():
        found.setdefault(name_of_node(node_id, node), []).append(node_id)
    return found


def _class_of(_: str, node: Mapping[str, Any]) -> str:
    return str(node.get("class_type"))


def _title_of(_: str, node: Mapping[str, Any]) -> str:
    return title_of(node)


def _inner_id(node_id: str, _: Mapping[str, Any]) -> str:
    return node_id.rpartition(":")[2]
