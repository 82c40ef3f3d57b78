"""What builds the libraries that come as sources: each says it in `[build-system]` of its pyproject.toml.

Only that file is read; nothing is built here. It is resolved once and locked, so that no build takes what the index has
that day.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from comfy_serverless.environments.locking import git
from comfy_serverless.environments.locking.base import Base
from comfy_serverless.environments.locking.index_logins import IndexLogins
from comfy_serverless.environments.locking.requirement_lines import Declared, normalized, requirement_of
from comfy_serverless.environments.locking.resolver import Answer, File, Found, Question, Resolver, Unsolvable
from comfy_serverless.errors import LibraryUnavailable
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.web import Network, open_web_address
from comfy_serverless.redaction import redact_url

#: Of sources that say nothing: PEP 517 and 518.
_DEFAULT: Final = ("setuptools>=40.8.0", "wheel")
_MOST_BYTES: Final = 2_000_000_000
_MOST_PYPROJECT_BYTES: Final = 1_000_000
_FETCH_TIMEOUT_S: Final = 900.0
#: What builds a library may come as sources, too; nobody has seen a chain of this length.
_MOST_ROUNDS: Final = 5


def resolve(
    answer: Answer, resolver: Resolver, base: Base, *, given: tuple[str, ...], preferred: Mapping[str, str]
) -> tuple[Answer, dict[str, tuple[str, ...]]]:
    """What builds the sources in an answer, and for each name who asks for it.

    Raises:
        LibraryUnavailable: sources cannot be read, or what builds them does not go together.
    """
    lines: list[Declared] = []
    done: set[tuple[str, str]] = set()
    built, pending = Answer(()), _sources(answer)
    for _ in range(_MOST_ROUNDS):
        fresh = [found for found in pending if (found.name, found.version) not in done]
        if not fresh:
            break
        done |= {(found.name, found.version) for found in fresh}
        lines += [line for found in fresh for line in _wants(found, base)]
        question = Question(tuple(lines), given=given, excluded=base.excluded, preferred=preferred)
        built = _answered(question, resolver)
        pending = _sources(built)
    asked = {found.name: tuple(str(line) for line in lines if line.name == found.name) for found in built.found}
    return built, asked


def with_hash(file: File) -> File:
    """A file with its hash, which is computed where the index does not say it. Raises LibraryUnavailable."""
    if file.sha256:
        return file
    with tempfile.TemporaryDirectory() as folder:
        path = _fetched(file, Path(folder))
        return replace(file, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), size=path.stat().st_size)


def build_requires(pyproject: str | None) -> tuple[str, ...]:
    """What a pyproject.toml says that it is built with. Raises ValueError if it is no TOML."""
    system = tomllib.loads(pyproject).get("build-system") if pyproject is not None else None
    if not isinstance(system, dict) or not isinstance(system.get("requires"), list):
        return _DEFAULT
    return tuple(str(line) for line in system["requires"])


def _sources(answer: Answer) -> list[Found]:
    return [found for found in answer.found if found.git or (found.direct and not found.direct.name.endswith(".whl"))
            or (found.sdist and not found.wheels and not found.direct)]  # fmt: skip


def _wants(found: Found, base: Base) -> list[Declared]:
    who = f"{found.name} {found.version}"
    try:
        requires = build_requires(_pyproject(found))
    except ValueError as error:
        raise LibraryUnavailable(f"{who} cannot be built: its pyproject.toml is damaged: {error}.") from error
    lines = []
    for text in requires:
        requirement = requirement_of(text)
        if requirement is None:
            raise LibraryUnavailable(f"{who} cannot be built: `{text}` of its pyproject.toml is no requirement.")
        if (requirement.marker is None or requirement.marker.evaluate({"extra": ""})) and not base.owns(
            normalized(requirement.name)
        ):
            lines.append(Declared(who, "pyproject.toml", 0, text, normalized(requirement.name), text))
    return lines


def _pyproject(found: Found) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        if found.git:
            return _pyproject_of_git(found, Path(folder))
        file = found.direct or found.sdist
        assert file is not None  # noqa: S101 - `_sources` chose it
        path = _fetched(file, Path(folder))
        try:
            return _pyproject_in(path)
        except (OSError, tarfile.TarError, zipfile.BadZipFile, UnicodeDecodeError) as error:
            raise LibraryUnavailable(f"{file.name} cannot be read: {error}.") from error


def _pyproject_of_git(found: Found, folder: Path) -> str | None:
    address, _, below = str(found.git).removeprefix("git+").partition("#subdirectory=")
    repository, _, commit = address.rpartition("@")
    try:
        checkout = git.checkout(repository, commit, folder)
    except git.GitFailed as error:
        raise LibraryUnavailable(f"{found.name} comes from {redact_url(repository)}, which {error}.") from error
    path = checkout.folder / below / "pyproject.toml"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _pyproject_in(path: Path) -> str | None:
    """The pyproject.toml one folder below the root, of an sdist."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path) as packed:
            names = [name for name in packed.namelist() if _is_pyproject(name)]
            return packed.read(names[0])[:_MOST_PYPROJECT_BYTES].decode("utf-8") if names else None
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and _is_pyproject(member.name) else None
            if content is not None:
                return content.read(_MOST_PYPROJECT_BYTES).decode("utf-8")
    return None


def _is_pyproject(name: str) -> bool:
    parts = name.removeprefix("./").split("/")
    return len(parts) == 2 and parts[1] == "pyproject.toml"


def _fetched(file: File, folder: Path) -> Path:
    """A file of the index on this machine, whose hash is compared where it is known."""
    parts = urlsplit(file.url)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else folder / file.name
    if parts.scheme != "file":
        try:
            _download(file.url, path)
        except Unusable as error:
            raise LibraryUnavailable(f"{redact_url(file.url)} cannot be fetched: {error}.") from error
    if file.sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256:
        raise LibraryUnavailable(f"{file.name} is not what the index says: its hash is another one.")
    return path


def _download(url: str, path: Path) -> None:
    network = Network(allow_private=True, allow_own_host=True)  # whoever runs this names the index
    deadline = time.monotonic() + _FETCH_TIMEOUT_S
    logins = IndexLogins(os.environ)
    with open_web_address(url, network=network, deadline=deadline, tokens=logins) as stream, path.open("wb") as to:
        size = 0
        for chunk in stream.chunks:
            size += len(chunk)
            if size > _MOST_BYTES:
                raise Unusable(f"has more than {_MOST_BYTES:,} bytes")
            to.write(chunk)


def _answered(question: Question, resolver: Resolver) -> Answer:
    try:
        return resolver.resolve(question)
    except Unsolvable as error:
        asked = "; ".join(_each(question.lines))
        raise LibraryUnavailable(
            f"What builds the libraries that come as sources does not go together: {asked}. Take a version with a "
            f"wheel of one of them. The resolver says: {error}"
        ) from error


def _each(lines: Iterable[Declared]) -> list[str]:
    return sorted({str(line) for line in lines})
