"""The HTTP servers of this machine that stand for AWS's."""

from __future__ import annotations

from http.server import ThreadingHTTPServer

#: How often a server that waits for requests looks whether it shall end, in seconds: its `shutdown` waits for that.
LOOKS_EVERY_S = 0.02


class LocalServer(ThreadingHTTPServer):
    """Answers each request in a thread of its own, and ends at once: the standard library's takes half a second."""

    def serve_forever(self, poll_interval: float = LOOKS_EVERY_S) -> None:
        """Answer until `shutdown` is called in another thread."""
        super().serve_forever(poll_interval)
