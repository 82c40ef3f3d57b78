"""What there is of memory, and what processes hold of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from comfy_serverless.connector import memory

MEMINFO = "MemTotal:       32000 kB\nMemFree:         1000 kB\nMemAvailable:   20000 kB\n"


def folder(base: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text)
    return base


GROUPS: Mapping[str, tuple[Mapping[str, str], int, int]] = {
    "no container": ({}, 32000 * 1024, 20000 * 1024),
    "a container without a limit": (
        {"memory.max": "max\n", "memory.current": "5000\n", "memory.stat": "inactive_file 0\n"},
        32000 * 1024,
        20000 * 1024,
    ),
    "a limit, and files that can be dropped": (
        {"memory.max": "1000000\n", "memory.current": "900000\n", "memory.stat": "anon 1\ninactive_file 300000\n"},
        1_000_000,
        400_000,
    ),
    "the older control groups": (
        {
            "memory/memory.limit_in_bytes": "1000000\n",
            "memory/memory.usage_in_bytes": "900000\n",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n",
        },
        1_000_000,
        200_000,
    ),
    "the older ones without a limit": (
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": "0\n",
            "memory/memory.stat": "",
        },
        32000 * 1024,
        20000 * 1024,
    ),
    "a container that is full": (
        {"memory.max": "1000\n", "memory.current": "2000\n", "memory.stat": "inactive_file 0\n"},
        1000,
        0,
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_container_counts_where_it_has_less_than_the_machine(tmp_path: Path, case: str) -> None:
    files, total, available = GROUPS[case]
    proc, groups = folder(tmp_path / "proc", {"meminfo": MEMINFO}), folder(tmp_path / "groups", files)
    assert memory.total_bytes(proc=proc, groups=groups) == total
    assert memory.available_bytes(proc=proc, groups=groups) == available


def test_where_nothing_says_it_there_is_no_room_and_no_total(tmp_path: Path) -> None:
    assert memory.total_bytes(proc=tmp_path, groups=tmp_path) is None
    assert memory.available_bytes(proc=tmp_path, groups=tmp_path) == 0
    assert memory.resident_bytes(1, proc=tmp_path) == 0
    assert memory.peak_bytes(1, proc=tmp_path) == 0


def test_a_process_counts_with_those_that_it_has_started() -> None:
    keep = "import sys; kept = b'1' * 50_000_000; print(); sys.stdin.read()"
    shell = subprocess.Popen(
        ["sh", "-c", f'{sys.executable} -c "{keep}"; true'], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        assert memory.peak_bytes(shell.pid) < 50_000_000, "the shell alone"
        assert memory.resident_bytes(shell.pid) > 50_000_000
    assert memory.resident_bytes(shell.pid) == 0


def test_the_peak_of_a_process_is_no_less_than_what_it_holds() -> None:
    own = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert memory.peak_bytes(os.getpid()) >= 0.9 * own


def test_the_memory_of_all_gpus_counts_and_none_of_the_processor() -> None:
    gpu = {"type": "cuda", "vram_total": 100, "vram_free": 30, "torch_vram_total": 50, "torch_vram_free": 10}
    processor = {"type": "cpu", "vram_total": 1000, "vram_free": 1}
    assert memory.gpu_bytes({"devices": [gpu, gpu]}) == (140, 200)
    assert memory.gpu_bytes({"devices": [processor]}) == (0, 0)
    assert memory.gpu_bytes({}) == (0, 0)
