"""`comfy-serverless batch`: many jobs, from a manifest or a folder to a folder of results.

What it is made of is in `cli/batches`. The libraries for AWS are loaded only when a command runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_serverless.cli.batches.which_place import RULE, is_over_http, place_of, refusals_explained
from comfy_serverless.cli.habits import FAILED, add_command, add_labels, counted, say
from comfy_serverless.cli.paths import local_path
from comfy_serverless.cli.stack import add_stack_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comfy_serverless.cli.batches.each import Made
    from comfy_serverless.cli.batches.place import Place
    from comfy_serverless.cli.batches.submitting import Submitted

_LISTED = 50
#: The actions that can be tried without a stack.
_WITHOUT_STACK = frozenset({"submit", "run"})
_NEEDS = (
    "dynamodb:GetItem, BatchGetItem, Query and UpdateItem on the table, s3:GetObject and PutObject on the buckets, "
    "sqs:SendMessage on the queue of manifests, and cloudformation:DescribeStacks (docs/batches.md)"
)
_EXIT_CODES = """\
exit codes: 0 done, and nothing has failed as far as one knows; 1 failed: the command (the reason is on stderr), lines
of the batch, or files; 2 wrong usage; 3 no line of the batch has succeeded; 4 with --watch: it is paused;
130 interrupted, and what was submitted goes on"""

#: What each action does, and how it is used.
_ACTIONS: dict[str, tuple[str, Sequence[str]]] = {
    "run": (
        "run a workflow once for each of many files, without a manifest",
        (
            "comfy-serverless batch run workflow.json --each 'photos/*.jpg' --watch",
            "comfy-serverless batch run thumbnail --each photos/ --set ImageScale.width=320 --name thumbs",
            "comfy-serverless batch run edit.json --each 'in/**/*.png' --input 10.image --label of=autumn --dry-run",
        ),
    ),
    "submit": (
        "check a manifest, and send it",
        (
            "comfy-serverless batch submit catalogue.jsonl --watch",
            "comfy-serverless batch submit catalogue.jsonl.gz --name autumn --upload",
            "comfy-serverless batch submit catalogue.jsonl --force    bad lines too: they are reported at the end",
        ),
    ),
    "ls": ("list the batches of the last 30 days, the newest first", ("comfy-serverless batch ls",)),
    "status": (
        "how far a batch is",
        ("comfy-serverless batch status catalogue", "comfy-serverless batch status catalogue --watch"),
    ),
    "pause": ("begin no more jobs of it", ("comfy-serverless batch pause catalogue",)),
    "resume": ("go on where it was", ("comfy-serverless batch resume catalogue",)),
    "cancel": ("end it; running jobs finish", ("comfy-serverless batch cancel catalogue",)),
    "retry": (
        "run failed lines again, as the new batch NAME-again",
        (
            "comfy-serverless batch retry catalogue                      the lines that may end well then",
            "comfy-serverless batch retry catalogue --only out_of_memory,canceled",
            "comfy-serverless batch retry catalogue --only 12,40-60      of these lines, those that failed",
            "comfy-serverless batch retry catalogue --only all",
        ),
    ),
    "download": (
        "fetch all files that a batch has made, under names of your choice",
        (
            "comfy-serverless batch download catalogue",
            "comfy-serverless batch download catalogue --out results --name '{metadata.sku}_{input}'",
            "comfy-serverless batch download catalogue --name '{metadata.campaign}/{line:4}_{output}'",
        ),
    ),
    "sheet": (
        "download, and draw a page and a contact sheet of all that it has made",
        (
            "comfy-serverless batch sheet catalogue",
            "comfy-serverless batch sheet catalogue --out results --name '{metadata.sku}_{input}'",
        ),
    ),
}
_NOTES = f"""\
{RULE}
A manifest has a job request in each line: {{"workflow": "thumbnail", "set": {{"1.width": 64}}}}. The same line is the
same job, in whichever manifest. `export COMFY_STACK=NAME` names the stack for all commands, instead of --stack.
When all jobs have ended the output bucket has batches/NAME-….report.json (counts, first failures), .report.csv (every
line), .failed.jsonl and .bad.jsonl (what can be dropped again, and what must be mended first)."""
_ACTION_NOTES = {
    "run": """\
--each takes files, folders (their pictures, videos and sounds), and patterns: *, ?, [a-z], and ** for all folders
below. WORKFLOW stands before it. The manifest is written into the current folder as NAME.jsonl, so that you see what
runs, and can change and submit it.""",
    "submit": """\
Before anything is sent, each line is checked: is it JSON and a request, do `set` and `inputs` fit its workflow, as far
as that is known here (a graph in the line, a file, or a name in WORKFLOWS_DIR or workflows/)? Paths in `inputs` and
`workflow` are from the manifest's folder, or the current one; --upload sends those files, each content once.""",
    "download": """\
fields of --name: {line} ({line:4} is 0012), {input}, {output}, {node}, {title}, {index}, {job_id}, {batch},
{metadata.KEY}, {inputs.NODE.INPUT}. A / makes folders; the ending is always the file's own. Without --name, files are
called as their input files, or by line and output; a folder remembers the template. Equal names get a number.
Nothing that is in the folder is replaced, and what is there is not fetched again: after Ctrl-C the same command goes
on.""",
    "sheet": """\
The page is gallery.html in the folder of the files: it needs no server, and can be sent along with them. The contact
sheets are contact-sheet.png, …-2.png, with a hundred pictures each.""",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `batch` to the commands of the command line."""
    batch = add_command(
        commands,
        "batch",
        summary="run many jobs: from a manifest or a folder of files to a folder of results",
        description="Batches of jobs.",
        examples=[_ACTIONS[name][1][0].rstrip() for name in ("run", "submit", "status", "retry", "download", "sheet")],
        notes=_NOTES,
        prints_data=False,
        exit_codes=_EXIT_CODES,
    )
    actions = batch.add_subparsers(dest="action", required=True, metavar="ACTION")
    parsers = {name: _action(actions, name) for name in _ACTIONS}
    for name in ("status", "pause", "resume", "cancel", "retry", "download", "sheet"):
        parsers[name].add_argument("name", metavar="NAME", help="what it is called; `batch ls` shows all")
    _add_submit_options(parsers["submit"])
    _add_run_options(parsers["run"])
    for name in ("submit", "run", "status", "retry"):
        parsers[name].add_argument("--watch", action="store_true", help="follow it to its end")
    parsers["ls"].add_argument("--limit", type=_count, default=_LISTED, metavar="N", help="at most so many")
    parsers["retry"].add_argument(
        "--only",
        default="curable",
        metavar="WHICH",
        help="curable (default), all, a status, an error code, or numbers of lines; several with commas",
    )
    for name in ("download", "sheet"):
        parsers[name].add_argument("--out", type=local_path, metavar="DIR", help="where files go (default: out/NAME)")
        parsers[name].add_argument("--name", dest="template", metavar="TEMPLATE", help="what they are called")
    batch.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the chosen action. Returns the exit code. A `ComfyError` says in its message what to do."""
    if options.action in _WITHOUT_STACK and options.dry_run:
        return _dry_run(options)
    with refusals_explained(options, needs=_NEEDS):
        place = place_of(options)
        match options.action:
            case "submit":
                return _submit(place, options.file, options.name, options, uploads=options.upload)
            case "run":
                return _run_each(place, options)
            case "ls":
                return _list(place, options)
            case "status":
                return _status(place, options)
            case "retry":
                return _retry(place, options)
            case "download" | "sheet":
                return _fetch(place, options)
            case action:
                return _change(place, options.name, action, as_json=options.json)


def _action(actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> argparse.ArgumentParser:
    summary, examples = _ACTIONS[name]
    notes = _ACTION_NOTES.get(name, "")
    action = add_command(actions, name, summary=summary, examples=examples, notes=notes, exit_codes=_EXIT_CODES)
    add_stack_option(action)
    return action


def _add_submit_options(submit: argparse.ArgumentParser) -> None:
    submit.add_argument(
        "file", type=local_path, metavar="FILE", help="a .jsonl file with a job request in each line; - reads stdin"
    )
    submit.add_argument("--name", help="what the batch is called (default: the file's name)")
    submit.add_argument("--upload", action="store_true", help="send the local files that lines name")
    submit.add_argument("--force", action="store_true", help="submit it although lines would fail")
    submit.add_argument("--dry-run", action="store_true", help="check it and send nothing; needs no stack")


def _add_run_options(run_each: argparse.ArgumentParser) -> None:
    # Argparse would show WORKFLOW at the end, where --each takes it for a file.
    run_each.usage = "%(prog)s WORKFLOW --each FILES [FILES ...] [options]"
    run_each.add_argument(
        "workflow",
        metavar="WORKFLOW",
        help="what `run` takes: a workflow, a request, a picture; or the name of one of the image's",
    )
    run_each.add_argument(
        "--each", nargs="+", required=True, metavar="FILES", help="files, folders or patterns: a job for each file"
    )
    run_each.add_argument("--input", metavar="NODE.INPUT", help="where each file goes (default: the only place)")
    run_each.add_argument(
        "--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="set an input (repeat)"
    )
    add_labels(run_each, "label all jobs (repeat)")
    run_each.add_argument("--name", help="what the batch is called (default: by workflow and folder)")
    run_each.add_argument(
        "--manifest", type=local_path, metavar="FILE", help="where the manifest goes (default: NAME.jsonl)"
    )
    run_each.add_argument("--dry-run", action="store_true", help="write and check the manifest, and send nothing")
    run_each.add_argument("--force", action="store_true", help="submit it although jobs would fail")


def _submit(place: Place, file: Path, name: str | None, options: argparse.Namespace, *, uploads: bool) -> int:
    from comfy_serverless.cli.batches.submitting import submit

    submitted = submit(place, file, name, uploads=uploads, force=options.force)
    say(f"{submitted.taken.address} is there: `comfy-serverless batch status {submitted.name}` follows it.")
    return _follow(place, submitted, options)


def _follow(place: Place, submitted: Submitted, options: argparse.Namespace) -> int:
    """What happens after the drop: with --watch the batch is followed to its end."""
    from comfy_serverless.cli.batches.telling import show, watch
    from comfy_serverless.cli.habits import print_json

    if not options.watch:
        if options.json:
            print_json(submitted.to_json())
        return 0
    try:
        batch = watch(place, submitted.taken.known())
    except KeyboardInterrupt:
        say(f"The batch goes on without you: `comfy-serverless batch status {submitted.name} --watch` follows it.")
        raise
    return show(batch, as_json=options.json, is_watched=True)


def _dry_run(options: argparse.Namespace) -> int:
    """Check what would be submitted, and send nothing."""
    from comfy_serverless.cli.batches.submitting import inspect
    from comfy_serverless.cli.habits import print_json

    if options.action == "run":
        made = _manifest_for(options)
        file, name, uploads = made.path, made.name, True
    else:
        file, name, uploads = options.file, options.name, options.upload
    name, findings = inspect(file, name, uploads=uploads, force=options.force, knows_uploads=is_over_http(options))
    say(f"{file} would be the batch {name}: {counted(findings.requests, 'line')}, {findings.files_in_words}.")
    if options.json:
        print_json({"name": name, "manifest": str(file), **findings.to_json()})
    return FAILED if findings.bad else 0


def _run_each(place: Place, options: argparse.Namespace) -> int:
    made = _manifest_for(options)
    return _submit(place, made.path, made.name, options, uploads=True)


def _manifest_for(options: argparse.Namespace) -> Made:
    from comfy_serverless.cli.batches.each import manifest_for
    from comfy_serverless.cli.batches.submitting import workflows_folder

    made = manifest_for(
        options.workflow,
        options.each,
        folder=workflows_folder(),
        address=options.input,
        values=options.set,
        labels=dict(options.labels),
        name=options.name,
        path=options.manifest,
        force=options.force,
    )
    say(f"{made.path} is the manifest: {counted(made.lines, 'job')}, each file at {made.address}.")
    return made


def _list(place: Place, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.batches.telling import show_all

    show_all(place.all(options.limit), as_json=options.json)
    return 0


def _status(place: Place, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.batches.telling import show, watch

    batch = place.find(options.name)
    if options.watch:
        batch = watch(place, batch)
    return show(batch, as_json=options.json, is_watched=options.watch)


def _change(place: Place, name: str, action: str, *, as_json: bool) -> int:
    from comfy_serverless.cli.habits import print_json

    batch = place.find(name)
    status = place.change(batch, action)
    say(f"The batch {name} is {status}.")
    if as_json:
        print_json({"name": name, "batch": batch.id, "status": status})
    return 0


def _retry(place: Place, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.batches.repeating import retry
    from comfy_serverless.cli.habits import print_json

    submitted, chosen = retry(place, place.find(options.name), options.name, only=options.only)
    if submitted is not None and options.watch:
        return _follow(place, submitted, options)
    if options.json:
        name = submitted.name if submitted is not None else None
        print_json({"name": name, "lines": chosen.count, "left_out": dict(chosen.left_out)})
    return 0


def _fetch(place: Place, options: argparse.Namespace) -> int:
    from comfy_serverless.cli.batches.fetching import fetch

    return fetch(
        place,
        place.find(options.name),
        options.name,
        folder=options.out or Path("out", options.name),
        template=options.template,
        draws=options.action == "sheet",
        as_json=options.json,
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number from 1 to 1000")
    return int(text)
