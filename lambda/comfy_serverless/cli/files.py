"""`comfy-serverless assets` and `outputs`: the files that a key's owner has uploaded, and those of his jobs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from comfy_serverless.cli.habits import add_command, label, print_json, print_table, say, size_in_words, whole_number

#: Files in one answer of the API.
_MOST_A_PAGE = 100
_NOTES = """\
COMFY_BASE_URL is the address of the API, and COMFY_API_KEY a key of it, whose owner's files they are. `--json` has a
signed link to each.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `assets` to the commands of the command line."""
    listing = _group(
        commands,
        "assets",
        "list the files that were uploaded",
        ("comfy-serverless assets ls", "comfy-serverless assets ls --limit 500 --json | jq -r '.assets[].id'"),
    )
    listing.set_defaults(run=_assets)


def add_outputs_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `outputs` to the commands of the command line."""
    listing = _group(
        commands,
        "outputs",
        "list the files that jobs have made, newest first",
        (
            "comfy-serverless outputs ls",
            "comfy-serverless outputs ls --type image --workflow poster --label campaign=autumn",
            "comfy-serverless outputs ls --batch catalogue --json | jq -r '.outputs[].url'",
        ),
    )
    listing.add_argument("--type", metavar="KIND", help="only of this kind: image, video, audio, …")
    listing.add_argument("--batch", metavar="NAME", help="only of lines of this batch")
    listing.add_argument("--workflow", metavar="NAME", help="only of runs of this named workflow, or of poster@3")
    listing.add_argument(
        "--label",
        action="append",
        default=[],
        dest="labels",
        type=label,
        metavar="NAME=VALUE",
        help="only of such jobs",
    )
    listing.set_defaults(run=_outputs)


def _group(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    group = add_command(commands, name, summary=summary, examples=examples[:1], notes=_NOTES, prints_data=False)
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = add_command(actions, "ls", summary=summary, examples=examples, notes=_NOTES)
    listing.add_argument("--limit", type=whole_number, default=20, metavar="N", help="at most so many (default: 20)")
    listing.add_argument("--cursor", metavar="CURSOR", help="go on where a list has ended: its `next_cursor`")
    return listing


def _assets(options: argparse.Namespace) -> int:
    found, cursor = _pages("assets", {}, options)
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
    return _show("assets", found, cursor, ("id", "name", "type", "size", "uploaded"), rows, options)


def _outputs(options: argparse.Namespace) -> int:
    query = {"type": options.type, "batch": options.batch, "workflow": options.workflow}
    query |= {f"metadata[{name}]": value for name, value in options.labels}
    found, cursor = _pages("outputs", {name: value for name, value in query.items() if value}, options)
    rows = [
        (
            str(one.get("job_id") or ""),
            f"{one.get('node_id')} {one.get('title') or ''}".strip(),
            str(one.get("name")),
            str(one.get("content_type") or ""),
            size_in_words(one.get("size_bytes") or 0),
        )
        for one in found
    ]
    return _show("outputs", found, cursor, ("job", "node", "output", "type", "size"), rows, options)


def _pages(what: str, query: Mapping[str, Any], options: argparse.Namespace) -> tuple[list[dict[str, Any]], str | None]:
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


def _show(
    what: str,
    found: Sequence[Mapping[str, Any]],
    cursor: str | None,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    options: argparse.Namespace,
) -> int:
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
