"""What `workflows push` sends: the workflow of a file as it is, and which inputs and outputs it is to have.

poster.json ──► the workflow ─────────────────────────────────────────┐
poster.yaml, or --inputs FILE ──► choices ──► --input and --output win ┴──► body of PUT /api/v2/workflows/poster
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from comfy_serverless.cli.documents import read_document
from comfy_serverless.cli.habits import one_line, say
from comfy_serverless.cli.paths import is_file, local_path
from comfy_serverless.errors import InvalidRequest

#: What may stand beside a workflow, by the endings that replace its own.
_BESIDE: Final = (".inputs.yaml", ".inputs.yml", ".yaml", ".yml")
_MOST_BYTES: Final = 1_000_000
#: What is written of each input. Its range and choices are those of its node, unless somebody narrows them.
_WRITTEN: Final = ("title", "description")


def body_of(options: argparse.Namespace) -> dict[str, Any]:
    """The body of a push.

    Raises:
        InvalidRequest: a file cannot be read, or is not what is wanted.
        InvalidWorkflow: there is no workflow in it.
    """
    document = read_document(options.file, elsewhere=True)
    if document.named:
        raise InvalidRequest(
            f"{options.file} names the workflow {document.named[:200]!r}: push the file that has the workflow itself."
        )
    left_out = [name for name, given in (("set", document.values), ("inputs", document.inputs)) if given]
    for warning in (*document.warnings, *(f"`{name}` of the request is no part of the workflow" for name in left_out)):
        say(one_line(f"warning: {warning}"))
    chosen = _chosen(options)
    inputs, outputs = (_merged(chosen.get(what), getattr(options, what)) for what in ("inputs", "outputs"))
    described = options.description if options.description is not None else chosen.get("description")
    body = {
        "inputs": inputs,
        "outputs": outputs,
        "description": described,
        "note": options.note,
        "alias": options.alias,
        "expected": options.expected,
        "extra_data": _saved(document.extra_data),
    }
    return {
        "workflow": dict(document.editors or document.graph),
        **{name: value for name, value in body.items() if value not in (None, "") and (value or name != "extra_data")},
        "dry_run": options.dry_run,
        **({"force": True} if options.force else {}),
    }


def _saved(extra_data: Mapping[str, Any]) -> dict[str, Any]:
    """The editor's workflow, which pictures have beside the graph. Nothing else is kept: keys stay on this machine."""
    info = extra_data.get("extra_pnginfo")
    saved = info.get("workflow") if isinstance(info, Mapping) else None
    return {} if saved is None else {"extra_pnginfo": {"workflow": saved}}


def _merged(chosen: Mapping[str, Any] | None, given: list[tuple[str, str]]) -> dict[str, Any] | None:
    """What is chosen by a file and by options, which win; None if neither says anything: then it is found."""
    return None if chosen is None and not given else {**(chosen or {}), **dict(given)}


def _chosen(options: argparse.Namespace) -> Mapping[str, Any]:
    """What the file of choices says, that is named or stands beside the workflow; {} if there is none."""
    path = options.inputs_file or beside(options.file)
    if path is None:
        return {}
    from comfy_serverless.workflows.choosing import read_choices

    if options.inputs_file is None:
        say(one_line(f"inputs and outputs are chosen by {path}"))
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InvalidRequest(f"{path} cannot be read: {reason}") from error
    choices = read_choices(text, source=str(path))
    return {"inputs": choices.inputs, "outputs": choices.outputs, "description": choices.description}


def beside(file: str) -> Path | None:
    """The file of choices beside a workflow: `poster.inputs.yaml` or `poster.yaml` of `poster.json`."""
    path = local_path(file)
    if file == "-" or not path.stem:
        return None
    candidates = [path.with_name(f"{path.stem}{ending}") for ending in _BESIDE]
    return next((one for one in candidates if one != path and is_file(one)), None)


def as_choices(document: Mapping[str, Any], *, name: str, file: str) -> str:
    """The file of choices that says what a push has found, to be edited. YAML whose values are JSON."""
    lines = [
        f"# Inputs and outputs of the workflow {name}, for `comfy-serverless workflows push {name} {one_line(file)}`.",
        "# Rename them, take away what callers do not set, and describe the others. Each may also have: required,",
        "# default, minimum, maximum, step, choices, media.",
    ]
    if document.get("description"):
        lines.append(f"description: {_json(document['description'])}")
    lines.append("inputs:" if document["inputs"] else "inputs: {}")
    for one in document["inputs"]:
        lines.append(f"  {_json(one['name'])}:")
        targets = one["targets"]
        lines.append(f"    target: {_json(targets[0])}" if len(targets) == 1 else f"    targets: {_json(targets)}")
        lines += ["    required: true"] if one.get("is_required") else [f"    default: {_json(one.get('default'))}"]
        lines += [f"    {field}: {_json(one[field])}" for field in _WRITTEN if one.get(field) not in (None, "", [])]
    lines.append("outputs:" if document["outputs"] else "outputs: {}")
    lines += [f"  {_json(one['name'])}: {_json(str(one['node_id']))}" for one in document["outputs"]]
    return "\n".join(lines) + "\n"


def write_choices(path: Path, text: str) -> None:
    """Write that file. Raises InvalidRequest if there is one, which may have been edited, or it cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise InvalidRequest(f"--write-inputs {path}: there is such a file, and it is not replaced.") from error
    except OSError as error:
        raise InvalidRequest(f"--write-inputs {path}: the file cannot be written: {error.strerror}") from error


def _json(value: object) -> str:
    return json.dumps(value)
