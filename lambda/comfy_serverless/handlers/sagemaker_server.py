"""The container on SageMaker: `serve` answers `GET /ping` and `POST /invocations`.

    gunicorn ──► one process ──► `front_door` ──► /ping         from what is known of the engine, never by asking it
                                             └──► /invocations  the worker: one job executes, others fetch and deliver

The contract is AWS's "Use your own inference code with hosting services": sockets are accepted while jobs run, an
answer has its Content-Length, a failure is no 2xx, and 30 s after SIGTERM everything is gone.
"""

from __future__ import annotations

from comfy_serverless.handlers import warm

# isort: split
import asyncio
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gunicorn.app.base import BaseApplication
from gunicorn.workers.base import Worker as GunicornWorker

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import (
    STATUSES,
    ComfyError,
    InternalError,
    InvalidRequest,
    UpstreamError,
)
from comfy_serverless.handlers import wiring, wiring_worker
from comfy_serverless.handlers.shutdown import SHUTDOWN_S, drain_on_sigterm, leave_process
from comfy_serverless.jobs.document import error_envelope
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JOB_ID_PATTERN
from comfy_serverless.jobs.result_file import ResultFile
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.observability import count_refusal, log
from comfy_serverless.redaction import redacted
from comfy_serverless.table.dispatch import INVOCATION_TIMEOUT_S
from comfy_serverless.worker.engine_watch import EngineWatch, Health
from comfy_serverless.worker.journal import Standing, Unrecorded
from comfy_serverless.worker.worker import Call, Outcome

if TYPE_CHECKING:
    from comfy_serverless.table.job_state import JobState

warm.imports_done()

_JOB_ID = re.compile(JOB_ID_PATTERN)

#: A status, and what is said as JSON.
Answer = tuple[int, dict[str, Any]]


class SageMakerServer:
    """The application of the container, around one worker.

    Args:
        in_flight: how many invocations at once the endpoint is configured for; twice as many are taken.
    """

    def __init__(self, *, in_flight: int) -> None:
        self._worker, self._replies, self._meter = (
            wiring_worker.worker(),
            wiring_worker.replies(),
            wiring_worker.meter(),
        )
        self.places = 2 * in_flight
        self._count = 0
        self._lock = threading.Lock()
        self.watch = EngineWatch(wiring_worker.connector(), is_busy=lambda: self._count > 0)

    def drain(self, *, within_s: float) -> bool:
        """See `Worker.drain`; pings report it at once."""
        self.watch.drain()
        return self._worker.drain(within_s=within_s)

    def ping(self) -> Answer:
        """Whether it can be given work, as far as is known."""
        health = self.watch.health
        told = {"release_version": version} if (version := wiring.settings().release_version) else {}
        return 200 if health is Health.HEALTHY else 503, {"status": health.value, **told}

    def take_place(self) -> int | None:
        """Take a place for an invocation. Returns None, or how many are in hand if there is no place left."""
        with self._lock:
            if self._count >= self.places:
                return self._count
            self._count += 1
        return None

    def invoke(self, body: bytes, inference_id: str) -> Answer:
        """Run the job in a body, and give its place back."""
        try:
            return self._invoke(body, inference_id)
        except ComfyError as error:
            return _refusal(error)
        except Exception as failure:  # noqa: BLE001  (an answer there must be)
            log.exception("bug: the invocation failed in our own code")
            return _refusal(InternalError(redacted(f"{type(failure).__name__}: {failure}")))
        finally:
            with self._lock:
                self._count -= 1

    def _invoke(self, body: bytes, inference_id: str) -> Answer:
        until = time.monotonic() + INVOCATION_TIMEOUT_S
        call = Call(remaining_s=lambda: until - time.monotonic())
        queued = JobMessage.parse(body)
        if queued is not None:
            answer = self._run_queued(queued, call)
            if (writer := wiring_worker.node_list()) is not None:
                writer.write_if_due()
            return answer
        source = SentRequest(payload=body, default_id=_job_id(inference_id), what="the body")
        return self._report(self._worker.run(source, call), self._replies.write)

    def _report(self, outcome: Outcome, write: Callable[[Outcome], dict[str, Any]]) -> Answer:
        try:
            self.watch.see(outcome)
            self._meter.count([outcome])
            return _job_answer(write(outcome), outcome.error)
        finally:
            outcome.release()

    def _run_queued(self, job: JobMessage, call: Call) -> Answer:
        """Run a job of the API: the table says whether, and records how it ended."""
        queued = Call(remaining_s=call.remaining_s, is_heard=False)
        try:
            outcome = wiring_worker.journal().run(self._worker, job, queued)
        except Unrecorded as failure:
            raise UpstreamError(f"{failure}; the caretaker finds what {job.job_id}/result.json tells") from failure
        if isinstance(outcome, Standing):
            return self._standing(job.job_id, outcome.state)
        return self._report(outcome, lambda outcome: outcome.job.to_json())

    def _standing(self, job_id: str, state: JobState | None) -> Answer:
        """The answer for a job that is not ours to run: a second delivery, mostly.

        SageMaker puts it where it has put the first delivery's. So a job that has run and ended is answered as it
        ended. While it still runs elsewhere, that worker's answer comes after ours. If no worker has run it (canceled,
        held back) nothing has failed.
        """
        if state is None or not state.is_over or state.runs == 0:
            return 200, {"id": job_id, "note": "nothing to run: it was canceled, is held back, or runs elsewhere"}
        try:
            stored = ResultFile(wiring.s3(), S3Address.parse(state.result)).read()
        except InvalidRequest:  # its bucket has refused it, or is gone
            stored = None
        # An end that the caretaker gave is in the table alone, and one whose bucket refused it is in OUTPUT_BUCKET.
        job = stored.job if stored is not None and stored.job.status is state.status else state.document()
        return _job_answer(job.to_json())


def _job_answer(document: dict[str, Any], error: ComfyError | None = None) -> Answer:
    """The job; with the status of a failure its error's envelope and the job. `error` is the failure, if it is ours."""
    failure = document["error"]
    if failure is None:
        return 200, document
    envelope = {name: failure.get(name) for name in ("code", "message", "details")}
    status = error.http_status if error is not None else STATUSES.get(failure["code"], 500)
    return status, {"error": envelope, "job": document}


def _refusal(error: ComfyError) -> Answer:
    count_refusal(error)
    return error.http_status, error_envelope(error)


def _job_id(inference_id: str) -> str:
    """The inference id, if it can be a job's: the same for every delivery of the same invocation."""
    if _JOB_ID.fullmatch(inference_id):
        return inference_id
    return str(uuid.uuid5(uuid.NAMESPACE_OID, inference_id)) if inference_id else str(uuid.uuid4())


class Process(GunicornWorker):
    """The process that answers: see `front_door`."""

    def run(self) -> None:
        """Serve until the end."""
        from comfy_serverless.handlers.front_door import serve  # its libraries are loaded while ComfyUI starts

        loaded: Any = self.wsgi  # gunicorn's name for what `Server` loads
        sockets: list[Any] = self.sockets  # gunicorn's, around the system's
        asyncio.run(serve(loaded, [each.sock for each in sockets], goes_on=self._goes_on))

    def _goes_on(self) -> bool:
        self.notify()
        return self.alive and self.ppid == os.getppid()


class Server(BaseApplication):
    """gunicorn around the application: a process that dies is replaced, and with it the engine."""

    def load_config(self) -> None:
        """One process, because there is one engine."""
        settings = wiring.settings()
        options = {
            "bind": f"0.0.0.0:{settings.port}",
            "workers": 1,
            "worker_class": Process,
            "timeout": 120,
            "graceful_timeout": int(SHUTDOWN_S) + 3,
            "worker_tmp_dir": "/tmp",  # noqa: S108  (there may be no /dev/shm)
            "control_socket_disable": True,
            "post_worker_init": self._begin,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:  # noqa: ANN401  (gunicorn asks what it is no further)
        """Start ComfyUI in the process that answers, without waiting for it."""
        self._server = SageMakerServer(in_flight=wiring.settings().in_flight)
        return self._server

    def _begin(self, _process: GunicornWorker) -> None:
        """gunicorn has set its own signals by now, and SIGTERM is ours."""
        self._server.watch.start()
        drain_on_sigterm(worker=self._server, stop_engine=wiring_worker.connector().kill_api, leave=leave_process)


def main() -> None:
    """Serve until SIGTERM."""
    Server().run()


if __name__ == "__main__":
    main()
