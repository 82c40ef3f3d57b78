"""What the local AWS was asked, by whom and when: `benchmarks/api_way.py` sees from it where the time of a job goes."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from local.aws.enforcement import Response, signer_of
from local.aws.server import CALLS_PATH, AwsCall

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: The newest that are kept.
_MAX_CALLS = 10_000


@dataclass(slots=True)
class Ledger:
    """An application with a record of its requests before it."""

    application: WSGIApplication
    _calls: deque[AwsCall] = field(default_factory=lambda: deque(maxlen=_MAX_CALLS))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environment["PATH_INFO"] == CALLS_PATH:
            return self._told().send(start_response)
        role, service = signer_of(environment)
        operation = f"{service}:{_what(environment, service)}"  # now: the application changes the environment
        begun = time.time()
        answer = self.application(environment, start_response)
        with self._lock:
            self._calls.append(AwsCall(role=role, operation=operation, begun=begun, ended=time.time()))
        return answer

    def _told(self) -> Response:
        with self._lock:
            calls = [asdict(call) for call in self._calls]
        return Response("200 OK", "application/json", json.dumps(calls).encode())


def _what(environment: WSGIEnvironment, service: str) -> str:
    if service == "s3":
        _, _, key = environment["PATH_INFO"].removeprefix("/").partition("/")
        return f"{environment['REQUEST_METHOD']} {'object' if key else 'bucket'}"
    target: str = environment.get("HTTP_X_AMZ_TARGET", "") or environment["PATH_INFO"].replace("/", ".")
    return target.rpartition(".")[2]
