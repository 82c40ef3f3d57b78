"""Says what a workflow needs, for `comfy-serverless needs`.

file ──► what is there: by the engine here, a file, or the API ──► needs ──► hosts are asked for SHA-256
                                                                                └──► table, manifest
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from comfy_serverless.cli.documents import Document, read_document
from comfy_serverless.cli.graph_of_file import declarations_in
from comfy_serverless.cli.habits import one_line, print_json, say
from comfy_serverless.cli.model_lookup import looked_up
from comfy_serverless.cli.needs_manifest import check_target, manifest_of, write_manifest
from comfy_serverless.cli.needs_report import print_needs
from comfy_serverless.connector.submitted import EMBEDDED_LACKS
from comfy_serverless.errors import ComfyError, InvalidRequest, NotFound
from comfy_serverless.graph.needs import Model, needs_of
from comfy_serverless.graph.workflow import apply_set

#: Something is missing.
MISSING = 3


def run(options: argparse.Namespace) -> int:
    """Print what the workflow needs, and write the manifest. Returns the exit code."""
    document = read_document(options.workflow)
    if options.manifest is not None:
        check_target(options.manifest, options.workflow)
    needs, where = _needs(document, options)
    needs["notes"] = [*document.warnings, *_notes(document), *needs["notes"]]
    if options.lookup or (options.lookup is None and options.manifest is not None):
        needs["models"], problems = looked_up(needs["models"])
        needs["notes"] += problems
    if options.manifest is not None:
        entries, left_out = manifest_of(needs["models"])
        write_manifest(options.manifest, entries)
        needs["notes"] += left_out
    if options.json:
        print_json({**needs, "engine": where})
    elif options.manifest is None or str(options.manifest) != "-":
        print_needs(needs, where=where, has_manifest=options.manifest is not None)
    for note in needs["notes"]:
        say(one_line(f"note: {note}"))
    return MISSING if needs["missing"]["models"] or needs["missing"]["nodes"] else 0


def _needs(document: Document, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What the workflow needs, and who has said what is there."""
    workflow = document.editors or apply_set(document.graph, document.values)
    brought = document.beside.get("models") or []
    if options.remote or options.stack:
        from comfy_serverless.cli import remote

        outputs = _outputs_of(options.stack) if options.stack else {}
        api = remote.Api.from_environment(outputs.get("ApiUrl"))
        request: dict[str, Any] = {"workflow": workflow, "models": brought}
        if (saved := _saved(document)) is not None:
            request["extra_data"] = {"extra_pnginfo": {"workflow": saved}}
        answer = remote.needs(api, {name: value for name, value in request.items() if value})
        return _with_store(answer, options.stack, outputs) if options.stack else answer, api.shown
    if options.object_info is not None:
        found = needs_of(
            workflow, declarations_in(options.object_info), saved=_saved(document), brought=_models(brought)
        )
        return found.to_json(), str(options.object_info)
    from comfy_serverless.cli.local_run import started
    from comfy_serverless.settings import Settings

    with started(None, Settings.from_environment()) as connector:
        found = needs_of(
            workflow,
            connector.object_info(),
            saved=_saved(document),
            embeddings=connector.embeddings(),
            brought=_models(brought),
        )
        needs = found.to_json()
        if connector.is_embedded and needs["missing"]["nodes"]:
            needs["notes"] = [*needs["notes"], EMBEDDED_LACKS]
        return needs, connector.engine


def _saved(document: Document) -> Mapping[str, Any] | None:
    """The editor's workflow beside a graph in API format."""
    info = document.extra_data.get("extra_pnginfo")
    saved = info.get("workflow") if isinstance(info, Mapping) else None
    return saved if isinstance(saved, Mapping) else None


def _models(given: object) -> list[Model]:
    """The models that a request brings; its check has been made by the reader of requests."""
    if not given:
        return []
    from comfy_serverless.jobs.request import parse_manifest

    return [
        Model(folder=folder, name=name, url=model.url, sha256=model.sha256 or "", source="request")
        for model in parse_manifest(given, source="`models` of the request")
        for folder, _, name in [model.called.partition("/")]
    ]


def _notes(document: Document) -> list[str]:
    if document.editors and document.values:
        return ["`set` of the request is put in when it runs: models that it names are not in this list"]
    return []


def _outputs_of(stack: str) -> dict[str, str]:
    """What a stack says of itself; there must be a key of it in COMFY_API_KEY."""
    from comfy_serverless.cli.remote_variables import KEY_VARIABLE
    from comfy_serverless.cli.stack import explained, outputs_of

    with explained(argparse.Namespace(stack=stack), needs="cloudformation:DescribeStacks"):
        outputs = outputs_of(stack)
    if not outputs.get("ApiUrl"):
        raise NotFound(f"The stack {stack!r} has no output ApiUrl: it is another stack.")
    if not os.environ.get(KEY_VARIABLE):
        raise InvalidRequest(
            f"set {KEY_VARIABLE} to a key of the stack {stack!r}: "
            f"comfy-serverless keys create NAME --owner WHO --stack {stack}"
        )
    return outputs


def _with_store(needs: dict[str, Any], stack: str, outputs: Mapping[str, str]) -> dict[str, Any]:
    """The answer with the addresses of models that are not there, and are in the stack's store (`models add`)."""
    from comfy_serverless.cli.model_store import ModelBucket
    from comfy_serverless.cli.stack import client_of_models, explained

    if all(model["there"] for model in needs["models"]) or not outputs.get("InputBucketName"):
        return needs
    try:
        with explained(argparse.Namespace(stack=stack), needs="s3:ListBucket and s3:GetObject on its input bucket"):
            stored = ModelBucket(client_of_models(), outputs["InputBucketName"]).all()
    except ComfyError as error:
        return {**needs, "notes": [*needs["notes"], f"what its store of models has is not known: {error.message}"]}
    by_path = {f"{one.folder}/{one.name}": one for one in stored}
    models = []
    for model in needs["models"]:
        one = by_path.get(f"{model['folder']}/{model['name']}")
        is_it = one is not None and not model["there"] and model["sha256"] in (None, one.sha256)
        told = (
            {"url": one.address, "sha256": one.sha256 or None, "size_bytes": one.size_bytes, "source": "store"}
            if one
            else {}
        )
        models.append({**model, **(told if is_it else {})})
    return {**needs, "models": models}
