"""`make bench-api`: how long a small job takes through the API, beyond the engine's own time, and where that goes.

    python -m benchmarks.api_way [--rounds 20] [--slack 1] [--json FILE]

The whole local stack runs, on the engine that the settings name (COMFYUI_DIR for a real ComfyUI), else on the embedded
one. Three clients wait for jobs, in turns with the floor, the same graph sent straight to such an engine: one that asks
again and again, and the official SDK with its events and with `job.result()`. The local AWS tells what it was asked
and when, so that each hop has its time, and the calls that are waited for one after the other can be counted. A test
holds their number (`tests/unit/test_calls_in_a_row.py`): what a call costs on AWS, this machine cannot say.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
from comfy_sdk import Comfy
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

from benchmarks.floor import Floor
from benchmarks.workflows import small_job
from comfy_serverless import ComfyConnector
from local.aws.server import AwsCall
from local.dev import OWNER, DevStack

API, WORKER = "ApiRole", "GenerateRole"
ENDED = frozenset({"succeeded", "failed", "canceled", "expired"})
#: The pause of the client that asks again and again, between an answer and its next request, in seconds.
ASK_AGAIN_S = 0.01
#: How much longer than the engine alone it may take, in ms, by how the client hears of the end.
AT_MOST_MS = {"asking again and again": 100.0, "the SDK's events": 100.0, "the SDK's result()": 150.0}
WARM_UP = 4


@dataclass(frozen=True, slots=True)
class Hop:
    """A part of a job's way.

    Attributes:
        here: what of it is this machine's stand-in for AWS.
        on_aws: what stands there instead.
        begun, ended: in seconds since 1970.
    """

    name: str
    here: str
    on_aws: str
    begun: float
    ended: float


@dataclass(frozen=True, slots=True)
class Way:
    """One job, from its request until its client has heard of the end; moments in seconds since 1970."""

    asked: float
    answered: float
    heard: float

    @property
    def ms(self) -> float:
        """All of it."""
        return (self.heard - self.asked) * 1000


@dataclass(slots=True)
class Figures:
    """What was measured, in ms: by contender, by hop, and of each hop what passed inside the local AWS.

    `rows` are the calls in a row of each leg, `calls` all of them. On a busy machine calls that could be made at the
    same time are not, so that the smallest number of a row counts.
    """

    totals: dict[str, list[float]] = field(default_factory=dict)
    hops: dict[str, list[float]] = field(default_factory=dict)
    inside: dict[str, list[float]] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    seen: dict[str, Hop] = field(default_factory=dict)


def in_a_row(calls: Sequence[AwsCall]) -> list[AwsCall]:
    """The longest chain of calls each of which begins after the end of the one before."""
    chain: list[AwsCall] = []
    for call in sorted(calls, key=lambda one: one.ended):
        if not chain or call.begun >= chain[-1].ended:
            chain.append(call)
    return chain


def inside_ms(hop: Hop, calls: Sequence[AwsCall]) -> float:
    """How much of a hop passed while the local AWS worked on one of these calls."""
    busy, until = 0.0, hop.begun
    for call in sorted(calls, key=lambda one: one.begun):
        begun, ended = max(call.begun, until), min(call.ended, hop.ended)
        if ended > begun:
            busy += ended - begun
            until = ended
    return busy * 1000


def hops_of(way: Way, calls: Sequence[AwsCall]) -> tuple[list[Hop], dict[str, list[AwsCall]]]:
    """The hops of a job, and the calls that were waited for in its three legs.

    `calls` are those of the time between `asked` and `heard`. Raises LookupError if they are not those of one job.
    """
    api, worker = _of(API, calls), _of(WORKER, calls)
    sent = next(call for call in api if call.operation == "sqs:SendMessage")
    stored = [call for call in worker if call.operation == "s3:PUT object"]
    begin = [call for call in worker if call.begun < stored[0].begun]
    ended = [call for call in worker if call.operation == "dynamodb:UpdateItem"][-1]
    to_message = [call for call in api if call.begun <= sent.begun]
    to_end = [call for call in worker if stored[0].begun <= call.begun <= ended.begun]
    begun = max(call.ended for call in begin)
    hops = [
        Hop("request read and checked", "HTTP, process", "API Gateway, Lambda", way.asked, to_message[0].begun),
        Hop("stored, and sent to the queue", "S3, table, queue", "the same", to_message[0].begun, sent.ended),
        Hop("message received, function invoked", "poller, emulator", "Lambda's poller", sent.ended, begin[0].begun),
        Hop("job begun, result looked for", "table, S3", "the same", begin[0].begun, begun),
        Hop("executed", "", "", begun, stored[0].begun),
        Hop("output stored", "S3", "the same", stored[0].begun, stored[0].ended),
        Hop("result and end written", "S3, table", "the same", stored[0].ended, ended.ended),
        Hop("end heard", "table, HTTP", "table, API Gateway", ended.ended, way.heard),
        Hop("beside: marked as sent, answered", "table, HTTP", "table, API Gateway", sent.ended, way.answered),
    ]
    return hops, {
        "from the request to the message": to_message,
        "from the message to the execution": begin,
        "from the last output to the end": to_end,
    }


def _of(role: str, calls: Sequence[AwsCall]) -> list[AwsCall]:
    """A role's calls in their order, without those that take messages from queues: Lambda makes them."""
    taking = {"sqs:ReceiveMessage", "sqs:DeleteMessage"}
    own = [call for call in calls if call.role == role and call.operation not in taking]
    return sorted(own, key=lambda call: call.begun)


def main() -> int:
    """Measure, and print the tables. Returns 1 if a promise is broken."""
    options = _options()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="comfy-bench-api-") as folder:
        (Path(folder) / "logs").mkdir()
        with _floor(Path(folder)) as (floor, engine), DevStack(log_folder=Path(folder) / "logs") as stack:
            clients = Clients(stack)
            with Bar(console=console, transient=True) as bar:
                figures = _measure(clients, floor, stack, options.rounds, bar)
            asides = _asides(clients, stack, options.rounds)
    beyond = _beyond(figures)
    _show(console, figures, beyond, asides, engine)
    if options.json:
        medians = {name: _medians(getattr(figures, name)) for name in ("totals", "hops", "inside")}
        best = {name: _best(values) for name, values in figures.totals.items()}
        document = {"engine": engine, **medians, "best_tenth": best, "beyond": beyond, "asides": asides}
        options.json.write_text(json.dumps(document, indent=2))
    return 0 if all(beyond[name] <= limit * options.slack for name, limit in AT_MOST_MS.items()) else 1


@contextmanager
def _floor(folder: Path) -> Iterator[tuple[Floor, str]]:
    """The bare client of an engine of its own, like the one behind the API; and that engine's name."""
    with patch.dict(os.environ, {"TMPDIR": str(folder)}):
        connector = ComfyConnector()
    try:
        port, output_folder = connector.urlport, connector._engine.folder("output")
        if port is None or output_folder is None:
            raise SystemExit("The benchmark needs an engine that it starts itself: unset COMFYUI_URL.")
        floor = Floor("127.0.0.1", port, output_folder)
        yield floor, connector.engine
        floor.close()
    finally:
        connector.kill_api()


class Clients:
    """Those who wait for jobs."""

    def __init__(self, stack: DevStack) -> None:
        headers = {"Authorization": f"Bearer {stack.api_key}"}
        self._http = httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=60)
        with patch.dict(os.environ, {"COMFY_BASE_URL": stack.url}):
            self._sdk = Comfy(api_key=stack.api_key)
        self.contenders: dict[str, Callable[[], Way]] = dict(
            zip(AT_MOST_MS, (self.ask, self.follow, self.wait), strict=True)
        )

    def ask(self) -> Way:
        """Ask again and again."""
        asked = time.time()
        answer = self._http.post("/api/v2/jobs", json={"workflow": small_job()})
        answer.raise_for_status()
        answered, job = time.time(), answer.json()
        while job["status"] not in ENDED:
            time.sleep(ASK_AGAIN_S)
            job = self._http.get(job["urls"]["self"]).raise_for_status().json()
        assert job["status"] == "succeeded", job
        return Way(asked, answered, time.time())

    def follow(self) -> Way:
        """Read the SDK's events to the last."""
        asked = time.time()
        job = self._submit()
        answered = time.time()
        *_, last = job.events()
        assert last.status == "succeeded", last
        return Way(asked, answered, time.time())

    def wait(self) -> Way:
        """Wait as the SDK's users do."""
        asked = time.time()
        job = self._submit()
        answered = time.time()
        assert job.result().outputs
        return Way(asked, answered, time.time())

    def health_ms(self) -> float:
        """A request that needs no key and no AWS: the HTTP in front, and a function."""
        return self._get_ms("/api/v2/health")

    def nothing_ms(self, key: str | None = None) -> float:
        """A request for a job that is not there, with another key or with the usual one."""
        return self._get_ms(f"/api/v2/jobs/{uuid.uuid4()}", **({"Authorization": f"Bearer {key}"} if key else {}))

    def _get_ms(self, path: str, **headers: str) -> float:
        asked = time.time()
        self._http.get(path, headers=headers)
        return (time.time() - asked) * 1000

    def _submit(self) -> Any:
        return self._sdk.submit(self._sdk.workflows.from_json(small_job()))


def _measure(clients: Clients, floor: Floor, stack: DevStack, rounds: int, bar: Bar) -> Figures:
    figures = Figures()
    names = [*clients.contenders, "floor"]
    task = bar.add_task("small jobs", total=rounds + WARM_UP)
    for number in range(rounds + WARM_UP):
        for name in random.sample(names, len(names)):
            if name == "floor":
                total_ms = floor.run(small_job()).wall_ms
            else:
                way = clients.contenders[name]()
                total_ms = way.ms
            if number >= WARM_UP:
                figures.totals.setdefault(name, []).append(total_ms)
                if name == next(iter(AT_MOST_MS)):
                    _note_hops(figures, way, stack)
        bar.update(task, advance=1)
    return figures


def _note_hops(figures: Figures, way: Way, stack: DevStack) -> None:
    calls = [call for call in stack.aws.calls() if call.begun >= way.asked and call.ended <= way.heard]
    try:
        hops, legs = hops_of(way, calls)
    except (LookupError, StopIteration, ValueError):
        return  # a caretaker, or what is known for a while only, has come between: other rounds have it all
    for hop in hops:
        figures.seen[hop.name] = hop
        figures.hops.setdefault(hop.name, []).append((hop.ended - hop.begun) * 1000)
        figures.inside.setdefault(hop.name, []).append(inside_ms(hop, calls))
    for leg, waited_for in legs.items():
        figures.rows.setdefault(leg, []).append(len(in_a_row(waited_for)))
        figures.calls[leg] = min(len(waited_for), figures.calls.get(leg, len(waited_for)))


def _asides(clients: Clients, stack: DevStack, rounds: int) -> dict[str, float]:
    """Medians of what a job does not show: the front alone, and what a key costs that is not known yet."""
    times: dict[str, list[float]] = {"front and function, no AWS": [], "with a known key": [], "with a new key": []}
    for number in range(rounds):
        key = f"key-of-the-benchmark-{number:06}-{uuid.uuid4().hex}"
        stack.keys.register(key, name="bench", owner=OWNER)
        times["front and function, no AWS"].append(clients.health_ms())
        times["with a known key"].append(clients.nothing_ms())
        times["with a new key"].append(clients.nothing_ms(key))
    return _medians(times)


def _beyond(figures: Figures) -> dict[str, float]:
    totals = _medians(figures.totals)
    return {name: totals[name] - totals["floor"] for name in AT_MOST_MS}


def _medians(lists: dict[str, list[Any]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in lists.items()}


def _best(values: Sequence[float]) -> float:
    """The best tenth, when the machine had least to do beside."""
    return sorted(values)[len(values) // 10]


def _show(console: Console, figures: Figures, beyond: dict[str, float], asides: dict[str, float], engine: str) -> None:
    totals, hops, inside = _medians(figures.totals), _medians(figures.hops), _medians(figures.inside)
    heard = Table(
        "a small job, heard by", "ours", "floor", "beyond", "at most", "", "best tenth", title=engine, box=None
    )
    for name, limit in AT_MOST_MS.items():
        mark = "[green]kept[/]" if beyond[name] <= limit else "[red]missed[/]"
        cells = (f"{totals[name]:.0f} ms", f"{totals['floor']:.1f} ms", f"{beyond[name]:.0f} ms", f"{limit:g} ms")
        heard.add_row(name, *cells, mark, f"{_best(figures.totals[name]):.0f} ms")
    console.print(heard)
    where = Table("hop (asking again and again)", "ms", "in the local AWS", "stand-in here", "on AWS", box=None)
    for name, ms in hops.items():
        hop = figures.seen[name]
        where.add_row(name, f"{ms:.1f}", f"{inside[name]:.1f}", hop.here, hop.on_aws)
    for name, ms in asides.items():
        where.add_row(f"aside: {name}", f"{ms:.1f}", "", "", "")
    console.print(where)
    rows = Table("calls of AWS", "all", "in a row", box=None)
    for leg, counts in figures.rows.items():
        rows.add_row(leg, str(figures.calls[leg]), str(min(counts)))
    console.print(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.api_way", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="jobs of each client (default 20)")
    parser.add_argument("--slack", type=float, default=1.0, help="how far a figure may miss its limit (default 1)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
