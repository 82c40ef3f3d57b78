"""Runs programs under Node, which the locked requirements bring, with the packages of examples/typescript."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.patience import PATIENCE_S

ROOT = Path(__file__).parents[1]
NODE = Path(sys.executable).parent / "node"


def folder() -> Path:
    """The example, with its packages."""
    found = ROOT / "examples" / "typescript"
    assert (found / "node_modules").is_dir(), (
        "its packages are missing: `make test-services` brings them, as `npm ci` there does"
    )
    return found


def run(*arguments: str | Path, cwd: Path) -> str:
    """What a program prints that ends well."""
    done = subprocess.run([NODE, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def started(program: str) -> Iterator[Iterator[str]]:
    """The lines of a program (TypeScript's SDK can be imported in it) as it prints them; it has to end well."""
    command: list[str | Path] = [NODE, "--input-type=module", "--eval", program]
    with subprocess.Popen(
        command, cwd=folder(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            yield iter(process.stdout)
            assert process.wait(PATIENCE_S) == 0, process.stderr.read()
        finally:
            process.kill()
