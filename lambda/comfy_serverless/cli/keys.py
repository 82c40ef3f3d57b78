"""`comfy-serverless keys`: who may use the deployed API.

A new key goes to stdout, alone; all messages go to stderr. The libraries for AWS are loaded only when a command runs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.habits import add_command, print_json, print_table, say, whole_number
from comfy_serverless.cli.stack import explained, key_store

if TYPE_CHECKING:
    from comfy_serverless.table.api_keys import ApiKey, ApiKeyStore

#: How long API Gateway keeps the authorizer's result for a key: `ReauthorizeEvery` in template.yaml.
CACHED_S = 60
_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MAX_EXPIRY_S = 10 * 365 * 86400

_EXAMPLES = {
    "create": (
        "comfy-serverless keys create ci --owner team --stack comfy-serverless",
        "export COMFY_API_KEY=$(comfy-serverless keys create laptop --owner ana)",
        "comfy-serverless keys create demo --owner guests --expires 7d --max-in-flight 2",
    ),
    "list": ("comfy-serverless keys list", "comfy-serverless keys list --json | jq '.keys[].name'"),
    "revoke": ("comfy-serverless keys revoke demo",),
}
_NOTES = """\
Each owner's jobs, results and assets are separate from those of all others. Keys with the same owner share them.
Give each machine or person a separate key, so that one can be revoked without the others.
Only a hash of a key is stored: a lost key cannot be shown again, but revoked and replaced.

Where the keys are: --stack NAME of the deployed stack, or --table NAME, or the environment variable JOBS_TABLE.
Credentials and region come from where the AWS CLI takes them (AWS_PROFILE, AWS_REGION, …).
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `keys` to the commands of the command line."""
    keys = add_command(
        commands,
        "keys",
        summary="make, list and revoke the keys of the deployed API",
        examples=[line for lines in _EXAMPLES.values() for line in lines],
        notes=_NOTES,
        prints_data=False,
    )
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = _action(actions, "create", "make a key; it is printed to stdout, once")
    create.add_argument("name", metavar="NAME", help="what it is called: letters, digits, _ and -")
    create.add_argument("--owner", required=True, help="whose jobs and assets it gives access to")
    create.add_argument("--expires", type=_duration, metavar="TIME", help="stop working after 90m, 12h, 30d, 4w")
    create.add_argument("--max-in-flight", type=whole_number, metavar="N", help="how many jobs may wait and run")
    create.add_argument("--requests-per-minute", type=whole_number, metavar="N", help="refuse more with 429")
    _action(actions, "list", "all keys, also those that no longer work; never the keys themselves")
    revoke = _action(actions, "revoke", f"end a key; it stops working within {CACHED_S} seconds")
    revoke.add_argument("key", metavar="ID", help="its id or its name, as `keys list` shows them")
    keys.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit code. A `ComfyError` says in its message what to do."""
    with explained(options):
        keys = key_store(stack=options.stack, table=options.table)
        match options.action:
            case "create":
                _create(keys, options)
            case "list":
                _list(keys, options)
            case "revoke":
                _revoke(keys, options)
    return 0


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str
) -> argparse.ArgumentParser:
    action = add_command(actions, name, summary=description, examples=_EXAMPLES[name])
    where = action.add_mutually_exclusive_group()
    where.add_argument("--stack", metavar="NAME", help="the deployed stack whose keys are meant")
    where.add_argument("--table", metavar="NAME", help="its table (default: the environment variable JOBS_TABLE)")
    return action


def _create(keys: ApiKeyStore, options: argparse.Namespace) -> None:
    text, key = keys.create(
        options.name,
        owner=options.owner,
        expires_in_s=options.expires,
        max_in_flight=options.max_in_flight,
        requests_per_minute=options.requests_per_minute,
    )
    if options.json:
        print_json({"key": text, **_as_json(key)})
    else:
        print(text, flush=True)
    state = f", {_state(key)}" if key.expires is not None else ""
    say(f"The key {key.name} ({key.id}) is {key.owner}'s{state}. It is shown only now: keep it like a password.")


def _list(keys: ApiKeyStore, options: argparse.Namespace) -> None:
    found = keys.list()
    if options.json:
        print_json({"keys": [_as_json(key) for key in found]})
    elif not found:
        say("There are no keys. Make one: comfy-serverless keys create NAME --owner OWNER")
    else:
        _print_keys(found)


def _revoke(keys: ApiKeyStore, options: argparse.Namespace) -> None:
    key = keys.revoke(options.key)
    if options.json:
        print_json(_as_json(key))
    say(
        f"The key {key.name} ({key.id}) of {key.owner} is revoked. It stops working within {CACHED_S} seconds: "
        "API Gateway remembers for that long whose it was."
    )


def _print_keys(keys: Sequence[ApiKey]) -> None:
    rows = []
    for key in keys:
        limits = ("-" if limit is None else str(limit) for limit in (key.max_in_flight, key.requests_per_minute))
        rows.append([key.id, key.name, key.owner, key.created_at[:10], _state(key), *limits])
    titles = ("id", "name", "owner", "created", "state", "jobs", "per min")
    print_table(titles, rows, folds=("name", "owner"), right=("jobs", "per min"))


def _state(key: ApiKey) -> str:
    from comfy_serverless.aws.dynamodb import moment_of

    if key.is_revoked:
        return "revoked"
    if not key.is_good:
        return "expired"
    return "works" if key.expires is None else f"until {moment_of(key.expires):%Y-%m-%d}"


def _as_json(key: ApiKey) -> dict[str, Any]:
    from comfy_serverless.aws.dynamodb import moment_of
    from comfy_serverless.moments import moment_text

    return {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "created_at": key.created_at,
        "expires_at": None if key.expires is None else moment_text(moment_of(key.expires)),
        "max_in_flight": key.max_in_flight,
        "requests_per_minute": key.requests_per_minute,
        "is_revoked": key.is_revoked,
        "is_good": key.is_good,
    }


def _duration(text: str) -> int:
    """`30d` in seconds."""
    match = re.fullmatch(r"([0-9]{1,9})([mhdw])", text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= _MAX_EXPIRY_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90m, 12h, 30d or 4w, of up to 10 years")
    return seconds
