"""The local AWS: moto's server behind the policies of template.yaml, with a DynamoDB that serves one request at a time.

As it comes, moto takes back a transaction that fails by setting the whole table to what it was, with all that other
requests have written into it meanwhile. The real one isolates every request. And it counts a whole queue for each
message it hands out, to see whether that has expired: a batch of some thousand jobs would stand still.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs.models import SQSBackend
from werkzeug.serving import run_simple

from local.aws.enforcement import Guard

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def one_after_the_other(application: WSGIApplication) -> WSGIApplication:
    """The same application, which never has two requests of DynamoDB at once."""
    turn = threading.Lock()

    def answer(environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environment.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_"):
            return application(environment, start_response)
        with turn:
            return list(application(environment, start_response))

    return answer


def quick_queues() -> AbstractContextManager[object]:
    """Queues whose messages never expire, from `with` to the end of the block."""
    return patch.object(SQSBackend, "is_message_valid_based_on_retention_period", lambda *_arguments: True)


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    create: Callable[[str], Any] = create_backend_app
    application = Guard(one_after_the_other(DomainDispatcherApplication(create)))
    with quick_queues():
        run_simple(arguments.host, arguments.port, application, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
