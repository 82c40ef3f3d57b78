"""`comfy-serverless env init`: writes the build file from what one has: an install, a workflow, a snapshot.

Here is what the command line says; what it does is in `init_run`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from comfy_serverless.cli.habits import add_command, interrupt_ends
from comfy_serverless.cli.paths import local_path

BUILD_FILE = Path("comfyui/comfy-build.yaml")
_EXAMPLES = (
    "comfy-serverless env init ~/ComfyUI",
    "comfy-serverless env init ~/ComfyUI workflow.json",
    "comfy-serverless env init workflow.json --lookup",
    "comfy-serverless env init snapshot.json --comfyui-ref v0.33.0",
    "comfy-serverless env init other/comfy-build.yaml --force",
)
_NOTES = """\
A SOURCE is one of
  a ComfyUI folder        its version, packs, models (hashed), and what its Python has; nothing of it is started. Models
                          of the folders in its extra_model_paths.yaml, too, and where they are from by what a manager
                          of models has written beside them (NAME.civitai.info, .metadata, .json)
  a workflow              the editor's file, a graph in API format with that beside it, a picture or video with one:
                          packs and models as its nodes name them
  a snapshot              of ComfyUI-Manager or ComfyUI's desktop app: packs and versions
  a comfy-build.yaml      taken over as it is
What an earlier SOURCE says counts more than a later one. Packs come from the Comfy Registry (id and version), from git
(repository and commit), or from this machine (a folder or a .py file of custom_nodes/).

A file that is there is updated: comments, other keys and what else you have written stay; what only the file has stays,
too. --force writes it anew. Libraries of the install's Python stand behind # in pipDependencies, but for what a pack
declares: a line without # replaces what packs ask for. torch and what belongs to it are the image's own.

Hashes of models are kept (in ~/.cache/comfy-serverless): a second run is done at once.
"""


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `env init` to the actions of `env`."""
    parser = add_command(
        actions,
        "init",
        summary="write comfy-build.yaml from a ComfyUI folder, a workflow or a snapshot",
        description="Write comfy-build.yaml, which says what ComfyUI in the image consists of.",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a ComfyUI folder or a file; see below")
    parser.add_argument(
        "-o", "--output", type=local_path, default=BUILD_FILE, metavar="FILE", help=f"the file (default: {BUILD_FILE})"
    )
    parser.add_argument("--force", action="store_true", help="write the file anew, whatever is in it")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and write nothing")
    parser.add_argument("--name", help="what the build is called (default: the name of the first SOURCE)")
    parser.add_argument("--comfyui-ref", metavar="REF", help="ComfyUI's tag, branch or commit (default: the SOURCE's)")
    parser.add_argument("--python", type=local_path, metavar="FILE", help="the Python that the ComfyUI runs with")
    parser.add_argument("--no-models", dest="models", action="store_false", help="take no models: nothing is hashed")
    parser.add_argument(
        "--lookup",
        action="store_true",
        help="ask the hosts of a workflow's models for SHA-256 and size (HF_TOKEN and CIVITAI_TOKEN let in)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the build file. Returns the exit code."""
    with interrupt_ends():
        from comfy_serverless.cli.environments import init_run
    return init_run.run(options)
