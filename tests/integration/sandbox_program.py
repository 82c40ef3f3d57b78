"""A worker as it lives in a sandbox: takes requests, one a line of JSON, and answers each with a line.

    python sandbox_program.py FOLDER PORT

The first line it writes names the engine's process and address. Every request runs in a thread of its own.
`{"tell": "draining"}` is answered once no job begins any more.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from typing import Any

from comfy_serverless import ComfyConnector, Settings
from comfy_serverless.aws.s3 import s3_client
from comfy_serverless.handlers.shutdown import drain_on_sigterm, leave_process
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.workflow_source import nobody_declares
from comfy_serverless.observability import log
from comfy_serverless.worker.inputs.fetcher import InputFetcher
from comfy_serverless.worker.worker import Call, Worker
from comfy_serverless.workflows.finding import Finder
from demo.seed import OUTPUT_BUCKET
from tests.patience import QuietClock, wait_until

_lock = threading.Lock()


def say(**facts: Any) -> None:
    with _lock:
        print(json.dumps(facts), flush=True)


def main(folder: str, port: str) -> None:
    log.setLevel("CRITICAL")
    command = f"{sys.executable} -m comfy_lite --base-directory {folder} --step-ms 20"
    settings = replace(
        Settings.from_environment(), api_command_line=command, initial_port=int(port), output_bucket=OUTPUT_BUCKET
    )
    connector, s3 = ComfyConnector(settings=settings), s3_client()
    inputs = InputFetcher(settings=settings, s3=s3, connector=connector)
    worker = Worker(
        settings=settings, engine=connector, s3=s3, inputs=inputs, named=Finder(None, None, nobody_declares)
    )
    drain_on_sigterm(worker=worker, stop_engine=connector.kill_api, leave=leave_process)
    process, clock = connector._engine.process, QuietClock()
    say(engine=process.pid if process else None, url=connector.server_address)

    def tell_draining() -> None:
        say(draining=wait_until(lambda: worker._jobs._is_draining))

    def run(payload: Any) -> None:
        begun = clock()
        outcome = worker.run(SentRequest(payload=payload, default_id="none"), Call())
        outcome.release()
        job = outcome.job
        say(
            job_id=job.id,
            code=job.error.code if job.error else "",
            retryable=bool(job.error and job.error.retryable),
            outputs=len(job.outputs),
            took_s=clock() - begun,
            starts=connector.starts,
        )

    threads = []
    for line in sys.stdin:
        asked = json.loads(line)
        is_a_job = "tell" not in asked
        threads.append(threading.Thread(target=run if is_a_job else tell_draining, args=(asked,) if is_a_job else ()))
        threads[-1].start()
    for thread in threads:
        thread.join()
    worker.close()
    connector.kill_api()
    clock.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
