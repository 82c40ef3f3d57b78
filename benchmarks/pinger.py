"""Pings a container for a while, from a process of its own that does nothing else; or only keeps a processor busy.

python -m benchmarks.pinger PORT SECONDS        prints the times in ms, as JSON; -1 for what was not answered with 200
python -m benchmarks.pinger busy SECONDS
"""

from __future__ import annotations

import http.client
import json
import sys
import time

#: What stands for a ping that was not answered with 200.
UNANSWERED = -1.0
_EVERY_S = 0.02
_PATIENCE_S = 60.0


def ping(port: int) -> float:
    """The time of a ping on a new connection, in ms, or `UNANSWERED`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
    begun = time.perf_counter()
    try:
        connection.request("GET", "/ping")
        answer = connection.getresponse()
        answer.read()
    except OSError:
        return UNANSWERED
    finally:
        connection.close()
    return (time.perf_counter() - begun) * 1000 if answer.status == http.client.OK else UNANSWERED


def main() -> None:
    """Do as the arguments say."""
    what, seconds = sys.argv[1], float(sys.argv[2])
    end = time.monotonic() + seconds
    times: list[float] = []
    while time.monotonic() < end:
        if what != "busy":
            times.append(ping(int(what)))
            time.sleep(_EVERY_S)
    print(json.dumps(times))


if __name__ == "__main__":
    main()
