"""What the API says that jobs have cost, beside the sum over their documents: they must be the same, job for job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from comfy_serverless.jobs.document import Job
from comfy_serverless.table.usage_items import Usage, total
from comfy_serverless.table.usage_report import told
from tests.soak.moving import Api

#: Prices of a worker that costs about two dollars an hour.
PRICES: Final = {"USD_PER_SECOND": "0.0005556", "USD_PER_REQUEST": "0.0000002"}


def judge_usage(apis: Mapping[str, Api], console: Console) -> list[str]:
    """Print each owner's report beside the sum of his jobs, and return where they differ."""
    table = Table(title="usage: as it was counted, and the sum of the jobs")
    for column in ("owner", "workflow", "jobs", "failed", "seconds", "outputs", "bytes", "USD"):
        table.add_column(column, justify="left" if column in ("owner", "workflow") else "right")
    problems = []
    for owner, api in apis.items():
        report = api.json("GET", "/api/v2/usage", params={"by": "workflow"})
        for row in report["rows"]:
            table.add_row(owner, row["workflow"] or "-", *_cells(row))
        whole = told(total(Usage.of(job) for job in _documents(api)))
        table.add_row(owner, "as counted", *_cells(report["total"]), style="bold")
        table.add_row(owner, "the jobs' sum", *_cells(whole), style="bold")
        table.add_section()
        problems += [
            f"{owner}'s usage has {report['total'][name]} {name}, and his jobs {value}"
            for name, value in whole.items()
            if abs((report["total"][name] or 0) - (value or 0)) > 1e-6
        ]
    console.print(table)
    return problems


def _documents(api: Api) -> Iterator[Job]:
    """The documents of all ended jobs of an owner."""
    cursor = None
    while True:
        page = api.json("GET", "/api/v2/jobs", params={"limit": 100, **({"cursor": cursor} if cursor else {})})
        for entry in page["jobs"]:
            if entry.get("completed_at"):
                yield Job.model_validate(api.json("GET", f"/api/v2/jobs/{entry['id']}"))
        if not (cursor := page.get("next_cursor")):
            return


def _cells(sums: Mapping[str, Any]) -> list[str]:
    cost = sums["cost_usd"]
    seconds = f"{sums['seconds']:.3f}"
    counts = (str(sums["jobs"]), str(sums["failed"]), seconds, str(sums["outputs"]), str(sums["bytes"]))
    return [*counts, "-" if cost is None else f"{cost:.7f}"]
