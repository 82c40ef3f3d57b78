"""`comfy-serverless`: the commands, and the exit codes of their failures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from rich.console import Console

from comfy_serverless.cli import batch, keys, logs, run, upload
from comfy_serverless.errors import Canceled, ComfyError
from comfy_serverless.proxies import spare_this_machine

FAILED, INTERRUPTED = 1, 130

#: The extra that brings a library which some commands need.
_EXTRAS = {"boto3": "aws", "botocore": "aws", "pydantic": "aws", "blake3": "aws"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code; for wrong usage argparse exits with 2."""
    options = _parser().parse_args(arguments)
    spare_this_machine(os.environ)  # `make dev` is here
    try:
        status: int = options.run(options)
    except ComfyError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]{error.code}[/]: ", end="")
        print(error.message, file=sys.stderr)
        if options.json:
            print(json.dumps({"error": {"code": error.code, "message": error.message, "details": error.details}}))
        return INTERRUPTED if isinstance(error, Canceled) else FAILED
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRAS:
            raise
        print(
            f"`comfy-serverless {options.command}` needs {library} here: in the checkout, "
            f"pip install '.[{_EXTRAS[library]}]'",
            file=sys.stderr,
        )
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="comfy-serverless", description="Run any ComfyUI workflow, here or on your own AWS account."
    )
    parser.add_argument("--version", action="version", version=f"comfy-serverless {version('comfy-serverless')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (run, keys, batch, upload, logs):
        command.add_parser(commands)
    return parser
