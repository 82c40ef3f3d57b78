"""`comfy-serverless convert`: makes of what the editor saved the graph (API format) that ComfyUI runs.

Here is what the command line says; what it does is in `graph_of_file`, which is loaded when there is something to do.
"""

from __future__ import annotations

import argparse

from comfy_serverless.cli.habits import add_command, interrupt_ends
from comfy_serverless.cli.paths import local_path

_EXAMPLES = (
    "comfy-serverless convert workflow.json -o workflow_api.json",
    "comfy-serverless convert picture.png | jq '.\"3\".inputs'",
    "comfy-serverless convert workflow.json --remote        by what the workers of the deployed API have",
    "comfy-serverless convert workflow.json --object-info object_info.json",
)
_NOTES = """\
`run` and every other door take the editor's file as it is: convert one to see what runs, to edit it, or for programs
that know the API format only. Whatever has a workflow in it is read, as by `run`. A workflow that is in API format
already is written as it is. What was guessed, left out or rolled is said on standard error.

A conversion needs what ComfyUI declares of its nodes. It comes from the ComfyUI that `run` would use (COMFYUI_URL,
COMFYUI_DIR, …: see `run --help`); with --remote from the API that COMFY_BASE_URL names, with the key in COMFY_API_KEY;
with --object-info from a file: curl http://127.0.0.1:8188/object_info > object_info.json

Of alternatives in a text, {red|green}, the first is taken: --seed rolls them, the same way for the same SEED.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `convert` to the commands of the command line."""
    parser = add_command(
        commands,
        "convert",
        summary="make of the editor's file the graph (API format) that ComfyUI runs",
        description="Convert a workflow that ComfyUI's editor saved into the graph (API format) that ComfyUI runs.",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    parser.add_argument("workflow", metavar="FILE", help="what the editor saved; - for standard input")
    parser.add_argument(
        "-o", "--output", default="-", metavar="FILE", help="where the graph goes (default: - for standard output)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--remote", action="store_true", help="let the API convert it")
    source.add_argument(
        "--object-info", type=local_path, metavar="FILE", help="what /object_info of a ComfyUI has answered"
    )
    parser.add_argument("--seed", metavar="SEED", help="roll alternatives by any text, e.g. a number")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert the file and write the graph. Returns the exit code."""
    with interrupt_ends():
        from comfy_serverless.cli import graph_of_file
    return graph_of_file.run(options)
