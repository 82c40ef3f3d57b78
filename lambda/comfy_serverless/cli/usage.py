"""`comfy-serverless usage`: what jobs have cost. With a key alone its owner's; with `--stack` and credentials, all."""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from comfy_serverless.cli.habits import add_command, print_json, print_table, say, size_in_words

_SUMS = ("jobs", "failed", "seconds", "outputs", "bytes", "cost_usd")
#: Digits behind the point of a dollar: these, and more for tiny sums, up to the nano-dollars in which all is counted.
_FEWEST_DIGITS, _MOST_DIGITS = 4, 9
_EXAMPLES = (
    "comfy-serverless usage",
    "comfy-serverless usage --by workflow,key --from 2026-11-01 --to 2026-11-30 --csv > november.csv",
    "comfy-serverless usage --by owner --stack comfy-serverless",
)
_NOTES = """\
Sums over jobs that have ended, by day (UTC), workflow, key or owner, or by several of them with commas between. Costs
are estimated from the operator's prices (docs/usage.md); - is where no price was known.

Without --stack it asks the API at COMFY_BASE_URL with COMFY_API_KEY: for the key's owner, or for any with an admin's.
With --stack it reads the table of a deployed stack, with credentials of AWS, for all owners.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `usage` to the commands of the command line."""
    usage = add_command(
        commands,
        "usage",
        summary="show what jobs have cost: by day, workflow, key or owner",
        examples=_EXAMPLES,
        notes=_NOTES,
    )
    usage.add_argument(
        "--by", default="day", metavar="WHAT", help="day, workflow, key, owner, or several (default: day)"
    )
    usage.add_argument(
        "--from", dest="first", metavar="DAY", help="the first day, like 2026-11-01 (default: of the month)"
    )
    usage.add_argument("--to", dest="last", metavar="DAY", help="the last day (default: today)")
    usage.add_argument("--owner", help="of this owner alone; with an admin's key, or with --stack")
    usage.add_argument("--csv", action="store_true", help="print CSV, with numbers as they are")
    usage.add_argument("--stack", metavar="NAME", help="a deployed stack, read with credentials of AWS")
    usage.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report. Returns the exit code."""
    told = _of_stack(options) if options.stack else _of_api(options)
    columns = [*_columns(str(told["by"]))]
    if options.json:
        print_json(told)
    elif options.csv:
        lines = csv.DictWriter(sys.stdout, [*columns, *_SUMS], extrasaction="ignore", lineterminator="\n")
        lines.writeheader()
        lines.writerows({**row, "cost_usd": _exact(row["cost_usd"])} for row in told["rows"])
    elif not told["rows"]:
        say(f"No job has ended from {told['from']} to {told['to']}.")
    else:
        _print(told, columns)
    return 0


def _of_api(options: argparse.Namespace) -> dict[str, Any]:
    from comfy_serverless.cli import remote

    asked = {"by": options.by, "from": options.first, "to": options.last, "owner": options.owner}
    query = {name: value for name, value in asked.items() if value is not None}
    api = remote.Api.from_environment()
    return dict(remote.ask(api, "GET", "/api/v2/usage", ("rows", "total", "by"), params=query))


def _of_stack(options: argparse.Namespace) -> dict[str, Any]:
    from comfy_serverless.cli.stack import counters_of, explained
    from comfy_serverless.settings import Settings
    from comfy_serverless.table.usage_report import Asked, report

    asked = Asked.parse(options.by, options.first, options.last)
    with explained(options):
        store, usage = counters_of(options.stack)
        keys = store.list()
        owners = {*(key.owner for key in keys), Settings().drop_owner} if options.owner is None else {options.owner}
        counters = usage.of_owners(sorted(owners), asked.first, asked.last)
        return report(counters, asked, key_names={key.id: key.name for key in keys})


def _columns(by: str) -> Sequence[str]:
    return [column for kind in by.split(",") for column in ((kind, "key_name") if kind == "key" else (kind,))]


def _print(told: Mapping[str, Any], columns: Sequence[str]) -> None:
    digits = _digits([row["cost_usd"] for row in told["rows"]])
    rows = [[*(str(row.get(column) or "-") for column in columns), *_sums(row, digits)] for row in told["rows"]]
    if len(rows) > 1:
        rows.append(["all", *("" for _ in columns[1:]), *_sums(told["total"], digits)])
    titles = (*(column.replace("_", " ") for column in columns), "jobs", "failed", "seconds", "outputs", "size", "USD")
    print_table(titles, rows, folds=("workflow", "owner", "key name"), right=titles[len(columns) :])


def _sums(row: Mapping[str, Any], digits: int) -> list[str]:
    cost = row["cost_usd"]
    return [
        str(row["jobs"]),
        str(row["failed"]),
        f"{row['seconds']:.1f}",
        str(row["outputs"]),
        size_in_words(row["bytes"]),
        "-" if cost is None else f"{cost:.{digits}f}",
    ]


def _digits(costs: Sequence[float | None]) -> int:
    """How many digits behind the point all sums of a column have: two that count of the smallest that is above 0."""
    smallest = min((cost for cost in costs if cost), default=1.0)
    return max(_FEWEST_DIGITS, min(_MOST_DIGITS, 1 - math.floor(math.log10(smallest))))


def _exact(cost: float | None) -> str | None:
    """A sum with all its digits, and without an exponent: not every spreadsheet reads `2e-06`."""
    return None if cost is None else f"{Decimal(repr(cost)):f}"
