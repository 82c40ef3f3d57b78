"""The metrics of one process, as CloudWatch reads them in the log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_serverless.connector.upkeep import Condition
from comfy_serverless.worker.metrics import Meter

MB = 1_000_000


def counted(meter: Meter, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    meter.count([])
    [line] = capsys.readouterr().out.splitlines()
    return {name: value[0] for name, value in json.loads(line).items() if isinstance(value, list)}


def test_starts_and_replacements_are_counted_once_and_memory_is_told_each_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conditions = [
        Condition(starts=1),
        Condition(starts=1, resident_bytes=512 * MB, gpu_bytes=3 * MB),
        Condition(starts=3, recycled=1, resident_bytes=256 * MB),
        Condition(starts=3, recycled=1, resident_bytes=256 * MB),
    ]
    meter = Meter(iter(conditions).__next__, not_loaded=lambda: 0)
    assert counted(meter, capsys) == {"ColdStart": 1, "EngineStarts": 1, "EngineRecycled": 0}
    read = counted(meter, capsys)
    assert (read["EngineStarts"], read["EngineMemoryMb"], read["EngineGpuMemoryMb"]) == (0, 512, 3)
    replaced = counted(meter, capsys)
    assert (replaced["EngineStarts"], replaced["EngineRecycled"], replaced["EngineMemoryMb"]) == (2, 1, 256)
    assert "EngineGpuMemoryMb" not in replaced
    assert counted(meter, capsys)["EngineRecycled"] == 0
