"""Asks pip where there is no uv. It knows wheels only: sources, repositories and overrides need uv, and it says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from comfy_serverless.environments.lock_file import PYTHON
from comfy_serverless.environments.locking import wheel_choice
from comfy_serverless.environments.locking.requirement_lines import MARKERS, normalized, requirement_of
from comfy_serverless.environments.locking.resolver import Answer, File, Found, NotAnswered, Question, Unsolvable
from comfy_serverless.errors import NotLocked
from comfy_serverless.redaction import redacted

_TIMEOUT_S: Final = 1800.0
_NEEDS_UV: Final = "Install it: pip install 'comfy-serverless[env]'."
_IMPOSSIBLE: Final = (
    "ResolutionImpossible",
    "No matching distribution found",
    "Cannot install",
    "Could not find a version",
)
_UNREACHABLE: Final = (
    "Could not fetch URL",
    "Connection to",
    "NewConnectionError",
    "Max retries",
    "ProxyError",
    "timed out",
)


class Pip:
    """pip of this Python."""

    name = "pip"
    can_override = False

    @classmethod
    def found(cls) -> Pip:
        """pip. Raises NotLocked if there is none either."""
        if find_spec("pip") is None:
            raise NotLocked(
                f"Neither uv nor pip is installed for {sys.executable}, so nothing can be resolved. {_NEEDS_UV}"
            )
        return cls()

    def check(self, question: Question) -> dict[str, str]:
        return self.resolve(question).versions

    def resolve(self, question: Question) -> Answer:
        if question.overrides:
            raise NotAnswered(
                f"pip cannot apply overrides ({', '.join(question.overrides)}): that needs uv. {_NEEDS_UV}"
            )
        sources = [line for line in question.lines if "git+" in line.requirement]
        if sources:
            asked = "; ".join(map(str, sources))
            raise NotAnswered(f"pip cannot lock a repository for another Python ({asked}): that needs uv. {_NEEDS_UV}")
        pins = [f"{name}=={version}" for name, version in sorted(question.preferred.items())]
        try:
            report = self._report(question, pins)
        except Unsolvable:
            if not pins:
                raise
            report = self._report(question, [])  # a preference is none that has to hold
        given = {normalized(requirement.split(" @ ")[0]) for requirement in question.given}
        left_out = given | set(question.excluded)
        entries = [entry for entry in report["install"] if normalized(entry["metadata"]["name"]) not in left_out]
        found = {normalized(entry["metadata"]["name"]): _found(entry) for entry in entries}
        for entry in report["install"]:
            of = normalized(entry["metadata"]["name"])
            for needed in _needs(entry["metadata"]):
                if needed in found:
                    found[needed] = replace(found[needed], via=tuple(sorted({*found[needed].via, of})))
        return Answer(tuple(found[name] for name in sorted(found)))

    def _report(self, question: Question, pins: list[str]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            asked = sorted({line.requirement for line in question.lines if not line.is_limit})
            limits = sorted({line.requirement for line in question.lines if line.is_limit})
            (folder / "asked.txt").write_text("\n".join([*question.given, *asked]) + "\n", encoding="utf-8")
            (folder / "limits.txt").write_text("\n".join([*limits, *pins]) + "\n", encoding="utf-8")
            platforms = [part for platform in wheel_choice.platforms() for part in ("--platform", platform)]
            command = [
                sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--dry-run", "--ignore-installed",
                "--python-version", PYTHON, "--implementation", "cp", *platforms, "--only-binary", ":all:",
                "--report", "report.json", "--target", "none", "-r", "asked.txt", "-c", "limits.txt",
            ]  # fmt: skip
            try:
                done = subprocess.run(
                    command, cwd=folder, env=_environment(os.environ), capture_output=True, timeout=_TIMEOUT_S,
                    check=False, stdin=subprocess.DEVNULL,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NotAnswered(f"pip cannot be asked: {error}", reason="index") from error
            if done.returncode:
                raise _failure(redacted(done.stderr.decode("utf-8", "replace")))
            document: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            return document


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What pip gets: uv's index where pip has none."""
    kept = dict(variables)
    index = variables.get("UV_DEFAULT_INDEX") or variables.get("UV_INDEX_URL")
    if index and not variables.get("PIP_INDEX_URL"):
        kept["PIP_INDEX_URL"] = index
    return {**kept, "LC_ALL": "C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _failure(said: str) -> Unsolvable | NotAnswered:
    errors = " ".join(line.removeprefix("ERROR: ") for line in said.splitlines() if line.strip())
    if any(word in said for word in _UNREACHABLE):
        return NotAnswered(errors, reason="index")
    if any(word in said for word in _IMPOSSIBLE):
        return Unsolvable(f"{errors} (pip looks at wheels only; sources need uv: {_NEEDS_UV})")
    return NotAnswered(errors)


def _found(entry: Mapping[str, Any]) -> Found:
    metadata, download = entry["metadata"], entry["download_info"]
    archive = download.get("archive_info", {})
    sha256 = archive.get("hashes", {}).get("sha256")
    file = File(str(download["url"]), sha256, None)
    name, version = normalized(metadata["name"]), str(metadata["version"])
    return Found(name, version, direct=file) if entry.get("is_direct") else Found(name, version, wheels=(file,))


def _needs(metadata: Mapping[str, Any]) -> set[str]:
    requirements = filter(None, map(requirement_of, metadata.get("requires_dist", [])))
    return {normalized(each.name) for each in requirements if each.marker is None or each.marker.evaluate(MARKERS)}
