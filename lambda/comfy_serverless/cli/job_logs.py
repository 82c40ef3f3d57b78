"""`comfy-serverless jobs logs`: what every function has logged of one job, or what ComfyUI wrote, with a key alone.

    the stack, and its GPU stack ──► their log groups ──► lines that name the job ──► by time
                                                               └──► its invocations ──► Lambda's report of their ends

On this machine (`make dev`) the logs are files; the local stack says where. Who has no stack, but a key of the API
(COMFY_BASE_URL), gets what that keeps of ComfyUI's own lines: `GET /api/v2/jobs/{id}/log`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from comfy_serverless.cli.habits import add_command, one_line, print_json, say
from comfy_serverless.cli.stack import add_stack_option, chosen_stack, clients_of_logs, explained, outputs_of
from comfy_serverless.errors import NotFound

if TYPE_CHECKING:
    from botocore.client import BaseClient

#: The output of the local stack that names the folder of its logs; on AWS there is none.
FOLDER_OUTPUT = "LogFolder"
#: The GPU stacks beside a stack: `infra/`.
GPU_STACKS = ("lambda-gpu", "sagemaker")
#: How the ids of log groups begin that name no job: requests of the API, packets of the VPC, instances.
WITHOUT_JOBS = ("AccessLogGroup", "FlowLog", "GpusLog")
#: The pause between two looks of `--follow`, and how late a line may come, in seconds.
FOLLOW_EVERY_S, LATE_S = 2.0, 60.0
_GROUPS_AT_ONCE = 4
#: A filter has at most 1,024 characters.
_INVOCATIONS_AT_ONCE = 8
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "CRITICAL": "bold red", "DEBUG": "dim"}
#: Keys of a line that are shown in columns of their own, below it, or not at all.
_SHOWN_APART = frozenset(
    {"timestamp", "level", "message", "service", "job_id", "exception", "stack_trace"}
    | {"location", "exception_name", "request_id", "sampling_rate", "xray_trace_id"}
)

_EXAMPLES = (
    "export COMFY_STACK=comfy-serverless       or --stack with each command",
    "comfy-serverless {called} fox-1",
    "comfy-serverless {called} fox-1 --since 14d --json",
    "comfy-serverless {called} fox-1 --follow      until Ctrl-C",
)
_NOTES = """\
With --stack or COMFY_STACK the logs of the stack and of its GPU stack are read; the credentials need
cloudformation:DescribeStacks and ListStackResources, and logs:FilterLogEvents (docs/operate.md has the policy).
`--json` prints each line as it was logged, a document a line.

Without a stack, COMFY_BASE_URL and COMFY_API_KEY are enough: the API has the last lines that ComfyUI wrote during a
job that failed (KEEP_LOGS). `--follow` waits for the job's end then; `--json` prints one document.
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log.

    Attributes:
        at: when it was written; lines are in this order.
        function: who wrote it: generate, api, ….
        keys: all that it says, as it was logged.
    """

    at: datetime
    function: str
    level: str
    message: str
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The same for the same line, however often it is read."""
        return f"{self.at.isoformat()} {json.dumps(self.keys, sort_keys=True)}"


#: Reads the lines about the job that were written since then.
Read = Callable[[datetime], Iterable[Line]]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], *, called: str = "jobs logs") -> None:
    """Add `logs` to the actions of `jobs` or, as it was once `called`, to the commands."""
    logs = add_command(
        commands,
        "logs",
        summary="show what all functions have logged of one job",
        description="Show what all functions of the deployed stack have logged of one job.",
        examples=[line.format(called=called) for line in _EXAMPLES],
        notes=_NOTES,
    )
    logs.add_argument("job_id", metavar="JOB_ID", type=_job_id, help="the job's id")
    add_stack_option(logs)
    logs.add_argument(
        "--since",
        type=_duration,
        metavar="TIME",
        help="how far back in the stack's logs: 90m, 12h, 30d, 4w (default: 1d)",
    )
    logs.add_argument("--follow", action="store_true", help="go on, and show new lines as they come")
    logs.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the lines. Returns the exit code."""
    if not options.stack and os.environ.get("COMFY_BASE_URL"):
        return _run_with_key(options)
    with explained(options, needs="cloudformation:DescribeStacks and ListStackResources, and logs:FilterLogEvents"):
        read = reader_of(chosen_stack(options), options.job_id)
        since = datetime.now(UTC) - (options.since or timedelta(days=1))
        console = Console(highlight=False, soft_wrap=True)
        count = 0
        for line in follow(read, since) if options.follow else sorted(read(since), key=_by_time):
            if options.json:
                print(json.dumps({"at": line.at.isoformat(), "function": line.function, **line.keys}), flush=True)
            else:
                console.print(as_text(line))
            count += 1
    if not count:
        raise NotFound(
            f"Nothing was logged of the job {options.job_id!r} since {since:%Y-%m-%d %H:%M} UTC. Is the id right? "
            "`--since 30d` looks further back, for as long as the stack keeps its logs (LogRetentionDays)."
        )
    return 0


def _run_with_key(options: argparse.Namespace) -> int:
    """Print what the API keeps of ComfyUI's lines during the job."""
    from comfy_serverless.cli import remote
    from comfy_serverless.cli.following import follow as follow_job
    from comfy_serverless.cli.progress_line import ProgressLine

    if options.since is not None:
        options.wrong_usage("--since is for the logs of a stack: give --stack NAME with it; the API has those of a job")
    api = remote.Api.from_environment()
    if options.follow:
        with ProgressLine() as line:
            follow_job(api, options.job_id, line.show)
    found = remote.log_of(api, options.job_id)
    if options.json:
        print_json(found)
        return 0
    for text in found["lines"]:
        print(_printable(str(text)))
    if found.get("note"):
        say(one_line(str(found["note"])))
    return 0


def reader_of(stack: str, job_id: str) -> Read:
    """What reads the job's lines: the log groups of a stack on AWS, or the files of the local one."""
    outputs = outputs_of(stack)
    if folder := outputs.get(FOLDER_OUTPUT):
        return lambda since: in_files(Path(folder), job_id, since)
    cloudformation, client = clients_of_logs()
    groups = list(log_groups(cloudformation, stack))

    def read_group(group: str, since: datetime) -> list[Line]:
        lines = list(in_group(client, group, job_id, since))
        return [*lines, *deaths_in_group(client, group, lines)]

    def read(since: datetime) -> Iterable[Line]:
        with ThreadPoolExecutor(_GROUPS_AT_ONCE, thread_name_prefix="logs") as pool:
            for lines in pool.map(lambda group: read_group(group, since), groups):
                yield from lines

    return read


def log_groups(cloudformation: BaseClient, stack: str) -> Iterator[str]:
    """The log groups of a stack and of its GPU stack, by name, without those whose lines name no job."""
    from botocore.exceptions import ClientError

    for name in (stack, *(f"{stack}-{gpu}" for gpu in GPU_STACKS)):
        try:
            for page in cloudformation.get_paginator("list_stack_resources").paginate(StackName=name):
                for resource in page["StackResourceSummaries"]:
                    is_log = resource["ResourceType"] == "AWS::Logs::LogGroup"
                    if is_log and not resource["LogicalResourceId"].startswith(WITHOUT_JOBS):
                        yield resource["PhysicalResourceId"]
        except ClientError as error:
            if name == stack or error.response["Error"]["Code"] != "ValidationError":
                raise  # else there is no such GPU stack


def in_group(client: BaseClient, group: str, job_id: str, since: datetime) -> Iterator[Line]:
    """The job's lines in a log group. Many pages may come before the first that has any."""
    pages = client.get_paginator("filter_log_events").paginate(
        logGroupName=group,
        filterPattern=f'{{ $.job_id = "{job_id}" }}',
        startTime=round(since.timestamp() * 1000),
    )
    for page in pages:
        for event in page["events"]:
            at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
            if (line := parse(event["message"], job_id, at=at)) is not None:
                yield line


def deaths_in_group(client: BaseClient, group: str, lines: Sequence[Line]) -> Iterator[Line]:
    """Lambda's own reports of those invocations that did not end well: they name an invocation, and no job."""
    invocations = {str(line.keys["request_id"]): line for line in lines if "request_id" in line.keys}
    for first in range(0, len(invocations), _INVOCATIONS_AT_ONCE):
        some = list(invocations)[first : first + _INVOCATIONS_AT_ONCE]
        either = " || ".join(f'$.record.requestId = "{request_id}"' for request_id in some)
        pages = client.get_paginator("filter_log_events").paginate(
            logGroupName=group,
            filterPattern=f'{{ $.type = "platform.report" && $.record.status != "success" && ({either}) }}',
            startTime=round(min(line.at for line in lines).timestamp() * 1000),
        )
        for page in pages:
            for event in page["events"]:
                at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
                if (death := parse_report(event["message"], invocations, at=at)) is not None:
                    yield death


def parse_report(text: str, invocations: Mapping[str, Line], *, at: datetime) -> Line | None:
    """What Lambda reports of an invocation; None if it ended well or is none of these.

    Source: "platform.report" in Lambda's Telemetry API reference.
    """
    try:
        record = json.loads(text)["record"]
        request_id, status, figures = str(record["requestId"]), str(record["status"]), dict(record.get("metrics", {}))
    except (ValueError, KeyError, TypeError):
        return None
    if status == "success" or request_id not in invocations:
        return None
    keys = {
        "status": status,
        "error_type": record.get("errorType"),
        "duration_ms": figures.get("durationMs"),
        "memory_mb": figures.get("memorySizeMB"),
        "memory_used_mb": figures.get("maxMemoryUsedMB"),
        "request_id": request_id,
    }
    message = "Lambda ended the invocation"
    return Line(at, invocations[request_id].function, "ERROR", message, {"message": message, "level": "ERROR", **keys})


def in_files(folder: Path, job_id: str, since: datetime) -> Iterator[Line]:
    """The job's lines in the files of a folder."""
    for path in sorted(folder.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                if job_id in text and (line := parse(text, job_id)) is not None and line.at >= since:
                    yield line


def parse(text: str, job_id: str, *, at: datetime | None = None) -> Line | None:
    """A line of ours about this job; None if it is another's, or of somebody else.

    Args:
        at: when the log has received it, should it not say itself when it was written.
    """
    try:
        keys = json.loads(text)
    except ValueError:
        return None
    if not isinstance(keys, dict) or keys.get("job_id") != job_id:
        return None
    return Line(
        at=_moment(str(keys.get("timestamp"))) or at or datetime.fromtimestamp(0, UTC),
        function=str(keys.get("service", "?")),
        level=str(keys.get("level", "INFO")),
        message=str(keys.get("message", "")),
        keys=keys,
    )


def follow(read: Read, since: datetime, *, sleep: Callable[[float], None] | None = None) -> Iterator[Line]:
    """The lines, and new ones as they come, without an end. A line may come late; each is shown once."""
    shown: set[str] = set()
    while True:
        new = [line for line in read(since) if line.identity not in shown]
        yield from sorted(new, key=_by_time)
        shown |= {line.identity for line in new}
        if shown:
            since = max(since, datetime.now(UTC) - timedelta(seconds=LATE_S))
        (sleep or time.sleep)(FOLLOW_EVERY_S)


def as_text(line: Line) -> Text:
    """A line for people: when, who, how bad, what, with its other keys; a trace stands below."""
    at = line.at.astimezone(UTC)
    text = Text(f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}Z  ", style="dim")
    text.append(f"{_printable(line.function):<10}  ", style="cyan")
    text.append(f"{_printable(line.level):<7}  ", style=_STYLES.get(line.level, "none"))
    text.append(_printable(line.message), style="none")
    for name, value in line.keys.items():
        if name not in _SHOWN_APART and value is not None:
            shown = value if isinstance(value, str) else json.dumps(value)
            text.append(f"  {_printable(name)}={_printable(shown)}", style="dim")
    if trace := line.keys.get("exception"):
        text.append("\n" + _printable(str(trace)), style="dim")
    return text


def _by_time(line: Line) -> datetime:
    return line.at


def _printable(text: str) -> str:
    """Without characters that a terminal obeys: nodes and their authors have written parts of the log."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f%z")
    except ValueError:
        return None


def _job_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no job's id: up to 64 letters, digits, _ and -")
    return text


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,5})([mhdw])", text)
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < length <= timedelta(days=3660):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 90m, 12h, 30d or 4w, of up to 10 years")
    return length
