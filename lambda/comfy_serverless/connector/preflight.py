"""Finds all that is wrong with a graph at once, by the nodes as ComfyUI declares them. No IO.

ComfyUI stops at the first unknown node, and says nothing of the parts it did not check. `find_problems` goes on, in
ComfyUI's own vocabulary: of graphs that ComfyUI has refused already, and of named workflows before anybody runs them.
Values that a declaration cannot judge (files of upload widgets, lists fetched by the editor) are never called wrong.

Inputs that come and go with others are judged as ComfyUI 0.33.0 does (observed): those of the option that is chosen,
and the first ones of those that grow. It lets an option pass that is none, and more inputs than may grow, and fails at
the node; and a node may do without an option that is not given.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfy_serverless.files import MODEL_ENDINGS
from comfy_serverless.graph.near import Guesses
from comfy_serverless.graph.nodes import MODEL_INPUT_NAMES, known
from comfy_serverless.graph.workflow import is_link

#: `/object_info/{class}` by class: the declaration, or None for a class that ComfyUI does not know.
Declarations = Mapping[str, Mapping[str, Any] | None]
#: One problem as `node_errors` lists it: `{type, message, details, extra_info}`, and `hint` if there is one.
Problem = dict[str, Any]

_FOLDER_NOTES = ("[input]", "[output]", "[temp]")
#: Longer lists are not repeated in an error, as in ComfyUI.
_LONGEST_LIST_SHOWN = 20
_NAMES_SHOWN = 5
#: The longest name and the most candidates: the search for a near name must not take long, whatever was sent.
_LONGEST_NAME, _MOST_CANDIDATES = 200, 5000
#: A huge graph may have any number of cycles, each through any number of nodes: that many are shown.
_CYCLES_SHOWN, _NODES_OF_CYCLE_SHOWN = 20, 50
_LINK_LENGTH = 2
#: The types of inputs that match others', that bring others with what is chosen, and that grow.
_MATCHES, _CHOOSES, _GROWS = "COMFY_MATCHTYPE_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
#: The most that an input grows to here, whatever its declaration says.
_MOST_GROWN = 200


@dataclass(frozen=True, slots=True)
class _Input:
    """A declared input of a node."""

    name: str
    kind: object
    options: Mapping[str, Any]
    required: bool

    @property
    def choices(self) -> Sequence[Any] | None:
        """The values it is chosen from, in both forms of declaration; None if they cannot be known."""
        if "remote" in self.options or any("upload" in str(option) for option in self.options):
            return None
        choices = self.options.get("options") if self.kind == "COMBO" else self.kind
        return choices if isinstance(choices, list) else None

    @property
    def is_settled_later(self) -> bool:
        """Whether its form depends on other inputs, in a way that we do not know."""
        return isinstance(self.kind, str) and self.kind.startswith("COMFY_")


def find_problems(graph: Mapping[str, Any], declarations: Declarations) -> dict[str, list[Problem]]:
    """Every problem of every node that ComfyUI would check, by node id, in the order of the graph.

    The graph's form has been checked. Nodes of a class that is not in the declarations are not judged.
    """
    relevant = checked_nodes(graph, declarations)
    guesses = Guesses()
    problems: dict[str, list[Problem]] = {}
    for node_id, node in graph.items():
        class_type = str(node.get("class_type"))
        if class_type in declarations and declarations[class_type] is None:
            problems[node_id] = [_problem("missing_node_type", "ComfyUI has no such node", "", {"node_id": node_id})]
        elif node_id in relevant and declarations.get(class_type):
            problems[node_id] = list(_node_problems(node, graph, declarations, guesses))
    cycles = _cycles(graph, declarations, [node_id for node_id in graph if node_id in relevant])
    for whole in itertools.islice(cycles, _CYCLES_SHOWN):
        cycle = whole[:_NODES_OF_CYCLE_SHOWN]
        steps = [f"{node_id} ({graph[node_id].get('class_type')})" for node_id in (*cycle, cycle[0])]
        path = " -> ".join(steps if len(cycle) == len(whole) else [*steps[:-1], "…", steps[-1]])
        extra = {"node_id": cycle[0], "cycle_nodes": cycle}
        problem = _problem("dependency_cycle", "Dependency cycle detected", path, extra)
        problems.setdefault(cycle[0], []).append(problem)
    return {node_id: problems[node_id] for node_id in graph if problems.get(node_id)}


def choice_hint(name: str, value: object, choices: Sequence[Any], guesses: Guesses | None = None) -> str:
    """The choice that was probably meant by a value that is none, and the choices there are."""
    near = nearest(str(value), map(str, choices), guesses)
    parts = [f"did you mean {near!r}?"] if near else []
    if is_model(name, value):
        count = len(choices)
        there = f"{count} {'is' if count == 1 else 'are'} there: {_first_of(choices)}" if choices else "none is there"
        parts.insert(0, f"this model file is missing, {there}")
    elif not near and len(choices) > _LONGEST_LIST_SHOWN:
        parts.append(f"it takes {_first_of(choices)}")
    return "; ".join(parts)


def is_model(name: str, value: object) -> bool:
    """Whether the value of an input names a model file."""
    return name in MODEL_INPUT_NAMES or str(value)[-_LONGEST_NAME:].lower().endswith(MODEL_ENDINGS)


def choices_of(declaration: Mapping[str, Any], name: str) -> Sequence[Any] | None:
    """The values an input of a node is chosen from, if they are known."""
    return next((declared.choices for declared in _inputs(declaration) if declared.name == name), None)


def nearest(meant: str, known: Iterable[str], guesses: Guesses | None = None) -> str | None:
    """The name that comes nearest, if any comes near. `guesses` are those of all questions about one workflow."""
    candidates = itertools.islice(known, _MOST_CANDIDATES)
    return next(iter((guesses or Guesses()).near(meant, candidates, bare=_bare)), None)


def _node_problems(
    node: Mapping[str, Any], graph: Mapping[str, Any], declarations: Declarations, guesses: Guesses
) -> Iterator[Problem]:
    class_type = str(node.get("class_type"))
    given = node.get("inputs")
    given = given if isinstance(given, Mapping) else {}
    declared = list(_expanded(_inputs(declarations[class_type] or {}), given))
    names = {wanted.name for wanted in declared}
    undeclared = [name for name in given if name not in names]
    for wanted in declared:
        if wanted.kind == _GROWS:
            yield from _surplus(wanted, given, names)
        if wanted.is_settled_later:
            continue
        if wanted.name not in given:
            if wanted.required:
                yield _missing(wanted, undeclared, guesses)
            continue
        value = given[wanted.name]
        if isinstance(value, list):
            problem = _link_problem(wanted, value, graph, declarations)
        else:
            value = value["__value__"] if isinstance(value, Mapping) and "__value__" in value else value
            problem = _value_problem(class_type, wanted, value)
        if problem is not None:
            yield problem


def _expanded(inputs: Iterable[_Input], given: Mapping[str, Any]) -> Iterator[_Input]:
    """The inputs with those that come with the values that are given: `format.codec`, `images.image0`."""
    for wanted in inputs:
        template = wanted.options.get("template")
        template = template if isinstance(template, Mapping) else {}
        if wanted.kind == _MATCHES:
            yield replace(wanted, kind="*")  # ComfyUI takes any link
        elif wanted.kind == _CHOOSES:
            options = wanted.options.get("options")
            options = [one for one in options if isinstance(one, Mapping)] if isinstance(options, list) else []
            if not isinstance(given.get(wanted.name), list):  # nobody looks where a link leads
                keys = {"options": [one.get("key") for one in options]}
                yield replace(wanted, kind="COMBO", options=keys, required=False)
            chosen: Mapping[str, Any] = next((one for one in options if one.get("key") == given.get(wanted.name)), {})
            yield from _expanded(_inputs({"input": chosen.get("inputs")}, prefix=f"{wanted.name}."), given)
        elif wanted.kind == _GROWS:
            yield wanted
            yield from _expanded(_grown(wanted, template, given), given)
        else:
            yield wanted


def _grown(wanted: _Input, template: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[_Input]:
    """The inputs that one which grows has grown to: the first ones, which it needs, and those that are given."""
    least = template.get("min")
    least = least if isinstance(least, int) else 0
    for one in itertools.islice(_inputs({"input": template.get("input")}), 1):
        for number, name in enumerate(_names_of_growing(template)):
            is_needed = number < least and one.required
            if is_needed or f"{wanted.name}.{name}" in given:
                yield replace(one, name=f"{wanted.name}.{name}", required=is_needed)


def _names_of_growing(template: Mapping[str, Any]) -> Sequence[str]:
    names, prefix, most = template.get("names"), template.get("prefix"), template.get("max")
    if isinstance(names, list):
        return [name for name in names if isinstance(name, str)]
    count = min(most, _MOST_GROWN) if isinstance(most, int) else _MOST_GROWN
    return [f"{prefix}{number}" for number in range(count)] if isinstance(prefix, str) else ()


def _surplus(wanted: _Input, given: Mapping[str, Any], names: Container[str]) -> Iterator[Problem]:
    """The inputs that are called like those of one that grows, and are more than it takes."""
    for name in given:
        if name.startswith(f"{wanted.name}.") and name not in names:
            message = f"{wanted.name!r} does not grow so far, and the node fails"
            yield _problem("unknown_input", message, name, {"input_name": name})


def _missing(wanted: _Input, undeclared: Sequence[str], guesses: Guesses) -> Problem:
    problem = _problem("required_input_missing", "Required input is missing", wanted.name, {"input_name": wanted.name})
    near = nearest(wanted.name, undeclared, guesses)
    return problem | {"hint": f"it has {near!r}, which the node does not know"} if near else problem


def _link_problem(
    wanted: _Input, link: list[Any], graph: Mapping[str, Any], declarations: Declarations
) -> Problem | None:
    extra = {"input_name": wanted.name, "received_value": link}
    if len(link) != _LINK_LENGTH:
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return _problem("bad_linked_input", message, wanted.name, extra)
    source, slot = link
    if not isinstance(source, str) or source not in graph:
        return _problem("bad_linked_input", "Linked node is not in the workflow", f"{wanted.name}: {source!r}", extra)
    source_class = str(graph[source].get("class_type"))
    outputs = (declarations.get(source_class) or {}).get("output")
    if not isinstance(outputs, list):
        return None
    if not isinstance(slot, int) or not -len(outputs) <= slot < len(outputs):
        details = (
            f"{wanted.name}: node {source} ({source_class}) has {len(outputs)} outputs, counted from 0, not {slot!r}"
        )
        return _problem("bad_linked_input", "Linked output does not exist", details, extra)
    received = outputs[slot]
    if _can_feed(received, wanted.kind):
        return None
    details = f"{wanted.name}, received_type({received}) mismatch input_type({wanted.kind})"
    extra |= {"received_type": received, "linked_node": link}
    return _problem("return_type_mismatch", "Return type mismatch between linked nodes", details, extra)


def _can_feed(received: object, wanted: object) -> bool:
    """Whether an output may feed an input. Only plain names of types can be told apart from outside.

    ComfyUI takes no text for a list of choices, in neither form of declaration.
    """
    wanted = "a list of choices" if isinstance(wanted, list) else wanted
    if not isinstance(received, str) or not isinstance(wanted, str):
        return True
    received_types, wanted_types = ({kind.strip() for kind in kinds.split(",")} for kinds in (received, wanted))
    if "COMBO" in received_types or any(
        kind in ("*", "") or kind.startswith("COMFY_") for kind in received_types | wanted_types
    ):
        return True
    return bool(received_types & wanted_types)


def _value_problem(class_type: str, wanted: _Input, value: object) -> Problem | None:
    extra = {"input_name": wanted.name, "received_value": value}
    if wanted.kind in ("INT", "FLOAT"):
        return _number_problem(wanted, value, extra)
    choices = wanted.choices
    if choices is None or value in choices or wanted.name in known(class_type).judges:
        return None
    # An empty list may be one that only the editor fills. A file of another folder is not in the list, and right.
    if (not choices and not is_model(wanted.name, value)) or str(value).endswith(_FOLDER_NOTES):
        return None
    shown = str(list(choices)) if len(choices) <= _LONGEST_LIST_SHOWN else f"(list of length {len(choices)})"
    details = f"{wanted.name}: '{_shortened(value)}' not in {shown}"
    return _problem("value_not_in_list", "Value not in list", details, extra)


def _number_problem(wanted: _Input, value: object, extra: Mapping[str, Any]) -> Problem | None:
    try:
        number = int(value) if wanted.kind == "INT" else float(value)  # type: ignore[call-overload, arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        message = f"Failed to convert an input value to a {wanted.kind} value"
        return _problem("invalid_input_type", message, f"{wanted.name}, {_shortened(value)}, {error}", extra)
    low, high = wanted.options.get("min"), wanted.options.get("max")
    if isinstance(low, int | float) and number < low:
        message = f"Value {number} smaller than min of {low}"
        return _problem("value_smaller_than_min", message, wanted.name, extra)
    if isinstance(high, int | float) and number > high:
        return _problem("value_bigger_than_max", f"Value {number} bigger than max of {high}", wanted.name, extra)
    return None


def checked_nodes(graph: Mapping[str, Any], declarations: Declarations) -> frozenset[str]:
    """The nodes ComfyUI checks: output nodes and all that they need. An unknown node may be an output."""
    waiting = [
        node_id
        for node_id, node in graph.items()
        if (declaration := declarations.get(str(node.get("class_type")), {})) is None or declaration.get("output_node")
    ]
    seen: set[str] = set()
    while waiting:
        node_id = waiting.pop()
        if node_id not in seen:
            seen.add(node_id)
            waiting.extend(_sources(graph[node_id], graph, declarations))
    return frozenset(seen)


def _sources(node: Mapping[str, Any], graph: Mapping[str, Any], declarations: Declarations) -> Iterator[str]:
    """The nodes a node's declared inputs link to; all its links if its class is not known."""
    declaration = declarations.get(str(node.get("class_type")))
    names = {declared.name for declared in _inputs(declaration)} if declaration else None
    given = node.get("inputs")
    for name, value in given.items() if isinstance(given, Mapping) else ():
        # Inputs of an input that is settled later are written `format.codec`.
        declared = names is None or name.partition(".")[0] in names
        if declared and is_link(value) and value[0] in graph:
            yield value[0]


def _cycles(graph: Mapping[str, Any], declarations: Declarations, starts: Iterable[str]) -> Iterator[list[str]]:
    """Chains of nodes that need themselves, each yielded once. Without recursion, because graphs can be deep."""
    done: set[str] = set()
    for start in starts:
        path: list[str] = []
        on_path: dict[str, Iterator[str]] = {}
        following: str | None = start
        while following is not None or path:
            if following is None:
                following = next(on_path[path[-1]], None)
                if following is None:
                    done.add(path[-1])
                    del on_path[path.pop()]
                continue
            if following in on_path:
                yield path[path.index(following) :]
            elif following not in done:
                path.append(following)
                on_path[following] = _sources(graph[following], graph, declarations)
            following = None


def _inputs(declaration: Mapping[str, Any], *, prefix: str = "") -> Iterator[_Input]:
    """The declared inputs. Custom nodes declare all kinds of values: one that is no declaration is passed over."""
    groups = declaration.get("input")
    for group in ("required", "optional"):
        inputs = groups.get(group) if isinstance(groups, Mapping) else None
        for name, spec in inputs.items() if isinstance(inputs, Mapping) else ():
            if isinstance(spec, list) and spec:
                options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
                yield _Input(f"{prefix}{name}", spec[0], options, required=group == "required")


def _bare(name: str) -> str:
    """A name without the parts that say nothing: its case; for a model also its suffix, and its folder (/ or \\\\)."""
    name = name.lower()
    suffix = next((suffix for suffix in MODEL_ENDINGS if name.endswith(suffix)), None)
    return name if suffix is None else name.removesuffix(suffix).replace("\\", "/").rpartition("/")[2]


def _first_of(choices: Sequence[Any]) -> str:
    shown = ", ".join(repr(_shortened(choice)) for choice in choices[:_NAMES_SHOWN])
    return shown + (f" and {len(choices) - _NAMES_SHOWN} more" if len(choices) > _NAMES_SHOWN else "")


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"


def _problem(kind: str, message: str, details: str, extra: Mapping[str, Any]) -> Problem:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(extra)}
