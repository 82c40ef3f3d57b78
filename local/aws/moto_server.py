"""The local AWS: moto's server behind the policies of template.yaml, with a DynamoDB that serves one request at a time.

As it comes, moto takes back a transaction that fails by setting the whole table to what it was, with all that other
requests have written into it meanwhile. The real one isolates every request. What else it does slowly: quick_moto.py;
what its notifications leave out: numbered_drops.py.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from local.aws.checksums import confirm_checksums
from local.aws.enforcement import Guard
from local.aws.ledger import Ledger
from local.aws.numbered_drops import numbered_drops
from local.aws.quick_moto import quick_moto

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


class _QuietHandler(MotoRequestHandler):  # type: ignore[misc]
    """Writes no line for each request: nobody reads them, and they are a quarter of its work."""

    def log_request(self, *_arguments: object) -> None:
        return


def main() -> None:
    """Serve until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    create: Callable[[str], Any] = create_backend_app
    moto = DomainDispatcherApplication(create)
    application = Ledger(Guard(confirm_checksums(one_after_the_other(moto))))
    with quick_moto(), numbered_drops():
        run_simple(arguments.host, arguments.port, application, threaded=True, request_handler=_QuietHandler)


if __name__ == "__main__":
    main()
