"""`comfy-serverless outputs`: the files that jobs of a key's owner have made."""

from __future__ import annotations

import argparse

from comfy_serverless.cli.file_lists import list_action, pages_of, show_files
from comfy_serverless.cli.habits import add_labels, size_in_words


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `outputs` to the commands of the command line."""
    listing = list_action(
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
    add_labels(listing, "only of such jobs")
    listing.set_defaults(run=_outputs)


def _outputs(options: argparse.Namespace) -> int:
    query = {"type": options.type, "batch": options.batch, "workflow": options.workflow}
    query |= {f"metadata[{name}]": value for name, value in options.labels}
    found, cursor = pages_of("outputs", {name: value for name, value in query.items() if value}, options)
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
    return show_files("outputs", found, cursor, ("job", "node", "output", "type", "size"), rows, options)
