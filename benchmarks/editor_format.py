"""What it costs to convert a workflow of the editor, as a ratio to reading its JSON.

Run it by `python -m benchmarks.editor_format`. Processor time, the best of five runs; a workflow grows tenfold, and
what a node costs should not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from comfy_serverless.graph.convert import to_prompt

_RUNS = 5
_DECLARATIONS: Mapping[str, Any] = {
    "Sample": {
        "input": {
            "required": {
                "latent": ["LATENT"],
                "seed": ["INT", {"default": 0, "control_after_generate": True}],
                "steps": ["INT", {"default": 20}],
                "cfg": ["FLOAT", {"default": 8.0}],
                "sampler": [["euler", "heun"], {}],
                "text": ["STRING", {"multiline": True, "dynamicPrompts": True}],
            }
        },
        "output": ["LATENT"],
    }
}


def workflow(count: int, *, through: str = "Sample", mode: int = 0) -> dict[str, Any]:
    """A chain of nodes, each linked to the one before it.

    Args:
        through: the class of every second node.
        mode: and its mode.
    """
    nodes, links = [], []
    for number in range(1, count + 1):
        is_second = number % 2 == 0
        linked = [{"name": "latent", "type": "LATENT", "link": number if number > 1 else None}]
        nodes.append(
            {
                "id": number,
                "type": through if is_second else "Sample",
                "mode": mode if is_second else 0,
                "inputs": linked,
                "outputs": [{"name": "LATENT", "type": "LATENT", "links": [number + 1]}],
                "widgets_values": [7, "fixed", 20, 7.5, "heun", "a {red|blue} fox"],
            }
        )
        links.append([number + 1, number, 0, number + 1, 0, "LATENT"])
    return {"nodes": nodes, "links": links, "version": 0.4}


def best_s(run: Callable[[], object]) -> float:
    """The least processor time of a few runs, in seconds."""

    def once() -> float:
        begun = time.process_time()
        run()
        return time.process_time() - begun

    return min(once() for _ in range(_RUNS))


def main() -> None:
    """Print a line for each kind and size."""
    print(f"{'what':28} {'nodes':>7} {'us a node':>10} {'x reading its JSON':>19}")
    kinds = (("nodes", "Sample", 0), ("half of them bypassed", "Sample", 4), ("half reroutes", "Reroute", 0))
    for what, through, mode in kinds:
        for count in (100, 1000, 10_000):
            document = workflow(count, through=through, mode=mode)
            ours = best_s(partial(to_prompt, document, _DECLARATIONS))
            floor = best_s(partial(json.loads, json.dumps(document)))
            print(f"{what:28} {count:7} {ours / count * 1e6:10.1f} {ours / floor:19.1f}")


if __name__ == "__main__":
    main()
