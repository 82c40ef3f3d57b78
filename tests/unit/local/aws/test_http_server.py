"""The servers of the local stack end as soon as they are asked to."""

from __future__ import annotations

import selectors
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from local.aws import http_server
from local.aws.http_server import LOOKS_EVERY_S, LocalServer
from tests.patience import PATIENCE_S


def test_a_server_that_nobody_asks_looks_often_whether_it_shall_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, has_waited = list[float | None](), threading.Event()

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            has_waited.set()
            return super().select(timeout)

    monkeypatch.setattr("socketserver._ServerSelector", Selector)
    with LocalServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:

        def end() -> None:
            if has_waited.wait(PATIENCE_S):
                server.shutdown()

        thread = threading.Thread(target=end)
        thread.start()
        server.serve_forever()
        thread.join(PATIENCE_S)
    assert set(waits) == {LOOKS_EVERY_S}
    assert http_server.LOOKS_EVERY_S < 0.1
