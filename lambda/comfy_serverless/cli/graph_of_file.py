"""Converts a file of the editor, for `comfy-serverless convert`.

file ──► of the editor? ──► declarations: of the engine here, of a file, or the API converts ──► graph written
                  └─ no: the graph in it is written as it is ───────────────────────────────────────┘
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_serverless.cli.converting import supplied_by
from comfy_serverless.cli.documents import Document, read_document
from comfy_serverless.cli.habits import one_line, print_json, say
from comfy_serverless.cli.paths import local_path
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.convert import Conversion, convert
from comfy_serverless.json_text import finite, parse_json

_MOST_BYTES = 200_000_000


def run(options: argparse.Namespace) -> int:
    """Convert the file and write the graph. Returns the exit code."""
    document = read_document(options.workflow)
    target = None if options.output == "-" else local_path(options.output)
    if target is not None:
        _check_target(target, options.workflow)
    conversion = _conversion(document, options) if document.editors else Conversion(document.graph, ())
    warnings = [*document.warnings, *conversion.warnings]
    if not document.editors:
        warnings.append("it is in API format already: nothing was converted")
    if document.values or document.inputs:
        warnings.append("`set` and `inputs` of the request are put in when it runs, and not into this graph")
    for warning in warnings:
        say(one_line(f"warning: {warning}"))
    if target is not None:
        _write(target, conversion.graph)
    if options.json:
        print_json(
            {
                "workflow": finite(conversion.graph),
                "warnings": warnings,
                "path": options.output if target is None else str(target),
            }
        )
    elif target is None:
        print_json(finite(conversion.graph))
    return 0


def declarations_in(path: Path) -> Mapping[str, Any]:
    """What ComfyUI declares of its classes, of a file with an answer of `/object_info`.

    Raises InvalidRequest if it cannot be read, or is something else.
    """
    try:
        with path.open("rb") as file:
            found = parse_json(file.read(_MOST_BYTES), source=f"--object-info {path}", most_bytes=_MOST_BYTES)
    except OSError as error:
        raise InvalidRequest(f"--object-info {path} cannot be read: {error.strerror}") from error
    if not isinstance(found, dict) or not found or not all(map(_is_declaration, found.values())):
        raise InvalidRequest(
            f"--object-info {path} is no answer of ComfyUI's /object_info. "
            "This makes one: curl http://127.0.0.1:8188/object_info > object_info.json"
        )
    return found


def _is_declaration(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("input"), Mapping)


def _conversion(document: Document, options: argparse.Namespace) -> Conversion:
    supplied = supplied_by(document)
    if options.object_info is not None:
        declared = declarations_in(options.object_info)
        return convert(document.editors, declared, supplied=supplied, seed=options.seed)
    if options.remote:
        from comfy_serverless.cli import remote

        return remote.convert(remote.Api.from_environment(), document.editors, supplied=supplied, seed=options.seed)
    from comfy_serverless.cli.local_run import started
    from comfy_serverless.settings import Settings

    with started(None, Settings.from_environment()) as connector:
        return connector.convert(document.editors, supplied=supplied, seed=options.seed)


def _check_target(target: Path, source: str) -> None:
    """Raise InvalidRequest for a file that must not be replaced, or cannot be there."""
    if source != "-" and target.exists() and target.samefile(source):
        raise InvalidRequest(f"-o {target} is the file that is converted: give another name, or it would be lost.")
    if target.is_dir():
        raise InvalidRequest(f"-o {target} is a folder: name a file in it.")


def _write(target: Path, graph: Mapping[str, Any]) -> None:
    """Write a graph as the editor exports it: whole, or not at all."""
    text = json.dumps(finite(dict(graph)), indent=2, ensure_ascii=False)
    try:
        content = f"{text}\n".encode()
    except UnicodeEncodeError:  # half of a character, which JSON can hold and a file cannot
        content = (json.dumps(finite(dict(graph)), indent=2) + "\n").encode()
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvalidRequest(f"-o {target}: the file cannot be written: {error.strerror}") from error
