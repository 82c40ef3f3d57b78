"""`comfy-serverless keys`: who may use the deployed API. With credentials of AWS, or with an admin's key alone.

A new key goes to stdout, alone; all messages go to stderr. The libraries for AWS are loaded only when a command runs.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from comfy_serverless.cli.habits import add_command, one_line, print_json, print_table, say, whole_number
from comfy_serverless.cli.key_places import RULE, Document, KeyPlace, key_place
from comfy_serverless.cli.remote_variables import URL_VARIABLE
from comfy_serverless.cli.stack import TABLE_VARIABLE, add_stack_option

#: How long API Gateway keeps the authorizer's result for a key: `ReauthorizeEvery` in template.yaml.
CACHED_S = 60
#: Takes a limit away.
_NONE = "none"
_UNITS_S = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_MAX_EXPIRY_S = 10 * 365 * 86400

_EXAMPLES = {
    "create": (
        "comfy-serverless keys create ci --owner team --stack comfy-serverless",
        "export COMFY_API_KEY=$(comfy-serverless keys create laptop --owner ana)",
        "comfy-serverless keys create demo --owner guests --expires 7d --max-in-flight 2 --budget 20",
        "comfy-serverless keys create boss --owner ana --admin",
        "comfy-serverless keys create night --owner shop --remote      over the API, with an admin's key",
    ),
    "change": (
        "comfy-serverless keys change demo --budget 50 --budget-action refuse",
        "comfy-serverless keys change demo --no-budget --max-in-flight 20 --requests-per-minute none",
    ),
    "ls": ("comfy-serverless keys ls", "comfy-serverless keys ls --json | jq '.keys[].name'"),
    "revoke": ("comfy-serverless keys revoke demo",),
}
_NOTES = f"""\
Each owner's jobs, results and assets are separate from those of all others. Keys with the same owner share them.
Give each machine or person a separate key, so that one can be revoked without the others.
An admin's key (--admin) also sees everybody's usage, and makes, changes and ends keys of owners over the API.
A budget is what a key's jobs of a calendar month (UTC) may cost, estimated from the stack's prices (docs/usage.md).
Only a hash of a key is stored: a lost key cannot be shown again, but revoked and replaced.

{RULE}
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
    create.add_argument("--admin", action="store_true", help="an admin's key: usage of all, and keys over the API")
    _add_limits(create)
    change = _action(actions, "change", f"give a key other limits; they hold within {CACHED_S} seconds")
    change.add_argument("key", metavar="ID", help="its id or its name, as `keys ls` shows them")
    _add_limits(change).add_argument("--no-budget", action="store_true", help="let it cost any sum")
    _action(actions, "ls", "list all keys, also those that no longer work; never the keys themselves")
    revoke = _action(actions, "revoke", f"end a key; it stops working within {CACHED_S} seconds")
    revoke.add_argument("key", metavar="ID", help="its id or its name, as `keys ls` shows them")
    keys.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit code. A `ComfyError` says in its message what to do."""
    limits = _limits(options)
    with key_place(options) as keys:
        if options.action == "change" and not limits:
            options.wrong_usage(
                "change what? --budget, --no-budget, --budget-action, --max-in-flight or --requests-per-minute"
            )
        match options.action:
            case "create":
                _create(keys, options, limits)
            case "change":
                _change(keys, options, limits)
            case "ls":
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
    where.add_argument(
        "--remote", action="store_true", help=f"the API at {URL_VARIABLE}, with an admin's key and no AWS credentials"
    )
    return action


def _add_limits(action: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """The limits of a key; returns the group of those options that say what it may cost."""
    action.add_argument(
        "--max-in-flight", type=_limit, metavar="N", help="how many jobs may wait and run; none for any number"
    )
    action.add_argument(
        "--requests-per-minute", type=_limit, metavar="N", help="refuse more with 429; none for any number"
    )
    action.add_argument(
        "--budget-action",
        choices=("warn", "refuse"),
        help="what happens to further jobs once a month has cost the budget (a new key's: warn)",
    )
    group = action.add_mutually_exclusive_group()
    group.add_argument("--budget", type=_dollars, metavar="USD", help="what its jobs of a month may cost")
    return group


def _limits(options: argparse.Namespace) -> Document:
    """The limits that were given, as the API's bodies have them; None takes one away."""
    given = {
        name: getattr(options, name, None)
        for name in ("max_in_flight", "requests_per_minute", "budget_action")
        if getattr(options, name, None) is not None
    }
    limits = {name: None if value == _NONE else value for name, value in given.items()}
    if getattr(options, "no_budget", False):
        limits["budget_usd"] = None
    elif getattr(options, "budget", None) is not None:
        limits["budget_usd"] = options.budget
    return limits


def _create(keys: KeyPlace, options: argparse.Namespace, limits: Document) -> None:
    further = {"expires_in_s": options.expires, "is_admin": options.admin}
    key = keys.create(options.name, owner=options.owner, options={**limits, **further})
    if options.json:
        print_json(_as_json(key))
    else:
        print(key["key"], flush=True)
    state = f", {_state(key)}" if key["expires_at"] is not None else ""
    kind = "admin's key" if key["is_admin"] else "key"
    say(f"The {kind} {_called(key)} is {key['owner']}'s{state}. It is shown only now: keep it like a password.")


def _change(keys: KeyPlace, options: argparse.Namespace, limits: Document) -> None:
    key = keys.change(options.key, limits)
    if options.json:
        print_json(_as_json(key))
    say(f"The key {_called(key)} of {key['owner']} has {_told_limits(key)}, within {CACHED_S} seconds.")


def _told_limits(key: Mapping[str, Any]) -> str:
    told = [_budget(key)]
    for name, words in (("max_in_flight", "jobs at once"), ("requests_per_minute", "requests a minute")):
        told.append(f"any number of {words}" if key[name] is None else f"at most {key[name]} {words}")
    return ", ".join(told)


def _budget(key: Mapping[str, Any]) -> str:
    if key["budget_usd"] is None:
        return "no budget"
    return f"a budget of {key['budget_usd']:g} USD a month ({key['budget_action']})"


def _list(keys: KeyPlace, options: argparse.Namespace) -> None:
    found = keys.all()
    if options.json:
        print_json({"keys": [_as_json(key) for key in found]})
    elif not found:
        say("There are no keys. Make one: comfy-serverless keys create NAME --owner OWNER")
    else:
        _print_keys(found)


def _revoke(keys: KeyPlace, options: argparse.Namespace) -> None:
    key = keys.revoke(options.key)
    if options.json:
        print_json(_as_json(key))
    say(
        f"The key {_called(key)} of {key['owner']} is revoked. It stops working within {CACHED_S} seconds: "
        "API Gateway remembers for that long whose it was."
    )


def _print_keys(keys: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for key in keys:
        limits = ("-" if key[name] is None else str(key[name]) for name in ("max_in_flight", "requests_per_minute"))
        name = f"{key['name']} (admin)" if key["is_admin"] else str(key["name"])
        rows.append([str(key["id"]), name, str(key["owner"]), str(key["created_at"])[:10], _state(key), *limits])
    titles = ("id", "name", "owner", "created", "state", "jobs", "per min")
    print_table(titles, rows, folds=("name", "owner"), right=("jobs", "per min"))
    for key in keys:
        if key["budget_usd"] is not None and _is_good(key):
            say(f"The key {_called(key)} has {_budget(key)}.")


def _called(key: Mapping[str, Any]) -> str:
    return one_line(f"{key['name']} ({key['id']})")


def _state(key: Mapping[str, Any]) -> str:
    if key["is_revoked"]:
        return "revoked"
    if not _is_good(key):
        return "expired"
    return "works" if key["expires_at"] is None else f"until {str(key['expires_at'])[:10]}"


def _is_good(key: Mapping[str, Any]) -> bool:
    """Whether it works now."""
    expires_at = key["expires_at"]
    return not key["is_revoked"] and (expires_at is None or datetime.fromisoformat(expires_at) > datetime.now(UTC))


def _as_json(key: Mapping[str, Any]) -> Document:
    return {**key, "is_good": _is_good(key)}


def _limit(text: str) -> int | str:
    """A whole number above 0, or `none`."""
    return _NONE if text == _NONE else whole_number(text)


def _dollars(text: str) -> float:
    """`20` or `0.5`."""
    from comfy_serverless.jobs.prices import checked_budget

    try:
        checked_budget(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no budget: it must be a number of US dollars above 0") from error
    return float(text)


def _duration(text: str) -> int:
    """`30d` in seconds."""
    match = re.fullmatch(r"([0-9]{1,9})([mhdw])", text)
    seconds = int(match[1]) * _UNITS_S[match[2]] if match else 0
    if not 0 < seconds <= _MAX_EXPIRY_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90m, 12h, 30d or 4w, of up to 10 years")
    return seconds
