"""When a process is replaced: each reading is what it holds between two jobs, in MB."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest

from comfy_serverless.connector.recycling import FIRST_JOBS, Reading, Recycling, Step

MB = 1_000_000


def recycling(*, growth: int = 1000, gpu_growth: int = 1000, max_jobs: int | None = None) -> Recycling:
    return Recycling(growth * MB, gpu_growth * MB, max_jobs)


class Engine:
    """A process that leaks, and keeps models until it is told to free its memory."""

    def __init__(self, rule: Recycling, *, base: int = 500, leak: float = 0, gpu_leak: float = 0) -> None:
        self.rule = rule
        self.jobs = 0
        self.frees = 0
        self.base = base
        self._leak, self._gpu_leak = leak, gpu_leak
        self._models: dict[str, int] = {}
        self._seen: set[str] = set()

    def run(self, *models: tuple[str, int]) -> bool:
        """Run a job with these models; whether the process is to be replaced."""
        self.jobs += 1
        is_new = not {name for name, _ in models} <= self._seen
        self._seen |= {name for name, _ in models}
        self._models |= dict(models)
        step = self.rule.observe(self._reading(is_new))
        if step is Step.FREE:
            self.frees += 1
            self._models.clear()
            step = self.rule.observe_freed(self._reading(False))
        return step is Step.REPLACE

    def run_until_replaced(self, jobs: Iterable[tuple[tuple[str, int], ...]]) -> int | None:
        """The number of jobs after which it is replaced; None if it is not."""
        return next((self.jobs for models in jobs if self.run(*models)), None)

    def _reading(self, is_new: bool) -> Reading:
        held = self.base + sum(self._models.values()) + self._leak * self.jobs
        return Reading(self.jobs, round(held * MB), round(self._gpu_leak * self.jobs * MB), is_new)


def same(jobs: int, *models: tuple[str, int]) -> Iterable[tuple[tuple[str, int], ...]]:
    return (models for _ in range(jobs))


def test_a_leak_is_found_when_it_has_grown_by_the_limit() -> None:
    engine = Engine(recycling(), leak=10)
    assert engine.run_until_replaced(same(1000)) == FIRST_JOBS + 101
    assert engine.rule.reason == (
        "after 104 jobs it holds 1540 MB of memory that it cannot let go of: "
        "1010 MB more than after its first jobs (ENGINE_GROWTH_BYTES)"
    )


def test_a_leak_on_the_gpu_is_found_too() -> None:
    engine = Engine(recycling(), gpu_leak=10)
    assert engine.run_until_replaced(same(1000)) == FIRST_JOBS + 101
    assert "1040 MB of memory of the GPU" in engine.rule.reason


def test_beside_models_that_were_loaded_from_the_first_job_on_it_is_found_after_twice_the_limit() -> None:
    engine = Engine(recycling(), leak=10)
    found = engine.run_until_replaced(same(1000, ("sd.safetensors", 6000)))
    assert found is not None
    assert found <= FIRST_JOBS + 203
    assert engine.frees == 2


def test_memory_that_does_not_grow_is_never_looked_into() -> None:
    engine = Engine(recycling())
    assert engine.run_until_replaced(same(10_000, ("sd.safetensors", 6000))) is None
    assert engine.frees == 0


def test_a_model_that_is_used_for_the_first_time_is_no_leak() -> None:
    engine = Engine(recycling())
    jobs = [*same(10), *same(10, ("a", 2000)), *same(10), *same(10, ("b", 900)), *same(100, ("a", 2000))]
    assert engine.run_until_replaced(jobs) is None
    assert engine.frees == 0


def test_one_that_is_much_larger_than_the_limit_is_loaded_once_more_at_most() -> None:
    engine = Engine(recycling())
    assert engine.run_until_replaced([*same(10), *same(100, ("a", 6000))]) is None
    assert engine.frees == 1


def test_models_that_take_turns_never_cost_a_process() -> None:
    """Each new model is explained; together they are looked into a few times, and found to be well used."""
    engine = Engine(recycling())
    jobs = [((f"lora-{number % 40}", 300),) for number in range(4000)]
    assert engine.run_until_replaced(jobs) is None
    assert engine.frees <= 40 * 300 / 3000 + 1


def test_a_leak_is_found_where_each_job_names_another_model() -> None:
    engine = Engine(recycling(), leak=10)
    jobs = [((f"lora-{number}", 0),) for number in range(2000)]
    found = engine.run_until_replaced(jobs)
    assert found is not None
    assert found <= FIRST_JOBS + 301


def test_a_pack_that_keeps_its_own_models_costs_one_process_at_most_in_many_jobs() -> None:
    """What it keeps is not let go of; but first uses are not looked into, so it is not replaced after each of them."""
    engine = Engine(recycling())
    assert engine.run_until_replaced(same(10)) is None
    engine.run(("pack", 0))
    engine.base += 2500
    engine._seen.discard("pack")
    assert engine.run_until_replaced(same(1000, ("pack", 0))) is None


def test_growth_is_counted_from_what_the_first_jobs_leave() -> None:
    engine = Engine(recycling())
    engine.run()
    engine.base += 3000  # libraries and the GPU's context come with the first job that needs them
    assert engine.run_until_replaced(same(1000)) is None
    assert engine.frees == 0


@pytest.mark.parametrize("max_jobs", [1, 5, 100])
def test_after_so_many_jobs_it_is_replaced_whatever_it_holds(max_jobs: int) -> None:
    engine = Engine(recycling(max_jobs=max_jobs))
    assert engine.run_until_replaced(same(1000)) == max_jobs
    assert f"ENGINE_MAX_JOBS={max_jobs}" in engine.rule.reason


def test_a_replacement_that_fails_is_tried_again_later_and_later() -> None:
    engine = Engine(recycling(), leak=50)
    tries: list[int] = []
    while len(tries) < 4:
        if engine.run():
            tries.append(engine.jobs)
            assert engine.rule.put_off(engine.jobs) > engine.jobs
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[0] >= 10
    assert pauses[1] >= 20
    assert pauses[2] >= 40


def test_the_number_of_jobs_waits_for_the_next_try_too() -> None:
    rule = recycling(max_jobs=5)
    assert rule.has_run_enough(5)
    again_at = rule.put_off(5)
    assert not rule.has_run_enough(again_at - 1)
    assert rule.has_run_enough(again_at)
