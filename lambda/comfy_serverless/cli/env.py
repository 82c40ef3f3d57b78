"""`comfy-serverless env`: what ComfyUI in the image consists of, from a file one can read to a lock one can build from.

Each action is a module below `cli/environments`; it has `add_parser(actions)`, as commands have.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Final

from comfy_serverless.cli.habits import add_command

#: The modules below `cli/environments`, in the order of their use.
_ACTIONS: Final[tuple[str, ...]] = (
    "init",
    "lock",
    "models",
    "check",
    "diff",
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `env` to the commands of the command line."""
    env = add_command(
        commands,
        "env",
        summary="describe, lock and check the ComfyUI of the image: its packs, libraries and models",
        examples=(
            "comfy-serverless env init ~/ComfyUI",
            "comfy-serverless env lock",
            "comfy-serverless env check",
        ),
        prints_data=False,
    )
    actions = env.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name in _ACTIONS:
        import_module(f"comfy_serverless.cli.environments.{name}").add_parser(actions)
