"""`comfy-serverless`: the commands, and how each of them ends.

A command's module is loaded when the command is called, so that `--help` and the first Ctrl-C are answered at once.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes longer to load than all that is here
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comfy_serverless.cli.habits import CommandParser


class Command:
    """A command: its name, its line in the list of commands, and its module below `cli`.

    The module has `add_parser(commands)`, which sets `run` of the options to a function that returns the exit code.
    """

    def __init__(self, name: str, summary: str, module: str) -> None:
        self.name, self.summary, self.module = name, summary, module


COMMANDS = (
    Command("run", "run a workflow and save everything it makes", "run"),
    Command("convert", "make of the editor's file the graph (API format) that ComfyUI runs", "convert"),
    Command("needs", "list the models, nodes and keys that a workflow needs, and what of it is missing", "needs"),
    Command("workflows", "give workflows names, typed inputs and versions, and make typed clients", "workflows"),
    Command("keys", "make, list and revoke the keys of the deployed API", "keys"),
    Command("usage", "show what jobs have cost: by day, workflow, key or owner", "usage"),
    Command("batch", "run many jobs: from a manifest or a folder of files to a folder of results", "batch"),
    Command("jobs", "list, show, follow, cancel and download jobs of the deployed API, and read their logs", "jobs"),
    Command("upload", "upload a file of any size to the deployed API", "upload"),
    Command("assets", "list the files that were uploaded", "assets"),
    Command("outputs", "list the files that jobs have made, newest first", "outputs"),
    Command("models", "bring models to the deployed stack's store, and list those there are", "models"),
    Command("release", "list the releases of a stack, make another one live, or go back to the one before", "release"),
    Command("logs", "show what all functions have logged of one job", "logs"),
    Command("env", "describe, lock and check the ComfyUI of the image: its packs, libraries and models", "env"),
    Command("completion", "print what makes bash, zsh or fish complete these commands", "completion"),
)

#: The extra that brings a library which some commands need.
_EXTRAS = {
    **dict.fromkeys(("boto3", "botocore", "pydantic"), "aws"),
    **dict.fromkeys(("blake3", "requests"), "remote"),
    **dict.fromkeys(("packaging", "yaml"), "env"),
}

_EPILOG = """\
examples:
  comfy-serverless run workflow.json --set KSampler.seed=42 --input LoadImage.image=photo.png --out out/
  comfy-serverless batch submit catalogue.jsonl --watch
  comfy-serverless keys create laptop --owner ana --stack comfy-serverless
  comfy-serverless COMMAND --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code; for wrong usage argparse exits with 2."""
    try:
        from comfy_serverless.cli.interrupts import interrupt_ends

        with interrupt_ends():
            from comfy_serverless.cli import habits  # noqa: F401
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except KeyboardInterrupt:
        return 130


def parser(loaded: Iterable[str] | None = None) -> CommandParser:
    """The parser of the command line, which knows all commands, and all about those in `loaded` (by default all)."""
    from importlib import import_module

    from comfy_serverless.cli.habits import CommandParser

    whole = CommandParser(
        prog="comfy-serverless",
        description="Run any ComfyUI workflow, here or on your own AWS account.",
        epilog=_EPILOG,
    )
    whole.add_argument("--version", action="store_true", help="the version of this program and of the ComfyUI in use")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND")
    wanted = {command.name for command in COMMANDS} if loaded is None else set(loaded)
    for command in COMMANDS:
        if command.name in wanted:
            import_module(f"comfy_serverless.cli.{command.module}").add_parser(commands)
        else:
            commands.add_parser(command.name, help=command.summary)
    return whole


def _run(arguments: Sequence[str]) -> int:
    """Run the command, and answer for what Ctrl-C and the reader of stdout do meanwhile."""
    from comfy_serverless.cli import habits

    habits.ready_streams()
    as_json = "--json" in arguments
    try:
        try:
            status = _run_command(arguments)
        finally:
            sys.stdout.flush()
    except habits.WrongUsage as wrong:
        if as_json:
            habits.print_error("wrong_usage", wrong.message)
        raise
    except KeyboardInterrupt:
        habits.report("canceled", "interrupted", as_json=as_json)
        return habits.INTERRUPTED
    except habits.StdoutLost as error:
        return habits.lose_stdout(error)
    return status


def _run_command(arguments: Sequence[str]) -> int:
    from comfy_serverless.cli import habits
    from comfy_serverless.errors import ComfyError
    from comfy_serverless.proxies import spare_this_machine

    with habits.interrupt_ends():
        whole = parser(arguments[:1])
        options = whole.parse_args(arguments)
        spare_this_machine(os.environ)  # `make dev` is here
    as_json = getattr(options, "json", False)
    try:
        if options.version:
            from comfy_serverless.cli.version import print_versions

            return print_versions()
        if options.command is None:
            whole.error("which command? `comfy-serverless --help` lists them")
        status: int = options.run(options)
    except ComfyError as error:
        return habits.report_error(error, as_json=as_json)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not library or library == "comfy_serverless":
            raise
        # What every command needs comes with the package itself.
        extra = f"[{_EXTRAS[library]}]" if library in _EXTRAS else ""
        message = f"`comfy-serverless {options.command}` needs {library} here: in the checkout, pip install '.{extra}'"
        habits.say(message)
        if as_json:
            habits.print_error("missing_library", message, {"library": library})
        return habits.FAILED
    return status
