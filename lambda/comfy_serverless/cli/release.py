"""`comfy-serverless release`: another image beside the old one, checked, then live or not, and deleted in the end."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.habits import (
    add_command,
    counted,
    one_line,
    print_json,
    print_table,
    say,
    seconds,
    time_in_words,
    whole_number,
)
from comfy_serverless.cli.paths import is_file, local_path
from comfy_serverless.cli.stack import (
    add_stack_option,
    check_on,
    chosen_stack,
    explained,
    releases_of,
    workflows_beside,
)
from comfy_serverless.errors import InvalidRequest

if TYPE_CHECKING:
    from comfy_serverless.cli.release_check import Workflow
    from comfy_serverless.cli.releases import Releases, Standing
    from comfy_serverless.table.live import Live, Release

#: How soon everybody sends jobs to another release: `dispatch.TARGET_KNOWN_S`.
_SEEN_S = 60
_TIMEOUT_S = 1800.0
_KEPT = 3
_EXAMPLES = {
    "ls": ("comfy-serverless release ls --stack comfy-serverless", "comfy-serverless release ls --json"),
    "promote": (
        "comfy-serverless release promote next",
        "comfy-serverless release promote next --check flux.json --input LoadImage.image=photo.png --timeout 3600",
    ),
    "rollback": ("comfy-serverless release rollback",),
    "prune": ("comfy-serverless release prune", "comfy-serverless release prune --delete --yes"),
}
_NOTES = """\
A release is a set of workers with queues of their own, deployed with a name (docs/releases.md):
    make cdk CDK_ARGS="deploy comfy-serverless-sagemaker-next -c release=next"
`default` is the one without a name: a GPU stack, or else the stack's own function.

`promote` runs a workflow on the release first, as a job like any other; it moves nothing if that fails, nor if a named
workflow of anybody, or one in the image, would fail there that does not now (`workflows doctor`, --force). Within a
minute all jobs go there.
Jobs that were sent before end where they are, so leave the old release until nothing waits in it.
`rollback` makes the one before live again, by one write. `prune` lists the releases that nobody goes back to and in
which no jobs are; with --delete it deletes their stacks. Their images stay until newer ones push them out.

Needed are cloudformation:DescribeStacks; ssm:GetParameters, GetParametersByPath and PutParameter below
/comfy-serverless/STACK/; sqs:GetQueueAttributes and SendMessage on the releases' queues; dynamodb:GetItem, Query,
BatchGetItem, PutItem, UpdateItem and DeleteItem on the table; s3:PutObject and GetObject on the assets bucket;
cloudwatch:GetMetricStatistics. For `prune --delete` also cloudformation:DeleteStack; CDK's own role deletes what is in
the stack.
"""
_NEEDS = "what `comfy-serverless release --help` lists"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `release` to the commands of the command line."""
    release = add_command(
        commands,
        "release",
        summary="list the releases of a stack, make another one live, or go back to the one before",
        examples=[line for lines in _EXAMPLES.values() for line in lines],
        notes=_NOTES,
        prints_data=False,
    )
    actions = release.add_subparsers(dest="action", required=True, metavar="ACTION")
    _action(actions, "ls", "all releases: what they were built from, which is live, and how many jobs wait")
    promote = _action(actions, "promote", "run a check on a release, and send all jobs there if it succeeds")
    promote.add_argument("name", metavar="NAME", help="the release, as `release ls` shows it")
    check = promote.add_mutually_exclusive_group()
    check.add_argument("--check", type=local_path, metavar="FILE", help="the workflow to run (default: a small one)")
    check.add_argument("--no-check", action="store_true", help="run none: callers' jobs are the first to try it")
    promote.add_argument(
        "--input",
        action="append",
        default=[],
        dest="inputs",
        type=_input,
        metavar="NODE.INPUT=FILE",
        help="give the check's workflow a file (repeat)",
    )
    promote.add_argument(
        "--timeout",
        type=seconds,
        default=_TIMEOUT_S,
        metavar="SECONDS",
        help=f"how long the check may take, the start of a first instance with it (default: {_TIMEOUT_S:g})",
    )
    promote.add_argument(
        "--keep",
        type=whole_number,
        default=_KEPT,
        metavar="N",
        help=f"how many releases are remembered for a rollback, the live one among them (default: {_KEPT})",
    )
    promote.add_argument(
        "--force", action="store_true", help="make it live although named workflows would fail on it that do not now"
    )
    _action(actions, "rollback", "make the release before live again")
    prune = _action(actions, "prune", "list the releases that nobody goes back to, or delete their stacks")
    prune.add_argument("--delete", action="store_true", help="delete them, after a question (default: only list them)")
    prune.add_argument("--yes", action="store_true", help="with --delete: ask nothing")
    prune.add_argument("--previous", action="store_true", help="those too that a rollback leads to")
    release.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit code. A `ComfyError` says in its message what to do."""
    with explained(options, needs=_NEEDS):
        releases, outputs = releases_of(chosen_stack(options))
        match options.action:
            case "ls":
                _list(releases, options)
            case "promote":
                _promote(releases, outputs, options)
            case "rollback":
                _roll_back(releases, outputs, options)
            case "prune":
                _prune(releases, options)
    return 0


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, description: str
) -> argparse.ArgumentParser:
    action = add_command(actions, name, summary=description, examples=_EXAMPLES[name])
    add_stack_option(action)
    return action


def _input(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (separator and name and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NODE.INPUT=FILE, e.g. 10.image=photo.png")
    file = local_path(path)
    if not is_file(file):
        raise argparse.ArgumentTypeError(f"there is no file {path!r}")
    return name, file


def _list(releases: Releases, options: argparse.Namespace) -> None:
    live, standings = releases.live(), releases.all()
    if options.json:
        print_json({"releases": [_as_json(one, live) for one in standings]})
        return
    titles = ("release", "version", "backend", "age", "state", "waiting", "running")
    print_table(titles, [_row(one, live) for one in standings], folds=("state",), right=("waiting", "running"))
    _say_what_to_do(live, standings, releases.stack)


def _promote(releases: Releases, outputs: Mapping[str, str], options: argparse.Namespace) -> None:
    from comfy_serverless.cli.release_workflows import check_workflows, tell_broken

    found, seen = releases.find(options.name), releases.live()
    if _is_same(seen.now, found.release):
        say(f"{options.name} is live already")
    else:
        if options.inputs and options.no_check:
            options.wrong_usage("--input: it is for the check's workflow, and --no-check runs none")
        if options.no_check:
            say(f"warning: no check is run: if {options.name} does not work, callers' jobs find out. Roll back then.")
        else:
            _check(releases, found.release, outputs, options)
        workflows = workflows_beside(releases, outputs)
        check_workflows(workflows, found.release, live=seen.now, is_forced=options.force, wait=not options.no_check)
        seen = releases.change(seen, lambda live, at: live.promoted(found.release, since=at, keep=options.keep))
        say(f"{options.name} is live: within {_SEEN_S} s all jobs go there. Jobs sent before end where they are.")
        tell_broken(workflows, seen.now)
    _print_live(seen, options)
    if not options.json:
        _say_what_to_do(seen, releases.all(), releases.stack)


def _check(releases: Releases, release: Release, outputs: Mapping[str, str], options: argparse.Namespace) -> None:
    from comfy_serverless.cli.progress_line import ProgressLine
    from comfy_serverless.cli.release_check import CHECK, Workflow, failed_check, failure_of

    workflow = Workflow(CHECK) if options.check is None else _workflow(options.check)
    check = check_on(releases, release, outputs, timeout_s=options.timeout)
    say(f"checking {release.name} with {options.check or 'a small workflow that needs no model'} …")
    try:
        with ProgressLine() as line:
            job = check.run(workflow, options.inputs, line.show)
    except KeyboardInterrupt:
        say(f"{release.name!r} was not promoted, and nothing was moved: its check is canceled")
        raise
    if (failure := failure_of(job)) is not None:
        raise failed_check(failure, release.name, job=job, stack=release.stack or releases.stack)
    made, version = len(job["outputs"]), job.get("release_version")
    by = f" by {version}" if version else ""
    say(f"the check has succeeded: {counted(made, 'output')}{by}, job {job['id']}")


def _workflow(path: Path) -> Workflow:
    from comfy_serverless.cli.documents import read_document
    from comfy_serverless.cli.release_check import Workflow

    document = read_document(str(path))
    if document.inputs:
        raise InvalidRequest(f"{path} has `inputs`: give its files with --input, e.g. --input 10.image=photo.png.")
    return Workflow(document.editors or document.graph, document.values)


def _roll_back(releases: Releases, outputs: Mapping[str, str], options: argparse.Namespace) -> None:
    from comfy_serverless.cli.release_workflows import tell_broken

    seen = releases.live()

    def decide(live: Live, at: str) -> Live:
        back = live.rolled_back(since=at, is_there=releases.is_there)
        if back is None:
            names = ", ".join(one.name for one in live.before)
            before = f"what was before it is gone ({names})" if names else "nothing was before it"
            raise InvalidRequest(
                f"{live.now.name} is live, and {before}: `release promote NAME` makes another one live."
            )
        return back

    changed = releases.change(seen, decide)
    for gone in seen.before:
        if gone.name == changed.now.name:
            break
        say(f"{gone.name} is gone, and was passed over")
    say(f"{changed.now.name} is live again: within {_SEEN_S} s all jobs go there, and none to {seen.now.name}.")
    tell_broken(workflows_beside(releases, outputs), changed.now)
    _print_live(changed, options)


def _prune(releases: Releases, options: argparse.Namespace) -> None:
    from comfy_serverless.cli.release_prune import Pruning, agreed
    from comfy_serverless.cli.stack import client_of_stacks

    if options.yes and not options.delete:
        options.wrong_usage("--yes: nothing is asked without --delete")
    pruning, seen = Pruning(releases, client_of_stacks()), releases.live()
    verdicts = pruning.verdicts(seen, with_previous=options.previous)
    old = [one for one in verdicts if not one.kept]
    if not options.json:
        rows = [[one.name, one.standing.release.stack, one.kept or "can be deleted"] for one in verdicts]
        print_table(("release", "stack", "state"), rows, folds=("state",))
    is_deleted = bool(options.delete and old and (options.yes or agreed(old)))
    if is_deleted:
        pruning.delete(seen, old, with_previous=options.previous)
    elif old:
        say(f"nothing was deleted: --delete deletes {counted(len(old), 'stack')}")
    if options.json:
        told = [{"name": one.name, "stack": one.standing.release.stack, "kept": one.kept or None} for one in verdicts]
        print_json({"releases": told, "is_deleted": is_deleted})


def _is_same(live: Release, announced: Release) -> bool:
    """Whether the live release is this one, as it is now: one that was deployed anew has another image."""
    return (live.name, live.target, live.version) == (announced.name, announced.target, announced.version)


def _print_live(live: Live, options: argparse.Namespace) -> None:
    if options.json:
        print_json({"live": live.now.name, "before": [one.name for one in live.before]})
    else:
        print(live.now.name)


def _state(name: str, live: Live) -> str:
    before = [one.name for one in live.before]
    if name == live.now.name:
        return "live"
    return "" if name not in before else "previous" if before[0] == name else f"previous ({before.index(name) + 1})"


def _row(one: Standing, live: Live) -> list[str]:
    state = _state(one.release.name, live)
    if not one.is_there:
        state = f"{state} {'unusable' if one.problem else 'gone'}".strip()
    elif _is_changed(one, live):
        state = "live, deployed anew since"
    counts = ["", ""] if one.waiting is None else [str(one.waiting), str(one.running)]
    backend = str(one.release.target.get("backend", ""))
    return [one.release.name, one.release.version, backend, _age(one.announced_at), state, *counts]


def _as_json(one: Standing, live: Live) -> dict[str, Any]:
    return {
        "name": one.release.name,
        "release_version": one.release.version or None,
        "backend": one.release.target.get("backend"),
        "stack": one.release.stack or None,
        "announced_at": one.announced_at or None,
        "state": _state(one.release.name, live) or None,
        "is_gone": not one.is_there,
        "is_changed": _is_changed(one, live),
        "problem": one.problem or None,
        "waiting": one.waiting,
        "running": one.running,
    }


def _is_changed(one: Standing, live: Live) -> bool:
    """Whether the live release has announced something else since it was promoted."""
    return one.release.name == live.now.name and bool(one.announced_at) and not _is_same(live.now, one.release)


def _say_what_to_do(live: Live, standings: Iterable[Standing], stack: str) -> None:
    """Name the releases that nobody goes back to, with the command that deletes each, and those that need a hand.

    One that was announced after the live one was promoted is not an old one: it is still to be promoted.
    """
    kept = {one.name for one in (live.now, *live.before)}
    for one in standings:
        name = one.release.name
        if one.problem:
            say(f"{name} cannot be used: {one.problem}")
        elif _is_changed(one, live):
            say(
                f"{name} was deployed anew since it was promoted: `release promote {name}` checks it, and tells the API"
            )
        if name in kept or not one.announced_at or not one.is_there or one.announced_at > live.now.since:
            continue
        if not one.is_empty:
            say(f"{name}: jobs are still in it ({one.waiting} wait, {one.running} run); it can be deleted after them")
        elif one.release.stack:
            say(f"{name} can be deleted: {destroy_command(one.release, stack)}")


def destroy_command(release: Release, stack: str) -> str:
    """What deletes the stack of a release."""
    other = "" if stack == "comfy-serverless" else f" -c stack={stack}"
    return f'make cdk CDK_ARGS="destroy {one_line(release.stack)} -c release={release.name}{other}"'


def _age(moment: str) -> str:
    try:
        return time_in_words((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    except ValueError:
        return ""
