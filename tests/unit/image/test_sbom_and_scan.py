"""The bill of materials from what an image says of itself, and the scan that never calls unknown what is well."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import sbom, scan

FACTS = """\
os|debian|12
deb|libc6:amd64|2.36-9+deb12u13|amd64|glibc
deb|python3|3.11.2-1+b1|amd64|python3-defaults
py|Jinja2|3.1.6
py|ruamel.yaml|0.18
py||
py|Jinja2|3.1.6
comfyui|0.3.64
pack|toy|1.2.0
pack|own|
"""


def test_every_component_has_the_address_that_scanners_know() -> None:
    bill = sbom.bill_of("comfy-serverless:cpu", "sha256:1", FACTS)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == "sha256:1"
    assert {component["bom-ref"] for component in bill["components"]} == {
        "os",
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12&upstream=glibc",
        "pkg:deb/debian/python3@3.11.2-1%2Bb1?arch=amd64&distro=debian-12&upstream=python3-defaults",
        "pkg:pypi/jinja2@3.1.6",
        "pkg:pypi/ruamel-yaml@0.18",
        "pkg:github/comfyanonymous/comfyui@v0.3.64",
        "pack:toy",
        "pack:own",
    }
    assert len(bill["components"]) == 8, "each once"
    versions = {component["name"]: component.get("version") for component in bill["components"]}
    assert (versions["toy"], versions["own"]) == ("1.2.0", None)


def test_the_same_image_has_the_same_bill_but_for_the_time() -> None:
    first, second = (sbom.bill_of("image", "sha256:1", FACTS) for _ in range(2))
    first["metadata"].pop("timestamp")
    second["metadata"].pop("timestamp")
    assert first == second


def test_an_image_that_cannot_be_asked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sbom.main("comfy-serverless:none", str(tmp_path / "sbom.json")) == 2
    assert "comfy-serverless:none cannot be asked" in capsys.readouterr().out
    assert not (tmp_path / "sbom.json").exists()


@pytest.fixture
def scanners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of scanners, the only one on the path beside the shell's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f'#!/bin/sh\necho "$@" >>{folder}/calls\n{script}\n')
    (folder / name).chmod(0o755)


def scanned(folder: Path, tmp_path: Path) -> tuple[int, list[str]]:
    bill = tmp_path / "sbom.json"
    bill.write_text("{}")
    code = scan.main(str(bill), find=lambda name: str(folder / name) if os.access(folder / name, os.X_OK) else None)
    calls = folder / "calls"
    return code, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize("name", ["trivy", "grype"])
@pytest.mark.parametrize(("exit_code", "result"), [(0, 0), (1, 1), (3, 1)])
def test_a_scanner_of_images_gets_the_bill(
    scanners: Path, tmp_path: Path, name: str, exit_code: int, result: int
) -> None:
    install(scanners, name, f"echo findings; exit {exit_code}")
    code, (call,) = scanned(scanners, tmp_path)
    assert code == result
    assert str(tmp_path / "sbom.json") in call


def test_without_one_pip_audit_looks_at_every_lock_strictly(
    scanners: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(scanners, "pip-audit", "exit 0")
    code, calls = scanned(scanners, tmp_path)
    assert (code, len(calls)) == (0, len(scan.LOCKS))
    assert all("--strict" in call for call in calls)
    assert "without packages of Debian" in capsys.readouterr().out


@pytest.mark.parametrize(
    "said",
    [
        "requests.exceptions.ProxyError: HTTPSConnectionPool(host='pypi.org', port=443): Max retries exceeded",
        "ERROR:pip_audit._cli:six: Dependency not found on PyPI and could not be audited: six (1.17.0)",
    ],
)
def test_a_scan_that_cannot_look_anything_up_fails_and_says_so(
    scanners: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    install(scanners, "pip-audit", f'echo "{said}" >&2; exit 1')
    code, _ = scanned(scanners, tmp_path)
    assert code == 2
    assert "needs the network" in capsys.readouterr().err


def test_what_is_found_is_shown_and_fails(scanners: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(scanners, "pip-audit", "echo Found 1 known vulnerability in 1 package; exit 1")
    code, _ = scanned(scanners, tmp_path)
    assert code == 1
    assert "Found 1 known vulnerability" in capsys.readouterr().out


def test_without_any_scanner_it_says_what_to_install(
    scanners: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, calls = scanned(scanners, tmp_path)
    assert (code, calls) == (2, [])
    assert "pip install pip-audit" in capsys.readouterr().err


def test_a_missing_bill_is_said_before_anything_is_scanned(
    scanners: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(scanners, "grype", "exit 0")
    assert scan.main(str(tmp_path / "none.json"), find=lambda name: name if name == "grype" else None) == 2
    assert "make sbom" in capsys.readouterr().err


def test_every_lock_of_an_image_is_scanned() -> None:
    dockerfile = (Path(__file__).parents[3] / "Dockerfile").read_text(encoding="utf-8")
    assert {lock for lock in scan.LOCKS if lock.removeprefix("requirements/") in dockerfile} == set(scan.LOCKS)
    assert set(re.findall(r"-r /build/((?:api|lambda|mcp)\.txt)", dockerfile)) == {"api.txt", "lambda.txt", "mcp.txt"}


def test_the_lock_of_comfyui_is_read_by_pip_audit(scanners: Path, tmp_path: Path) -> None:
    install(scanners, "pip-audit", f'eval "last=\\${{$#}}"; cat "$last" >>{tmp_path}/read')
    scanned(scanners, tmp_path)
    lock = json.loads((Path(__file__).parents[3] / "comfyui" / "comfy-build.lock").read_text(encoding="utf-8"))
    read = (tmp_path / "read").read_text()
    assert [
        entry["name"] for entry in lock["requirements"] if f"{entry['name']}=={entry['version']} --hash" not in read
    ] == []


@pytest.mark.parametrize(
    ("release", "packs"),
    [
        ('{"release_version": "3f2a91c07b5e"}', []),
        ('{"packs": {"toy": "1.2.0"}}', ["pack|own|", "pack|toy|1.2.0"]),
        ("", []),
    ],
)
def test_an_image_is_asked_whatever_it_has_of_a_release(tmp_path: Path, release: str, packs: list[str]) -> None:
    """Those of the API and of the agents' tools name no packs, worker-lite says nothing of a release."""
    if release:
        (tmp_path / "release.json").write_text(release)
    if packs:
        for name in ("toy", "own", "__pycache__"):
            (tmp_path / "comfyui" / "custom_nodes" / name).mkdir(parents=True)
    (program,) = re.findall(r"python3 - <<'END'\n(.*?)END", sbom._ASK, re.DOTALL)
    program = program.replace("/opt/", f"{tmp_path}/")
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == packs
