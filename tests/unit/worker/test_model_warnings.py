"""What a job is told of its models, and in whose name they are held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from comfy_serverless.jobs.request import ModelRequest
from tests.unit.fakes import WORKFLOW, World


class Models:
    """A store that has every model, and says so."""

    warnings = ("The model 'vae/a.safetensors' has no sha256 in the request.",)

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], str]] = []

    def hold(self, models: Sequence[ModelRequest], *, job_id: str, deadline: float, owner: str = "?") -> Models:
        self.asked.append((tuple(model.url for model in models), owner))
        return self

    def show(self, deadline: float) -> None: ...

    def release(self) -> None: ...


def test_what_a_store_says_is_among_the_warnings_of_the_job(world: Callable[..., World]) -> None:
    here: Any = world()
    here.worker._models = models = Models()
    url = "https://example.com/a.safetensors"
    outcome = here.run({"job_id": "j", "workflow": WORKFLOW, "models": [{"url": url, "folder": "vae"}]})
    assert outcome.error is None
    assert models.warnings[0] in outcome.job.warnings
    assert models.warnings[0] in here.result("j")["warnings"]
    assert models.asked == [((url,), "")], "in the operator's name: it came without a key"
