"""Gives a run its own folder below ComfyUI's output folder, and its nodes a reason to run. Pure.

So the names of a job's files depend on nothing that ran before, and no saver meets another job's files. A value whose
meaning belongs to a node is left alone: only ComfyUI's own savers are known to make such folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from comfy_serverless.connector.made_files import JOBS_FOLDER
from comfy_serverless.errors import InvalidWorkflow
from comfy_serverless.graph.file_inputs import text_behind
from comfy_serverless.graph.lookup import listing
from comfy_serverless.graph.node_errors import node_errors_of
from comfy_serverless.graph.nodes import PREFIX, TEXT_JOINER, TEXT_REPLACER, Declared, known
from comfy_serverless.graph.workflow import copy_graph, is_link

#: An input that makes ComfyUI run a node again. Unless something about them changes, output nodes that we give no
#: folder name the files of a job that is over, and nodes that read what the graph does not have give what they have
#: read for another job. An input that a node does not declare is no argument of it, but counts as such a change
#: (ComfyUI 0.3.64 and 0.33.0).
_CHANGE = "comfy_serverless_job"
#: In a text: the name of a model, which a job may have brought.
_EMBEDDING = "embedding:"
#: The name that ComfyUI's own savers give a file when the workflow gives none.
_DEFAULT_NAME = "ComfyUI"

#: What leads out of a folder in a name below it. Nodes that make sets of files take it as it comes (ComfyUI 0.33.0).
#: A name of nothing, or of the folder itself, would be taken for the folder's own.
_WAY_OUT = r"^(?:\.?[/\\]+)*\.?$|^[\s/\\]+|(?<![^/\\])\.\.(?=[/\\]|$)"

#: What ComfyUI says of the classes of a graph; it may not have said it of all.
Declarations = Mapping[str, Declared]


def check_prefixes(graph: Mapping[str, Any]) -> None:
    """Raise InvalidWorkflow if a name to write to leads out of ComfyUI's output folder, or is no text."""
    problems: dict[str, str] = {}
    for node_id, node in graph.items():
        for name in {PREFIX, known(node["class_type"]).writes_below} & node["inputs"].keys():
            value = node["inputs"][name]
            prefix = text_behind(graph, value) if is_link(value) else value
            path = PurePosixPath(str(prefix).replace("\\", "/"))
            if prefix is None and is_link(value):
                continue
            if not isinstance(prefix, str | int | float):
                problems[node_id] = f"{name} is no text"
            elif path.is_absolute() or ".." in path.parts:
                problems[node_id] = f"{name} {str(prefix)[:200]!r} leads out of the job's output folder"
    if problems:
        raise InvalidWorkflow(
            f"{listing(problems, form='Node {}: {}')}. Use a name, or a folder below it: 'ComfyUI' or 'today/fox'.",
            details=node_errors_of(
                problems,
                lambda node_id, problem: (graph[node_id]["class_type"], problem),
                error_type="invalid_filename_prefix",
            ),
        )


def in_own_folder(
    graph: Mapping[str, Any], run: str, declarations: Declarations, *, recalls_as: str = ""
) -> dict[str, Any]:
    """A copy of a checked graph whose savers write into the run's own folder; nodes before them stay cached.

    What ComfyUI has read for one owner it does not recall for another: nodes that may read more than the graph says
    are other nodes for each `recalls_as`.
    """
    whose = hashlib.sha256(recalls_as.encode()).hexdigest()[:16]
    folder = f"{JOBS_FOLDER}/{run}"
    result = copy_graph(graph)
    for node_id, node in graph.items():
        said, knowledge = declarations.get(node["class_type"]), known(node["class_type"])
        inputs, name = result[node_id]["inputs"], knowledge.writes_below
        if said is not None and said.is_own and said.is_output and name in said.inputs and name in inputs:
            inputs[name] = _below(folder, inputs[name], result, node_id, declarations)
            if name != PREFIX and PREFIX in inputs:
                inputs[PREFIX] = _kept_in(inputs[PREFIX], result, node_id, declarations)
        elif (said is not None and said.is_output) or knowledge.names_preview or knowledge.lists_folder:
            inputs[_CHANGE] = run
        elif said is None or said.may_read or any(_names_embedding(value) for value in node["inputs"].values()):
            inputs[_CHANGE] = whose
    return result


def writes_there_alone(graph: Mapping[str, Any], run: str, declarations: Declarations) -> bool:
    """Whether the nodes of a graph (as `in_own_folder` makes it) save in the run's own folder, and nowhere else.

    It is known of ComfyUI's own that have the name of a place to write to, of those that tell what they show in the
    temp folder, and of those that leave no file. Not of others, nor of any that call a service: Preview3D saves in the
    output folder itself (0.33.0), and so does many a one with the model that it has been sent.
    """
    for node in graph.values():
        said, knowledge = declarations.get(node["class_type"]), known(node["class_type"])
        if said is None or not said.is_own or said.is_partner:
            return False
        if not said.is_output:
            continue
        if knowledge.writes_below not in said.inputs:
            if not (knowledge.names_preview or knowledge.sends_frames or knowledge.gives_text):
                return False
            continue
        value = node["inputs"].get(knowledge.writes_below)
        made_by = graph.get(value[0], {}).get("class_type") if is_link(value) else None
        if made_by != TEXT_JOINER and not str(value).startswith(f"{JOBS_FOLDER}/{run}/"):
            return False
    return True


def may_overlap(graph: Mapping[str, Any], declarations: Declarations) -> bool:
    """Whether another job of the same owner may wait in ComfyUI's queue while this one runs.

    Not if a node lists a folder, or is of a pack: it may list folders too, or write where the other one does.
    """
    for node in graph.values():
        said, knowledge = declarations.get(node["class_type"]), known(node["class_type"])
        if said is None or not said.is_own or knowledge.lists_folder:
            return False
    return True


def _names_embedding(value: object) -> bool:
    return isinstance(value, str) and _EMBEDDING in value


def _below(
    folder: str,
    value: Any,  # noqa: ANN401
    graph: dict[str, Any],
    node_id: str,
    declarations: Declarations,
) -> Any:  # noqa: ANN401
    """A name to write to, below the folder: a constant, or a link to a node that puts the folder before a text."""
    prefix = text_behind(graph, value) if is_link(value) else value
    if prefix is not None or not is_link(value):
        # Without a name ComfyUI would take the folder's for one.
        return f"{folder}/{prefix if PurePosixPath(str(prefix).replace(chr(92), '/')).parts else _DEFAULT_NAME}"
    if TEXT_JOINER not in declarations:
        return value
    name = _kept_in(value, graph, node_id, declarations)
    inputs = {"string_a": f"{folder}/", "string_b": name, "delimiter": ""}
    return _added(graph, f"{node_id}.folder", TEXT_JOINER, inputs)


def _kept_in(value: Any, graph: dict[str, Any], node_id: str, declarations: Declarations) -> Any:  # noqa: ANN401
    """A name that is made while the job runs, by a link to a node that takes out of it what leads out of its folder.

    A constant has been checked.
    """
    if not is_link(value) or text_behind(graph, value) is not None or TEXT_REPLACER not in declarations:
        return value
    inputs = {"string": value, "regex_pattern": _WAY_OUT, "replace": "_"}
    return _added(graph, f"{node_id}.name", TEXT_REPLACER, inputs)


def _added(graph: dict[str, Any], node_id: str, class_type: str, inputs: dict[str, Any]) -> list[Any]:
    while node_id in graph:
        node_id += "_"
    graph[node_id] = {"class_type": class_type, "inputs": inputs}
    return [node_id, 0]
