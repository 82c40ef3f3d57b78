"""Asks `uv pip compile`: for the image's Python and platform, whatever this machine has.

An index comes from the variables of uv, else from pip's; nothing else of this machine has a say: no configuration file,
no variable that changes what is chosen. uv's own words are taken apart here, and nowhere else.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from comfy_serverless.environments import git_program
from comfy_serverless.environments.lock_file import PLATFORM, PYTHON
from comfy_serverless.environments.locking.requirement_lines import normalized
from comfy_serverless.environments.locking.resolver import Answer, File, Found, NotAnswered, Question, Unsolvable
from comfy_serverless.redaction import redacted

_TIMEOUT_S: Final = 1800.0
#: The variables of uv that say where libraries come from, and how they are reached; all others change what is chosen.
_KEPT: Final = re.compile(
    r"UV_(?:DEFAULT_INDEX|INDEX(?:_.*)?|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|KEYRING_PROVIDER|HTTP_.*|REQUEST_TIMEOUT"
    r"|CACHE_DIR|NO_CACHE|OFFLINE|NATIVE_TLS|SYSTEM_CERTS|SSL_.*|INSECURE_HOST|CONCURRENT_.*|LINK_MODE|LOCK_TIMEOUT)"
)
_PIP_TO_UV: Final = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_NO_INDEX": "UV_NO_INDEX",
}
_INDEXES: Final = frozenset(
    {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX"}
)
_NOT_LET_IN: Final = "lack of valid authentication credentials (401"
_NO_SOLUTION: Final = "No solution found when resolving"
_YANKED: Final = re.compile(r"^warning: `(?P<what>[^`]+)` is yanked(?: \(reason: \"(?P<why>.*)\"\))?", re.M)
_FETCHED: Final = re.compile(r"fetch [^`]*?'([a-z+]+://[^']+)'")
_BACKTICKS: Final = re.compile(r"`([^`]+)`")
_UNREACHABLE: Final = (
    "error sending request",
    "failed to fetch",
    "could not connect",
    "dns error",
    "timed out",
    "request failed",
)


class Uv:
    """uv, as it is installed."""

    name = "uv"
    can_override = True

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def found(cls) -> Uv | None:
        """That of this Python's environment, else the one on the path; None if there is none."""
        beside = Path(sys.executable).with_name("uv")
        program = str(beside) if beside.is_file() else shutil.which("uv")
        return cls(program) if program else None

    def check(self, question: Question) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            return self._locked(question, Path(folder))[0].versions

    def resolve(self, question: Question) -> Answer:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            answer, arguments = self._locked(question, folder)
            pins = "".join(f"{name}=={version}\n" for name, version in sorted(answer.versions.items()))
            annotated = folder / "annotated.txt"
            annotated.write_text(pins, encoding="utf-8")
            self._run(folder, *arguments, "--annotation-style", "split", "-o", annotated.name)
            via = vias(annotated.read_text(encoding="utf-8"))
        found = (
            Found(each.name, each.version, each.wheels, each.sdist, each.direct, each.git, via.get(each.name, ()))
            for each in answer.found
        )
        return Answer(tuple(found), answer.warnings)

    def _locked(self, question: Question, folder: Path) -> tuple[Answer, list[str]]:
        """The answer without `via`, and the arguments that made it."""
        asked = sorted({line.requirement for line in question.lines if not line.is_limit})
        limits = sorted({line.requirement for line in question.lines if line.is_limit})
        arguments = [_file(folder, "asked.in", [*question.given, *asked])]
        arguments += ["--constraints", _file(folder, "limits.in", limits)] if limits else []
        arguments += ["--overrides", _file(folder, "overrides.in", question.overrides)] if question.overrides else []
        arguments += ["--excludes", _file(folder, "excluded.in", question.excluded)] if question.excluded else []
        for requirement in question.given:
            arguments += ["--no-emit-package", requirement.split(" @ ")[0]]
        locked = folder / "pylock.locked.toml"
        if question.preferred:
            locked.write_text(_preferences(question.preferred), encoding="utf-8")
        said = self._run(folder, *arguments, "--format", "pylock.toml", "-o", locked.name)
        given = {normalized(requirement.split(" @ ")[0]) for requirement in question.given}
        document = tomllib.loads(locked.read_text(encoding="utf-8"))
        found = (_found(entry) for entry in document.get("packages", []))
        kept = sorted((each for each in found if each.name not in given), key=lambda each: each.name)
        return Answer(tuple(kept), tuple(_yanked(said))), arguments

    def _run(self, folder: Path, *arguments: str) -> str:
        command = [
            self._program, "pip", "compile", "--no-config", "--python-version", PYTHON, "--python-platform", PLATFORM,
            "--no-header", "--color", "never", "--no-progress", "--no-python-downloads", *arguments,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment(os.environ), capture_output=True, timeout=_TIMEOUT_S, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise NotAnswered(f"uv has not answered within {_TIMEOUT_S:.0f} seconds", reason="index") from error
        except OSError as error:
            raise NotAnswered(f"uv cannot be started: {error.strerror}") from error
        said = redacted(done.stderr.decode("utf-8", "replace"))
        if done.returncode:
            raise failure(said)
        return said


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv gets: pip's index where uv has none, and nothing that changes what is chosen."""
    kept = {name: value for name, value in variables.items() if not name.startswith("UV_") or _KEPT.fullmatch(name)}
    if not any(variables.get(name) for name in _INDEXES):
        translated = {uv: variables[pip] for pip, uv in _PIP_TO_UV.items() if variables.get(pip)}
        if "UV_FIND_LINKS" in translated:
            translated["UV_FIND_LINKS"] = ",".join(translated["UV_FIND_LINKS"].split())
        kept.update(translated)
    certificates = variables.get("PIP_CERT")
    if certificates and "SSL_CERT_FILE" not in kept:
        kept["SSL_CERT_FILE"] = certificates
    return git_program.environment(kept)


def failure(said: str) -> Unsolvable | NotAnswered:
    """What uv's last words mean."""
    text = said[said.index("error:") :] if "error:" in said else said
    paragraph = " ".join(re.sub(r"^(?:error|\s*cause):\s*", "", line.strip()) for line in text.splitlines()).strip()
    lowered = text.lower()
    subject = next(iter(_BACKTICKS.findall(text)), "")
    if _NOT_LET_IN in lowered:  # to uv its libraries are just not there
        return NotAnswered(paragraph, reason="login")
    inner = text.partition(_NO_SOLUTION)[0]
    if _NO_SOLUTION in text and "build" not in inner.lower():
        return Unsolvable(paragraph.partition("dependencies")[2].strip(": ") or paragraph)
    if " @ " not in subject and "git operation failed" in lowered and (address := _FETCHED.search(text)):
        subject = address[1]  # of a line that is an address alone: uv's first words are of the ref
    if " @ " in subject or "git operation failed" in lowered:
        return NotAnswered(paragraph, reason="fetch", subject=subject)
    if "build" in lowered and not any(word in lowered for word in _UNREACHABLE):
        return NotAnswered(paragraph, reason="build", subject=subject)
    if any(word in lowered for word in _UNREACHABLE) or "http status" in lowered:
        return NotAnswered(paragraph, reason="index", subject=subject)
    return NotAnswered(paragraph, subject=subject)


def vias(text: str) -> dict[str, tuple[str, ...]]:
    """Who asks for each library, of what `uv pip compile` annotates; files are left out."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        pinned = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[.*?\])?(?:==| @ )", line)
        if pinned:
            name = normalized(pinned[1])
            found[name] = []
        elif (told := re.match(r"\s+#\s+(?:via\s*)?(.*)", line)) and name:
            found[name] += [normalized(word) for word in re.split(r",\s*", told[1]) if re.fullmatch(r"\w[\w.-]*", word)]
    return {name: tuple(sorted(set(names))) for name, names in found.items()}


def _found(entry: Mapping[str, Any]) -> Found:
    vcs, archive, sdist = entry.get("vcs"), entry.get("archive"), entry.get("sdist")
    git = None
    if vcs:
        below = f"#subdirectory={vcs['subdirectory']}" if vcs.get("subdirectory") else ""
        git = f"git+{vcs['url']}@{vcs['commit-id']}{below}"
    return Found(
        normalized(entry["name"]),
        str(entry.get("version", "")),
        wheels=tuple(_of(wheel) for wheel in entry.get("wheels", [])),
        sdist=_of(sdist) if sdist else None,
        direct=_of(archive) if archive else None,
        git=git,
    )


def _of(entry: Mapping[str, Any]) -> File:
    return File(str(entry.get("url") or entry.get("path")), entry.get("hashes", {}).get("sha256"), entry.get("size"))


def _file(folder: Path, name: str, lines: Iterable[str]) -> str:
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return name


def _preferences(preferred: Mapping[str, str]) -> str:
    """A lock of uv's own kind, with names and versions only: uv keeps what it can of the file that it writes anew."""
    entries = "".join(
        f'\n[[packages]]\nname = "{name}"\nversion = "{version}"\n' for name, version in sorted(preferred.items())
    )
    return f'lock-version = "1.0"\ncreated-by = "comfy-serverless"\n{entries}'


def _yanked(said: str) -> Iterable[str]:
    return (f"{found['what']}\n{found['why'] or ''}" for found in _YANKED.finditer(said))
