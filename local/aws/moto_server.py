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
from typing import TYPE_CHECKING, Final

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from local.aws.checksums import confirm_checksums
from local.aws.described import Described
from local.aws.enforcement import Guard
from local.aws.ledger import Ledger
from local.aws.numbered_drops import numbered_drops
from local.aws.quick_dynamodb import answer_shortly
from local.aws.quick_moto import quick_moto

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


#: Answers that end with their head.
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
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


class _Handler(MotoRequestHandler):
    """Keeps connections, as AWS does: to open and close one costs as much as most answers. It logs no requests.

    Werkzeug closes each, since an application may leave a part of a body unread. Here each body is read first, and an
    answer has as many bytes as its head says, none where HTTP has none: the next begins right after it.

    A client that ends before it has sent all of a request (a function that is killed, between the headers and the body,
    which urllib3 sends apart) has asked for nothing. As at AWS, such a request is neither authorized nor done.
    """

    wbufsize = -1  # what is written leaves with the request's end, at once

    def log_request(self, *_arguments: object) -> None:
        return

    def handle_expect_100(self) -> bool:
        """Ask for the body: at once, and not again, which is what werkzeug does where it still finds the header."""
        asked: bool = super().handle_expect_100()
        self.wfile.flush()
        del self.headers["Expect"]
        return asked

    def run_wsgi(self) -> None:
        """Answer one request."""
        if "Transfer-Encoding" in self.headers:
            super().run_wsgi()
            return
        environment = self.make_environ()
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        if len(sent) < length:
            self.close_connection = True
            return
        environment["wsgi.input"] = io.BytesIO(sent)
        status, headers, body = self._answer(environment)
        code = int(status[:3])
        has_body = self.command != "HEAD" and code not in _WITHOUT_BODY
        self.send_response(code, status[4:])
        for name, value in headers:
            if not has_body or name.lower() != "content-length":
                self.send_header(name, value)
        if has_body:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
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
    moto = DomainDispatcherApplication(create_backend_app)
    application = Ledger(Guard(Described(confirm_checksums(one_after_the_other(moto)))))
    with quick_moto(), numbered_drops():
        run_simple(arguments.host, arguments.port, application, threaded=True, request_handler=_Handler)


if __name__ == "__main__":
    main()
