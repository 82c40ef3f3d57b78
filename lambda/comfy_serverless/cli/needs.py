"""`comfy-serverless needs`: lists what a workflow needs, and what of it is missing.

Here is what the command line says; what it does is in `needs_of_file`, which is loaded when there is something to do.
"""

from __future__ import annotations

import argparse

from comfy_serverless.cli.habits import add_command, interrupt_ends
from comfy_serverless.cli.paths import local_path

_EXAMPLES = (
    "comfy-serverless needs workflow.json",
    "comfy-serverless needs picture.png --stack comfy-serverless",
    "comfy-serverless needs workflow.json --remote --manifest models.json",
    "comfy-serverless needs workflow.json --object-info object_info.json --json",
)
_NOTES = """\
It reads what `run` reads: what the editor saved, the API format, a request, a file that ComfyUI has made. Nodes that
are muted or bypassed need nothing.

What is there is told by the ComfyUI that `run` would use (COMFYUI_URL, COMFYUI_DIR, …: see `run --help`); with --remote
by the API that COMFY_BASE_URL names, and with --stack by that stack's, both with the key in COMFY_API_KEY; with
--object-info by a file: curl http://127.0.0.1:8188/object_info > object_info.json

--manifest writes the models that are not there as `models` of a job and MODELS_MANIFEST take them. Where the workflow
has no SHA-256 of one, its host is asked (Hugging Face, CivitAI; HF_TOKEN and CIVITAI_TOKEN let in), without a download.
--lookup does that for the table too, --no-lookup never.
"""
_EXIT_CODES = (
    "exit codes: 0 done and nothing is missing, 1 failed (the reason is on stderr), 2 wrong usage, "
    "3 a model or a class of nodes is missing, 130 interrupted"
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `needs` to the commands of the command line."""
    parser = add_command(
        commands,
        "needs",
        summary="list the models, nodes and keys that a workflow needs, and what of it is missing",
        examples=_EXAMPLES,
        notes=_NOTES,
        exit_codes=_EXIT_CODES,
    )
    parser.add_argument("workflow", metavar="FILE", help="the workflow, or a file with one; - for standard input")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--remote", action="store_true", help="say what the API lacks that COMFY_BASE_URL names")
    source.add_argument("--stack", metavar="NAME", help="say what this stack lacks (its key is in COMFY_API_KEY)")
    source.add_argument(
        "--object-info", type=local_path, metavar="FILE", help="what /object_info of a ComfyUI has answered"
    )
    parser.add_argument(
        "--manifest", type=local_path, metavar="FILE", help="write the models that are not there; - for stdout"
    )
    parser.add_argument(
        "--lookup",
        action=argparse.BooleanOptionalAction,
        help="ask the hosts of models for sizes and SHA-256 (default: for --manifest only)",
    )
    parser.set_defaults(run=run, wrong_usage=parser.error)


def run(options: argparse.Namespace) -> int:
    """Print what the workflow needs. Returns the exit code."""
    if options.json and options.manifest is not None and str(options.manifest) == "-":
        options.wrong_usage("--manifest - and --json both print one JSON document: give one of them a file")
    with interrupt_ends():
        from comfy_serverless.cli import needs_of_file
    return needs_of_file.run(options)
