"""The local AWS: moto's server behind the policies of template.yaml, with a DynamoDB that serves one request at a time.

As it comes, moto takes back a transaction that fails by setting the whole table to what it was, with all that other
requests have written into it meanwhile. The real one isolates every request. What it does slowly: quick_moto.py and
quick_dynamodb.py; what its notifications leave out: numbered_drops.py.
"""

from __future__ import annotations

import argparse
import io
import re
import threading
import traceback
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from local.aws.checksums import confirm_checksums
from local.aws.enforcement import Guard
from local.aws.ledger import Ledger
from local.aws.numbered_drops import numbered_drops
from local.aws.quick_dynamodb import answer_shortly
from local.aws.quick_moto import quick_moto

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


_REGION: Final = re.compile(r"Credential=[^/]+/[^/]+/([^/]+)/")


def one_after_the_other(application: WSGIApplication) -> WSGIApplication:
    """The same application, which never has two requests of DynamoDB at once, and the short way to its items."""
    turn = threading.Lock()

    def answer(environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        target = environment.get("HTTP_X_AMZ_TARGET", "")
        if not target.startswith("DynamoDB_"):
            return application(environment, start_response)
        body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        environment["wsgi.input"] = io.BytesIO(body)
        signed_for = _REGION.search(environment.get("HTTP_AUTHORIZATION", ""))
        with turn:
            short = answer_shortly(target, body, signed_for[1]) if signed_for else None
            if short is None:
                return list(application(environment, start_response))
        code, headers, content = short
        encoded = content.encode() if isinstance(content, str) else content
        start_response(f"{code} {HTTPStatus(code).phrase}", [*headers.items(), ("Content-Length", str(len(encoded)))])
        return [encoded]

    return answer


class _Handler(MotoRequestHandler):  # type: ignore[misc]
    """Keeps connections, as AWS does: to open and close one costs as much as most answers. It logs no requests.

    Werkzeug closes each, since an application may leave a part of a body unread. Here each body is read first.
    """

    wbufsize = -1  # what is written leaves with the request's end, at once

    def log_request(self, *_arguments: object) -> None:
        return

    def run_wsgi(self) -> None:
        """Answer one request."""
        if "Transfer-Encoding" in self.headers:
            super().run_wsgi()
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        environment = self.make_environ()
        environment["wsgi.input"] = io.BytesIO(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        status, headers, body = self._answer(environment)
        self.send_response(int(status[:3]), status[4:])
        for name, value in headers:
            self.send_header(name, value)
        if all(name.lower() != "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer(self, environment: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
        begun: list[tuple[str, list[tuple[str, str]]]] = []
        body: list[bytes] = []

        def begin(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
            begun.append((status, headers))
            return body.append

        try:
            body += self.server.app(environment, begin)
        except Exception:  # noqa: BLE001  (a fault of moto, which its caller is told as a server's)
            traceback.print_exc()
            return "500 Internal Server Error", [], traceback.format_exc().encode()
        return *begun[-1], b"".join(body)


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
        run_simple(arguments.host, arguments.port, application, threaded=True, request_handler=_Handler)


if __name__ == "__main__":
    main()
