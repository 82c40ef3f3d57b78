"""The commands and programs of the documentation run as they stand there, in a fresh folder with the samples."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doc_blocks import ROOT, Block, blocks
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.timeout(1800)

#: What is shown to run in the service takes its addresses and keys from there; an HTTP error is a failure.
PRELUDE = 'set -euo pipefail\ncurl() { command curl --fail-with-body --silent --show-error "$@"; }\n'
PER_PAGE: dict[tuple[str, Path], list[Block]] = {}
for found in blocks():
    if found.kind == "run":
        PER_PAGE.setdefault((found.argument, found.page), []).append(found)


def pages(where: str) -> list[Path]:
    return [page for kind, page in PER_PAGE if kind == where]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def checkout(folder: Path) -> Path:
    """What a reader has in front of him, as far as pages speak of it."""
    for name in ("workflows", "events", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("node_modules"))
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "out").mkdir()
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "LANG": "C.UTF-8"}


def run(folder: Path, page: Path, where: str, *, before: str = "") -> None:
    """Run a page's commands, and then its programs as one, each in the order of the page."""
    chosen = PER_PAGE[where, page]
    programs = "".join(block.text for block in chosen if block.language == "python")
    commands = "".join(block.text for block in chosen if block.language != "python")
    (folder / "program.py").write_text(programs, encoding="utf-8")
    script = f"{PRELUDE}{before}\n{commands}\npython program.py\n"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * (1 + len(chosen)),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", pages("local"), ids=name_of)
def test_it_runs_on_this_machine(tmp_path: Path, page: Path) -> None:
    run(checkout(tmp_path), page, "local")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `make dev` beside it: its variables are in out/dev/env.sh, as the pages say."""
    folder = checkout(tmp_path_factory.mktemp("docs"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "--port", str(port), "--log-dir", str(folder / "out" / "dev")],
        cwd=ROOT,
        env=environment(folder),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "is ready at" in process.stdout.readline()
        yield folder
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("page", pages("dev"), ids=name_of)
def test_it_runs_in_the_service(service: Path, page: Path) -> None:
    run(service, page, "dev", before="source out/dev/env.sh")
