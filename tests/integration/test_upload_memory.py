"""A hundred megabytes of outputs go from disk to S3 without ever being in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.seed import OUTPUT_BUCKET
from local.aws.server import LocalAws

MB = 1_000_000
#: What a process may need above its idle state while it delivers.
MOST_MB = 40

_PROGRAM = """
import json, re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comfy_serverless.worker.delivery import UPLOAD_THREADS
from comfy_serverless.aws.s3 import S3Address, s3_client
from comfy_serverless.worker.put import upload

def memory_mb(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000

def deliver(path, key):
    with path.open("rb") as stream:
        return upload(s3, stream, S3Address(sys.argv[1], key), content_type="image/png").size_bytes

s3 = s3_client()
folder = Path(sys.argv[2])
deliver(folder / "small", "memory/warm-up")
idle = memory_mb("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
    sizes = list(pool.map(lambda path: deliver(path, f"memory/{path.name}"), sorted(folder.glob("large*"))))
print(json.dumps({"above_idle_mb": memory_mb("VmHWM") - idle, "sizes": sizes}))
"""


@pytest.mark.parametrize(
    ("count", "size_bytes"), [(8, 12 * MB), (1, 100 * MB)], ids=["eight images", "one video, in parts"]
)
def test_a_hundred_megabytes_are_delivered_in_little_memory(
    local_s3: LocalAws, tmp_path: Path, count: int, size_bytes: int
) -> None:
    (tmp_path / "small").write_bytes(b"x")
    for number in range(count):
        (tmp_path / f"large-{count}-{number}").write_bytes(os.urandom(size_bytes))
    answer = subprocess.run(
        [sys.executable, "-c", _PROGRAM, OUTPUT_BUCKET, str(tmp_path)],
        env={**os.environ, **local_s3.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["sizes"] == [size_bytes] * count
    assert figures["above_idle_mb"] < MOST_MB
