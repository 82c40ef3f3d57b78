"""What `comfy-serverless assets` and `outputs` have in common: lists of a key's owner's files, page by page."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_serverless.cli.habits import add_command, print_json, print_table, say, whole_number

#: Files in one answer of the API.
_MOST_A_PAGE = 100
_NOTES = """\
COMFY_BASE_URL is the address of the API, and COMFY_API_KEY a key of it, whose owner's files they are. `--json` has a
signed link to each.
"""


def list_action(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """Add a command with the action `ls`, and return that."""
    group = add_command(commands, name, summary=summary, examples=examples[:1], notes=_NOTES, prints_data=False)
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = add_command(actions, "ls", summary=summary, examples=examples, notes=_NOTES)
    listing.add_argument("--limit", type=whole_number, default=20, metavar="N", help="at most so many (default: 20)")
    listing.add_argument("--cursor", metavar="CURSOR", help="go on where a list has ended: its `next_cursor`")
    return listing


def pages_of(
    what: str, query: Mapping[str, Any], options: argparse.Namespace
) -> tuple[list[dict[str, Any]], str | None]:
    """As many as are asked for, and where the list goes on. Pages may be short before the last one."""
    from comfy_serverless.cli import remote

    api = remote.Api.from_environment()
    found: list[dict[str, Any]] = []
    cursor: str | None = options.cursor
    while True:
        limit = min(_MOST_A_PAGE, options.limit - len(found))
        params = {**query, "limit": limit, **({"cursor": cursor} if cursor else {})}
        page = remote.ask(api, "GET", f"/api/v2/{what}", (what,), params=params)
        found += page[what]
        cursor = page.get("next_cursor")
        if not cursor or len(found) >= options.limit:
            return found, cursor


def show_files(
    what: str,
    found: Sequence[Mapping[str, Any]],
    cursor: str | None,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    options: argparse.Namespace,
) -> int:
    """Print a list of files. Returns the exit code."""
    if options.json:
        print_json({what: found, "next_cursor": cursor})
        return 0
    if rows:
        print_table(titles, rows, folds=titles[:3], right=("size",))
    else:
        say(f"There are no such {what} of this key's owner.")
    if cursor:
        say(f"There are more: --limit {2 * options.limit}, or --cursor {cursor}")
    return 0
