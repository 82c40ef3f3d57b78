"""`comfy-serverless jobs`: the jobs of the API that COMFY_BASE_URL names, with nothing but a key of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from comfy_serverless.cli import job_logs
from comfy_serverless.cli.habits import (
    FAILED,
    INTERRUPTED,
    add_command,
    add_labels,
    one_line,
    print_json,
    print_table,
    say,
    size_in_words,
    time_in_words,
    whole_number,
)
from comfy_serverless.cli.paths import local_path

STATUSES = ("queued", "running", "succeeded", "canceling", "canceled", "failed", "expired")
#: Jobs in one answer of the API.
_MOST_A_PAGE = 100

#: What is shown of each job in a list.
_COLUMNS = ("id", "status", "created", "took", "files", "what", "labels")
_EXPAND = "outputs,progress,error"
_MOST_TOLD = 60

_EXAMPLES = {
    "ls": (
        "comfy-serverless jobs ls",
        "comfy-serverless jobs ls --status failed --label campaign=autumn --limit 200",
        "comfy-serverless jobs ls --json | jq -r '.jobs[].id'",
    ),
    "show": ("comfy-serverless jobs show fox-1", "comfy-serverless jobs show fox-1 --json | jq .timings_ms"),
    "watch": ("comfy-serverless jobs watch fox-1 && comfy-serverless jobs download fox-1",),
    "again": ("comfy-serverless jobs again fox-1", "comfy-serverless jobs again fox-1 --seed new"),
    "cancel": ("comfy-serverless jobs cancel fox-1 fox-2",),
    "download": ("comfy-serverless jobs download fox-1 --out out/",),
}
_NOTES = """\
COMFY_BASE_URL is the address of the API (the stack's output ApiUrl; `make dev` writes both into out/dev/env.sh), and
COMFY_API_KEY a key of it. The key's owner sees the owner's jobs.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `jobs` to the commands of the command line."""
    jobs = add_command(
        commands,
        "jobs",
        summary="list, show, follow, cancel and download jobs of the deployed API, and read their logs",
        examples=[*(lines[0] for lines in _EXAMPLES.values()), "comfy-serverless jobs logs fox-1"],
        notes=_NOTES,
        prints_data=False,
    )
    actions = jobs.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = _action(actions, "ls", "list jobs, newest first", _list)
    listing.add_argument("--status", choices=STATUSES, metavar="STATUS", help=f"only these: {', '.join(STATUSES)}")
    add_labels(listing, "only jobs with it")
    listing.add_argument("--limit", type=whole_number, default=20, metavar="N", help="at most so many (default: 20)")
    listing.add_argument("--cursor", metavar="CURSOR", help="go on where a list has ended: its `next_cursor`")
    _with_job(_action(actions, "show", "show everything about a job", _show))
    _with_job(_action(actions, "watch", "follow a job to its end; it fails if the job does", _watch))
    again = _with_job(_action(actions, "again", "run the request of a job again, as a new job", _again))
    again.add_argument(
        "--seed",
        choices=("same", "new"),
        default="same",
        help="same: as it was asked, so -1 is drawn again (default); new: all seeds are drawn",
    )
    cancel = _action(actions, "cancel", "ask for the end of jobs", _cancel)
    cancel.add_argument("job_ids", metavar="JOB_ID", nargs="+", help="their ids")
    download = _with_job(_action(actions, "download", "save the outputs of a job", _download))
    download.add_argument(
        "--out",
        type=local_path,
        default=Path("out"),
        metavar="DIR",
        help="where they go (default: out/); no file is replaced",
    )
    job_logs.add_parser(actions)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Any,  # noqa: ANN401
) -> argparse.ArgumentParser:
    action = add_command(actions, name, summary=summary, examples=_EXAMPLES[name], notes=_NOTES)
    action.set_defaults(run=run)
    return action


def _with_job(action: argparse.ArgumentParser) -> argparse.ArgumentParser:
    action.add_argument("job_id", metavar="JOB_ID", help="the job's id")
    return action


def _list(options: argparse.Namespace) -> int:
    from comfy_serverless.cli import remote

    api = remote.Api.from_environment()
    found: list[dict[str, Any]] = []
    cursor = options.cursor
    while True:
        limit = min(_MOST_A_PAGE, options.limit - len(found))
        page = remote.jobs(
            api, limit=limit, cursor=cursor, status=options.status, labels=dict(options.labels), expand=_EXPAND
        )
        found += page["jobs"]
        cursor = page.get("next_cursor")
        if not cursor or len(found) >= options.limit:
            break
    if options.json:
        print_json({"jobs": found, "next_cursor": cursor})
        return 0
    if found:
        print_table(_COLUMNS, [_row(job) for job in found], folds=("id", "what", "labels"), right=("files",))
    else:
        say("There are no such jobs of this key's owner.")
    if cursor:
        say(f"There are more: --limit {2 * options.limit}, or --cursor {cursor}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from comfy_serverless.cli import remote

    api = remote.Api.from_environment()
    job = remote.job(api, options.job_id)
    if options.json:
        print_json(job)
    else:
        _print_job(job, list(remote.outputs(api, job)))
    return 0


def _watch(options: argparse.Namespace) -> int:
    from comfy_serverless.cli import remote
    from comfy_serverless.cli.following import failure_of, follow
    from comfy_serverless.cli.progress_line import ProgressLine
    from comfy_serverless.errors import Canceled

    api = remote.Api.from_environment()
    try:
        with ProgressLine() as line:
            job = follow(api, options.job_id, line.show)
    except KeyboardInterrupt:
        say(f"The job goes on without you: `comfy-serverless jobs watch {options.job_id}` follows it.")
        raise
    failure = failure_of(job)
    if options.json:
        print_json(job)
    else:
        _print_job(job, list(remote.outputs(api, job)))
    if failure is None:
        return 0
    say(one_line(f"{failure.code}: {failure.message}"))
    return INTERRUPTED if isinstance(failure, Canceled) else FAILED


def _again(options: argparse.Namespace) -> int:
    from comfy_serverless.cli import remote

    job = remote.again(remote.Api.from_environment(), options.job_id, seed=options.seed)
    if options.json:
        print_json(job)
        return 0
    for warning in job.get("warnings") or ():
        say(f"Note: {one_line(str(warning))}.")
    say(f"It runs again: `comfy-serverless jobs watch {one_line(str(job['id']))}` follows it.")
    return 0


def _cancel(options: argparse.Namespace) -> int:
    from comfy_serverless.cli import remote
    from comfy_serverless.cli.habits import report_error
    from comfy_serverless.errors import ComfyError

    api = remote.Api.from_environment()
    jobs, errors, status = [], [], 0
    for job_id in options.job_ids:
        try:
            jobs.append(remote.cancel(api, job_id))
        except ComfyError as error:  # the others are canceled all the same
            status = report_error(error, as_json=False)
            errors.append({"job_id": job_id, "code": error.code, "message": error.message})
        else:
            say(f"{one_line(str(jobs[-1]['id']))} {jobs[-1]['status']}")
    if options.json:
        print_json({"jobs": jobs, "errors": errors})
    return status


def _download(options: argparse.Namespace) -> int:
    from comfy_serverless.cli import remote
    from comfy_serverless.cli.fetching import check_fetched, fetch_all, print_fetched
    from comfy_serverless.cli.following import is_over
    from comfy_serverless.cli.wishes import check_folder

    api = remote.Api.from_environment()
    job = remote.job(api, options.job_id)
    check_folder(options.out)
    fetched = fetch_all(api, remote.outputs(api, job), options.out)
    if not is_over(job):
        say(f"the job is {job['status']}: this is what it has made so far")
    elif not fetched:
        say(f"the job is {job['status']}, and has made nothing")
    check_fetched(fetched, options.out)
    if options.json:
        print_json({"job_id": job["id"], "outputs": [one.to_json() for one in fetched]})
    else:
        print_fetched(fetched)
    return 0


def _row(job: Mapping[str, Any]) -> list[str]:
    labels = job.get("metadata") or {}
    files = str(job.get("outputs_total") or "")
    return [
        str(job["id"]),
        str(job["status"]),
        _time(job.get("created_at")),
        _took(job),
        files,
        _what(job),
        _labels(labels),
    ]


def _what(job: Mapping[str, Any]) -> str:
    """How far a job is, or why it failed, in a few words."""
    from comfy_serverless.cli.following import how_far, is_over

    error = job.get("error")
    if isinstance(error, Mapping):
        where = f" at {error['class_type']}" if error.get("class_type") else ""
        told = one_line(f"{error.get('code')}{where}: {error.get('message')}")
        return told if len(told) <= _MOST_TOLD else f"{told[: _MOST_TOLD - 1]}…"
    if is_over(job) or not isinstance(job.get("progress"), Mapping):
        return ""
    return one_line("{:.0%} {}".format(*how_far(job)))


def _print_job(job: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]]) -> None:
    from comfy_serverless.cli.following import how_far, is_over

    error = job.get("error") or {}
    facts = {
        "id": job["id"],
        "status": job["status"],
        "created": _time(job.get("created_at")),
        "started": _time(job.get("started_at")),
        "completed": _time(job.get("completed_at")),
        "kept until": _time(job.get("expires_at")),
        "took": _took(job),
        "progress": "" if is_over(job) else "{:.0%} {}".format(*how_far(job)),
        "error": f"{error['code']}: {error['message']}" if error else "",
        "node": " ".join(str(error[name]) for name in ("node_id", "class_type") if error.get(name)),
        "cost": f"{Decimal(repr(job['cost_usd'])):f} USD (estimated)" if job.get("cost_usd") is not None else "",
        "engine": job.get("engine"),
        "release": job.get("release_version"),
        "labels": _labels(job.get("metadata") or {}),
    }
    longest = max(map(len, facts))
    for title, value in facts.items():
        if value:
            print(f"{title:<{longest}}  {one_line(str(value))}")
    for address, seed in (job.get("seeds") or {}).items():
        print(f"{'seed':<{longest}}  {one_line(str(address))} = {seed} (drawn)")
    for warning in job.get("warnings") or ():
        print(f"{'warning':<{longest}}  {one_line(str(warning))}")
    if outputs:
        print()
        rows = [
            [
                f"{output.get('node_id')} {output.get('title') or ''}".strip(),
                str(output.get("name")),
                str(output.get("content_type")),
                size_in_words(output.get("size_bytes") or 0),
            ]
            for output in outputs
        ]
        print_table(("node", "output", "type", "size"), rows, folds=("node", "output"), right=("size",))


def _time(text: object) -> str:
    """A moment of the API, in this machine's time: `2026-11-29 12:05:07`; nothing for none."""
    moment = _moment(text)
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _took(job: Mapping[str, Any]) -> str:
    """From the submission to the end; nothing while there is none."""
    begun, ended = _moment(job.get("created_at")), _moment(job.get("completed_at"))
    return "" if begun is None or ended is None else time_in_words((ended - begun).total_seconds())


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _labels(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())
