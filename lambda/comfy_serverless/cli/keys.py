"""`comfy-serverless keys`: who may use the deployed API.

A new key goes to stdout, alone; all messages go to stderr. The libraries for AWS are loaded only when a command runs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.habits import add_command, print_json, print_table, say, whole_number
from comfy_serverless.cli.stack import TABLE_VARIABLE, add_stack_option, explained, key_store

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
        "comfy-serverless keys create demo --owner guests --expires 7d --max-in-flight 2 --budget 20",
        "comfy-serverless keys create boss --owner ana --admin",
    ),
    "change": (
        "comfy-serverless keys change demo --budget 50 --budget-action refuse",
        "comfy-serverless keys change demo --no-budget",
    ),
    "list": ("comfy-serverless keys list", "comfy-serverless keys list --json | jq '.keys[].name'"),
    "revoke": ("comfy-serverless keys revoke demo",),
}
_NOTES = """\
Each owner's jobs, results and assets are separate from those of all others. Keys with the same owner share them.
Give each machine or person a separate key, so that one can be revoked without the others.
An admin's key (--admin) also sees everybody's usage, and makes and ends keys of owners over the API.
A budget is what a key's jobs of a calendar month (UTC) may cost, estimated from the stack's prices (docs/usage.md).
Only a hash of a key is stored: a lost key cannot be shown again, but revoked and replaced.

Where the keys are: --stack NAME of the deployed stack, or the environment variable COMFY_STACK; or --table NAME, or
JOBS_TABLE, where there is no stack to ask.
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
    create.add_argument("--admin", action="store_true", help="an admin's key: usage of all, and keys over the API")
    _add_budget(create)
    change = _action(actions, "change", f"give a key another budget; it holds within {CACHED_S} seconds")
    change.add_argument("key", metavar="ID", help="its id or its name, as `keys list` shows them")
    _add_budget(change, required=True).add_argument("--no-budget", action="store_true", help="let it cost any sum")
    _action(actions, "list", "all keys, also those that no longer work; never the keys themselves")
    revoke = _action(actions, "revoke", f"end a key; it stops working within {CACHED_S} seconds")
    revoke.add_argument("key", metavar="ID", help="its id or its name, as `keys list` shows them")
    keys.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit code. A `ComfyError` says in its message what to do."""
    with explained(options):
        keys = key_store(options)
        match options.action:
            case "create":
                _create(keys, options)
            case "change":
                _change(keys, options)
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
    add_stack_option(action, beside=where)
    where.add_argument(
        "--table",
        metavar="NAME",
        help=f"a table instead (without any stack: the environment variable {TABLE_VARIABLE})",
    )
    return action


def _add_budget(action: argparse.ArgumentParser, *, required: bool = False) -> argparse._MutuallyExclusiveGroup:
    action.add_argument(
        "--budget-action",
        choices=("warn", "refuse"),
        default="warn",
        help="what happens to further jobs once a month has cost the budget (default: %(default)s)",
    )
    group = action.add_mutually_exclusive_group(required=required)
    group.add_argument("--budget", type=_dollars, metavar="USD", help="what its jobs of a month may cost")
    return group


def _create(keys: ApiKeyStore, options: argparse.Namespace) -> None:
    from comfy_serverless.table.api_keys import BudgetAction

    text, key = keys.create(
        options.name,
        owner=options.owner,
        is_admin=options.admin,
        budget_nanousd=options.budget,
        budget_action=BudgetAction(options.budget_action),
        expires_in_s=options.expires,
        max_in_flight=options.max_in_flight,
        requests_per_minute=options.requests_per_minute,
    )
    if options.json:
        print_json({"key": text, **_as_json(key)})
    else:
        print(text, flush=True)
    state = f", {_state(key)}" if key.expires is not None else ""
    kind = "admin's key" if key.is_admin else "key"
    say(f"The {kind} {key.name} ({key.id}) is {key.owner}'s{state}. It is shown only now: keep it like a password.")


def _change(keys: ApiKeyStore, options: argparse.Namespace) -> None:
    from comfy_serverless.table.api_keys import BudgetAction

    key = keys.set_budget(options.key, options.budget, BudgetAction(options.budget_action))
    if options.json:
        print_json(_as_json(key))
    say(f"The key {key.name} ({key.id}) of {key.owner} has {_budget(key)}, within {CACHED_S} seconds.")


def _budget(key: ApiKey) -> str:
    from comfy_serverless.jobs.prices import usd

    if key.budget_nanousd is None:
        return "no budget"
    return f"a budget of {usd(key.budget_nanousd):g} USD a month ({key.budget_action.value})"


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
        name = f"{key.name} (admin)" if key.is_admin else key.name
        rows.append([key.id, name, key.owner, key.created_at[:10], _state(key), *limits])
    titles = ("id", "name", "owner", "created", "state", "jobs", "per min")
    print_table(titles, rows, folds=("name", "owner"), right=("jobs", "per min"))
    for key in keys:
        if key.budget_nanousd is not None and key.is_good:
            say(f"The key {key.name} ({key.id}) has {_budget(key)}.")


def _state(key: ApiKey) -> str:
    from comfy_serverless.aws.dynamodb import moment_of

    if key.is_revoked:
        return "revoked"
    if not key.is_good:
        return "expired"
    return "works" if key.expires is None else f"until {moment_of(key.expires):%Y-%m-%d}"


def _as_json(key: ApiKey) -> dict[str, Any]:
    return {**key.to_json(), "is_good": key.is_good}


def _dollars(text: str) -> int:
    """`20` or `0.5` in nano-dollars."""
    from comfy_serverless.jobs.prices import checked_budget

    try:
        return checked_budget(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no budget: it must be a number of US dollars above 0") from error


def _duration(text: str) -> int:
    """`30d` in seconds."""
    match = re.fullmatch(r"([0-9]{1,9})([mhdw])", text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= _MAX_EXPIRY_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90m, 12h, 30d or 4w, of up to 10 years")
    return seconds
