"""`comfy-serverless workflows`: named workflows of the deployed API, with typed inputs, versions and aliases.

With `--shared` they are the operator's, which everybody may run who has a key: those are written with credentials of
AWS, as keys are.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli import workflow_doctor, workflow_sharing
from comfy_serverless.cli.habits import (
    add_command,
    one_line,
    print_json,
    print_table,
    say,
    version_number,
    whole_number,
)
from comfy_serverless.cli.named import which
from comfy_serverless.cli.named.print_client import print_client
from comfy_serverless.cli.paths import local_path
from comfy_serverless.cli.stack import add_stack_option

if TYPE_CHECKING:
    from comfy_serverless.cli.named.registry import Registry

_EXAMPLES = {
    "push": (
        "comfy-serverless workflows push poster poster.json --dry-run",
        "comfy-serverless workflows push poster poster.json --input prompt=6.text --input photo=10.image",
        "comfy-serverless workflows push poster poster.json --write-inputs poster.yaml",
        "comfy-serverless workflows push poster poster.png --alias staging --note 'warmer light'",
    ),
    "ls": ("comfy-serverless workflows ls", "comfy-serverless workflows ls --json | jq -r '.workflows[].name'"),
    "show": ("comfy-serverless workflows show poster", "comfy-serverless workflows show poster@staging --json"),
    "versions": ("comfy-serverless workflows versions poster",),
    "promote": (
        "comfy-serverless workflows promote poster 2",
        "comfy-serverless workflows promote poster 3 --alias staging",
    ),
    "rollback": ("comfy-serverless workflows rollback poster",),
    "split": ("comfy-serverless workflows split poster 2=90 3=10",),
    "rm": ("comfy-serverless workflows rm poster", "comfy-serverless workflows rm poster@staging"),
    "client": (
        "comfy-serverless workflows client poster > poster.py",
        "comfy-serverless workflows client poster --version 2 > poster.py",
        "comfy-serverless workflows client shared/poster > poster.py",
    ),
}
_NOTES = """\
COMFY_BASE_URL is the address of the API (the stack's output ApiUrl; `make dev` writes both into out/dev/env.sh), and
COMFY_API_KEY a key of it. The key's owner sees the owner's workflows, and those that the operator shares.
With --shared they are the operator's, of the stack that --stack or COMFY_STACK names, with credentials of AWS.
"""
#: What `--shared` asks for.
_NEEDS = (
    "cloudformation:DescribeStacks; ssm:GetParameters and GetParametersByPath below /comfy-serverless/STACK/; "
    "dynamodb:GetItem, BatchGetItem, Query, PutItem and UpdateItem on the table; s3:GetObject and PutObject on the "
    "assets bucket"
)
_NAME = "its name: letters, digits, - and _"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `workflows` to the commands of the command line."""
    group = add_command(
        commands,
        "workflows",
        summary="give workflows names, typed inputs and versions, and make typed clients",
        examples=[lines[0] for lines in _EXAMPLES.values()],
        notes=_NOTES,
        prints_data=False,
    )
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_push(_action(actions, "push", "make a version of a workflow, and show what it takes", _push))
    _action(actions, "ls", "list the workflows that can be run, with their aliases", _list)
    show = _action(actions, "show", "show what a workflow takes: names, types, ranges, choices and defaults", _show)
    _add_reference(show)
    versions = _named(_action(actions, "versions", "list the versions of a workflow, newest first", _versions))
    versions.add_argument("--limit", type=whole_number, default=20, metavar="N", help="at most so many (default: 20)")
    promote = _named(_action(actions, "promote", "let an alias lead to a version", _promote))
    promote.add_argument("number", type=version_number, metavar="VERSION", help="the version's number")
    _add_move(promote)
    _add_move(_named(_action(actions, "rollback", "let an alias lead to where it led before", _roll_back)))
    split = _named(_action(actions, "split", "let an alias lead to several versions, by weight", _split))
    split.add_argument(
        "weights",
        nargs="+",
        type=which.weight,
        metavar="VERSION=WEIGHT",
        help="how many of all runs a version gets: 2=90",
    )
    _add_move(split)
    remove = _action(actions, "rm", "hide a workflow, and refuse its runs; or drop one of its aliases", _remove)
    remove.add_argument("reference", metavar="NAME", help=f"{_NAME}; NAME@ALIAS drops that alias alone")
    client = _action(actions, "client", "print a typed client of a workflow, in Python", print_client)
    _add_reference(client)
    client.add_argument("--alias", metavar="ALIAS", help="whose version it runs (default: live)")
    client.add_argument("--version", dest="number", type=version_number, metavar="N", help="pin this version instead")
    workflow_sharing.add_parser(actions)
    workflow_doctor.add_parser(actions)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Any,  # noqa: ANN401
) -> argparse.ArgumentParser:
    action = add_command(actions, name, summary=summary, examples=_EXAMPLES[name], notes=_NOTES)
    action.add_argument("--shared", action="store_true", help="the operator's, which everybody may run; needs --stack")
    add_stack_option(action)
    action.set_defaults(run=lambda options: _run(options, run))
    return action


def _named(action: argparse.ArgumentParser) -> argparse.ArgumentParser:
    action.add_argument("name", metavar="NAME", help=_NAME)
    return action


def _add_reference(action: argparse.ArgumentParser) -> None:
    action.add_argument("reference", metavar="NAME", help="its name; NAME@ALIAS or NAME@2 for another version")


def _add_move(action: argparse.ArgumentParser) -> None:
    action.add_argument("--alias", default="live", metavar="ALIAS", help="which alias (default: live)")
    action.add_argument(
        "--expected",
        type=which.weights,
        metavar="VERSION",
        help="move it only if it leads there now: 2, or 1=90,2=10; 0 if there is no such alias",
    )


def _add_push(push: argparse.ArgumentParser) -> None:
    _named(push)
    push.add_argument("file", metavar="FILE", help="the workflow, or a file that ComfyUI has made; - for stdin")
    for option, metavar, text in (
        ("--input", "NAME=ADDRESS", "an input, and what it sets: prompt=6.text (repeat; only these are inputs then)"),
        ("--output", "NAME=NODE", "an output, and the node that makes it: picture=9 (repeat)"),
    ):
        push.add_argument(
            option,
            action="append",
            default=[],
            dest=f"{option[2:]}s",
            type=which.pair(metavar),
            metavar=metavar,
            help=text,
        )
    push.add_argument(
        "--inputs",
        dest="inputs_file",
        type=local_path,
        metavar="FILE",
        help="YAML that says them (default: NAME.inputs.yaml or NAME.yaml beside the workflow, if it is there)",
    )
    push.add_argument(
        "--write-inputs", type=local_path, metavar="FILE", help="write what was found as such a file, and push nothing"
    )
    push.add_argument("--alias", metavar="ALIAS", help="let it lead there (default: live for a new workflow)")
    push.add_argument(
        "--expected",
        type=version_number,
        metavar="VERSION",
        help="push only if this is the newest version; 0 if the name is new",
    )
    push.add_argument("--description", metavar="TEXT", help="what the workflow is for")
    push.add_argument("--note", metavar="TEXT", help="what is new in this version")
    push.add_argument(
        "--force", action="store_true", help="push it although it would fail on the workers that are live"
    )
    push.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would be pushed, and what is wrong with it; nodes may be missing",
    )


def _run(options: argparse.Namespace, action: Any) -> int:  # noqa: ANN401
    if not options.shared:
        from comfy_serverless.cli import remote
        from comfy_serverless.cli.named.registry import OverHttp

        status: int = action(OverHttp(remote.Api.from_environment()), options)
        return status
    from comfy_serverless.cli.stack import chosen_stack, explained, operators_workflows

    with explained(options, needs=_NEEDS):
        return int(action(operators_workflows(chosen_stack(options)), options))


def _push(registry: Registry, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.named import sources, words
    from comfy_serverless.errors import ComfyError, InvalidRequest

    options.dry_run = options.dry_run or options.write_inputs is not None
    try:
        told = registry.push(options.name, sources.body_of(options))
    except ComfyError as error:
        if not options.dry_run and error.code in ("workflow_format_ui", "engine_unavailable"):
            say("--dry-run shows what it would take, as far as the file itself says it")
        raise
    if options.json:
        print_json(told)
    else:
        _print_inputs(told)
    for note in told["notes"]:
        say(one_line(f"note: {note}"))
    for finding in told.get("findings", ()):  # an API of an older release tells none
        say(one_line(f"{finding['severity']}: {finding['message']}"))
    if problems := told.get("problems"):
        listing = "; ".join(f"{one['field']}: {one['problem']}" for one in problems)
        if options.json:
            say(one_line(f"it would be refused: {listing}"))
            return 1
        raise InvalidRequest(f"it would be refused: {listing}.", details={"errors": problems})
    if options.write_inputs is not None:
        sources.write_choices(options.write_inputs, sources.as_choices(told, name=options.name, file=options.file))
        say(f"{options.write_inputs} is written: edit it, and push with --inputs {options.write_inputs}")
    elif options.dry_run:
        say(f"nothing was pushed: {words.found_in_words(told)}")
    else:
        _say_pushed(told)
    return 0


def _say_pushed(told: Mapping[str, Any]) -> None:
    from comfy_serverless.cli.named import words

    name, number = told["name"], told["version"]
    if told["is_new"]:
        say(f"{name} has version {number} now: {words.found_in_words(told)}")
    else:
        say(f"nothing was pushed: version {number} of {name} is the same")
    say(f"aliases: {words.aliases_in_words(told) or 'none'}")
    if "live" not in told["aliases"]:
        say(f"{name} alone means {name}@live, and that leads nowhere yet: comfy-serverless workflows promote {name} N")
    if not any(str(number) in alias["weights"] for alias in told["aliases"].values()):
        say(f"no alias leads to it yet: comfy-serverless workflows promote {name} {number}")


def _list(registry: Registry, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.named import names, words

    found = list(registry.entries())
    names.remember([str(one["name"]) for one in found])
    if options.json:
        print_json({"workflows": found})
    elif found:
        titles = ("name", "of", "latest", "aliases", "title")
        print_table(titles, [words.entry_row(one) for one in found], folds=words.FOLDED, right=("latest",))
    else:
        say("There are no workflows yet. Push one: comfy-serverless workflows push NAME FILE")
    return 0


def _show(registry: Registry, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.named import words

    told = _described(registry, options)
    if options.json:
        print_json(told)
        return 0
    facts = {
        "name": told["name"],
        "of": told.get("source"),
        "description": told.get("description"),
        "version": told.get("version", "none: no alias leads to one"),
        "latest": told.get("latest"),
        "aliases": words.aliases_in_words(told),
    }
    for title, value in facts.items():
        if value not in (None, ""):
            print(f"{title:<11}  {one_line(str(value))}")
    print()
    _print_inputs(told)
    print()
    reference, is_shared = which.meant_by(options.reference)
    query = which.query_of(reference, is_shared=is_shared)
    print(f"comfy-serverless run {options.reference} --help")
    print(
        f'curl "$COMFY_BASE_URL/api/v2/workflows/{told["name"]}/runs{query}" -H "Authorization: Bearer $COMFY_API_KEY" '
        f"-H 'content-type: application/json' -d {shlex.quote(json.dumps(told.get('example') or {}))}",
        flush=True,
    )
    return 0


def _described(registry: Registry, options: argparse.Namespace) -> dict[str, Any]:
    reference, is_shared = which.meant_by(options.reference)
    return registry.described(
        reference.name, alias=which.alias_of(reference), version=reference.version, is_shared=is_shared
    )


def _print_inputs(told: Mapping[str, Any]) -> None:
    from comfy_serverless.cli.named import words

    if told["inputs"]:
        rows = [words.input_row(one, told["schema"]) for one in told["inputs"]]
        print_table(words.INPUT_TITLES, rows, folds=words.FOLDED)
    else:
        say("it has no inputs: each run is the same")
    if told["outputs"]:
        print()
        print_table(("output", "node", "title"), [words.output_row(one) for one in told["outputs"]], folds=words.FOLDED)


def _versions(registry: Registry, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.named import words

    found = list(islice(registry.versions(options.name), options.limit + 1))
    shown = found[: options.limit]
    if options.json:
        print_json({"versions": shown, "has_more": len(found) > len(shown)})
        return 0
    titles = ("version", "made", "by", "aliases", "release", "note")
    print_table(titles, [words.version_row(one) for one in shown], folds=words.FOLDED, right=("version",))
    if len(found) > len(shown):
        say(f"There are more: --limit {2 * options.limit}")
    return 0


def _promote(registry: Registry, options: argparse.Namespace) -> int:
    return _move(registry, options, {"version": options.number})


def _roll_back(registry: Registry, options: argparse.Namespace) -> int:
    return _move(registry, options, {"rollback": True})


def _split(registry: Registry, options: argparse.Namespace) -> int:
    weights = dict(options.weights)
    if len(weights) < len(options.weights):
        options.wrong_usage("VERSION=WEIGHT: a version is given twice")
    return _move(registry, options, {"weights": weights})


def _move(registry: Registry, options: argparse.Namespace, where: Mapping[str, Any]) -> int:
    from comfy_serverless.cli.named import words

    expected = {} if options.expected is None else {"expected": options.expected}
    told = registry.move(options.name, {"alias": options.alias, **where, **expected})
    if options.json:
        print_json(told)
    else:
        leads = words.weights_in_words(told["aliases"].get(options.alias, {}).get("weights", {}))
        print(f"{options.name}@{options.alias}  {leads}")
    say("Runs that begin from now on get it; those that wait and run end with theirs.")
    return 0


def _remove(registry: Registry, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.named import words

    name, at, alias = options.reference.partition("@")
    if not at:
        registry.retire(name)
        if options.json:
            print_json({"name": name, "is_retired": True})
        say(f"{name} is hidden, and its runs are refused. Its versions stay: a push brings it back.")
        return 0
    if not which.is_alias(alias):
        options.wrong_usage(f"{one_line(options.reference)}: a version is never removed; NAME@ALIAS drops an alias")
    told = registry.drop(name, alias)
    if options.json:
        print_json(told)
    say(f"{name} has no alias {alias} any more: runs of {name}@{alias} are refused. Its versions stay.")
    say(f"aliases: {words.aliases_in_words(told) or 'none'}")
    return 0
