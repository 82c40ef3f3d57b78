"""`comfy-serverless run`: runs a workflow on this machine and saves everything it makes.

Here is what the command line says; what it does is in `local_run`, which is loaded when there is something to run.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

from comfy_serverless.cli.habits import CommandParser, add_command, interrupt_ends, say
from comfy_serverless.cli.paths import is_file, local_path
from comfy_serverless.cli.run_options import add_options

_EXAMPLES = (
    "comfy-serverless run workflow.json",
    'comfy-serverless run workflow.json --set seed=42 --set "KSampler.steps=20" --set "6.text=a red fox"',
    "comfy-serverless run edit.json --input 10.image=photo.png --out out/",
    "comfy-serverless run inpaint.json --input 10.image=photo.png --input 10.mask=mask.png",
    "comfy-serverless run edit.json --input 10.image=first.png --input 10.image=second.png",
    "comfy-serverless run workflow.json --set-json '3.model=[\"12\", 0]'",
    "comfy-serverless run saved.json --set 2:101.steps=8  a node in a subgraph: `convert` shows their ids",
    "comfy-serverless run picture.png --set seed=-1       the workflow in a picture that ComfyUI has made",
    "cat request.json | comfy-serverless run - --json",
    "comfy-serverless run edit.json --input 10.image=photo.png --remote --label campaign=autumn",
)
#: `poster`, `poster@staging`, `poster@3`: `workflows.reference` says exactly what a name is.
_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*/)*[A-Za-z0-9][A-Za-z0-9_-]*(@[A-Za-z0-9-]*)?")
_NOTES = """\
An input is named by node id, class or title: 3.seed, KSampler.seed, "My sampler.seed"; its own name is enough if one
node has it: seed. A class or a title means all nodes of it, and which those are is said.
A file that the editor saved is converted, and they are those of the graph that it becomes: a node in a subgraph is
called like 2:101, and `comfy-serverless convert` shows them all.
`--set` makes of the text what the input takes: a text stays as it is written, "5" is a number for an input that takes
numbers, true and false for one that takes those. `--set-json` puts in any JSON: links, lists, null.
No file in --out is replaced: a name that is taken gets the next free number.

A NAME is that of a workflow which was pushed (`comfy-serverless workflows`), if COMFY_BASE_URL is set; otherwise that
of a file in WORKFLOWS_DIR, workflows/ or this folder, without its ending. Its inputs are options, behind the name.

Which ComfyUI runs it: COMFYUI_URL (one that runs), COMFYUI_DIR (a checkout; COMFYUI_PYTHON, COMFYUI_ARGS="--cpu"),
API_COMMAND_LINE, or ComfyUI/ in this folder. Without any of them the embedded engine runs it: it needs no GPU,
executes ComfyUI's model-free nodes for real, and paints a stand-in for text-to-image.

With --remote the API runs it that COMFY_BASE_URL names, with the key in COMFY_API_KEY: files of --input are uploaded,
the job is followed, and its outputs are downloaded. Ctrl-C asks for its end. `comfy-serverless jobs` has them all.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `run` to the commands of the command line."""
    parser = add_command(
        commands,
        "run",
        summary="run a workflow and save everything it makes",
        description="Run a workflow of ComfyUI, as its editor saves or exports it, and save everything it makes.",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    parser.add_argument(
        "workflow",
        metavar="FILE|NAME",
        help="the workflow, a request with one, or a file that ComfyUI has made; - for standard input; or its name",
    )
    add_options(parser)
    parser.set_defaults(run=run, wrong_usage=parser.error)
    if isinstance(parser, CommandParser):
        parser.other_form = lambda arguments: _of_name(parser, arguments)


def run(options: argparse.Namespace) -> int:
    """Run the workflow and save its outputs, also those made before a failure. Returns the exit code."""
    if _is_name(options.workflow):
        with interrupt_ends():
            from comfy_serverless.cli import named_run
        options.arguments = getattr(options, "arguments", [])
        return named_run.run(options)
    if options.alias is not None or options.version_number is not None or options.sticky is not None:
        options.wrong_usage("--alias, --version and --sticky are for named workflows: give a NAME, and no FILE")
    if options.remote:
        if options.log is not None:
            options.wrong_usage("--log: what the API's ComfyUI logs is there: `comfy-serverless jobs logs ID` shows it")
        with interrupt_ends():
            from comfy_serverless.cli import remote_run
        return remote_run.run(options)
    if options.labels:
        options.wrong_usage("--label: only a job of the API has labels: give --remote too")
    if os.environ.get("COMFY_BASE_URL"):
        say("COMFY_BASE_URL is set, and this runs here: with --remote it runs there")
    with interrupt_ends():
        from comfy_serverless.cli import local_run
    return local_run.run(options)


def _of_name(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace | None:
    """The arguments of a run of a named workflow: a name, and options that only the workflow knows."""
    if not arguments or not _is_name(arguments[0]):
        return None
    return argparse.Namespace(
        workflow=arguments[0],
        arguments=list(arguments[1:]),
        json="--json" in arguments,
        run=run,
        wrong_usage=parser.error,
    )


def _is_name(text: str) -> bool:
    """Whether it is the name of a workflow, and no file."""
    return bool(_NAME.fullmatch(text)) and not is_file(local_path(text))
