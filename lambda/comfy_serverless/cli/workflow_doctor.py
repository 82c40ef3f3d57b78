"""`comfy-serverless workflows doctor`: which named workflows would fail on the workers, and why.

Of the key's owner over HTTP; with `--everybody` those of all owners, by credentials of AWS.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.habits import add_command, counted, one_line, print_json, print_table, say
from comfy_serverless.cli.stack import add_stack_option, chosen_stack, explained, releases_of, workflows_beside

if TYPE_CHECKING:
    from comfy_serverless.workflows.doctor import Examined

_PATH = "/api/v2/workflows/doctor"
_EXAMPLES = (
    "comfy-serverless workflows doctor",
    "comfy-serverless workflows doctor poster --release next",
    "comfy-serverless workflows doctor --everybody --stack comfy-serverless",
)
_NOTES = """\
Every version that an alias leads to, and each file of the image (version 0), is held against what the live workers have
told of their nodes, models and choices; with --release, the versions against those of that release. What `breaks` would
fail, or lack an input or output that it has promised; what `warns` may do other than before. The exit status is 1 if
anything breaks. Nothing is run.

COMFY_BASE_URL and COMFY_API_KEY say whose workflows. With --everybody it is all owners' and the operator's, of the
stack that --stack or COMFY_STACK names, with credentials of AWS, and the files of the image as the stack has kept them.
"""
#: What `--everybody` asks for.
NEEDS = (
    "cloudformation:DescribeStacks; ssm:GetParameters and GetParametersByPath below /comfy-serverless/STACK/; "
    "sqs:GetQueueAttributes on the releases' queues; dynamodb:GetItem, BatchGetItem and Query on the table; "
    "s3:GetObject on the assets bucket"
)
#: The versions that one sentence names.
_NAMED = 10
_TITLES = ("workflow", "version", "aliases", "finding")


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor` to the actions of `workflows`."""
    doctor = add_command(
        actions, "doctor", summary="say which would fail on the workers, and why", examples=_EXAMPLES, notes=_NOTES
    )
    doctor.add_argument("name", nargs="?", metavar="NAME", help="one workflow alone (default: all)")
    doctor.add_argument("--release", metavar="RELEASE", help="those of another release, as `release ls` shows it")
    doctor.add_argument("--everybody", action="store_true", help="all owners' and the operator's; needs --stack")
    add_stack_option(doctor)
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine them. Returns 1 if one would fail. A `ComfyError` says in its message what to do."""
    diagnosis = _of_everybody(options) if options.everybody else _of_owner(options)
    if options.json:
        print_json(diagnosis)
    else:
        _print(diagnosis)
    return 1 if diagnosis["breaks"] else 0


def _of_owner(options: argparse.Namespace) -> dict[str, Any]:
    """What the API says, of all pages."""
    from comfy_serverless.cli import remote

    api = remote.Api.from_environment()
    asked = {key: value for key, value in (("name", options.name), ("release", options.release)) if value}
    whole: dict[str, Any] = {}
    cursor: str | None = None
    while True:
        query = asked | ({"cursor": cursor} if cursor else {})
        page = remote.ask(api, "GET", _PATH, ("versions", "breaks", "is_known"), params=query)
        versions = [*whole.get("versions", []), *page["versions"]]
        whole = {**page, "versions": versions, "breaks": whole.get("breaks", 0) + page["breaks"]}
        cursor = whole.pop("next_cursor", None)
        if not cursor:
            return whole


def _of_everybody(options: argparse.Namespace) -> dict[str, Any]:
    with explained(options, needs=NEEDS):
        releases, outputs = releases_of(chosen_stack(options))
        release = releases.find(options.release).release if options.release else releases.live().now
        workflows = workflows_beside(releases, outputs)
        deployed = workflows.deployed(release)
        heads, files = workflows.heads(name=options.name), workflows.files(name=options.name)
        found = list(workflows.examined(heads, deployed, files=files))
        last = None if options.release or options.name else workflows.last_check()
    return {
        "release": release.name,
        **({"release_version": deployed.release} if deployed is not None and deployed.release else {}),
        "is_known": deployed is not None,
        "breaks": sum(one.breaks for one in found),
        "versions": [{"owner": one.owner, **one.to_json()} for one in found],
        **({"last_check": last.to_json()} if last is not None else {}),
    }


def _print(diagnosis: dict[str, Any]) -> None:
    versions = diagnosis["versions"]
    if rows := [row for one in versions for row in _rows(one)]:
        print_table(_TITLES, rows, folds=("workflow", "aliases", "finding"), right=("version",))
    on = f"on {diagnosis['release']}"
    if not diagnosis["is_known"]:
        say(
            f"Nothing was checked: nobody has told yet what the workers of {diagnosis['release']} have. A worker does "
            "so with its first job, and `make declarations` before that."
        )
    elif not versions:
        say("There is no workflow: no alias leads to one, and the image has no file.")
    elif diagnosis["breaks"]:
        say(f"{diagnosis['breaks']} of {counted(len(versions), 'version')} would fail {on}.")
    else:
        say(f"{counted(len(versions), 'version')} that runs can get: none would fail {on}.")

    if last := diagnosis.get("last_check"):
        on = f"release {last['release_version']}" if last.get("release_version") else "the workers that were live"
        told = f"{counted(last['breaks'], 'version')} would fail: " if last["breaks"] else "none would fail"
        names = ", ".join(f"{one['name']} ({one['version']})" for one in last["broken"][:_NAMED])
        say(one_line(f"Checked by itself, {last['at']}, on {on}: {told}{names}."))


def _rows(one: dict[str, Any]) -> Iterator[list[str]]:
    """A row for each finding of a version; what is right has none."""
    name = f"{one['name']} of {one['owner'] or 'the operator'}" if "owner" in one else one["name"]
    shares = ", ".join(
        alias if share == 1 else f"{alias} ({share:.0%})" for alias, share in sorted(one["aliases"].items())
    )
    for finding in one["findings"]:
        text = one_line(f"{finding['severity']}: {finding['message']}")
        yield [one_line(name), str(one["version"]), one_line(shares), text]


def in_words(found: list[Examined]) -> str:
    """Versions that would fail, each with its first reason."""
    more = f"; and {len(found) - _NAMED} more (`workflows doctor --everybody`)" if len(found) > _NAMED else ""
    return one_line("; ".join(map(str, found[:_NAMED])) + more)
