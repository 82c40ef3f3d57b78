"""What it costs to check the inputs of a run, and to make a job's request of them, beside reading as much JSON.

Run it by `python -m benchmarks.input_check`. Processor time, the best of five runs. A check is compiled once for a
version; a request costs a few microseconds, and no more with a thousand choices. What is put together for the job are
copies of the graph and of the editor's workflow, which have to be read from JSON: that is the floor.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.editor_format import best_s
from benchmarks.named_lines import GRAPH, INPUTS, OneWorkflow
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.schema import InputCheck
from comfy_serverless.workflows.version import NamedInput, Version

_TIMES = 2_000
_RUNS = 50
#: A typical request.
BODY = json.dumps(
    {
        "prompt": "a red fox in the snow, seen from above, late light",
        "negative_prompt": "text, watermark",
        "photo": "s3://my-photos/fox.jpg",
        "seed": 18446744073709551615,
        "steps": 20,
        "cfg": 7.5,
        "sampler": "choice 7",
        "tiled": True,
    }
)


def version(choices: int) -> Version:
    """A version with an input for each of the body's; one has so many choices."""

    def one(name: str, kind: InputKind, **more: Any) -> NamedInput:
        return NamedInput(name=name, targets=(f"1.{name}",), kind=kind, **more)

    return Version(
        name="poster",
        number=1,
        owner="",
        graph={},
        inputs=(
            one("prompt", InputKind.TEXT),
            one("negative_prompt", InputKind.TEXT),
            one("photo", InputKind.FILE, media="image", is_required=True),
            one("seed", InputKind.INTEGER, role=Role.SEED, minimum=0, maximum=2**64 - 1),
            one("steps", InputKind.INTEGER, minimum=1, maximum=10_000),
            one("cfg", InputKind.NUMBER, minimum=0.0, maximum=100.0),
            one("sampler", InputKind.CHOICE, choices=tuple(f"choice {number}" for number in range(choices))),
            one("tiled", InputKind.BOOLEAN),
        ),
    )


def ratio(choices: int) -> float:
    """The time of a check, divided by that of reading the body."""
    check, values = InputCheck.of(version(choices)), json.loads(BODY)
    return best_s(partial(_repeat, partial(check.problems, values))) / best_s(
        partial(_repeat, partial(json.loads, BODY))
    )


#: As the editor saves it: some 15 KB.
EDITORS: dict[str, Any] = {
    "nodes": [
        {
            "id": number,
            "type": "KSampler",
            "pos": [number * 10, 5],
            "size": [300, 400],
            "flags": {},
            "order": number,
            "mode": 0,
            "inputs": [{"name": "model", "type": "MODEL", "link": number}],
            "outputs": [{"name": "LATENT", "type": "LATENT", "links": [number]}],
            "properties": {"Node name for S&R": "KSampler"},
            "widgets_values": [number, "randomize", 20, 8, "euler", "normal", 1],
        }
        for number in range(40)
    ],
    "links": [[number, number, 0, number + 1, 0, "MODEL"] for number in range(60)],
    "version": 0.4,
}


class NamedRun:
    """A run by name in a process that has read the version before.

    Attributes:
        reads: of the table, by one run.
    """

    def __init__(self) -> None:
        version = Version(name="poster", number=1, owner="team", graph=GRAPH, editors=EDITORS, inputs=INPUTS)
        self._store = OneWorkflow(version)
        self._finder = Finder(self._store, None, lambda: None)
        self._request = JobRequest.parse({"workflow": "poster", "inputs": {"prompt": "a red fox", "seed": 5}})
        self._texts = json.dumps(GRAPH), json.dumps(EDITORS)
        self._run()
        before = self._store.reads
        self._run()
        self.reads = self._store.reads - before

    def costs_ms(self) -> tuple[float, float]:
        """(finding the version, checking the inputs and making the job's request; the floor) in ms."""
        ours, floor = (
            best_s(partial(_repeat, run, times=_RUNS)) / _RUNS * 1000 for run in (self._run, self._read_copies)
        )
        return ours, floor

    def _run(self) -> None:
        self._finder.expand(self._request, owner="team", key="1", strict=True)

    def _read_copies(self) -> None:
        for text in self._texts:
            json.loads(text)


def _repeat(run: Callable[[], object], *, times: int = _TIMES) -> None:
    for _ in range(times):
        run()


def main() -> None:
    """Print a row for each number of choices."""
    floor = best_s(partial(_repeat, partial(json.loads, BODY))) / _TIMES
    print(f"reading the body: {floor * 1e6:.1f} µs")
    for choices in (10, 1_000):
        print(f"{choices:>6} choices: the check costs {ratio(choices):.2f} times as much")
    run = NamedRun()
    ours, copies = run.costs_ms()
    print(f"a run by name: {ours:.2f} ms and {run.reads} read of the table; reading its copies alone: {copies:.2f} ms")


if __name__ == "__main__":
    main()
