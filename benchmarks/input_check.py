"""What it costs to check the inputs of a run, as a ratio to reading its body as JSON.

Run it by `python -m benchmarks.input_check`. Processor time, the best of five runs. A check is compiled once for a
version; a request costs a few microseconds, and no more with a thousand choices.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.editor_format import best_s
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.schema import InputCheck
from comfy_serverless.workflows.version import NamedInput, Version

_TIMES = 2_000
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


def _repeat(run: Callable[[], object]) -> None:
    for _ in range(_TIMES):
        run()


def main() -> None:
    """Print a row for each number of choices."""
    floor = best_s(partial(_repeat, partial(json.loads, BODY))) / _TIMES
    print(f"reading the body: {floor * 1e6:.1f} µs")
    for choices in (10, 1_000):
        print(f"{choices:>6} choices: the check costs {ratio(choices):.2f} times as much")


if __name__ == "__main__":
    main()
