"""Turns ComfyUI's words about a refused workflow or a failed run into our failure classes. No IO."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.connector.outputs import identify_node
from comfy_serverless.connector.preflight import (
    Declarations,
    choice_hint,
    choices_of,
    find_problems,
    is_model,
    nearest,
)
from comfy_serverless.errors import (
    ComfyError,
    EngineCrashed,
    InvalidWorkflow,
    NodeExecutionError,
    OutOfMemory,
)
from comfy_serverless.graph.nodes import model_folder
from comfy_serverless.redaction import redact_url

if TYPE_CHECKING:
    from comfy_serverless.graph.needs import Sources

_MEMORY_EXCEPTIONS = ("OutOfMemoryError", "MemoryError")
#: Messages about the GPU's memory, and about the host's, where torch says "can't allocate memory".
_MEMORY_MESSAGES = ("out of memory", "allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")

#: Messages of CUDA and HIP when a process has lost the GPU: every later call on it fails too.
_GPU_IS_LOST = re.compile(
    r"device-side assert|an illegal (memory access|instruction|address)|misaligned address"
    r"|unspecified launch failure|launch timed out|hardware stack error|uncorrectable ECC error|has fallen off the bus"
    r"|(CUDA|HIP|driver) error: unknown error|driver shutting down"
    r"|CUDNN_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
    r"|(CUBLAS|HIPBLAS|CUSOLVER)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)|CUFFT_(EXEC_FAILED|INTERNAL_ERROR)",
    re.IGNORECASE,
)
#: Some of those words alone could be about anything.
_IS_ABOUT_A_GPU = re.compile(r"CUDA|HIP |HIPBLAS|CUDNN|CUBLAS|CUSOLVER|CUFFT|NVRTC|Triton|GPU", re.IGNORECASE)

#: Errors after which ComfyUI stops checking a node.
_KEEPS_FROM_LOOKING_ON = frozenset(
    {"bad_linked_input", "exception_during_inner_validation", "exception_during_validation", "return_type_mismatch"}
)
#: The most problems in a message for people, and the most characters of one. `details` has everything.
_MOST_LINES, _LONGEST_LINE = 30, 600
#: What loaders of ComfyUI say of the name of a file that is not in its input folder.
#: What is the id of an asset, and no name that anybody gives a file.
_ASSET_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NO_SUCH_FILE = re.compile(r" - Invalid \w+ file: ")
#: How a hint begins that has a better name.
_MEANT = "did you mean"
#: The most packs in a message.
_MOST_PACKS = 10
_HOW_MODELS_COME = (
    "A model is there when its file lies in ComfyUI's folder for it, or when the job brings it: "
    '"models": [{"url": "s3://…", "folder": "checkpoints", "sha256": "…"}] (docs/models.md). '
    "`comfy-serverless needs FILE` lists all that the workflow needs, with `--manifest models.json` as jobs take it"
)
#: The most missing models in a message.
_MOST_MODELS = 10
#: What a ComfyUI writes that exits at once: first without a GPU, then with a Python that is not its own.
_NO_GPU = re.compile(
    r"Found no NVIDIA driver|not compiled with CUDA|No (CUDA|HIP) GPUs are available|CUDA unknown error"
    r"|CUDA driver version is insufficient|no kernel image is available"
)
_NO_MODULE = re.compile(r"^ModuleNotFoundError: ", re.MULTILINE)


def refusal(error: Mapping[str, Any] | None, node_errors: Mapping[str, Any]) -> InvalidWorkflow:
    """The exception for a refused `POST /prompt`: every error of every node, in one message."""
    error = error or {}
    lines = list(node_error_lines(node_errors))
    if not lines:
        details = str(error.get("details") or "").strip()
        message = str(error.get("message") or "ComfyUI refused the workflow").rstrip(".")
        if error.get("type") == "prompt_no_outputs":
            details = "no node in it saves or shows anything. Add one that does, such as SaveImage"
        lines = [_cut(f"{message}: {details}" if details else message)]
    return InvalidWorkflow(_in_one(lines), details={"error": dict(error), "node_errors": dict(node_errors)})


def explained(
    refused: InvalidWorkflow,
    graph: Mapping[str, Any],
    declarations: Declarations,
    known_classes: Iterable[str],
    lost_packs: Sequence[NotImported] = (),
    saved: object = None,
) -> InvalidWorkflow:
    """A refusal that lists every problem at once, with suggestions. It keeps everything ComfyUI said.

    Args:
        refused: made by `refusal`.
        graph: the refused graph.
        declarations: ComfyUI's declarations of the classes in the graph.
        known_classes: all classes that ComfyUI has; searched if the graph has an unknown one.
        lost_packs: the packs that it could not import; searched likewise.
        saved: the editor's workflow that came with the graph, which may say where models can be had.
    """
    error, said = refused.details["error"], refused.details["node_errors"]
    found = {} if _has_looked_at_everything(error, said) else find_problems(graph, declarations)
    hinted = _with_hints(
        _joined(_by_given_nodes(said, found, graph), found, graph), declarations, tuple(known_classes), lost_packs
    )
    lines = list(node_error_lines(_without_listed(hinted)))
    if not said:
        # ComfyUI's words about the workflow as a whole.
        lines = [*refusal(error, {}).message.split("\n"), *lines]
    missing = _lists_of_what_is_missing(hinted, saved)
    sentences = [_in_one(lines)] if lines else []
    details: dict[str, Any] = {**refused.details, "node_errors": hinted, **missing}
    if missing["unknown_nodes"]:
        sentences.append(why_unknown(lost_packs))
        if lost_packs:
            details["not_imported"] = [{"pack": lost.pack, "reason": lost.reason} for lost in lost_packs]
    if models := missing["missing_models"]:
        sentences += [_models_in_words(models), _HOW_MODELS_COME]
    return InvalidWorkflow(". ".join(sentences), details=details)


def pack_of(class_type: str, lost_packs: Iterable[NotImported]) -> NotImported | None:
    """The pack that seems to declare a class, among those that did not import."""
    return next((lost for lost in lost_packs if class_type in lost.classes), None)


def why_unknown(lost_packs: Sequence[NotImported]) -> str:
    """A sentence on why ComfyUI may not know a node, without a full stop."""
    if not lost_packs:
        return "A node is unknown when its custom node is not installed, or cannot be imported (see ComfyUI's log)"
    shown = ", ".join(map(str, lost_packs[:_MOST_PACKS]))
    more = f" and {len(lost_packs) - _MOST_PACKS} more" if len(lost_packs) > _MOST_PACKS else ""
    return f"A node is unknown when its custom node is not installed, or did not import. These did not: {shown}{more}"


def node_error_lines(node_errors: Mapping[str, Any]) -> Iterator[str]:
    """One line for people for each error of each node."""
    for node_id, found in node_errors.items():
        for problem in found.get("errors") or ():
            text = str(problem.get("message") or problem.get("type") or "is refused")
            details = str(problem.get("details") or "").strip()
            hint = _hint(problem, None)
            line = f"Node {node_id} ({found.get('class_type', '?')}): {text}" + (f": {details}" if details else "")
            yield f"{_cut(line)} ({hint})" if hint else _cut(line)


def execution_failure(data: Mapping[str, Any], *, node_id: str, class_type: str) -> ComfyError:
    """The exception for an `execution_error` event.

    Args:
        data: the event's data.
        node_id: the node of the submitted graph it happened in.
        class_type: that node's class; "" if the graph does not have the node.

    Returns:
        `EngineCrashed` if the error says that the process can no longer compute.
    """
    raised_in = str(data.get("node_type") or "?")
    class_type = class_type or raised_in
    exception_type = str(data.get("exception_type") or "Exception")
    message = str(data.get("exception_message") or "").strip() or "no message"
    details = {
        "node_id": node_id,
        "class_type": class_type,
        "exception_type": exception_type,
        "exception_message": message,
        "traceback": "".join(data.get("traceback") or ()),
    }
    ran_as = class_type
    if raised_in not in (class_type, "?"):
        # An expansion made the node, or ComfyUI replaced it: the author knows only the submitted node.
        details["inner_class_type"] = raised_in
        ran_as = f"{class_type}, in {raised_in}"
    text = f"Node {node_id} ({ran_as}) raised {exception_type}: {message}"
    if exception_type.endswith(_MEMORY_EXCEPTIONS) or any(hint in message for hint in _MEMORY_MESSAGES):
        return OutOfMemory(text, details=details)
    if _GPU_IS_LOST.search(message) and _IS_ABOUT_A_GPU.search(message):
        return EngineCrashed(f"{text} (the GPU is lost to this process until it is restarted)", details=details)
    return NodeExecutionError(text, details=details)


def describe_exit(exit_code: int | None) -> str:
    """Describe an exit code for people. Negative codes are signals, and -9 mostly means "out of host memory"."""
    if exit_code is None:
        return "exit code unknown"
    if exit_code == -9:
        return "killed by signal 9: often the host ran out of memory"
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def advice_at_start(log: str) -> str:
    """What helps a ComfyUI that exits while it starts, by what it wrote; "" if that says nothing to us."""
    if _NO_GPU.search(log):
        return (
            "ComfyUI finds no GPU that its torch can use. Set COMFYUI_ARGS=--cpu to do without one (slow; with "
            "API_COMMAND_LINE write --cpu there), or COMFYUI_PYTHON to a Python whose torch fits the GPU. "
        )
    if _NO_MODULE.search(log):
        return (
            "This Python does not have what ComfyUI needs. Set COMFYUI_PYTHON to the one that ComfyUI was installed "
            "with, or install its requirements.txt. "
        )
    return ""


def _has_looked_at_everything(error: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """Whether ComfyUI has checked everything, so that its list is complete: some nodes check their own inputs.

    An exception, or a link of the wrong type, makes it stop checking a node.
    """
    types = {problem.get("type") for node in said.values() for problem in node.get("errors") or ()}
    return (
        error.get("type") == "prompt_outputs_failed_validation" and bool(types) and not types & _KEEPS_FROM_LOOKING_ON
    )


def _by_given_nodes(
    said: Mapping[str, Any], found: Mapping[str, Any], graph: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """ComfyUI's errors, where those of a node that we have put before one are that one's, unless it has its own."""
    result: dict[str, Mapping[str, Any]] = {}
    for node_id, node in said.items():
        given = identify_node(graph, node_id)
        if given.node_id == node_id:
            result[node_id] = node
        elif given.node_id not in said and not found.get(given.node_id):
            result[given.node_id] = {**node, "class_type": given.class_type}
    return result


def _joined(said: Mapping[str, Any], found: Mapping[str, Any], graph: Mapping[str, Any]) -> dict[str, Any]:
    """ComfyUI's errors, then those of ours that it has not named, in the order of the graph."""
    joined: dict[str, Any] = {}
    for node_id in dict.fromkeys((*graph, *said)):
        class_type = graph.get(node_id, {}).get("class_type")
        node = said.get(node_id) or {"dependent_outputs": [], "class_type": class_type}
        problems = list(node.get("errors") or ())
        named = {_key(problem) for problem in problems}
        problems += [problem for problem in found.get(node_id, ()) if _key(problem) not in named]
        if problems:
            joined[node_id] = {**node, "errors": problems}
    return joined


def _with_hints(
    node_errors: Mapping[str, Any],
    declarations: Declarations,
    known_classes: Sequence[str],
    lost_packs: Sequence[NotImported],
) -> dict[str, Any]:
    """The same errors, with suggestions for as many as a person would read."""
    left = iter(range(_MOST_LINES))
    return {
        node_id: {
            **node,
            "errors": [
                problem
                if next(left, None) is None
                else _with_hint(problem, node, declarations, known_classes, lost_packs)
                for problem in node["errors"]
            ],
        }
        for node_id, node in node_errors.items()
    }


def _with_hint(
    problem: Mapping[str, Any],
    node: Mapping[str, Any],
    declarations: Declarations,
    known_classes: Sequence[str],
    lost_packs: Sequence[NotImported],
) -> Mapping[str, Any]:
    class_type = str(node.get("class_type"))
    if problem.get("type") == "missing_node_type":
        if (lost := pack_of(class_type, lost_packs)) is not None:
            return {**problem, "hint": f"it is of {lost.pack}, which did not import: {lost.reason}"}
        near = nearest(class_type, known_classes)
        return {**problem, "hint": f"did you mean {near!r}?"} if near else problem
    declaration = declarations.get(class_type)
    hint = _hint(problem, choices_of(declaration, _input_of(problem)) if declaration else None)
    return {**problem, "hint": hint} if hint else problem


def _hint(problem: Mapping[str, Any], choices: Sequence[Any] | None) -> str:
    """Our suggestion for a problem. Without `choices`, those in the problem itself are used."""
    if problem.get("hint"):
        return str(problem["hint"])
    name = str(problem.get("details", "")).rpartition(": ")[2]
    if problem.get("type") == "custom_validation_failed" and "\\" in name:  # a file of Windows
        return f"folders are separated by /: {name.replace(chr(92), '/')!r}"
    if problem.get("type") == "custom_validation_failed" and _NO_SUCH_FILE.search(str(problem.get("details"))):
        if _ASSET_ID.fullmatch(name):
            return (
                f'an asset is named by its file\'s name, or by {{"__type": "core/ASSET", "info": {{"id": "{name}"}}}}'
            )
        return "ComfyUI has no such file: give it with --input, in `inputs` of the job, or by `upload_image` of Python"
    if problem.get("type") != "value_not_in_list":
        return ""
    extra = _extra(problem)
    config = extra.get("input_config")
    if choices is None and isinstance(config, list) and config:
        choices = choices_of({"input": {"required": {_input_of(problem): config}}}, _input_of(problem))
    return "" if choices is None else choice_hint(_input_of(problem), extra.get("received_value"), choices)


def _without_listed(node_errors: Mapping[str, Any]) -> dict[str, Any]:
    """The same errors but for missing models that nothing there comes near: their list tells all there is to say."""
    return {
        node_id: {**node, "errors": [problem for problem in node["errors"] if not _is_listed(problem)]}
        for node_id, node in node_errors.items()
    }


def _is_listed(problem: Mapping[str, Any]) -> bool:
    return (
        problem.get("type") == "value_not_in_list"
        and is_model(_input_of(problem), _extra(problem).get("received_value"))
        and _MEANT not in str(problem.get("hint"))
    )


def _lists_of_what_is_missing(node_errors: Mapping[str, Any], saved: object) -> dict[str, list[dict[str, str]]]:
    """List, for programs, what would have to be installed or fetched; of models also the folder, and the address."""
    unknown: list[dict[str, str]] = []
    models: list[dict[str, str]] = []
    sources: Sources | None = None
    for node_id, node in node_errors.items():
        where = {"node_id": node_id, "class_type": str(node.get("class_type"))}
        for problem in node["errors"]:
            name, value = _input_of(problem), _extra(problem).get("received_value")
            if problem.get("type") == "missing_node_type":
                unknown.append(where)
            elif problem.get("type") == "value_not_in_list" and is_model(name, value):
                from comfy_serverless.graph.needs import Model, sources_in  # takes a while to load

                sources = sources or sources_in(saved)
                model = sources.completed(Model(folder=model_folder(where["class_type"], name), name=str(value)))
                told = {
                    "folder": model.folder or sources.folder_of(model.name),
                    "url": model.url,
                    "sha256": model.sha256,
                }
                known = {key: text for key, text in told.items() if text}
                models.append({**where, "input_name": name, "name": str(value), **known})
    return {"unknown_nodes": unknown, "missing_models": models}


def _models_in_words(models: Sequence[Mapping[str, str]]) -> str:
    """The missing models, each with the command that brings it and the node that wants it."""
    by_name: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for model in models:
        by_name.setdefault((model.get("folder", ""), model["name"]), []).append(model)
    shown = [_in_words(wanted) for wanted in list(by_name.values())[:_MOST_MODELS]]
    more = f"; and {len(by_name) - _MOST_MODELS} more" if len(by_name) > _MOST_MODELS else ""
    count = "1 model is" if len(by_name) == 1 else f"{len(by_name)} models are"
    return f"{count} missing: {'; '.join(shown)}{more}"


def command_to_add(folder: str, name: str, url: str) -> str:
    """The command that brings a model to a stack's store. `name` is as a workflow calls it, with subfolders."""
    subfolders, _, own_name = name.replace("\\", "/").rpartition("/")
    place = redact_url(url) if url else "FILE"
    whole = "/".join(filter(None, (folder or "FOLDER", subfolders)))
    # What is brought is called by the last part of its address.
    is_called_so = url and unquote(urlsplit(url).path).rpartition("/")[2] == own_name
    naming = () if is_called_so else ("--name", own_name[:_LONGEST_LINE])
    return shlex.join(("comfy-serverless", "models", "add", place, "--folder", whole, *naming))


def _in_words(wanted: Sequence[Mapping[str, str]]) -> str:
    """One model, by its entry for each node."""
    model = wanted[0]
    folder, name = model.get("folder", ""), model["name"]
    more = f" and {len(wanted) - 1} more" if len(wanted) > 1 else ""
    command = command_to_add(folder, name, model.get("url", ""))
    return f"{folder or '?'}/{name[:_LONGEST_LINE]} (`{command}`) of node {_cut(model['node_id'])}{more}"


def _key(problem: Mapping[str, Any]) -> tuple[object, str]:
    return problem.get("type"), _input_of(problem)


def _input_of(problem: Mapping[str, Any]) -> str:
    return str(_extra(problem).get("input_name"))


def _extra(problem: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = problem.get("extra_info")
    return extra if isinstance(extra, Mapping) else {}


def _in_one(lines: Sequence[str]) -> str:
    shown = "; ".join(lines[:_MOST_LINES])
    return shown if len(lines) <= _MOST_LINES else f"{shown}; and {len(lines) - _MOST_LINES} more"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}…"
