"""What the console has to show: jobs of each kind, labels, named workflows, a batch; made once, over the API.

Two owners have some. What is the other's never shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.patience import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]
#: A name that would run, if anything took it for more than a text.
HOSTILE = "<img src=x onerror=alert(1)>\"'</script><b>"
LABELS = {"campaign": "autumn", "market": "nordics"}


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a key of the stack, and the API as he uses it."""

    url: str
    owner: str
    key: str

    def request(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """What the API answers, read from JSON; an answer that is no 2xx fails the test."""
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = requests.request(
            method, self.url + path, json=body, headers=headers, **{"timeout": PATIENCE_S, **more}
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def submit(self, graph: Mapping[str, Any], **more: Any) -> str:
        """A job's id; it is not over yet."""
        job_id: str = self.request("POST", "/api/v2/jobs", {"workflow": graph, **more})["id"]
        return job_id

    def knows_nodes(self) -> bool:
        """Whether the API knows the workers' nodes: inputs are proposed by them when a workflow is pushed."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return requests.get(f"{self.url}/api/v2/object_info/KSampler", headers=headers, timeout=PATIENCE_S).ok

    def job(self, job_id: str) -> Any:
        """A job as it is now."""
        return self.request("GET", f"/api/v2/jobs/{job_id}")

    def end_of(self, job_id: str, *, within_s: float = PATIENCE_S) -> Any:
        """A job once it is over."""
        assert wait_until(lambda: self.job(job_id)["completed_at"], within_s=within_s), self.job(job_id)
        return self.job(job_id)


@dataclass(frozen=True, slots=True)
class Samples:
    """The ids of an owner's jobs, by how they ended."""

    person: Person
    succeeded: tuple[str, ...]
    failed: str
    labeled: str
    hostile: str
    named: str
    workflows: tuple[str, ...]


def make_samples(person: Person) -> Samples:
    """Make an owner's data; returns once all is over."""
    succeeded = tuple(person.submit(picture(color)) for color in (0xCC3322, 0x3355BB, 0x22AA66, 0xEEBB22))
    failed = person.submit(failing())
    labeled = person.submit(picture(0x8844AA, count=3), metadata=LABELS)
    hostile = person.submit(picture(0x117788, prefix="<svg onload=alert(1)>"), metadata={"note": HOSTILE})
    person.end_of(succeeded[0])  # a worker that has run something has told what nodes there are
    assert wait_until(person.knows_nodes)
    for name in ("text_to_image", "thumbnail"):
        graph = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        person.request("PUT", f"/api/v2/workflows/{name}", {"workflow": graph})
    named = person.request("POST", "/api/v2/workflows/text_to_image/runs", {})["id"]
    for job_id in (*succeeded, labeled, hostile, named):
        assert (job := person.end_of(job_id))["status"] == "succeeded", job
    assert person.end_of(failed)["status"] == "failed"
    return Samples(
        person=person,
        succeeded=succeeded,
        failed=failed,
        labeled=labeled,
        hostile=hostile,
        named=named,
        workflows=("text_to_image", "thumbnail"),
    )


def picture(color: int, *, count: int = 1, size: int = 256, prefix: str = "sample") -> dict[str, Any]:
    """Pictures of one color, which differ in nothing."""
    filled = {"width": size, "height": size, "batch_size": count, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": filled},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def failing() -> dict[str, Any]:
    """Its second node fails: a blur that is wider than its picture."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
        "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 1.0}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "blurred"}},
    }


def painting(*, steps: int, seed: int = 7) -> dict[str, Any]:
    """One that takes 20 ms a step, and shows previews meanwhile."""
    graph: dict[str, Any] = json.loads((ROOT / "workflows" / "text_to_image.json").read_text(encoding="utf-8"))
    nodes = {node["class_type"]: node["inputs"] for node in graph.values()}
    nodes["KSampler"] |= {"steps": steps, "seed": seed}
    nodes["EmptyLatentImage"] |= {"width": 64, "height": 64}
    return graph
