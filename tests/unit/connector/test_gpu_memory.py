"""The peak of the GPUs' memory: the most that was seen, at a few looks a second; unknown where nothing says it."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from comfy_serverless.connector import gpu_memory
from comfy_serverless.connector.gpu_memory import PeakGauge, used_bytes


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    gpu_memory._devices.cache_clear()
    yield
    gpu_memory._devices.cache_clear()


def gauge_at(monkeypatch: pytest.MonkeyPatch, readings: list[tuple[float, int | None]]) -> PeakGauge:
    asked = [used for _, used in readings]
    gauge = PeakGauge(lambda: asked.pop(0))
    for at_s, _ in readings:
        monkeypatch.setattr(time, "monotonic", lambda at_s=at_s: at_s)
        gauge.look()
        gauge.look()  # at the same moment nothing is asked
    return gauge


def test_the_most_that_was_seen_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = gauge_at(monkeypatch, [(10.0, 5_000_000), (11.0, 9_400_000), (12.0, None), (13.0, 7_000_000)])
    assert gauge.peak_mb == 9


def test_what_was_never_known_is_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gauge_at(monkeypatch, [(10.0, None), (11.0, None)]).peak_mb is None
    assert PeakGauge().peak_mb is None


class Library:
    """What the driver's library answers."""

    def __init__(self, used: list[int], *, refuses: bool = False) -> None:
        self.used, self.refuses = used, refuses

    def nvmlInit_v2(self) -> int:  # noqa: N802  (the library's names)
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.used)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: Any, device: Any) -> int:  # noqa: N802
        device._obj.value = number.value + 1
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.used = self.used[device.value - 1]
        return 4 if self.refuses else 0


def test_all_gpus_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": lambda _: Library([3, 4])}))
    assert used_bytes() == 7


def test_a_refusal_and_no_gpu_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in (Library([3], refuses=True), Library([])):
        gpu_memory._devices.cache_clear()
        fake = SimpleNamespace(**{**vars(ctypes), "CDLL": lambda _, library=library: library})
        monkeypatch.setattr(gpu_memory, "ctypes", fake)
        assert used_bytes() is None


def test_without_the_library_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_memory, "_LIBRARY", "libno-such-thing.so.1")
    assert used_bytes() is None
