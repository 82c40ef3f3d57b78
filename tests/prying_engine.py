"""An engine that looks for its caller's secrets wherever the kernel may let it, and writes down what it has found.

    python prying_engine.py REPORT WORD… --port N

It looks for each WORD in its own environment and descriptors, and in environment, command line, memory and descriptors
of every other process. Then it listens, so that it counts as started. It needs nothing but Python, and runs in images.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

#: Of every piece of memory only so much is read, in bytes: environments and small heaps are in that.
MOST_BYTES = 16 << 20


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All that can be read about a process, each with its name; what is refused is left out."""
    for name in ("environ", "cmdline"):
        try:
            yield name, (folder / name).read_bytes()
        except OSError:
            continue
    try:
        maps = (folder / "maps").read_text().splitlines()
        memory = (folder / "mem").open("rb", buffering=0)
    except OSError:
        maps, memory = [], None
    for line in maps:
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
        if found and memory is not None:
            begin, end = (int(number, 16) for number in found.groups())
            try:
                memory.seek(begin)
                yield "mem", memory.read(min(end - begin, MOST_BYTES))
            except (OSError, ValueError, OverflowError):
                continue


def descriptors(folder: Path) -> list[str]:
    """Where the descriptors of a process lead, as far as that can be read."""
    targets = []
    try:
        links = list((folder / "fd").iterdir())
    except OSError:
        return []
    for link in links:
        try:
            targets.append(f"{link.name} -> {link.readlink()}")
        except OSError:
            continue
    return targets


def pry(words: list[bytes]) -> dict[str, object]:
    own = os.getpid()
    found: list[str] = []
    opened: dict[str, list[str]] = {}
    processes = [folder for folder in Path("/proc").glob("[0-9]*") if folder.name != str(own)]
    for folder in processes:
        try:
            name = (folder / "comm").read_text().strip()
        except OSError:
            continue
        for place, content in contents(folder):
            found += [f"{word.decode()} in {place} of {folder.name} ({name})" for word in words if word in content]
        if targets := descriptors(folder):
            opened[folder.name] = targets
    found += [f"{word.decode()} in its own environment" for word in words if word.decode() in str(dict(os.environ))]
    return {
        "uid": os.getuid(),
        "parent": os.getppid(),
        "looked_at": len(processes),
        "found": found,
        "own_descriptors": descriptors(Path("/proc/self")),
        "descriptors": opened,
        "variables": sorted(os.environ),
    }


def main() -> None:
    report, *words = sys.argv[1 : sys.argv.index("--port")]
    # Its own command line has the words, backwards, so that no other process is found by what this one is asked for.
    text = json.dumps(pry([word[::-1].encode() for word in words]))
    Path(report + ".part").write_text(text)
    Path(report + ".part").replace(report)
    listener = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    while True:
        listener.accept()


if __name__ == "__main__":
    main()
