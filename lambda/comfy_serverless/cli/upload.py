"""`comfy-serverless upload`: sends a file of any size to the deployed API, which then knows it by name and by hash.

hash ──► does the API have it? ──► a record of it
                 └──► POST /uploads ──► PUT to S3 ──► complete
"""

from __future__ import annotations

import argparse

from comfy_serverless.cli.habits import add_command, print_json, say, whole_number
from comfy_serverless.cli.paths import local_path

_EXAMPLES = (
    "export COMFY_BASE_URL=https://….execute-api.eu-central-1.amazonaws.com COMFY_API_KEY=…",
    "comfy-serverless upload film.mp4",
    "comfy-serverless upload scan.png --as team/scan.png --expires-in 86400",
)
_NOTES = """\
The id of the asset goes to stdout. In a workflow the file is named as it was uploaded ("image": "scan.png"), or by its
id: {"__type": "core/ASSET", "info": {"id": "…"}}. A file the API has already is not sent again.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `upload` to the commands of the command line."""
    upload = add_command(
        commands,
        "upload",
        summary="upload a file of any size to the deployed API",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    upload.add_argument("file", type=local_path, metavar="FILE", help="what to upload")
    upload.add_argument("--as", dest="file_path", metavar="NAME", help="what to call it (default: the file's name)")
    upload.add_argument("--type", dest="content_type", metavar="TYPE", help="its media type (default: by its name)")
    upload.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG", help="mark it (repeat)")
    upload.add_argument(
        "--expires-in", type=whole_number, metavar="SECONDS", help="forget it after that long: 60 to 604800"
    )
    upload.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Upload the file and print its id. Returns the exit code."""
    from comfy_serverless.cli.byte_bar import byte_bar
    from comfy_serverless.cli.remote import Api
    from comfy_serverless.cli.uploading import upload_file

    api = Api.from_environment()
    naming = {"file_path": options.file_path, "tags": options.tags, "expires_in": options.expires_in}
    with byte_bar() as show:
        sent = upload_file(api, options.file, naming=naming, content_type=options.content_type, show=show)
    if options.json:
        print_json(sent.asset)
    else:
        print(sent.asset["id"], flush=True)
    what = "uploaded" if sent.was_sent else "the API has its bytes already:"
    say(f"{what} {options.file_path or options.file.name} ({sent.size_bytes:,} bytes, {sent.digest[:23]}…)")
    return 0
