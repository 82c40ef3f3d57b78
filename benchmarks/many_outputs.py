"""Measures what one look at a job costs the API's function in processor time, by how many outputs the job has.

    python -m benchmarks.many_outputs [--rounds N] [--slack 1]

The floor in the same run makes the same query to the table, and answers with the number of its items. The promise is of
`GET /jobs/{id}` with 1,000 outputs, the most that a document lists: half a second of processor time. Exits with 1 if
it is broken.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from benchmarks.api_latency import FLOOR, event
from comfy_serverless.handlers.wiring_api import services
from comfy_serverless.jobs.document import Job, JobStatus, Output
from comfy_serverless.table.job_state import NewJob
from local.aws.lambda_emulator import LambdaEmulator
from local.aws.server import LocalAws
from local.aws.stack import LocalStack

LIMIT_MS = 500.0
COUNTS = (1, 100, 1000)
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def job_of(count: int) -> str:
    """A job that has ended with so many texts, written by the stores that the environment names."""
    jobs = services().jobs
    job_id = f"bench-{count}-{time.time_ns()}"
    bucket = os.environ["OUTPUT_BUCKET"]
    jobs.submit(
        NewJob(
            job_id=job_id,
            owner="bench",
            request_uri=f"s3://{os.environ['ASSETS_BUCKET']}/requests/bench/{job_id}.json",
            result_uri=f"s3://{bucket}/owners/bench/{job_id}/result.json",
        )
    )
    state = jobs.begin(job_id, run="run").state
    if state is None:
        raise RuntimeError(f"the job {job_id} could not be begun")
    outputs = [
        Output(
            node_id=str(number),
            name="text.txt",
            type="text",
            content_type="text/plain",
            size_bytes=3,
            id=f"{number:032}",
            job_id=job_id,
            s3_uri=f"s3://{bucket}/owners/bench/{job_id}/{number}/text.txt",
            sha256="0" * 64,
        )
        for number in range(count)
    ]
    jobs.put_outputs(state, list(enumerate(outputs)), run="run")
    ended: Job = state.document().model_copy(update={"status": JobStatus.SUCCEEDED})
    jobs.finish(job_id, ended, run="run", webhook=False, places=range(count))
    return job_id


def processor_ms(emulator: LambdaEmulator, asked: dict[str, Any], rounds: int) -> float:
    """The processor time of one answer, the mean of some, of all processes of the function."""
    emulator.invoke(asked)
    before = _used_ms(emulator)
    for _ in range(rounds):
        answer = emulator.invoke(asked)
        if answer["statusCode"] != 200:
            raise RuntimeError(f"the API has answered {answer}")
    return (_used_ms(emulator) - before) / rounds


def _used_ms(emulator: LambdaEmulator) -> float:
    ticks = 0
    for pid in emulator.members():
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # in programs, and in the kernel for them
    return 1000 * ticks / _TICKS_A_SECOND


def main() -> int:
    """Measure, and print the table. Returns 1 if the promise is broken."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many_outputs", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=20, help="requests for each job (default: 20)")
    parser.add_argument("--slack", type=float, default=1.0, help="how far the figure may miss its limit (default: 1)")
    options = parser.parse_args()
    table = Table("outputs", "ours (ms)", "floor (ms)", "limit (ms)")
    worst = 0.0
    with LocalAws() as aws, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "floor.py").write_text(textwrap.dedent(FLOOR), encoding="utf-8")
        environment = {**LocalStack.create(aws).environment, "POWERTOOLS_LOG_LEVEL": "ERROR"}
        with patch.dict(os.environ, environment):
            paths = {count: f"/api/v2/jobs/{job_of(count)}" for count in COUNTS}
        with (
            LambdaEmulator("comfy_serverless.handlers.api.handler", environment) as api,
            LambdaEmulator("floor.handler", environment, source_root=Path(folder)) as floor,
        ):
            for count, path in paths.items():
                ours, least = (processor_ms(one, event("GET", path), options.rounds) for one in (api, floor))
                worst = max(worst, ours)
                table.add_row(f"{count:,}", f"{ours:.0f}", f"{least:.0f}", f"{LIMIT_MS:.0f}" if count == 1000 else "")
    Console().print(table)
    return 0 if worst <= LIMIT_MS * options.slack else 1


if __name__ == "__main__":
    raise SystemExit(main())
