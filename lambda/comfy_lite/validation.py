"""ComfyUI's checks of a prompt, with its error types, messages and details.

As in ComfyUI, checking converts values in place (``"64"`` becomes 64), each output is judged by itself, and a
prompt with at least one good output is accepted, whatever is wrong with the others.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_lite.cache import constants_of
from comfy_lite.node import Directories, NodeType
from comfy_lite.releases import Release

_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
_LONGEST_LIST_SHOWN = 20
_LINK_LENGTH = 2

Problem = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result: `error` is None if anything can run; `outputs` are the output nodes that will run."""

    error: Problem | None
    outputs: list[str] = field(default_factory=list)
    node_errors: dict[str, Any] = field(default_factory=dict)


def validate_prompt(
    prompt: Any,  # noqa: ANN401 - any JSON a client may send
    *,
    nodes: Mapping[str, NodeType],
    directories: Directories,
    release: Release,
    targets: Any = None,  # noqa: ANN401
) -> Verdict:
    """Check a prompt and convert its values in place. `targets` limits which outputs run.

    Raises:
        Exception: of any kind, if the prompt is not a mapping of mappings. ComfyUI then answers 500.
    """
    outputs: list[str] = []
    if release.reads_nodes_strictly:
        for node in prompt.values():
            iter(node.get("inputs", {}))
    for node_id in prompt:
        if "class_type" not in prompt[node_id] or prompt[node_id]["class_type"] not in nodes:
            return Verdict(_missing_node(node_id, prompt[node_id], release))
        class_type = prompt[node_id]["class_type"]
        if nodes[class_type].is_output and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(_problem("prompt_no_outputs", "Prompt has no outputs", ""))
    return _Validator(prompt, nodes, directories, release).judge(outputs)


class _Validator:
    """Checks nodes depth first and remembers each node's verdict: its own problems, and whether it can run."""

    def __init__(
        self, prompt: dict[str, Any], nodes: Mapping[str, NodeType], directories: Directories, release: Release
    ) -> None:
        self._prompt = prompt
        self._release = release
        self._path: list[str] = []
        self._nodes = nodes
        self._directories = directories
        self._verdicts: dict[str, tuple[bool, list[Problem]]] = {}

    def judge(self, outputs: list[str]) -> Verdict:
        good: list[str] = []
        node_errors: dict[str, Any] = {}
        details: list[str] = []
        for output in outputs:
            valid, problems = self._check_output(output)
            if valid:
                good.append(output)
                continue
            details += [f"{problem['message']}: {problem['details']}" for problem in problems]
            self._blame(output, node_errors)
        error = None
        if not good:
            message = "Prompt outputs failed validation"
            error = _problem("prompt_outputs_failed_validation", message, "\n".join(details))
        return Verdict(error, good, node_errors)

    def _blame(self, output: str, node_errors: dict[str, Any]) -> None:
        """Blame a failed output on every node found bad so far: ComfyUI includes unrelated nodes too."""
        for node_id, (valid, problems) in self._verdicts.items():
            if valid or not problems:
                continue
            class_type = self._prompt[node_id]["class_type"]
            entry = {"errors": problems, "dependent_outputs": [], "class_type": class_type}
            node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)

    def _check_output(self, node_id: str) -> tuple[bool, list[Problem]]:
        try:
            return self._check_node(node_id)
        except Exception as error:  # noqa: BLE001 - a validator of a node may raise anything
            extra = {"exception_type": type(error).__name__, "traceback": _traceback(error)}
            message = "Exception when validating node"
            problems = [_problem("exception_during_validation", message, str(error), extra)]
            self._verdicts[node_id] = (False, problems)
            return False, problems

    def _check_node(self, node_id: str) -> tuple[bool, list[Problem]]:
        if self._release.names_cycles and node_id in self._path:
            self._blame_cycle(self._path[self._path.index(node_id) :])
        if node_id in self._verdicts:
            return self._verdicts[node_id]
        problems: list[Problem] = []
        self._verdicts[node_id] = (False, problems)  # the verdict that a node depending on itself finds
        self._path.append(node_id)
        try:
            return self._check_inputs(node_id, problems)
        finally:
            self._path.pop()

    def _blame_cycle(self, nodes: list[str]) -> None:
        way = " -> ".join(f"{node} ({self._prompt[node]['class_type']})" for node in (*nodes, nodes[0]))
        for node in nodes:
            extra = {"node_id": node, "cycle_nodes": nodes}
            self._verdicts[node][1].append(_problem("dependency_cycle", "Dependency cycle detected", way, extra))

    def _check_inputs(self, node_id: str, problems: list[Problem]) -> tuple[bool, list[Problem]]:
        sources_valid = True
        inputs = self._prompt[node_id]["inputs"]
        node_type = self._nodes[self._prompt[node_id]["class_type"]]
        judged_by_node = _names_judged_by(node_type)
        for name, spec, required in self._declared(node_type):
            if name not in inputs:
                if required:
                    extra = {"input_name": name}
                    problems.append(_problem("required_input_missing", "Required input is missing", name, extra))
                continue
            if isinstance(inputs[name], list):
                problem, source_valid = self._check_link(name, spec, inputs[name])
                sources_valid = sources_valid and source_valid
            else:
                skip_limits = judged_by_node is None or name in judged_by_node
                problem = _check_value(name, spec, inputs, self._release, skip_limits=skip_limits)
            if problem is not None:
                problems.append(problem)
        problems += self._ask_node(node_id, node_type, judged_by_node)
        self._verdicts[node_id] = (sources_valid and not problems, problems)
        return self._verdicts[node_id]

    def _declared(self, node_type: NodeType) -> list[tuple[str, tuple[Any, Any], bool]]:
        """Each input as (name, (type, options), whether it is required)."""
        declared = []
        for group, required in ((node_type.required, True), (node_type.optional, False)):
            specs = group(self._directories) if callable(group) else group
            declared += [(name, (spec[0], spec[1] if len(spec) > 1 else {}), required) for name, spec in specs.items()]
        return declared

    def _check_link(self, name: str, spec: tuple[Any, Any], link: list[Any]) -> tuple[Problem | None, bool]:
        """Check a link and its source. Returns (the problem of this node, whether the source can run)."""
        extra = {"input_name": name, "input_config": spec, "received_value": link}
        if len(link) != _LINK_LENGTH:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _problem("bad_linked_input", message, name, extra), True
        source, slot = link
        received = self._nodes[self._prompt[source]["class_type"]].returns[slot]
        if not _fits(received, spec[0]):
            extra = {"input_name": name, "input_config": spec, "received_type": received, "linked_node": link}
            details = f"{name}, received_type({received}) mismatch input_type({spec[0]})"
            return _problem("return_type_mismatch", "Return type mismatch between linked nodes", details, extra), True
        try:
            return None, self._check_node(source)[0]
        except Exception as error:  # noqa: BLE001
            problem = _inner_problem(error, name, spec, link)
            self._verdicts[source] = (False, [problem])
            return None, False

    def _ask_node(self, node_id: str, node_type: NodeType, names: frozenset[str] | None) -> list[Problem]:
        """Have the node's own validator judge the constants it names."""
        if node_type.validate is None:
            return []
        constants = constants_of(self._prompt[node_id], node_type, self._directories)
        judged = {name: value for name, value in constants.items() if names is None or name in names}
        refusal = node_type.validate(self._directories, **judged)
        if refusal is None:
            return []
        message = "Custom validation failed for node"
        return [
            _problem("custom_validation_failed", message, f"{name} - {refusal}", {"input_name": name})
            for name in judged
        ]


def _missing_node(node_id: str, node: Mapping[str, Any], release: Release) -> Problem:
    """The refusal of a node without a class, or of one that is not there."""
    place, has_class = f"Node ID '#{node_id}'", "class_type" in node
    class_type = node["class_type"] if has_class else None
    if not release.names_missing_nodes:
        message = f"Cannot execute because node {class_type} does not exist."
        if not has_class:
            message = "Cannot execute because a node is missing the class_type property."
        return _problem("invalid_prompt", message, place)
    title = node.get("_meta", {}).get("title", class_type)
    message = f"Node '{title}' not found. The custom node may not be installed."
    if class_type is None:
        message = f"Node 'ID #{node_id}' has no class_type. The workflow may be corrupted or a custom node is missing."
    return _problem(
        "missing_node_type", message, place, {"node_id": node_id, "class_type": class_type, "node_title": title}
    )


def _check_value(
    name: str, spec: tuple[Any, Any], inputs: dict[str, Any], release: Release, *, skip_limits: bool
) -> Problem | None:
    """Convert a constant in place and check it against its limits."""
    kind, options = spec
    value = inputs[name]
    if isinstance(value, dict) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    extra = {"input_name": name, "input_config": spec, "received_value": value}
    if isinstance(kind, str) and kind in _CONVERSIONS:
        try:
            value = inputs[name] = extra["received_value"] = _CONVERSIONS[kind](value)
        except Exception as error:  # noqa: BLE001 - anything a conversion may raise
            message = f"Failed to convert an input value to a {kind} value"
            extra["exception_message"] = str(error)
            return _problem("invalid_input_type", message, f"{name}, {value}, {error}", extra)
    if skip_limits:
        return None
    if "min" in options and value < options["min"]:
        return _problem("value_smaller_than_min", f"Value {value} smaller than min of {options['min']}", name, extra)
    if "max" in options and value > options["max"]:
        return _problem("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", name, extra)
    choices = _choices(kind, options, release)
    if choices is not None and value not in choices:
        shown = str(choices)
        if len(choices) > _LONGEST_LIST_SHOWN:
            shown = f"(list of length {len(choices)})"
            extra["input_config"] = None
        wrong = repr(value) if release.checks_every_choice else f"'{value}'"
        return _problem("value_not_in_list", "Value not in list", f"{name}: {wrong} not in {shown}", extra)
    return None


def _choices(kind: object, options: Mapping[str, Any], release: Release) -> list[Any] | None:
    """What an input offers, in either form; None if it takes anything, or if the release does not look."""
    if isinstance(kind, list):
        return kind
    return options.get("options") if kind == "COMBO" and release.checks_every_choice else None


def _names_judged_by(node_type: NodeType) -> frozenset[str] | None:
    """The inputs that a node's own validator checks, and the usual limits therefore do not. None means all."""
    if node_type.validate is None:
        return frozenset()
    parameters = list(inspect.signature(node_type.validate).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters)


def _fits(received: str, declared: object) -> bool:
    """Whether an output of one type may feed an input of another. ``"*"`` means any type."""
    return received == declared or "*" in (received, declared)


def _problem(kind: str, message: str, details: str, extra: Mapping[str, Any] | None = None) -> Problem:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(extra or {})}


def _inner_problem(error: Exception, name: str, spec: tuple[Any, Any], link: list[Any]) -> Problem:
    extra = {
        "input_name": name,
        "input_config": spec,
        "exception_message": str(error),
        "exception_type": type(error).__name__,
        "traceback": _traceback(error),
        "linked_node": link,
    }
    message = "Exception when validating inner node"
    return _problem("exception_during_inner_validation", message, str(error), extra)


def _traceback(error: Exception) -> list[str]:
    return traceback.format_tb(error.__traceback__)
