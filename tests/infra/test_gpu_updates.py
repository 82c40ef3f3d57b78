"""Deploying a GPU stack again, with other settings or from a newer release, replaces nothing that holds data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.settings import GpuSettings
from tests.infra.permissions import plain
from tests.infra.stacks import EVERYTHING, ROOT, STACKS, every_stack
from tests.updates import HOLD_DATA, holding_data, unknown_types

pytestmark = pytest.mark.timeout(600)
#: Another value for each of the others, but for `stack` and `release`, which make another stack.
OTHER = EVERYTHING | {
    "log_retention_days": 7,
    "torch_index_url": "https://download.pytorch.org/whl/cu126",
    "comfyui_ref": "v0.3.64",
    "comfyui_args": "--highvram",
    "instance_types": ["ml.g5.xlarge", "ml.g6.xlarge"],
    "max_instances": 5,
    "in_flight": 2,
    "backlog_per_instance": 9,
    "scale_in_cooldown_s": 60,
    "startup_timeout_s": 600,
    "models_timeout_s": 600,
    "cpu_memory_mb": 4096,
    "accelerator_memory_gb": 48,
    "lambda_instance_types": ["g6e.2xlarge"],
    "memory_mb": 8192,
    "temporary_storage_mb": 10_240,
    "max_environments": 9,
    "max_batch_environments": 3,
}
#: The log is named as its endpoint, of which there is another when the types of its instances change. The old one's
#: lines go with it.
WITH_THE_ENDPOINT = {"EndpointLog"}
#: An own network goes when another is named, with the log of what it has refused.
WITH_THE_NETWORK = {"FlowLog"}


def made(stack: str, **settings: Any) -> dict[str, dict[str, Any]]:
    """What of a stack holds data, by the names that CloudFormation knows it by."""
    return holding_data(every_stack(**settings)[stack]["Resources"])


@pytest.mark.parametrize("stack", STACKS)
def test_other_settings_replace_nothing_that_holds_data(stack: str) -> None:
    assert OTHER.keys() | {"stack", "release", "availability_zones"} == GpuSettings.model_fields.keys(), (
        "a setting that is not tried"
    )
    before, after = (
        holding_data(every_stack()[stack]["Resources"]),
        holding_data(every_stack(**OTHER)[stack]["Resources"]),
    )
    assert {plain(name) for name in before.keys() - after.keys()} <= WITH_THE_NETWORK
    replaced = {plain(name) for name in before.keys() & after.keys() if before[name] != after[name]}
    assert replaced == (WITH_THE_ENDPOINT if "sagemaker" in stack else set())


@pytest.mark.parametrize("stack", STACKS)
def test_a_release_replaces_nothing_of_the_one_before(stack: str) -> None:
    """What the stacks have that exist; others may have come since."""
    kept = json.loads((ROOT / "tests/fixtures/template/holding_data_gpu.json").read_text(encoding="utf-8"))[stack]
    assert {name: made(stack).get(name) for name in kept} == kept
    assert kept


@pytest.mark.parametrize("stack", STACKS)
def test_of_every_type_somebody_has_said_whether_it_holds_data(stack: str) -> None:
    assert unknown_types(every_stack()[stack]) == set()
    found = {
        every_stack()[stack]["Resources"][name]["Type"] for name in holding_data(every_stack()[stack]["Resources"])
    }
    assert found == {"AWS::SQS::Queue", "AWS::Logs::LogGroup", "AWS::SSM::Parameter"} <= HOLD_DATA
