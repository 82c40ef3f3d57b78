"""`comfy-serverless env check`: what an image has, and whether every pack imports."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_serverless.cli.environments.lock_paths import add_files, read_build, read_lock
from comfy_serverless.cli.habits import FAILED, add_command, counted, print_json, print_table, say, time_in_words
from comfy_serverless.cli.paths import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

#: What `make image` calls it.
_IMAGE = "comfy-serverless:cpu"
_OF_COMFYUI = "ComfyUI"
#: How often it is said that it goes on, where there is no terminal, in seconds.
SAID_EVERY_S = 30.0
_WAYS_IN_WORDS = {"read-only": "as on Lambda", "writable": "as on SageMaker"}


def add_parser(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `env check`."""
    parser = add_command(
        actions,
        "check",
        summary="say what an image has, and whether every pack imports",
        examples=(
            "comfy-serverless env check",
            "comfy-serverless env check --image comfy-serverless:gpu --json",
            "comfy-serverless env check --comfyui ~/ComfyUI --python ~/ComfyUI/.venv/bin/python",
        ),
        notes=(
            "An image is started twice, on the processor: as Lambda does (nothing can be written but /tmp, no\n"
            "network), and as SageMaker does. A ComfyUI on this machine is started once, as it is."
        ),
        exit_codes=(
            "exit codes: 0 done, 1 failed, a pack does not import, or the lock is stale, 2 wrong usage, 130 interrupted"
        ),
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--image", default=_IMAGE, metavar="TAG", help="the image (default: %(default)s)")
    what.add_argument(
        "--comfyui", type=local_path, metavar="DIR", help="a ComfyUI on this machine, in place of an image"
    )
    parser.add_argument(
        "--python", metavar="FILE", help="the Python of that ComfyUI (default: of the .venv or venv in its folder)"
    )
    parser.add_argument(
        "--requirements", type=local_path, default=Path("requirements"), metavar="DIR",
        help="the folder with torch.in and apt.txt, for whether the lock is stale (default: %(default)s)",
    )  # fmt: skip
    add_files(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from comfy_serverless.environments.image import asked

    if options.comfyui is not None:
        folder = options.comfyui.resolve()
        found = asked.of_folder(folder, _python(folder, options.python), options.lock)
        name = str(options.comfyui)
    else:
        from comfy_serverless.cli.interrupts import ends_in_order

        with ends_in_order(), _Progress(options.image) as progress:
            found = asked.of_image(options.image, tell=progress.show)
        name = options.image
    stale = _stale(options, found) if options.comfyui is None else []
    if options.json:
        print_json({"name": name, **found, "stale": stale})
    else:
        print("\n".join(lines_of(name, found, is_here=options.comfyui is not None)))
        _print_packs(found)
        for line in told(found, stale):
            say(line)
    return FAILED if found["problems"] or stale else 0


class _Progress:
    """Says which container is being waited for: in a terminal all the time, elsewhere every half a minute."""

    def __init__(self, image: str) -> None:
        from comfy_serverless.cli.progress_line import ProgressLine

        self._image, self._line = image, ProgressLine("starting the image", width=48)
        self._began = self._said_at = time.monotonic()

    def __enter__(self) -> _Progress:
        self._line.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._line.__exit__(kind, error, traceback)

    def show(self, mode: str, number: int, count: int) -> None:
        """Show that the container of this way goes on: it is one of so many."""
        words = f"ComfyUI in the image, {_WAYS_IN_WORDS.get(mode, mode)} ({number} of {count})"
        self._line.show((number - 1) / count, words)
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._said_at >= SAID_EVERY_S:
            self._said_at = now
            say(f"{self._image}: {words}, {time_in_words(now - self._began)} so far")


def _python(comfyui: Path, named: str | None) -> str:
    if named:
        return str(local_path(named).absolute()) if "/" in named else named
    from comfy_serverless.connector.launch import python_of

    return os.environ.get("COMFYUI_PYTHON") or python_of(comfyui)


def _stale(options: argparse.Namespace, found: dict[str, Any]) -> list[str]:
    """Why the image is not of the lock here, or that not of the build file here; nothing where there is neither."""
    from comfy_serverless.environments.lock_file import release_version
    from comfy_serverless.environments.locking.base import Base
    from comfy_serverless.environments.locking.lock import staleness
    from comfy_serverless.environments.locking.more_requirements import MoreRequirements

    if not options.lock.is_file():
        return []
    lock, text = read_lock(options.lock)
    reasons = []
    if (here := release_version(text)) != (there := found["release"]["release_version"]):
        reasons.append(f"the image is of release {there or 'none'}, and {options.lock} is {here}: build it again")
    if options.file.is_file() and options.requirements.is_dir():
        base, more = Base.read(options.requirements), MoreRequirements.read(options.file.parent)
        reasons += [
            f"{options.lock} is not of {options.file} any more: {why} (comfy-serverless env lock)"
            for why in staleness(read_build(options.file), lock, base, more)
        ]
    return reasons


def lines_of(name: str, found: dict[str, Any], *, is_here: bool = False) -> Iterator[str]:
    """What it is, in lines; a ComfyUI on this machine is of no release."""
    release = found["release"]
    commit = f" ({release['commit'][:8]})" if release["commit"] else ""
    origin = {"checkout": ", from a checkout in comfyui/", "ref": ", at another ref than the lock's"}
    classes = sum(found["classes"].values())
    own = found["classes"].get(_OF_COMFYUI, 0)
    yield name
    if not is_here:
        yield f"  release    {release['release_version'] or 'none: there is no lock'}"
    yield f"  ComfyUI    {release['comfyui'] or 'did not start'}{commit}{origin.get(release['from'], '')}"
    torch = found["torch"].get("torch")
    yield f"  libraries  {found['libraries']:,}{f', torch {torch}' if torch else ''}"
    if found["apt"]:
        yield f"  Debian     {', '.join(found['apt'])}"
    yield f"  classes    {classes:,}: {own:,} of ComfyUI, {classes - own:,} of packs"


def _print_packs(found: dict[str, Any]) -> None:
    lost = {problem["pack"] for problem in found["problems"]}
    versions = found["release"]["packs"]
    packs = sorted({*versions, *found["classes"], *lost} - {_OF_COMFYUI})
    if packs:
        rows = [
            (
                pack,
                str(versions.get(pack, "")),
                str(found["classes"].get(pack.removesuffix(".py"), 0)),
                "no" if pack in lost else "yes" if found["release"]["comfyui"] else "not known",
            )
            for pack in packs
        ]
        print_table(("pack", "version", "classes", "as it should be"), rows, folds=("version",), right=("classes",))


def told(found: dict[str, Any], stale: list[str]) -> Iterator[str]:
    """What is wrong, and what is worth knowing, in lines."""
    for mode, lines in found.get("output", {}).items():
        yield f"---- ComfyUI, {mode}: the end of what it wrote ----"
        yield from lines
    for note in found["notes"]:
        yield f"note: {note}"
    for problem in found["problems"]:
        only = f" [{', '.join(problem['modes'])}]" if len(problem["modes"]) == 1 else ""
        yield f"{problem['pack']}: {problem['what']}{only}"
        if problem["reason"] and problem["reason"] not in problem["what"]:
            yield f"    ComfyUI says: {problem['reason']}"
        if problem["declared"]:
            yield f"    {problem['declared']}"
        yield f"    do: {problem['do']}"
    yield from (f"stale: {reason}" for reason in stale)
    if not found["problems"]:
        yield "every pack imports"
    else:
        yield f"{counted(len(found['problems']), 'problem')}"
