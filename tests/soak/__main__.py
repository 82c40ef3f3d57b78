"""`python -m tests.soak --jobs 2000 --seed 7`: thousands of jobs, faults at random, every outcome right. See README."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from comfy_serverless.worker.delivery import UPLOAD_THREADS
from tests.soak.drive import Driver, Story, count_codes
from tests.soak.jobs import make_job, plain_job
from tests.soak.trouble import RECOVERY_S, Thrower
from tests.soak.world import Level, World, orphans, soak_world, still_kept

IN_FLIGHT = 4
#: The share of the jobs after which everything that is kept warm exists.
WARM_UP = 0.2
#: The most that our process may have grown since then, in MB. Allowed is what does not grow with every job: the log of
#: the local S3 (up to 20,000 lines), pydantic's cache of strings, arenas of the allocator.
MOST_GROWTH_MB = 20.0
#: Connections to the engine are kept for later jobs: as many as have been needed at once.
MOST_MORE_SOCKETS = IN_FLIGHT


def main() -> int:
    """Run the soak. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").split(":")[-1])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="the same seed throws the same jobs (default: random)")
    parser.add_argument("--first", type=int, default=0, help="number of the first job, to run some again")
    given = parser.parse_args()
    seed = random.randrange(100_000) if given.seed is None else given.seed
    console = Console()
    console.print(f"soak: {given.jobs} jobs, {IN_FLIGHT} in flight, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        threads_before = set(threading.enumerate())
        with soak_world(Path(folder)) as world:
            problems = _soak(world, range(given.first, given.first + given.jobs), seed=seed, console=console)
        problems += [f"kept after the end: {kept}" for kept in still_kept(Path(folder))]
        problems += [f"a process is left: {orphan}" for orphan in orphans(Path(folder))]
        problems += [f"a thread is left: {left}" for left in set(threading.enumerate()) - threads_before]
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    verdict = f"{len(problems)} problems; again with --seed {seed}" if problems else "every outcome is right"
    console.print(verdict, style="bold red" if problems else "bold green")
    return 1 if problems else 0


def _soak(world: World, numbers: range, *, seed: int, console: Console) -> list[str]:
    thrower = Thrower(world.connector, seed=seed)
    driver = Driver(world, thrower)
    warm_up = numbers[: max(1, round(len(numbers) * WARM_UP))]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    started = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("jobs", total=len(numbers))
        stories: list[Story] = []
        levels: list[Level] = []
        expected = 0
        for part in (warm_up, numbers[len(warm_up) :]):
            thrower.start()
            for story in _run(driver, part, seed):
                stories.append(story)
                wrong = sum(bool(story.problems) for story in stories)
                bar.update(task, advance=1, description=f"{wrong} wrong" if wrong else "jobs")
            # An engine that died after the last job is started again by the next one: jobs come until all has passed.
            thrower.stop()
            calm = itertools.count()
            while thrower.is_busy:
                stories.append(driver.drive(plain_job(f"soak-{seed}-calm-{len(levels)}-{next(calm)}")))
            # After all that, the next job works; and it reopens the connections that are kept.
            stories.append(driver.drive(plain_job(f"soak-{seed}-between-{len(levels)}")))
            expected += len(part) + next(calm) + 1
            levels.append(world.level())
    elapsed_s = time.monotonic() - started
    _print(console, stories, thrower, levels, elapsed_s)
    problems = [str(story) for story in stories if story.problems]
    if len(stories) != expected:
        problems.append(f"{len(stories)} of {expected} jobs have ended")
    problems += [
        f"the engine had not recovered {RECOVERY_S:g} s after {trouble.name}"
        for trouble in thrower.thrown
        if not trouble.is_recovered
    ]
    # What S3 has refused is kept as long as there is room.
    left = world.leftovers(undelivered={story.job_id for story in stories if story.code == "delivery_failed"})
    tellers = [str(story) for story in stories if story.lines and any(story.job_id in line for line in left)]
    return problems + _growth(*levels) + left + tellers


def _run(driver: Driver, numbers: range, seed: int) -> Iterable[Story]:
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="soak-job") as pool:
        jobs = [pool.submit(driver.drive, make_job(seed, number)) for number in numbers]
        for job in as_completed(jobs):
            yield job.result()


def _growth(warm: Level, end: Level) -> list[str]:
    # The pool that uploads begins threads as they are needed.
    pooled = Counter({"delivery": max(0, UPLOAD_THREADS - warm.threads["delivery"])})
    problems = [f"{count} more threads: {name}" for name, count in (end.threads - warm.threads - pooled).items()]
    kept = Counter({"socket": MOST_MORE_SOCKETS})
    problems += [f"{count} more open {kind}s" for kind, count in (end.files - warm.files - kept).items()]
    if end.memory_mb - warm.memory_mb > MOST_GROWTH_MB:
        problems.append(f"memory has grown from {warm.memory_mb:.0f} to {end.memory_mb:.0f} MB since the warm-up")
    return problems


def _print(console: Console, stories: list[Story], thrower: Thrower, levels: list[Level], elapsed_s: float) -> None:
    table = Table(title=f"{len(stories)} jobs in {elapsed_s:.0f} s ({len(stories) / elapsed_s:.1f} a second)")
    table.add_column("outcome")
    table.add_column("jobs", justify="right")
    for code, count in count_codes(stories).most_common():
        table.add_row(code, str(count))
    table.add_section()
    right = sum(not story.problems for story in stories)
    table.add_row("right", f"{right} of {len(stories)}")
    table.add_row("deliveries", str(sum(story.deliveries for story in stories)))
    table.add_row("longest delivery", f"{max(story.longest_s for story in stories):.1f} s")
    table.add_row("engine starts", str(thrower.starts))
    table.add_section()
    for name, count in sorted(thrower.counts.items()):
        table.add_row(name, str(count))
    table.add_section()
    table.add_row("memory", " to ".join(f"{level.memory_mb:.0f} MB" for level in levels))
    table.add_row("threads", " to ".join(str(level.threads.total()) for level in levels))
    table.add_row("open files", " to ".join(str(level.files.total()) for level in levels))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
