"""Replies of jobs that have run before: their files are in S3, and are not read one after the other."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from typing import Any

import pytest

from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.links import Links
from comfy_serverless.settings import Settings
from comfy_serverless.worker.replies import READ_THREADS, Replies
from comfy_serverless.worker.worker import Outcome
from tests.patience import PATIENCE_S
from tests.unit.jobs.test_request import job, output


class Together:
    """An S3 that answers only when so many ask at once."""

    def __init__(self, count: int) -> None:
        self._all = threading.Barrier(count)

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  (botocore's names)
        self._all.wait(PATIENCE_S)
        return {"Body": io.BytesIO(Key.encode())}


def stored(name: str) -> Output:
    """An output whose file has its own name in it."""
    content = name.encode()
    digest = hashlib.sha256(content).hexdigest()
    return output(id=name, name=name, s3_uri=f"s3://bucket/{name}", sha256=digest, size_bytes=len(content))


def test_files_of_a_job_that_has_run_before_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Links, "of_job", lambda _links, document: document)
    names = [f"{number:02}.png" for number in range(2 * READ_THREADS)]
    before = job(outputs=tuple(map(stored, names)))
    replies = Replies(Together(READ_THREADS), Settings())  # type: ignore[arg-type]
    document = replies.write(Outcome(job=before, error=None, has_run=False, is_recorded=True))
    assert [base64.b64decode(each["data_base64"]).decode() for each in document["outputs"]] == names
