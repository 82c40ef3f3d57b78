"""`comfy-serverless env diff`: what two locks differ in, for people."""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_serverless.cli.environments.lock_paths import add_lock, read_lock
from comfy_serverless.cli.habits import add_command, print_json, size_in_words
from comfy_serverless.cli.paths import is_file, local_path
from comfy_serverless.errors import InvalidLock

if TYPE_CHECKING:
    from comfy_serverless.environments.differences import Change, Differences, Sizes
    from comfy_serverless.environments.lock_file import Lock

_GIT_TIMEOUT_S = 30.0


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `env diff`."""
    parser = add_command(
        actions,
        "diff",
        summary="say what two locks differ in: ComfyUI, packs, libraries, models, sizes",
        examples=(
            "comfy-serverless env diff HEAD",
            "comfy-serverless env diff v1.2 main",
            "comfy-serverless env diff old.lock comfyui/comfy-build.lock --json",
        ),
        notes="OLD and NEW are files, or revisions of git, of which the lock is taken.",
    )
    parser.add_argument("old", metavar="OLD", help="a lock, or a revision that has one")
    parser.add_argument("new", metavar="NEW", nargs="?", help="likewise (default: the lock as it is here)")
    add_lock(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from comfy_serverless.environments.differences import compare

    old = _lock_of(options.old, options.lock)
    new = _lock_of(options.new, options.lock) if options.new is not None else read_lock(options.lock)[0]
    found = compare(old, new)
    if options.json:
        print_json(found.to_json())
    else:
        print("\n".join(lines_of(found)))
    return 0


def lines_of(found: Differences) -> list[str]:
    """The differences in lines: a title for each kind, and a line for each change."""
    lines = []
    parts: tuple[tuple[str, tuple[Change, ...]], ...] = (
        ("ComfyUI and the image", found.base),
        ("packs", found.packs),
        ("libraries", found.libraries),
        ("overrides", found.overrides),
        ("models", found.models),
        ("warnings", found.warnings),
    )
    for title, changes in parts:
        if changes:
            lines += [f"{title}:", *(f"  {str(change).rstrip()}" for change in changes)]
    if found.is_empty:
        lines.append("Both build the same.")
    return [*lines, *_sizes(found.old_sizes, found.new_sizes)]


def _sizes(old: Sizes, new: Sizes) -> list[str]:
    rows = (
        ("packs", old.packs, new.packs),
        ("libraries", old.libraries, new.libraries),
        ("models", old.models, new.models),
    )
    changed = [
        f"{what} {size_in_words(before)} -> {size_in_words(after)} ({_signed(after - before)})"
        for what, before, after in rows if before != after
    ]  # fmt: skip
    return [f"to fetch: {', '.join(changed)}"] if changed else []


def _signed(size_bytes: int) -> str:
    return f"{'+' if size_bytes > 0 else '-'}{size_in_words(abs(size_bytes))}"


def _lock_of(named: str, lock: Path) -> Lock:
    """The lock that a file has, or a revision of git. Raises InvalidLock."""
    from comfy_serverless.environments import git_program
    from comfy_serverless.environments.lock_file import Lock as LockFile

    if is_file(file := local_path(named)):
        return read_lock(file)[0]
    folder = lock.parent if lock.parent.is_dir() else Path()
    arguments = ("show", "--end-of-options", f"{named}:./{lock.name}")
    try:
        done = subprocess.run(
            git_program.command(folder, git_program.HARMLESS, *arguments),
            capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False,
            env=git_program.environment(os.environ),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidLock(
            f"{named} is no file, and git cannot be asked for a revision of that name: {error}."
        ) from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("fatal: ")
        raise InvalidLock(f"{named} is neither a file nor a revision of git that has {lock}: {said}.")
    return LockFile.parse(done.stdout, name=f"{lock} of {named}")
