"""Proposes the inputs and outputs of a workflow: what its author chose, else what a person would call an input. No IO.

In this order of trust; the first two, where there are any, are the whole proposal:

    App mode (`extra.linearData` of the editor's document)
    input nodes of comfy-pack and comfy-deploy
    primitives, widgets that subgraphs show, titles that somebody gave
    prompts, files, sizes, seeds, well-known numbers, models

What leads to no output is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.undeclared import is_stand_in
from comfy_serverless.graph.workflow import is_link
from comfy_serverless.workflows.candidates import Candidate, Candidates
from comfy_serverless.workflows.describing import described
from comfy_serverless.workflows.input_nodes import Declared, declared_input
from comfy_serverless.workflows.leads import Leads
from comfy_serverless.workflows.naming import NAME, RESERVED, Names, name_of
from comfy_serverless.workflows.outputs import named_outputs
from comfy_serverless.workflows.targets import Target
from comfy_serverless.workflows.version import NamedInput, NamedOutput

if TYPE_CHECKING:
    from comfy_serverless.graph.convert.places import Places

#: The most inputs and outputs that are proposed, and the most entries of App mode that are read.
MOST_PROPOSED: Final = 100
_MOST_ENTRIES: Final = 1_000
_MOST_NOTES: Final = 20


@dataclass(frozen=True, slots=True)
class Proposal:
    """What could be the inputs and outputs of a workflow.

    Attributes:
        notes: what its author chose and cannot be set, and what else people should know.
    """

    inputs: tuple[NamedInput, ...]
    outputs: tuple[NamedOutput, ...]
    notes: tuple[str, ...] = ()


def propose(
    graph: Mapping[str, Any],
    object_info: Mapping[str, Any] | None,
    *,
    editors: Mapping[str, Any] | None = None,
) -> Proposal:
    """The inputs and outputs of a graph in API format.

    Args:
        editors: the same workflow as the editor saved it: it has App mode, subgraphs and primitives.
    """
    return _Proposer(graph, object_info, editors).proposal()


class _Proposer:
    def __init__(
        self, graph: Mapping[str, Any], object_info: Mapping[str, Any] | None, editors: Mapping[str, Any] | None
    ) -> None:
        self._graph = graph
        self._info = object_info
        self._editors = editors
        self._notes: dict[str, None] = {}
        self._leads = Leads(graph, object_info)
        self._places = self._read_places()
        self._candidates = Candidates(graph, object_info, self._leads, self._places)
        self._names = Names()

    def proposal(self) -> Proposal:
        app = self._app_mode("inputs")
        ways = (self._from_app_mode(app), self._from_input_nodes(), self._from_candidates())
        inputs: list[NamedInput] = next(filter(None, ([*islice(way, MOST_PROPOSED + 1)] for way in ways)), [])
        outputs = named_outputs(self._graph, self._info, self._leads, chosen=self._chosen_outputs())
        if not inputs:
            self._note("nothing that leads to an output is plainly an input: choose by address what callers set")
        if len(inputs) > MOST_PROPOSED:
            self._note(f"there are more inputs than the first {MOST_PROPOSED}, which are proposed")
        notes = tuple(self._notes)
        more = (f"and {len(notes) - _MOST_NOTES} more",) if len(notes) > _MOST_NOTES else ()
        return Proposal(tuple(inputs[:MOST_PROPOSED]), outputs, (*notes[:_MOST_NOTES], *more))

    def _read_places(self) -> Places | None:
        if self._editors is None or not self._info:
            return None
        from comfy_serverless.graph.convert.places import Places  # much that only a push needs

        try:
            return Places(self._editors, self._info)
        except UiFormatWorkflow as error:
            self._note(f"what the editor saved beside the graph is not read: {error.message}")
            return None

    # App mode

    def _app_mode(self, part: str) -> list[Any]:
        extra = self._editors.get("extra") if self._editors is not None else None
        linear = extra.get("linearData") if isinstance(extra, Mapping) else None
        entries = linear.get(part) if isinstance(linear, Mapping) else None
        return entries[:_MOST_ENTRIES] if isinstance(entries, list) else []

    def _from_app_mode(self, entries: list[Any]) -> Iterator[NamedInput]:
        taken: set[Target] = set()
        for entry in entries:
            if not isinstance(entry, list | tuple) or len(entry) < 2 or not isinstance(entry[1], str):
                continue
            node_id, name = str(entry[0])[:200], entry[1][:200]
            seen = self._places.widget(node_id, name) if self._places is not None else None
            wanted = seen.targets if seen is not None else ((node_id, name),)
            targets = tuple(target for target in self._settable(wanted) if target not in taken)
            if not targets:
                self._note(f"App mode has {name!r} of node {node_id} as an input, which {self._why_not(wanted, taken)}")
                continue
            taken.update(targets)
            label, title, is_alone = ("", "", False) if seen is None else (seen.label, seen.title, seen.is_alone)
            yield self._named(self._candidates.candidate(targets, label=label, title=title, is_alone=is_alone))

    def _settable(self, wanted: Iterable[Target]) -> Iterator[Target]:
        """Those that have a value in the graph and lead to an output; for one that is connected, what it comes from."""
        for node_id, name in wanted:
            node = self._graph.get(node_id)
            if node is None or node_id not in self._leads.active:
                continue
            value = node["inputs"].get(name)
            if is_link(value):
                yield from self._settable(self._candidates.constant_behind(value))
            elif name in node["inputs"]:
                yield node_id, name

    def _why_not(self, wanted: Iterable[Target], taken: set[Target]) -> str:
        for node_id, name in wanted:
            node = self._graph.get(node_id)
            if node is None:
                continue
            if (node_id, name) in taken:
                return "it has already"
            if node_id not in self._leads.active:
                return "leads to no output"
            if name not in node["inputs"] and is_stand_in((self._info or {}).get(str(node["class_type"]))):
                return f"has no value by that name in the file, and nobody has declared {node['class_type']!r}"
            return "is connected to another node" if is_link(node["inputs"].get(name)) else "the node does not have"
        return "is not in the graph: the node is muted, bypassed or gone"

    def _chosen_outputs(self) -> list[str]:
        chosen: list[str] = []
        for entry in self._app_mode("outputs"):
            node_id = str(entry)[:200]
            found = self._places.node_ids(node_id) if self._places is not None else [node_id]
            # Of a class that nobody has declared its author knows whether it is one.
            there = [each for each in found if each in self._leads.outputs or self._is_undeclared(each)]
            if not there:
                self._note(f"App mode has node {node_id} as an output, which is none in the graph")
            chosen += there
        return list(dict.fromkeys(chosen))

    def _is_undeclared(self, node_id: str) -> bool:
        node = self._graph.get(node_id)
        return node is not None and is_stand_in((self._info or {}).get(str(node["class_type"])))

    # Input nodes of packs

    def _from_input_nodes(self) -> Iterator[NamedInput]:
        for node_id, node in self._graph.items():
            declared = declared_input(node)
            if declared is None:
                continue
            if node_id not in self._leads.active:
                self._note(f"the input node {node_id} ({node['class_type']}) leads to no output: it is left out")
                continue
            if not declared.value:
                self._note(
                    f"the input node {node_id} ({node['class_type']}) has no value: only its own service gives one"
                )
                continue
            targets = tuple(self._settable([(node_id, declared.value)]))
            if not targets:
                self._note(f"the input node {node_id} ({node['class_type']}) gets its value from another node")
                continue
            yield self._declared(declared, targets)

    def _declared(self, declared: Declared, targets: tuple[Target, ...]) -> NamedInput:
        is_name = NAME.fullmatch(declared.name) is not None and declared.name not in RESERVED
        own = declared.name if is_name else name_of(declared.name)
        fallback = self._candidates.candidate(targets, title="")
        name = self._names.take(own, *([] if own else fallback.wishes))
        one = described(
            self._graph,
            self._info,
            targets,
            name=name,
            title=declared.title,
            description=declared.description,
            role=fallback.role,
            is_random=self._is_random(targets),
        )
        kind = declared.kind or one.kind
        is_file = kind is InputKind.FILE and one.kind is not InputKind.FILE
        return replace(
            one,
            kind=kind,
            default=None if is_file else one.default,
            is_required=one.is_required or is_file,
            minimum=one.minimum if declared.minimum is None else declared.minimum,
            maximum=one.maximum if declared.maximum is None else declared.maximum,
            choices=declared.choices or one.choices,
            is_narrowed=bool(declared.choices),
            is_open=one.is_open and not declared.choices,
        )

    # What a person would call an input

    def _from_candidates(self) -> Iterator[NamedInput]:
        for candidate in self._candidates.all():
            yield self._named(candidate)

    def _named(self, candidate: Candidate) -> NamedInput:
        return described(
            self._graph,
            self._info,
            candidate.targets,
            name=self._names.take(*candidate.wishes),
            title=candidate.title,
            role=candidate.role,
            is_random=self._is_random(candidate.targets),
        )

    def _is_random(self, targets: Iterable[Target]) -> bool:
        return self._places is not None and any(target in self._places.random for target in targets)

    def _note(self, text: str) -> None:
        self._notes[text] = None
