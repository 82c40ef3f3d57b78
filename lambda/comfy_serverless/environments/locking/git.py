"""Asks git: from a repository's address and a ref to a commit and its files, without the history before it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comfy_serverless.environments import git_program
from comfy_serverless.redaction import redacted

_FETCH_TIMEOUT_S: Final = 600.0
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHORT: Final = re.compile(r"[0-9a-f]{7,39}")
_TELLS_NOTHING: Final = (
    *("Cloning into", "warning:", "hint:", "Please make sure", "and the repository exists"),
    "fatal: Could not read from remote repository",
)
_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES: Final = 1024


class GitFailed(Exception):
    """A repository cannot be had; the message is the end of a sentence, and says what to do."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """The files of one commit.

    Attributes:
        submodules: folders whose files are of other repositories, and not here.
        pointers: files of which only the pointer of git LFS is here.
    """

    commit: str
    folder: Path
    submodules: tuple[str, ...]
    pointers: tuple[str, ...]


def checkout(repository: str, ref: str, folder: Path) -> Checkout:
    """Fetch one commit into a folder, and take its files out.

    Raises:
        GitFailed: no git, no such repository or ref, no right to read it, or no answer.
    """
    check_address(repository)
    folder.mkdir(parents=True, exist_ok=True)
    _git(folder, "init", "-q")
    _git(folder, "remote", "add", "--", "origin", repository)
    wanted = _full(repository, ref) if _SHORT.fullmatch(ref) else ref
    try:
        _git(folder, "fetch", "-q", "--depth", "1", "--no-tags", "--", "origin", wanted)
    except GitFailed as error:
        raise _why(error, ref, folder) from error
    _git(folder, "checkout", "-q", "--force", "FETCH_HEAD")
    commit = _git(folder, "rev-parse", "FETCH_HEAD^{commit}").strip()
    return Checkout(commit, folder, tuple(_submodules(folder)), tuple(_pointers(folder)))


def check_address(repository: str) -> None:
    """Refuse an address that git would take for an option or a program, or that has a password in it."""
    if repository.startswith("-") or "::" in repository:
        raise GitFailed("is no address of a repository")
    if re.match(r"https?://[^/]*@|[a-z+]+://[^/@]*:[^/]*@", repository, re.IGNORECASE):
        raise GitFailed(
            "has a user name or password in its address, which the lock would show: let git's credential helper know"
        )


def file_at(folder: Path, name: str) -> str:
    """The text of a file of a checkout. Raises GitFailed if there is none."""
    try:
        return (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        raise GitFailed(f"has no {name}") from error


def shown(folder: Path, commit: str, name: str) -> str:
    """The text of a file at a commit of a repository on this machine. Raises GitFailed if there is none."""
    try:
        return _git(folder, "show", f"{commit}:{name}")
    except GitFailed as error:
        raise GitFailed(f"has no {name}") from error


def commit_of(folder: Path, ref: str) -> str:
    """The commit of a ref in a checkout on this machine. Raises GitFailed if it has none."""
    return _git(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").strip()


def telling_line(said: str) -> str:
    """The line of git's complaints that says why; "" if there is none. What comes after it is advice."""
    lines = [line.strip() for line in said.splitlines()]
    telling = [line for line in lines if line and not line.startswith(_TELLS_NOTHING)]
    fatal = next((line for line in telling if line.startswith(("fatal: ", "error: "))), "")
    return (fatal or "".join(telling[-1:])).removeprefix("fatal: ").removeprefix("error: ").rstrip(".")


def _why(error: GitFailed, ref: str, folder: Path) -> GitFailed:
    """A better reason for a fetch that failed, where the repository itself answers."""
    try:
        refs = _git(folder, "ls-remote", "--heads", "--tags", "--", "origin")
    except GitFailed:
        said = str(error).lower()
        if (
            "could not resolve" in said
            or "failed to connect" in said
            or "could not connect" in said
            or "timed out" in said
        ):
            return GitFailed(f"cannot be reached: {error}")
        return GitFailed(f"does not exist, or may not be read by whoever runs this: {error}")
    names = [
        line.rpartition("\t")[2].removeprefix("refs/heads/").removeprefix("refs/tags/") for line in refs.splitlines()
    ]
    known = sorted({name.removesuffix("^{}") for name in names})
    if _COMMIT.fullmatch(ref):
        return GitFailed(f"has no commit {ref}, or hands out the tips of branches and tags only: name a tag of it")
    from comfy_serverless.graph.near import Guesses

    near = Guesses().near(ref, known, at_most=3)
    hint = f"; it has {', '.join(near)}" if near else f"; it has {', '.join(known[-5:])}" if known else "; it is empty"
    return GitFailed(f"has no branch, tag or commit {ref!r}{hint}")


def _full(repository: str, short: str) -> str:
    """The whole of a commit that is given by its first digits: among the tips, else by a fetch of all commits."""
    with tempfile.TemporaryDirectory() as folder:
        _git(Path(folder), "init", "-q", "--bare")
        refs = _git(Path(folder), "ls-remote", "--", repository)
        lines = [line.split("\t") for line in refs.splitlines()]
        if any(name.endswith(f"/{short}") for _, name in lines):  # a branch or tag that looks like one
            return short
        found = {commit for commit, _ in lines if commit.startswith(short)}
        if not found:
            _git(Path(folder), "fetch", "-q", "--filter=tree:0", "--", repository, "+refs/heads/*:refs/heads/*")
            try:
                found = {_git(Path(folder), "rev-parse", "--verify", "--quiet", f"{short}^{{commit}}").strip()}
            except GitFailed as error:
                raise GitFailed(f"has no commit that begins with {short}, or several: give all 40 digits") from error
    if len(found) != 1:
        raise GitFailed(f"has several commits that begin with {short}: give all 40 digits")
    return found.pop()


def _submodules(folder: Path) -> list[str]:
    entries = _git(folder, "ls-files", "--stage", "-z").split("\0")
    return sorted(entry.partition("\t")[2] for entry in entries if entry.startswith("160000 "))


def _pointers(folder: Path) -> list[str]:
    entries = _git(folder, "ls-files", "-z").split("\0")
    paths = (folder / entry for entry in entries if entry)
    small = (path for path in paths if path.is_file() and path.stat().st_size < _POINTER_BYTES)
    return sorted(path.relative_to(folder).as_posix() for path in small if path.read_bytes().startswith(_POINTER))


def _git(folder: Path, *arguments: str) -> str:
    command = git_program.command(folder, git_program.EXACT, *arguments)
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_FETCH_TIMEOUT_S, check=False,
            env=git_program.environment(os.environ), stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise GitFailed("cannot be asked: git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise GitFailed(f"does not answer within {_FETCH_TIMEOUT_S:.0f} seconds") from error
    if done.returncode:
        said = telling_line(redacted(done.stderr.decode("utf-8", "replace"))) or f"exit code {done.returncode}"
        raise GitFailed(f"git says: {said}")
    return done.stdout.decode("utf-8", "surrogateescape")
