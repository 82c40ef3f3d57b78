"""Every default fits an account that AWS has just opened: 3,008 MB for a function, 10 executions at once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.template.processed import defaults, evaluate, of_type, processed, resources_for

#: Lambda's reduced quotas of new accounts; they are raised on request.
MEMORY_MB, AT_ONCE = 3008, 10
TEMPLATE = processed()
RESOURCES = resources_for(TEMPLATE, defaults())
FUNCTIONS = of_type({"Resources": RESOURCES}, "AWS::Lambda::Function")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_has_more_memory_than_a_new_account_may_give(name: str) -> None:
    assert int(FUNCTIONS[name]["MemorySize"]) <= MEMORY_MB


def test_all_queues_together_start_no_more_than_a_new_account_runs_at_once() -> None:
    mappings = of_type({"Resources": RESOURCES}, "AWS::Lambda::EventSourceMapping")
    assert len(mappings) == 5
    at_once = {name: int(entry["ScalingConfig"]["MaximumConcurrency"]) for name, entry in mappings.items()}
    assert min(at_once.values()) >= 2, "the fewest that Lambda takes"
    assert sum(at_once.values()) <= AT_ONCE, at_once


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_keeps_executions_for_itself(name: str) -> None:
    """An account with 10 must leave all of them unreserved, and the stack fails as a whole."""
    assert "ReservedConcurrentExecutions" not in FUNCTIONS[name]
    aliases = of_type({"Resources": RESOURCES}, "AWS::Lambda::Alias").values()
    assert all("ProvisionedConcurrencyConfig" not in alias for alias in aliases)


def test_what_the_state_machine_starts_beyond_that_is_started_again() -> None:
    """Its map reads a large manifest with three more; Lambda turns them away where there is no room."""
    (machine,) = of_type(TEMPLATE, "AWS::StepFunctions::StateMachine").values()
    reading: dict[str, Any] = machine["Definition"]["States"]["EachRange"]
    (retry,) = reading["ItemProcessor"]["States"]["ReadRange"]["Retry"]
    assert retry["ErrorEquals"] == ["States.ALL"]
    assert retry["MaxAttempts"] >= 5
    assert reading["ToleratedFailurePercentage"] == 100  # and the caretaker has read what was not read at last


def test_the_map_has_a_result_that_fits_however_many_ranges_there_are() -> None:
    """Its result is what all children answer, and may have 256 KiB; it cannot be dropped without a null."""
    (machine,) = of_type(TEMPLATE, "AWS::StepFunctions::StateMachine").values()
    each = machine["Definition"]["States"]["EachRange"]
    states = each["ItemProcessor"]["States"]
    ends = [state for state in states.values() if state.get("End")]
    assert [end["Result"] for end in ends] == [{}]
    assert not {"ResultPath", "ResultSelector", "ResultWriter"} & each.keys()


def test_limits_that_are_asked_for_are_kept() -> None:
    asked = {**defaults(), "MaximumApiConcurrency": 50, "MemorySize": 10_240}
    functions = evaluate(TEMPLATE, of_type(TEMPLATE, "AWS::Lambda::Function"), asked)
    assert functions["ApiFunction"]["ReservedConcurrentExecutions"] == "50"
    assert functions["GenerateFunction"]["MemorySize"] == "10240"
