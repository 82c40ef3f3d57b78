"""Looks for known vulnerabilities: in an image's bill of materials by trivy or grype, else in the locks by pip-audit.

    python3 tools/scan.py out/sbom-cpu.json

Whichever of the three is installed first in this order is used. All of them fetch what is known from the network. What
pip-audit does not see: packages of Debian, and libraries that come from git.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: torch's build for processors has the code of the other one, under versions that are not on PyPI.
LOCKS = (
    *("requirements/api.txt", "requirements/lambda.txt", "requirements/mcp.txt"),
    *("comfyui/comfy-build.lock", "requirements/torch-cuda.txt"),
)
_NO_SCANNER = "There is no scanner: install trivy or grype, which look at the whole image, or `pip install pip-audit`."
_NOTHING_KNOWN = (
    "It could not be looked up which vulnerabilities are known: the scan needs the network, or a mirror of its list. "
    "Nothing has been found out."
)
_IS_OFFLINE = re.compile(
    r"ConnectionError|ProxyError|Max retries exceeded|NewConnectionError|NameResolution|ConnectTimeout|no such host"
    r"|connection refused|dial tcp|i/o timeout|could not be audited|failed to (?:download|update).*(?:DB|database)",
    re.IGNORECASE,
)


def main(bill: str, find: Callable[[str], str | None] = shutil.which) -> int:
    """Scan; answers the exit code: 0 nothing found, 1 something found, 2 it could not be found out."""
    name = next((name for name in ("trivy", "grype", "pip-audit") if find(name)), None)
    if name is None:
        print(_NO_SCANNER, file=sys.stderr)
        return 2
    if name == "pip-audit":
        print("pip-audit: the locked libraries, without packages of Debian")
        return max(map(_audit, LOCKS))
    if not Path(bill).is_file():
        print(f"{bill} is not there: `make sbom` writes it", file=sys.stderr)
        return 2
    command = {
        "trivy": ["trivy", "sbom", "--exit-code", "1", "--scanners", "vuln", bill],
        "grype": ["grype", f"sbom:{bill}", "--fail-on", "negligible"],
    }
    return _run(command[name])


def _audit(lock: str) -> int:
    path = ROOT / lock
    with tempfile.NamedTemporaryFile("w", suffix=f"-{path.stem}.txt") as file:
        file.write(_requirements(path))
        file.flush()
        print(lock, flush=True)
        # Without `--strict` what is not found counts as what is well.
        return _run(["pip-audit", "--strict", "--disable-pip", "--progress-spinner", "off", "--requirement", file.name])


def _requirements(lock: Path) -> str:
    """A lock as pip reads it, without what comes from repositories."""
    text = lock.read_text(encoding="utf-8")
    if lock.suffix == ".txt":
        return text
    entries = [entry for entry in json.loads(text)["requirements"] if entry["kind"] in ("wheel", "sdist")]
    return "".join(
        " ".join([f"{entry['name']}=={entry['version']}", *(f"--hash={digest}" for digest in entry["hashes"])]) + "\n"
        for entry in entries
    )


def _run(command: list[str]) -> int:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode and _IS_OFFLINE.search(done.stdout):
        print("\n".join(done.stdout.strip().splitlines()[-1:]), _NOTHING_KNOWN, sep="\n", file=sys.stderr)
        return 2
    print(done.stdout, end="")
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
