"""Starts the image's ComfyUI as Lambda and as SageMaker do, and fails if a pack does not import. The build runs it.

    python -m comfy_serverless.environments.image.check build [--allow-import-failures A,B] [--allow-vanished C,D]
    python -m comfy_serverless.environments.image.check tell --mode read-only|writable        JSON, for `env check`

The build keeps what was found out: release.json, declarations/object_info.json.gz and declarations/classes.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from comfy_serverless.connector.import_check import READ_ONLY, WRITABLE, Start, start
from comfy_serverless.connector.pack_sources import mapped_names
from comfy_serverless.environments.image import verdict
from comfy_serverless.environments.image.import_story import Known, Library
from comfy_serverless.environments.image.module_names import normal
from comfy_serverless.environments.lock_file import Lock, release_version
from comfy_serverless.jobs.declarations import without_files
from comfy_serverless.json_text import finite
from comfy_serverless.settings import Settings

MODES: Final = {"read-only": READ_ONLY, "writable": WRITABLE}
_TREE: Final = Path("/tmp/comfyui")  # noqa: S108  (comfyui/start.sh makes it)
_LINES_SHOWN: Final = 80
#: How many packs are started alone to find the one that ends ComfyUI.
_MOST_ALONE: Final = 60


@dataclass(frozen=True, slots=True)
class Image:
    """Where the image has its parts."""

    comfyui: Path = Path("/opt/comfyui")
    venv: Path = Path("/opt/comfyui-venv")
    environment: Path = Path("/opt/environment")
    out: Path = Path("/opt")

    @property
    def packs(self) -> dict[str, Path]:
        """The packs' folders and files, by name."""
        found = sorted((self.comfyui / "custom_nodes").iterdir())
        entries = [entry for entry in found if not entry.name.startswith((".", "__"))]
        return {entry.name: entry for entry in entries if entry.is_dir() or entry.suffix == ".py"}

    @property
    def lock_text(self) -> str:
        """The lock that it was built from; empty if there is none."""
        path = self.environment / "comfy-build.lock"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def source(self) -> dict[str, str]:
        """Where its ComfyUI comes from: see comfyui/from_lock.py."""
        path = self.comfyui / "comfyui-source.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    @property
    def classes_before(self) -> dict[str, str]:
        """The classes that the last image had, each with its pack; empty if nobody has kept them."""
        path = self.environment / "comfy-build.classes.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def known_of(image: Image) -> Known:
    """What the lock and the libraries' own files say."""
    lock = Lock.parse(image.lock_text) if image.lock_text else None
    asked = {normal(entry.name): entry.declared_by for entry in lock.requirements} if lock else {}
    libraries: dict[str, Library] = {}
    modules: dict[str, str] = {}
    for site in sorted(image.venv.glob("lib/python3*/site-packages")):
        for distribution in distributions(path=[str(site)]):
            name = normal(distribution.name)
            libraries[name] = Library(distribution.version, asked.get(name, ()))
            for path in distribution.files or ():
                top = path.parts[0].partition(".")[0]
                if path.suffix in (".py", ".so") and top not in ("..", "__pycache__"):
                    modules.setdefault(top, name)
    return Known(
        libraries,
        {pack.name: pack.requirements for pack in lock.packs if pack.name in image.packs} if lock else {},
        modules,
        more=lock.more_requirements if lock else (),
        is_locked=lock is not None,
        own_modules={name: _own_modules(path) for name, path in image.packs.items()},
    )


def check(image: Image, modes: Iterable[str], allowed: verdict.Allowed) -> tuple[list[Start], verdict.Verdict]:
    """Start it in each mode, and judge.

    Raises:
        InvalidSetting: nothing says how to start ComfyUI.
        InvalidLock: its lock is damaged.
    """
    (text,) = Settings.from_environment().require("api_command_line")
    command = shlex.split(text)
    starts = []
    for mode in modes:
        starts.append(start(command, mode))
        shutil.rmtree(_TREE, ignore_errors=True)  # it belongs to the user of this start
    culprits = _culprits(command, starts, image)
    judged = verdict.judge(
        starts,
        known_of(image),
        allowed=allowed,
        before=image.classes_before,
        culprits=culprits,
        named=named_in(image),
    )
    return starts, judged


def named_in(image: Image) -> dict[str, frozenset[str]]:
    """The names under which the source of each pack seems to declare classes."""
    return {name: mapped_names(path) for name, path in image.packs.items()}


def _culprits(command: Sequence[str], starts: Sequence[Start], image: Image) -> dict[str, str]:
    """Which packs end ComfyUI, where it ended before it answered: each is started alone."""
    ended = next((found for found in starts if found.code is not None), None)
    if ended is None or not _comes_up([*command, "--disable-all-custom-nodes"], ended.mode):
        return {}
    found = {}
    for name in list(image.packs)[:_MOST_ALONE]:
        alone = [*command, "--disable-all-custom-nodes", "--whitelist-custom-nodes", name]
        tried = start(alone, ended.mode)
        shutil.rmtree(_TREE, ignore_errors=True)
        if tried.code is not None:
            found[name] = f"signal {-tried.code}" if tried.code < 0 else f"exit code {tried.code}"
    return found


def _comes_up(command: Sequence[str], mode: str) -> bool:
    tried = start(command, mode)
    shutil.rmtree(_TREE, ignore_errors=True)
    return tried.code is None


def release_of(image: Image, version: str) -> dict[str, Any]:
    """What the image is, for release.json."""
    lock = Lock.parse(image.lock_text) if image.lock_text else None
    packs = lock.packs if lock else ()
    return {
        "release_version": release_version(image.lock_text) if lock else "",
        "comfyui": version,
        "commit": image.source.get("commit", ""),
        "from": image.source.get("from", ""),
        "packs": {pack.name: pack.version or pack.commit or f"local {pack.sha256[:12]}" for pack in packs},
    }


def keep(image: Image, starts: Sequence[Start], judged: verdict.Verdict) -> None:
    """Write what the image is and declares into it."""
    first = next(found for found in starts if found.object_info is not None)
    declared = finite(without_files(first.object_info or {}, first.files))
    folder = image.out / "declarations"
    folder.mkdir(exist_ok=True)
    content = json.dumps(declared, separators=(",", ":")).encode("utf-8", "replace")
    (folder / "object_info.json.gz").write_bytes(gzip.compress(content, mtime=0))
    _write(folder / "classes.json", judged.classes)
    _write(image.out / "release.json", release_of(image, first.version))


def report(starts: Sequence[Start], judged: verdict.Verdict) -> str:
    """What people read at the end of a build."""
    said = [f"Note: {note}." for note in judged.notes]
    if judged.problems:
        modes = {mode for problem in judged.problems for mode in problem.modes}
        for found in starts:
            if found.mode in modes:
                said += [f"---- ComfyUI, {found.mode}: the end of what it wrote ----", *_interesting(found.output), ""]
        said += ["", "The image is not as it should be:"]
        for problem in judged.problems:
            said += ["", *problem.lines(all_modes=len(starts))]
    return "\n".join(said)


def main(arguments: Sequence[str] | None = None, *, image: Image | None = None) -> int:
    """Check; returns the exit code: 1 if there are problems."""
    image = image or Image()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build")
    build.add_argument("--allow-import-failures", default="", metavar="PACK,PACK")
    build.add_argument("--allow-vanished", default="", metavar="CLASS,CLASS")
    tell = actions.add_parser("tell")
    tell.add_argument("--mode", choices=MODES, required=True)
    options = parser.parse_args(arguments)
    if options.action == "tell":
        starts, judged = check(image, [MODES[options.mode]], verdict.Allowed())
        print(json.dumps(facts(image, starts, judged)))
        return 0
    allowed = verdict.Allowed(_names(options.allow_import_failures), _names(options.allow_vanished))
    starts, judged = check(image, MODES.values(), allowed)
    print(report(starts, judged), file=sys.stderr, flush=True)
    if judged.problems:
        return 1
    keep(image, starts, judged)
    packs = len(set(judged.classes.values()) - {verdict.COMFYUI})
    print(f"{len(judged.classes)} classes of ComfyUI and {packs} packs.")
    return 0


def facts(image: Image, starts: Sequence[Start], judged: verdict.Verdict) -> dict[str, Any]:
    """What `env check` shows of an image: one JSON document."""
    version = next((found.version for found in starts if found.version), "")
    lock = Lock.parse(image.lock_text) if image.lock_text else None
    sites = image.venv.glob("lib/python3*/site-packages")
    return {
        "release": release_of(image, version),
        "inputs_sha256": lock.inputs_sha256 if lock else None,
        "libraries": sum(1 for site in sites for _ in distributions(path=[str(site)])),
        "torch": dict(lock.torch) if lock else {},
        "apt": list(lock.apt) if lock else [],
        "classes": _counted(judged.classes.values()),
        "problems": [problem.document for problem in judged.problems],
        "notes": list(judged.notes),
        "output": {found.mode: _interesting(found.output) for found in starts if found.object_info is None},
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))


def _interesting(output: str) -> list[str]:
    """The lines of tracebacks and of what could not be imported, else the last ones."""
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output).splitlines()
    first = next((number for number, line in enumerate(lines) if "Traceback (most recent call last)" in line), 0)
    last = next((number for number, line in enumerate(lines) if "Import times for custom nodes" in line), len(lines))
    return lines[first:last][-_LINES_SHOWN:] if first < last else lines[-_LINES_SHOWN:]


def _own_modules(pack: Path) -> frozenset[str]:
    if pack.is_file():
        return frozenset({pack.stem})
    return frozenset({pack.name, *(entry.stem for entry in pack.iterdir() if entry.is_dir() or entry.suffix == ".py")})


def _names(text: str) -> frozenset[str]:
    return frozenset({name.strip() for name in text.split(",")} - {""})


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
