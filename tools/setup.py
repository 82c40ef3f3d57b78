"""Make a virtual environment and fill it from a lock file, showing how far it is. Standard library only.

python3 tools/setup.py .venv requirements/dev.txt
python3 tools/setup.py infra/.venv requirements/infra.txt --only-requirements    (without our own package)
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

MINIMUM = (3, 11)


def main() -> int:
    if sys.version_info < MINIMUM:
        print(
            f"Python {MINIMUM[0]}.{MINIMUM[1]} or later is needed; this is {sys.version.split()[0]}.", file=sys.stderr
        )
        return 2
    folder, lock = Path(sys.argv[1]), Path(sys.argv[2])
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"Creating {folder} with Python {sys.version.split()[0]}", flush=True)
        venv.create(folder, with_pip=True)
    total = len(re.findall(r"^[A-Za-z0-9]", lock.read_text(), flags=re.MULTILINE))
    # The lock is complete, so pip has nothing to resolve: every file is checked against its hash.
    install(python, ["--require-hashes", "-r", str(lock)], label="Installing requirements", total=total)
    if "--only-requirements" not in sys.argv:
        install(python, ["--no-build-isolation", "-e", "."], label="Installing comfy-serverless", total=1)
    print("Ready.", flush=True)
    return 0


def install(python: Path, arguments: list[str], *, label: str, total: int) -> None:
    """Run pip, turning its log into one line that grows."""
    command = [str(python), "-m", "pip", "install", "--no-deps", "--disable-pip-version-check", *arguments]
    log: list[str] = []
    seen = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line)
            if line.startswith(("Collecting", "Requirement already", "Obtaining")):
                seen += 1
                show(label, min(seen, total), total)
            elif line.startswith("Installing collected"):
                show(label, total, total, note="unpacking")
    if process.returncode != 0:
        print(f"\npip failed:\n{''.join(log[-25:])}", file=sys.stderr)
        raise SystemExit(process.returncode)
    show(label, total, total, note="done")
    print(flush=True)


def show(label: str, done: int, total: int, *, note: str = "") -> None:
    """A bar on a terminal; elsewhere only the beginning and the end are worth a line."""
    if not sys.stdout.isatty():
        if done == 1 and not note:
            print(f"{label} ({total}) …", flush=True)
        elif note == "done":
            print(f"{label}: done", end="", flush=True)
        return
    width = 24
    filled = width * done // max(total, 1)
    print(f"\r{label} [{'#' * filled}{'.' * (width - filled)}] {done}/{total} {note:<10}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
