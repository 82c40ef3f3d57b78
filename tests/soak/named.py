"""`python -m tests.soak.named --runs 500 --seed 7`: runs of named workflows while their aliases move. See README.

Two owners have a workflow of the same name, and the operator shares one. All the while versions are pushed, and aliases
are moved, split and rolled back; runs come in by alias, by version, with sticky keys and with idempotency keys. Each
version paints its own colour, and each run asks for a width of its own: so a picture says which version made it, and
for whom.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from comfy_serverless.aws.dynamodb import Table as JobsTable
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.store import WorkflowStore
from comfy_serverless.workflows.version import NamedInput, Version
from local.aws.template import TABLE
from local.dev import DevStack
from tests.soak.moving import ALIASES, NAME, PAUSE_S, Api, Mover, picture
from tests.soak.usage import PRICES, judge_usage

IN_FLIGHT = 6
GROUP = 5
SHARED = "banner"
OWNERS = ("alice", "bob")
STICKY = tuple(f"customer-{number}" for number in range(8))
#: The longest that a run may take, in seconds: the machine has other things to do.
_LONGEST_S = 300.0
_ENDED = frozenset({"succeeded", "failed", "canceled", "expired"})
#: Of a fair split so many runs at least, before the shares are judged; and how far they may be off, in deviations.
_ENOUGH, _DEVIATIONS = 40, 5.0


@dataclass(slots=True)
class Story:
    """A run: what was asked, when, and what came of it."""

    number: int
    owner: str
    name: str
    alias: str | None
    pinned: int | None
    sticky: str | None
    width: int = 0
    sent: float = 0.0
    answered: float = 0.0
    job_id: str = ""
    version: int = -1
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        which = f"version {self.pinned}" if self.pinned is not None else f"@{self.alias}"
        asked = f"{self.owner} asks for {self.name} {which}" + (f", sticky {self.sticky}" if self.sticky else "")
        return f"run {self.number} ({asked}; job {self.job_id}, version {self.version}): {'; '.join(self.problems)}"


@dataclass(frozen=True, slots=True)
class World:
    """The API of a whole local stack, an owner's key each, and who moves what."""

    apis: Mapping[str, Api]
    movers: Mapping[str, Mover]
    shared_color: int


@contextmanager
def named_world(folder: Path, *, seed: int) -> Iterator[World]:
    """Start the stack, push what is there from the beginning, and begin to move it."""
    with ExitStack() as running:
        stack = running.enter_context(DevStack(log_folder=folder, workers=2, environment=PRICES))
        apis = {}
        for owner in OWNERS:
            key = f"key-of-the-soak-{owner}-{seed}-{random.SystemRandom().randrange(1 << 60)}"
            stack.keys.register(key, name=f"soak-{owner}", owner=owner)
            apis[owner] = Api(stack.url, key)
        color = random.Random(seed).randrange(1 << 24)
        share(stack, picture(color))
        movers = {owner: Mover(api, owner, seed=seed) for owner, api in apis.items()}
        for mover in movers.values():
            mover.start()
            running.callback(mover.stop)
        yield World(apis, movers, color)


def share(stack: DevStack, graph: dict[str, Any]) -> None:
    """Push a workflow of the operator's, and let everybody run it."""
    bucket = stack.stack.environment_of("ApiFunction")["ASSETS_BUCKET"]
    store = WorkflowStore(JobsTable(stack.aws.dynamodb(), TABLE), stack.aws.client(), bucket)
    width = NamedInput(name="width", targets=("1.width",), kind=InputKind.INTEGER, default=16)
    store.push(Version(name=SHARED, number=0, owner="", graph=graph, inputs=(width,)))
    store.share(SHARED)


class Driver:
    """Sends runs and judges them."""

    def __init__(self, world: World, *, seed: int) -> None:
        self._world, self._seed = world, seed

    def drive(self, number: int) -> Story:
        """Send a run, wait for its end, and compare it with what was asked."""
        draw = random.Random(f"{self._seed} run {number}")
        # Those of a group ask for the same, and come in at about the same time: their sticky key must stick.
        story = self._story(number, random.Random(f"{self._seed} group {number // GROUP}"))
        story.width = draw.randrange(8, 65)
        try:
            self._run(story, draw)
        except Exception as error:  # whatever it is, the soak has found it
            story.problems.append(f"{type(error).__name__}: {error}")
        return story

    def _story(self, number: int, draw: random.Random) -> Story:
        owner = draw.choice(OWNERS)
        name = SHARED if draw.random() < 0.1 else NAME
        is_pinned = name == NAME and draw.random() < 0.15
        return Story(
            number=number,
            owner=owner,
            name=name,
            alias=None if is_pinned else "live" if name == SHARED else draw.choice(ALIASES),
            pinned=draw.choice(self._world.movers[owner].versions()) if is_pinned else None,
            sticky=draw.choice(STICKY) if draw.random() < 0.7 else None,
        )

    def _run(self, story: Story, draw: random.Random) -> None:
        api = self._world.apis[story.owner]
        which = {"version": story.pinned} if story.pinned is not None else {"alias": story.alias}
        query = which | ({"sticky": story.sticky} if story.sticky else {})
        headers = {"Idempotency-Key": f"{self._seed}-{story.number}"} if draw.random() < 0.4 else {}
        asked = {"params": query, "json": {"width": story.width}, "headers": headers}
        path = f"/api/v2/workflows/{story.name}/runs"
        story.sent = time.monotonic()
        job = api.json("POST", path, **asked)
        story.answered = time.monotonic()
        story.job_id, story.version = job["id"], int(job["metadata"]["version"])
        if headers and draw.random() < 0.5:  # sent again, as after a lost answer, when the alias may have moved
            time.sleep(draw.uniform(0, PAUSE_S))
            again = api.json("POST", path, **asked)
            if (again["id"], again["metadata"]) != (job["id"], job["metadata"]):
                story.problems.append(f"sent again it is job {again['id']} with {again['metadata']}")
        until = time.monotonic() + _LONGEST_S
        while job["status"] not in _ENDED and time.monotonic() < until:
            time.sleep(0.2)
            job = api.json("GET", f"/api/v2/jobs/{story.job_id}")
        self._judge_end(story, job, api)

    def _judge_end(self, story: Story, job: Mapping[str, Any], api: Api) -> None:
        if job["status"] != "succeeded":
            story.problems.append(f"it ended as {job['status']}: {job.get('error')}")
            return
        if job["metadata"]["workflow"] != story.name:
            story.problems.append(f"its label says workflow {job['metadata']['workflow']!r}")
        if int(job["metadata"]["version"]) != story.version:
            story.problems.append(f"its label says version {job['metadata']['version']} at its end")
        [output] = job["outputs"]
        with Image.open(io.BytesIO(requests.get(output["url"], timeout=120).content)) as image:
            size, color = image.size, image.convert("RGB").getpixel((0, 0))
        mover = self._world.movers[story.owner]
        wanted = self._world.shared_color if story.name == SHARED else mover.colors[story.version]
        if size != (story.width, 8):
            story.problems.append(f"its picture is {size[0]} wide, and {story.width} was asked for")
        if color != (wanted >> 16, wanted >> 8 & 255, wanted & 255):
            story.problems.append(f"its picture is {color}: that is not the colour of version {story.version}")


def judge_versions(story: Story, movers: Mapping[str, Mover]) -> None:
    """Judge whether a run's version was one that could be meant when it was sent."""
    if story.name == SHARED:
        allowed = {1}
    elif story.pinned is not None:
        allowed = {story.pinned}
    else:
        meanings = movers[story.owner].meanings(str(story.alias), story.sent, story.answered)
        allowed = {version for one in meanings for version in one.weights}
    if story.job_id and story.version not in allowed:
        story.problems.append(f"it got version {story.version}, and only {sorted(allowed)} could be meant then")


def judge_together(stories: Sequence[Story], movers: Mapping[str, Mover]) -> list[str]:
    """What only many runs together show: sticky keys that do not stick, and shares that nobody asked for."""
    stuck: dict[tuple[str, str | None, float, str], set[int]] = {}
    shares: dict[tuple[int, int], list[int]] = {}
    for story in stories:
        if story.name == SHARED or story.pinned is not None or not story.job_id:
            continue
        meanings = movers[story.owner].meanings(str(story.alias), story.sent, story.answered)
        if len(meanings) > 1:
            continue  # it moved at that moment
        [meant] = meanings
        if story.sticky is not None:
            stuck.setdefault((story.owner, story.alias, meant.begun, story.sticky), set()).add(story.version)
        elif len(meant.weights) > 1:
            [(greater, weight), (_, other)] = sorted(meant.weights.items(), key=lambda one: -one[1])
            shares.setdefault((weight, other), []).append(int(story.version == greater))
    problems = [
        f"{owner}'s {sticky} got versions {sorted(versions)} of one meaning of {alias}"
        for (owner, alias, _, sticky), versions in stuck.items()
        if len(versions) > 1
    ]
    for (weight, other), hits in shares.items():
        share, count = weight / (weight + other), len(hits)
        off = abs(sum(hits) - share * count)
        if count >= _ENOUGH and off > _DEVIATIONS * max(1.0, (share * (1 - share) * count) ** 0.5):
            problems.append(f"of {count} runs split {weight}:{other}, {sum(hits)} got the greater share")
    return problems


def lost_jobs(world: World, stories: Sequence[Story]) -> list[str]:
    """The jobs that the API lists and nobody has sent, and those that it does not list."""
    problems = []
    for owner, api in world.apis.items():
        listed: set[str] = set()
        cursor = None
        while True:
            page = api.json("GET", "/api/v2/jobs", params={"limit": 100, **({"cursor": cursor} if cursor else {})})
            listed |= {job["id"] for job in page["jobs"]}
            cursor = page.get("next_cursor")
            if not cursor:
                break
        sent = {story.job_id for story in stories if story.owner == owner and story.job_id}
        problems += [f"{owner}'s job {job_id} is not listed" for job_id in sorted(sent - listed)]
        problems += [f"{owner} has a job {job_id} that nobody sent" for job_id in sorted(listed - sent)]
    return problems


def main() -> int:
    """Run the soak. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.named", description=(__doc__ or "").split(":")[-1])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="the same seed sends the same runs (default: random)")
    given = parser.parse_args()
    seed = random.randrange(100_000) if given.seed is None else given.seed
    console = Console()
    console.print(f"soak of named workflows: {given.runs} runs, {IN_FLIGHT} in flight, seed {seed}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-named-") as folder, named_world(Path(folder), seed=seed) as world:
        begun = time.monotonic()
        stories = _driven(world, given.runs, seed=seed, console=console)
        elapsed_s = time.monotonic() - begun
        for mover in world.movers.values():
            mover.stop()
        for story in stories:
            judge_versions(story, world.movers)
        problems = [str(story) for story in stories if story.problems]
        problems += [problem for mover in world.movers.values() for problem in mover.problems]
        problems += judge_together(stories, world.movers) + lost_jobs(world, stories)
        problems += judge_usage(world.apis, console)
        if len(stories) != given.runs:
            problems.append(f"{len(stories)} of {given.runs} runs have ended")
    _print(console, stories, world, elapsed_s, time.monotonic() - started)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    verdict = f"{len(problems)} problems; again with --seed {seed}" if problems else "every run is right"
    console.print(verdict, style="bold red" if problems else "bold green")
    return 1 if problems else 0


def _driven(world: World, runs: int, *, seed: int, console: Console) -> list[Story]:
    driver, stories = Driver(world, seed=seed), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=console, transient=True) as bar,
        ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="soak-run") as pool,
    ):
        task = bar.add_task("runs", total=runs)
        for run in as_completed([pool.submit(driver.drive, number) for number in range(runs)]):
            stories.append(run.result())
            wrong = sum(bool(story.problems) for story in stories)
            bar.update(task, advance=1, description=f"{wrong} wrong" if wrong else "runs")
    return stories


def _print(console: Console, stories: Sequence[Story], world: World, elapsed_s: float, whole_s: float) -> None:
    table = Table(title=f"{len(stories)} runs in {elapsed_s:.0f} s ({len(stories) / elapsed_s:.1f} a second)")
    table.add_column("what")
    table.add_column("count", justify="right")
    right = sum(not story.problems for story in stories)
    table.add_row("right", f"{right} of {len(stories)}")
    table.add_row("with a sticky key", str(sum(story.sticky is not None for story in stories)))
    table.add_row("of a version by its number", str(sum(story.pinned is not None for story in stories)))
    table.add_row("of what the operator shares", str(sum(story.name == SHARED for story in stories)))
    table.add_section()
    for change, count in sorted(sum((mover.changes for mover in world.movers.values()), Counter()).items()):
        table.add_row(change, str(count))
    table.add_row("versions", " and ".join(str(len(mover.versions())) for mover in world.movers.values()))
    table.add_row("from the start", f"{whole_s:.0f} s")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
