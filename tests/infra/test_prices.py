"""What a second of a worker costs is told to it where we know it; what the operator says goes first."""

from __future__ import annotations

import pytest

from infra.prices import of_instances, of_memory
from infra.settings import GpuSettings


def test_a_known_type_has_its_price_and_lambda_takes_more_than_ec2() -> None:
    assert float(of_instances(GpuSettings(), ("ml.g6.xlarge",))["USD_PER_SECOND"]) * 3600 == pytest.approx(1.127)
    assert float(of_instances(GpuSettings(), ("g6.2xlarge", "x"))["USD_PER_SECOND"]) * 3600 == pytest.approx(
        0.978 * 1.15
    )


def test_an_unknown_type_has_none_and_what_is_chosen_goes_first() -> None:
    assert of_instances(GpuSettings(), ("ml.p5.48xlarge",)) == {}
    assert of_instances(GpuSettings(usd_per_second=0.5), ("ml.p5.48xlarge",)) == {"USD_PER_SECOND": "0.5000000000"}
    chosen = GpuSettings(more_settings="USD_PER_SECOND=0.01 MAX_RUNS=2")
    assert of_instances(chosen, ("ml.g6.xlarge",)) == {}, "the worker would find it twice"


def test_a_function_on_processors_costs_by_its_memory() -> None:
    told = of_memory(GpuSettings(), 10_240)
    assert float(told["USD_PER_SECOND"]) == pytest.approx(0.000166667)
    assert told["USD_PER_REQUEST"] == "0.0000002000"
