"""A burst of jobs meets an endpoint that scales: how long it takes, and what it costs, by policy. Nothing runs on AWS.

Arithmetic with a clock of its own: the same seed gives the same table. What AWS documents, and what is assumed here:
docs/scaling.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.scaling.chart import Curve, chart
from benchmarks.scaling.policies import Autoscaler, FromZero, Policy, TargetTracking
from benchmarks.scaling.simulation import Load, Outcome, Simulation

EXAMPLES = """
examples:
  python -m benchmarks.scaling                                 10,000 jobs at once, from zero to 10 instances
  python -m benchmarks.scaling --max-instances 40              faster, but each pays its start and 15 idle minutes
  python -m benchmarks.scaling --jobs 3 --target 5             a backlog below the target: see who never begins
  python -m benchmarks.scaling --jobs 2000 --rate 0.5          jobs that come by and by, one every two seconds
  python -m benchmarks.scaling --jobs 60 --rate 0.02 --job-s 120   few long jobs: scale-in cuts some of them

how to read the table:
  begins      when the first job executes           done      when the last one has ended
  oldest      the longest that a job has waited     lost      jobs cut off by scale-in, run again
  hours       instance-hours paid                   /1,000    dollars for 1,000 jobs
The price is an example: look up your region's, and give it with --price.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """A way of scaling."""

    name: str
    policies: Sequence[Policy]
    maximum: int
    minimum: int = 0


def plans(options: argparse.Namespace) -> list[Plan]:
    """What is compared. The first and the last are drawn."""
    tracking = TargetTracking(
        target=options.target, out_cooldown_s=options.out_cooldown_s, in_cooldown_s=options.in_cooldown_s
    )
    from_zero = FromZero(cooldown_s=options.step_cooldown_s)
    most = options.max_instances
    return [
        Plan(f"at most {most}", [tracking, from_zero], most),
        Plan(f"at most {most}, target tracking only", [tracking], most),
        Plan(f"1 to {most}", [tracking, from_zero], most, minimum=1),
        Plan(f"at most {4 * most}", [tracking, from_zero], 4 * most),
    ]


def main() -> None:
    """Simulate, show, draw."""
    options = _options()
    console = Console(width=min(100, Console().width))
    load = Load(jobs=options.jobs, rate=options.rate, job_s=options.job_s, spread=options.spread, seed=options.seed)
    outcomes = [
        (plan, Simulation(load, _scaler(plan), start_s=options.start_s, minimum=plan.minimum).run())
        for plan in plans(options)
    ]
    how = "at once" if load.rate is None else f"at {load.rate:g} a second"
    title = f"{load.jobs:,} jobs of {load.job_s:g} s {how}"
    console.print(_table(title, load.jobs, outcomes, price=options.price))
    console.print(f"${options.price:g} an instance-hour, from its request to its end.", style="dim")
    if options.chart:
        drawn = [Curve(plan.name, outcome.series) for plan, outcome in (outcomes[0], outcomes[-1])]
        options.chart.parent.mkdir(parents=True, exist_ok=True)
        options.chart.write_text(chart(drawn, title=title), encoding="utf-8")
        console.print(f"chart: {options.chart}", style="dim")


def _scaler(plan: Plan) -> Autoscaler:
    return Autoscaler(plan.policies, minimum=plan.minimum, maximum=plan.maximum)


def _table(title: str, jobs: int, outcomes: list[tuple[Plan, Outcome]], *, price: float) -> Table:
    table = Table(title=title, box=None, title_justify="left")
    table.add_column("instances")
    for name in ("begins", "done", "most", "oldest", "lost", "hours", "cost", "/1,000"):
        table.add_column(name, justify="right")
    for plan, outcome in outcomes:
        hours = outcome.instance_s / 3600
        is_done = all(outcome.ended)
        table.add_row(
            plan.name,
            _clock(outcome.first_start_s),
            _clock(outcome.last_end_s if is_done else None),
            str(outcome.most_instances),
            _clock(outcome.longest_wait_s if is_done else None),
            str(outcome.cut),
            f"{hours:.1f}",
            f"${hours * price:.2f}",
            f"${hours * price * 1000 / jobs:.2f}" if is_done else "",
        )
    return table


def _clock(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return "never"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    load = parser.add_argument_group("the load")
    load.add_argument("--jobs", type=_count, default=10_000, help="how many (default 10,000)")
    load.add_argument("--rate", type=_positive, help="jobs a second, on average; without it all come at once")
    load.add_argument("--job-s", type=_positive, default=8.0, help="how long one executes, on average (default 8)")
    load.add_argument("--spread", type=float, default=0.4, help="how much that varies; 0 is not at all (default 0.4)")
    load.add_argument("--seed", type=int, default=1, help="other dice (default 1)")
    policy = parser.add_argument_group("the policies")
    policy.add_argument("--max-instances", type=_count, default=10, help="the most there may be (default 10)")
    policy.add_argument("--target", type=_positive, default=4.0, help="backlog per instance to keep (default 4)")
    policy.add_argument("--out-cooldown-s", type=float, default=60.0, help="after scaling out (default 60)")
    policy.add_argument("--in-cooldown-s", type=float, default=300.0, help="after scaling in (default 300)")
    policy.add_argument("--step-cooldown-s", type=float, default=600.0, help="after a step from zero (default 600)")
    policy.add_argument("--start-s", type=float, default=360.0, help="from request to first job (default 360)")
    money = parser.add_argument_group("the prices")
    money.add_argument("--price", type=float, default=1.0, help="an instance-hour, in dollars (example: 1.00)")
    parser.add_argument("--chart", type=Path, help="write the chart of the first and the last policy there, as SVG")
    return parser.parse_args()


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _positive(text: str) -> float:
    if (number := float(text)) <= 0:
        raise argparse.ArgumentTypeError("more than 0")
    return number


if __name__ == "__main__":
    main()
