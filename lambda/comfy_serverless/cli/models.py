"""`comfy-serverless models`: brings models to a stack's store, where its workers fetch them from, and lists them.

add: hash ──► there already? ──► its entry
                  └──► sent in parts, each checked by S3 ──► its entry, in a manifest too
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.habits import add_command, print_json, print_table, say, size_in_words
from comfy_serverless.cli.paths import local_path
from comfy_serverless.cli.stack import Stack, add_stack_option, chosen_stack, explained

if TYPE_CHECKING:
    from comfy_serverless.cli.model_store import Stored
    from comfy_serverless.jobs.request import ModelRequest

_EXAMPLES = {
    "add": (
        "comfy-serverless models add fox.safetensors --folder loras --stack comfy-serverless",
        "comfy-serverless models add https://huggingface.co/…/resolve/main/sd.safetensors --folder checkpoints",
        "comfy-serverless models add fox.safetensors --folder loras/styles --manifest models.json",
    ),
    "ls": ("comfy-serverless models ls", "comfy-serverless models ls --json | jq '.models[].name'"),
}
_NOTES = """\
What is printed is the model's entry: for "models" of a job, or the list in MODELS_MANIFEST. A transfer that breaks off
goes on where it was, if the same command is given again within a day.
For models that need a licence set HF_TOKEN or CIVITAI_TOKEN: each is sent to its own host only.
"""
_NEEDS = (
    "cloudformation:DescribeStacks, and on the input bucket s3:GetObject, PutObject, ListBucket, AbortMultipartUpload "
    "and ListMultipartUploadParts"
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `models` to the commands of the command line."""
    models = add_command(
        commands,
        "models",
        summary="bring models to the deployed stack's store, and list those there are",
        examples=[line for lines in _EXAMPLES.values() for line in lines],
        notes=_NOTES,
        prints_data=False,
    )
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = _action(actions, "add", "bring a file, or what is at an address, to the store; its entry is printed")
    add.add_argument("source", metavar="FILE|URL", help="a file of this machine, or https://…")
    add.add_argument("--folder", required=True, help="ComfyUI's folder for it: checkpoints, loras/styles, …")
    add.add_argument("--name", help="what workflows call it (default: the file's own name)")
    add.add_argument("--sha256", metavar="HASH", help="what its content must be (default: as its host says)")
    add.add_argument(
        "--manifest", type=local_path, metavar="FILE", help="write its entry into this list of models, too"
    )
    add.add_argument("--replace", action="store_true", help="replace another content of the same name")
    _action(actions, "ls", "the models in the store: name, folder, size, SHA-256, address")
    models.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit code. A `ComfyError` says in its message what to do."""
    name = chosen_stack(options)
    with explained(options, needs=_NEEDS):
        stack = Stack.of(name)
        match options.action:
            case "add":
                _add(stack, options)
            case "ls":
                _list(stack, as_json=options.json)
    return 0


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str
) -> argparse.ArgumentParser:
    action = add_command(actions, name, summary=description, examples=_EXAMPLES[name])
    add_stack_option(action)
    return action


def _add(stack: Stack, options: argparse.Namespace) -> None:
    from comfy_serverless.cli.byte_bar import byte_bar
    from comfy_serverless.cli.model_manifest import check_manifest, write_entry
    from comfy_serverless.cli.model_sources import ModelSource, wanted
    from comfy_serverless.cli.model_store import ModelBucket

    model = wanted(options.source, folder=options.folder, name=options.name, sha256=options.sha256)
    if options.manifest is not None:
        check_manifest(options.manifest)  # before anything is sent
    with byte_bar() as show, ModelSource.of(options.source, model, show=show) as source:
        bucket = ModelBucket(stack.s3, stack.input_bucket)
        stored, was_sent = bucket.add(source, model, replaces=options.replace, show=show)
    entry = _entry(stored, model)
    if options.manifest is not None:
        write_entry(options.manifest, entry, replaces=options.replace)
    if options.json:
        print_json({"entry": entry, "size_bytes": stored.size_bytes, "was_sent": was_sent})
    else:
        print(json.dumps(entry), flush=True)
    what = "brought" if was_sent else "the store has it already:"
    say(f"{what} {stored.folder}/{stored.name} ({size_in_words(stored.size_bytes)}, {stored.address})")
    if not model.file_name.lower().endswith((".safetensors", ".sft")):
        say("It is not safetensors: workers take it only with ALLOW_PICKLED_MODELS=true, as it can run code.")


def _entry(stored: Stored, model: ModelRequest) -> dict[str, str]:
    # The name is the last part of the address.
    return {"url": stored.address, "folder": model.folder, "sha256": stored.sha256}


def _list(stack: Stack, *, as_json: bool) -> None:
    from comfy_serverless.cli.model_store import ModelBucket

    found = ModelBucket(stack.s3, stack.input_bucket).all()
    if as_json:
        print_json({"models": [_as_json(one) for one in found]})
    elif not found:
        say("There are no models. Bring one: comfy-serverless models add FILE|URL --folder FOLDER")
    else:
        rows = [[one.name, one.folder, size_in_words(one.size_bytes), one.sha256 or "-", one.address] for one in found]
        titles = ("name", "folder", "size", "sha256", "where")
        print_table(titles, rows, folds=("name", "folder", "sha256", "where"), right=("size",))


def _as_json(one: Stored) -> dict[str, Any]:
    return {
        "name": one.name,
        "folder": one.folder,
        "size_bytes": one.size_bytes,
        "sha256": one.sha256 or None,
        "url": one.address,
    }
