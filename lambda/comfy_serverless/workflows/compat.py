"""Whether a version of a named workflow still does what it did, on the workers that are asked about. Pure.

    its graph  ──► connector.preflight   what ComfyUI would refuse, in its own vocabulary
    its models ──► graph.needs           with the folder, the address, and the name that comes near
    its inputs ──► graph.inputs          what callers can set, as these workers declare it

A finding breaks the version, or warns. `breaks` is what ComfyUI refuses, or drops an output for; and what takes away an
input or an output that the version has promised. What declarations cannot say is never called broken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.connector.preflight import (
    Problem,
    checked_nodes,
    choice_hint,
    choices_of,
    find_problems,
    is_model,
    nearest,
)
from comfy_serverless.connector.refusals import command_to_add, pack_of
from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.convert.declared import Declarations
from comfy_serverless.graph.file_inputs import is_address, takes_file
from comfy_serverless.graph.inputs import Input, Role, inputs_of
from comfy_serverless.graph.near import Guesses
from comfy_serverless.graph.needs import Model, Needs, Pack, needs_of
from comfy_serverless.graph.nodes import COMFYUI_ITSELF, known, model_folder
from comfy_serverless.graph.workflow import check_format, draw_seeds, is_link
from comfy_serverless.workflows.checkup import Finding, Kind, Severity
from comfy_serverless.workflows.input_changes import changes_of, shown
from comfy_serverless.workflows.targets import place_of
from comfy_serverless.workflows.version import NamedInput, Version

#: The findings of one version.
_MOST: Final = 200


def problems_of(
    version: Version,
    object_info: Mapping[str, Any],
    *,
    lost: Sequence[NotImported] = (),
    knows_models: bool = True,
) -> tuple[Finding, ...]:
    """Everything that is wrong with a version on workers that declare this, in the order of its graph.

    Args:
        object_info: as ComfyUI answers it, or as workers have published it.
        lost: the packs that did not import there.
        knows_models: whether the lists of models in it are those of a worker. An image that no worker has run yet
            declares only the models that are in itself.
    """
    try:
        graph = check_format(version.graph)
    except InvalidWorkflow as error:
        return (Finding(kind=Kind.GRAPH, severity=Severity.BREAKS, message=error.message.rstrip(".")),)
    found = [*_Checking(version, graph, object_info, lost, knows_models=knows_models).findings()]
    if len(found) <= _MOST:
        return tuple(found)
    left = found[_MOST:]
    severity = Severity.BREAKS if any(one.breaks for one in left) else Severity.WARNS
    return (*found[:_MOST], Finding(kind=Kind.MORE, severity=severity, message=f"and {len(left)} more"))


_OF_VALUES: Final[Mapping[str, Kind]] = {
    "value_not_in_list": Kind.CHOICE,
    "value_smaller_than_min": Kind.RANGE,
    "value_bigger_than_max": Kind.RANGE,
    "invalid_input_type": Kind.VALUE,
}
_OF_GRAPHS: Final[Mapping[str, Kind]] = {
    "required_input_missing": Kind.INPUT_MISSING,
    "bad_linked_input": Kind.LINK,
    "return_type_mismatch": Kind.LINK,
    "dependency_cycle": Kind.CYCLE,
    "unknown_input": Kind.INPUT_UNKNOWN,
}


class _Checking:
    """One version beside the declarations of some workers."""

    def __init__(
        self,
        version: Version,
        graph: Mapping[str, Any],
        object_info: Mapping[str, Any],
        lost: Sequence[NotImported],
        *,
        knows_models: bool,
    ) -> None:
        self._version = version
        self._graph = _with_seeds(graph, version.inputs)
        self._object_info = object_info
        self._lost = lost
        self._of_models = Severity.BREAKS if knows_models else Severity.WARNS
        self._classes = Declarations(object_info)
        self._declared = {str(node["class_type"]): object_info.get(node["class_type"]) for node in graph.values()}
        self._checked = checked_nodes(self._graph, self._declared)
        self._problems = find_problems(self._graph, self._declared)
        self._needs: Needs = needs_of(self._graph, object_info, saved=version.editors)
        #: A graph may have as many classes and models as fit into a request: each is looked up, and hints end.
        self._guesses = Guesses()
        self._packs = _packs_by_class(self._needs, version.needs)
        self._models = {
            (use.node_id, use.input_name): model
            for model in reversed(self._needs.missing_models)
            for use in model.used_by
        }
        self._settable = {now.address: now for now in inputs_of(self._graph, object_info)}
        self._places = {target: place_of(self._graph, target) for one in version.inputs for target in one.targets}
        self._named = {self._places[target]: one.name for one in version.inputs for target in one.targets}
        #: What callers have to give: what stands there is never used.
        self._given = {self._places[target] for one in version.inputs if one.is_required for target in one.targets}

    def findings(self) -> Iterator[Finding]:
        """All of them."""
        yield from self._missing_classes()
        yield from self._of_nodes()
        yield from self._other_models()
        yield from self._of_outputs()
        for one in self._version.inputs:
            yield from self._of_input(one)

    def _missing_classes(self) -> Iterator[Finding]:
        by_class: dict[str, list[str]] = {}
        for node_id, node in self._graph.items():
            if self._declared[node["class_type"]] is None:
                by_class.setdefault(node["class_type"], []).append(node_id)
        for class_type, node_ids in by_class.items():
            more = f" and {len(node_ids) - 1} more" if len(node_ids) > 1 else ""
            yield self._finding(
                Kind.CLASS,
                node_ids[0],
                f"node {node_ids[0]}{more} is of the class {shown(class_type)}, which these workers do not have"
                f"{self._whence(class_type)}",
            )

    def _whence(self, class_type: str) -> str:
        """Why a class may be missing, to stand after its name."""
        if (lost := pack_of(class_type, self._lost)) is not None:
            return f": it is of {lost.pack}, which did not import: {lost.reason}"
        if (pack := self._packs.get(class_type)) is not None and pack.cnr_id == COMFYUI_ITSELF:
            as_old = f" (the file is of {shown(pack.ver)})" if pack.ver else ""
            return f": it is of ComfyUI itself{as_old}, so take a newer one (`make comfyui-upgrade`)"
        if pack is not None:
            called = " ".join(filter(None, (pack.cnr_id or pack.aux_id, pack.ver)))
            return f": put its pack, {shown(called)}, into the image (`comfy-serverless env`)"
        near = nearest(class_type, self._object_info, self._guesses)
        return f": did you mean {near!r}?" if near else ": put its pack into the image, or correct the name"

    def _of_nodes(self) -> Iterator[Finding]:
        for node_id, node in self._graph.items():
            if self._declared[node["class_type"]] is None:
                continue
            found = self._problems.get(node_id, ())
            for problem in found:
                yield from self._of_problem(node_id, problem)
            named = {str(problem["extra_info"].get("input_name")) for problem in found}
            yield from self._of_further_inputs(node_id, node, named)

    def _of_problem(self, node_id: str, problem: Problem) -> Iterator[Finding]:
        """A problem as ComfyUI would have it."""
        name = str(problem["extra_info"].get("input_name") or "")
        where = self._where(node_id)
        if (kind := _OF_VALUES.get(problem["type"])) is None:
            details = f": {problem['details']}" if problem["details"] else ""
            hint = f" ({problem['hint']})" if problem.get("hint") else ""
            kind = _OF_GRAPHS.get(problem["type"], Kind.VALUE)
            yield self._finding(kind, node_id, f"{where}: {problem['message']}{details}{hint}", input_name=name)
        elif (node_id, name) not in self._given:
            if kind is Kind.CHOICE:
                yield self._of_choice(node_id, name, problem["extra_info"].get("received_value"))
            else:
                details = problem["details"] if kind is Kind.VALUE else name
                message = f"{where}: {problem['message']}: {details}"
                yield self._finding(kind, node_id, message, input_name=name)

    def _of_choice(self, node_id: str, name: str, value: object) -> Finding:
        """A value that is none of an input's choices; a model that is gone is named as such."""
        class_type = self._graph[node_id]["class_type"]
        model = self._models.get((node_id, name))
        if model is not None or is_model(name, value):
            model = model or Model(folder=model_folder(class_type, name), name=str(value))
            return self._of_model(model, node_id, name, severity=self._of_models)
        hint = choice_hint(name, value, choices_of(self._object_info[class_type], name) or (), self._guesses)
        message = f"{self._where(node_id)}: {shown(value)} is none of the choices of {name} any more"
        return self._finding(Kind.CHOICE, node_id, f"{message} ({hint})" if hint else message, input_name=name)

    def _of_model(self, model: Model, node_id: str, name: str, *, severity: Severity) -> Finding:
        near = f", but {model.near!r} is" if model.near else ""
        command = command_to_add(model.folder, model.name, model.url)
        is_told = (
            "is not there" if severity is Severity.BREAKS or self._of_models is Severity.BREAKS else "is not known"
        )
        message = (
            f"{self._where(node_id)}: the model {model.folder or '?'}/{shown(model.name)} {is_told}{near}: {command}"
        )
        return self._finding(Kind.MODEL, node_id, message, input_name=name, severity=severity)

    def _other_models(self) -> Iterator[Finding]:
        """Models that are missing where ComfyUI itself does not look before it runs: it is the node that fails."""
        for model in self._needs.missing_models:
            use = next(iter(model.used_by), None)
            if use is None or use.node_id not in self._checked or (use.node_id, use.input_name) in self._given:
                continue
            if self._declared.get(use.class_type) is None:
                continue
            named = {problem["extra_info"].get("input_name") for problem in self._problems.get(use.node_id, ())}
            if use.input_name not in named:
                yield self._of_model(model, use.node_id, use.input_name, severity=Severity.WARNS)

    def _of_further_inputs(self, node_id: str, node: Mapping[str, Any], named: set[str]) -> Iterator[Finding]:
        """What ComfyUI says nothing of: inputs that it does not know, links out of them, files that nobody brings."""
        class_type = node["class_type"]
        for name, value in node["inputs"].items():
            is_unknown = self._is_undeclared(class_type, name)
            if is_link(value) and value[0] not in self._graph and name not in named:
                message = f"{self._where(node_id)}: {name} is linked to node {value[0]}, which is not in the workflow"
                yield self._finding(Kind.LINK, node_id, message, input_name=name)
            elif is_unknown and (node_id, name) not in self._named:
                message = f"{self._where(node_id)} has no input {shown(name)} any more: ComfyUI ignores its value"
                yield self._finding(Kind.INPUT_UNKNOWN, node_id, message, input_name=name, severity=Severity.WARNS)
            elif self._is_no_file(node_id, name, value):
                message = f"{self._where(node_id)}: {name} takes the name of a file, and {shown(value)} is none"
                yield self._finding(Kind.VALUE, node_id, message, input_name=name)
            elif self._names_a_file(node_id, name, value):
                yield self._finding(
                    Kind.FILE,
                    node_id,
                    f"{self._where(node_id)}: no caller has to bring the file {shown(value)} of {name}: make it an "
                    "input that is required, or see that it is in the image's input folder",
                    input_name=name,
                    severity=Severity.WARNS,
                )

    def _names_a_file(self, node_id: str, name: str, value: object) -> bool:
        is_name = isinstance(value, str) and bool(value) and not is_address(value)
        is_file = is_name and takes_file(self._graph[node_id]["class_type"], name) is not None
        return is_file and node_id in self._checked and (node_id, name) not in self._given

    def _is_no_file(self, node_id: str, name: str, value: object) -> bool:
        files = known(self._graph[node_id]["class_type"]).files
        is_name = isinstance(value, str | list) or (
            isinstance(value, Mapping) and bool({"__type", "__value__"} & set(value))
        )
        return name in files and not is_name and node_id in self._checked and (node_id, name) not in self._given

    def _is_undeclared(self, class_type: str, name: str) -> bool:
        """Whether a class surely has no such input. One with an empty list of optional inputs may take any."""
        declaration, node_class = self._object_info.get(class_type), self._classes.get(class_type)
        groups = declaration.get("input") if isinstance(declaration, Mapping) else None
        if node_class is None or not isinstance(groups, Mapping) or groups.get("optional") == {}:
            return False
        names = {entry.name for entry in node_class.inputs} | set(node_class.growing) | set(groups.get("hidden") or ())
        return name not in names and name.partition(".")[0] not in names

    def _of_outputs(self) -> Iterator[Finding]:
        is_whole = all(declaration is not None for declaration in self._declared.values())
        if is_whole and not self._checked:
            message = "no node of it is an output: ComfyUI refuses to run what shows nothing"
            yield Finding(kind=Kind.OUTPUT, severity=Severity.BREAKS, message=message)
        for one in self._version.outputs:
            node = self._graph.get(one.node_id)
            if node is None:
                message = f"the output {one.name!r} is of node {shown(one.node_id)}, which is not in the workflow"
                yield self._finding(Kind.OUTPUT, one.node_id, message, name=one.name)
                continue
            declaration = self._declared[node["class_type"]]
            if declaration is None or declaration.get("output_node"):
                continue
            runs = one.node_id in self._checked
            consequence = "and shows nothing by itself" if runs else "and does not run"
            message = f"the output {one.name!r}: {self._where(one.node_id)} is no output node, {consequence}"
            severity = Severity.WARNS if runs else Severity.BREAKS
            yield self._finding(Kind.OUTPUT, one.node_id, message, name=one.name, severity=severity)

    def _of_input(self, one: NamedInput) -> Iterator[Finding]:
        for target in one.targets:
            node_id, input_name = self._places[target] or (target.partition(".")[0], "")
            node = self._graph.get(node_id)
            if node is None or input_name not in node["inputs"]:
                message = f"the input {one.name!r} sets {shown(target)}, which is not in the workflow"
                yield self._finding(Kind.TARGET, node_id, message, input_name=input_name, name=one.name)
            elif self._declared[node["class_type"]] is None:
                continue
            elif self._is_undeclared(node["class_type"], input_name):
                message = (
                    f"the input {one.name!r} sets {input_name} of {self._where(node_id)}, which has no such input any "
                    "more: what callers give would have no effect"
                )
                yield self._finding(Kind.TARGET, node_id, message, input_name=input_name, name=one.name)
            elif (now := self._settable.get(target)) is not None:
                yield from self._of_change(one, now)

    def _of_change(self, one: NamedInput, now: Input) -> Iterator[Finding]:
        """How an input that callers know differs from what these workers declare."""
        for kind, message in () if one.is_guessed else changes_of(one, now):
            is_of_models = kind is Kind.CHOICES and now.role is Role.MODEL
            if not (is_of_models and self._of_models is Severity.WARNS):
                yield self._finding(
                    kind,
                    now.node_id,
                    f"the input {one.name!r} ({self._where(now.node_id)}, {now.name}) {message}",
                    input_name=now.name,
                    name=one.name,
                    severity=Severity.WARNS,
                )

    def _where(self, node_id: str) -> str:
        return f"node {shown(node_id)} ({shown(self._graph[node_id]['class_type'])})"

    def _finding(
        self,
        kind: Kind,
        node_id: str,
        message: str,
        *,
        input_name: str = "",
        name: str = "",
        severity: Severity = Severity.BREAKS,
    ) -> Finding:
        class_type = str(self._graph[node_id]["class_type"]) if node_id in self._graph else ""
        return Finding(
            kind=kind,
            severity=severity,
            message=message,
            node_id=node_id,
            class_type=class_type,
            input_name=input_name,
            name=name or self._named.get((node_id, input_name), ""),
        )


def _packs_by_class(needs: Needs, noted: Mapping[str, Any]) -> dict[str, Pack]:
    """The packs that the editor's file names for classes, or else that the version's needs have noted."""
    found: dict[str, Pack] = {}
    entries = noted.get("nodes")
    for one in entries if isinstance(entries, list) else ():
        pack = one.get("pack") if isinstance(one, Mapping) else None
        if isinstance(pack, Mapping):
            fields = (str(pack.get(field) or "") for field in ("cnr_id", "aux_id", "ver"))
            found.setdefault(str(one.get("class_type")), Pack(*fields))
    of_file = {one.class_type: one.pack for one in reversed(needs.nodes) if one.pack}
    return found | of_file


def _with_seeds(graph: Mapping[str, Any], inputs: Sequence[NamedInput]) -> dict[str, Any]:
    """A copy of the graph as ComfyUI sees it, as far as seeds are concerned: those of -1 have a number by then."""
    drawn, _ = draw_seeds(graph, draw=lambda _: 0)
    places = (place_of(drawn, target) for one in inputs if one.role is Role.SEED for target in one.targets)
    for node_id, name in filter(None, places):
        if drawn[node_id]["inputs"].get(name) == -1:
            drawn[node_id]["inputs"][name] = 0
    return drawn
