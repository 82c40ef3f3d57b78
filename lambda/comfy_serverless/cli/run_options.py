"""What can be said of every run, of a file or of a name: `comfy-serverless run`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from comfy_serverless.cli.habits import add_labels, seconds, version_number
from comfy_serverless.cli.paths import local_path

#: An example of each option's text, for who got its form wrong.
_EXAMPLE = {"--set": "3.seed=42", "--set-json": "'3.model=[\"12\", 0]'", "--input": "10.image=photo.png"}
_LONGEST_SHOWN = 200


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what can be said of every run."""
    for option, metavar, text in (
        ("--set", "NODE.INPUT=VALUE", "set an input (repeat)"),
        ("--set-json", "NODE.INPUT=JSON", "set an input to any JSON (repeat)"),
        ("--input", "NODE.INPUT=FILE", "give an input a file (repeat; for the same input: a batch of images)"),
    ):
        parser.add_argument(
            option,
            action="append",
            default=[],
            dest="assignments",
            type=_with_option(option, metavar),
            metavar=metavar,
            help=text,
        )
    parser.add_argument(
        "--out", type=local_path, default=Path("out"), metavar="DIR", help="where results go (default: out/)"
    )
    parser.add_argument(
        "--remote", action="store_true", help="run it on the API that COMFY_BASE_URL and COMFY_API_KEY name"
    )
    add_labels(parser, "with --remote: a label of the job, to find it again by (repeat)")
    parser.add_argument("--deadline", type=seconds, metavar="SECONDS", help="interrupt it after this long")
    parser.add_argument("--log", metavar="FILE", help="write what ComfyUI logs into a file; - for standard error")
    parser.add_argument("--alias", metavar="ALIAS", help="of a named workflow: whose version runs (default: live)")
    parser.add_argument(
        "--version",
        dest="version_number",
        type=version_number,
        metavar="N",
        help="of a named workflow: run this version",
    )
    parser.add_argument(
        "--sticky", metavar="KEY", help="of a named workflow: the same KEY gets the same of two versions each time"
    )


def is_remote(options: argparse.Namespace) -> bool:
    """Whether a named workflow is that of the API."""
    return bool(options.remote or os.environ.get("COMFY_BASE_URL"))


class _with_option:  # noqa: N801 - it is what argparse calls, and its name is in no message
    """Makes of an option's text a pair of option and text."""

    def __init__(self, option: str, form: str) -> None:
        self._option, self._form = option, form

    def __call__(self, text: str) -> tuple[str, str]:
        form = f"{self._form}, e.g. {_EXAMPLE[self._option]}"
        if "=" not in text[1:]:
            shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
            raise argparse.ArgumentTypeError(f"{shown!r} is not of the form {form}")
        if self._option == "--input" and not text.partition("=")[2]:
            raise argparse.ArgumentTypeError(f"{text!r} names no file: it must be of the form {form}")
        return self._option, text
