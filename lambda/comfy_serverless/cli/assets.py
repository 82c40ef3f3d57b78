"""`comfy-serverless assets`: the files that a key's owner has uploaded."""

from __future__ import annotations

import argparse

from comfy_serverless.cli.file_lists import list_action, pages_of, show_files
from comfy_serverless.cli.habits import size_in_words


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `assets` to the commands of the command line."""
    listing = list_action(
        commands,
        "assets",
        "list the files that were uploaded",
        ("comfy-serverless assets ls", "comfy-serverless assets ls --limit 500 --json | jq -r '.assets[].id'"),
    )
    listing.set_defaults(run=_assets)


def _assets(options: argparse.Namespace) -> int:
    found, cursor = pages_of("assets", {}, options)
    rows = [
        (
            str(one["id"]),
            str(one.get("file_path") or ""),
            str(one.get("content_type") or ""),
            size_in_words(one.get("size_bytes") or 0),
            str(one.get("created_at") or "")[:16].replace("T", " "),
        )
        for one in found
    ]
    return show_files("assets", found, cursor, ("id", "name", "type", "size", "uploaded"), rows, options)
