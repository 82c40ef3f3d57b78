"""Whether a result of a job stands already is read while the table is asked whose job it is."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from comfy_serverless.jobs.result_file import ResultFile, StoredResult

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.jobs.message import JobMessage
    from comfy_serverless.worker.running import RunningJobs

#: Jobs that are looked for at once. Uploads have threads of their own: they would be waited for here.
_AT_ONCE = 2

#: Reads the result that may stand; raises as `ResultFile.read_before_work`.
ReadStanding = Callable[[ResultFile], StoredResult | None]


class Ahead:
    """Reads ahead, in threads that end with `close`."""

    def __init__(self, s3: S3Client, jobs: RunningJobs) -> None:
        self._s3 = s3
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ahead")

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True)

    def look(self, message: JobMessage) -> ReadStanding:
        """Begin to read the result of a message's job, and return what gives it to the job's `Call`.

        Nothing is read ahead while the same job runs here, which will write one; nor if the message does not say where
        it would stand, or nobody has checked what it says.
        """
        if message.result is None or not message.is_checked or self._jobs.is_in_hand(message.job_id):
            return ResultFile.read_before_work
        ahead = ResultFile(self._s3, message.result)
        seen = self._pool.submit(contextvars.copy_context().run, ahead.read_before_work)
        return lambda file: seen.result() if file == ahead else file.read_before_work()
