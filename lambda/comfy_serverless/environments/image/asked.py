"""Asks an image, or a ComfyUI on this machine, what it has and whether every pack imports. `env check` shows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from comfy_serverless.connector.import_check import start
from comfy_serverless.environments.image import check, container, import_story, verdict
from comfy_serverless.errors import EngineUnavailable

HERE: Final = "as it is on this machine"
_PROGRAM: Final = ("-m", "comfy_serverless.environments.image.check", "tell", "--mode")
#: As Lambda runs it: nothing can be written but /tmp, another user, no network. And as it comes.
_WAYS: Final[Mapping[str, Sequence[str]]] = {
    "read-only": ("--read-only", "--tmpfs", "/tmp:rw,exec,mode=1777", "--user", "993:990", "--network", "none"),  # noqa: S108
    "writable": (),
}


def of_image(image: str, *, tell: Callable[[str, int, int], object] = lambda *_: None) -> dict[str, Any]:
    """What an image has: see `check.facts`. Problems of both ways stand in one list.

    Args:
        tell: called twice a second while a container runs, with how it was started, which of them it is, and of how
            many.

    Raises:
        EngineUnavailable: there is no container engine, no such image, or it is none of this project.
    """
    answers = [
        _asked(image, mode, options, goes_on=partial(tell, mode, number, len(_WAYS)))
        for number, (mode, options) in enumerate(_WAYS.items(), start=1)
    ]
    merged = dict(answers[0])
    problems: dict[tuple[str, str], dict[str, Any]] = {}
    for answer in answers:
        for problem in answer["problems"]:
            known = problems.setdefault((problem["pack"], problem["what"]), {**problem, "modes": []})
            known["modes"] = [*known["modes"], *problem["modes"]]
    merged["problems"] = list(problems.values())
    merged["output"] = {mode: lines for answer in answers for mode, lines in answer.get("output", {}).items()}
    return merged


def _asked(image: str, mode: str, options: Sequence[str], *, goes_on: Callable[[], object]) -> dict[str, Any]:
    entry_point = ("--entrypoint", "/opt/worker/bin/python")
    done = container.run(
        [*options, "--env", "COMFYUI_ARGS=--cpu", *entry_point, image, *_PROGRAM, mode], goes_on=goes_on
    )
    try:
        return dict(json.loads(done.stdout.strip().rpartition("\n")[2]))
    except ValueError as error:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
        advice = "Start Docker first" if "daemon running" in said else "Build it first: make image"
        raise EngineUnavailable(
            f"the image {image} cannot be checked: {said or f'exit code {done.returncode}'}. {advice}"
        ) from error


def of_folder(comfyui: Path, python: str, lock: Path) -> dict[str, Any]:
    """The same of a ComfyUI in a folder, which is started once as it is.

    Args:
        lock: who declared what, and which packs there should be. It need not exist.

    Raises:
        EngineUnavailable: the folder is no ComfyUI, there is no such Python, or no port for it.
        InvalidLock: the lock is damaged.
    """
    if not (comfyui / "main.py").is_file():
        raise EngineUnavailable(f"{comfyui} is no ComfyUI: it has no main.py. Name the folder that it is in")
    if shutil.which(python) is None:
        raise EngineUnavailable(f"{python} is no Python that can be started: name that of the ComfyUI with --python")
    venv = Path(python).parent.parent if "/" in python else Path("/usr")
    image = check.Image(comfyui, venv, lock.parent, comfyui)
    command = [python, "main.py", "--cpu", "--disable-auto-launch"]
    found = start(command, HERE, cwd=comfyui, is_image=False)
    known = check.known_of(image)
    judged = verdict.judge(
        [found],
        known,
        allowed=verdict.Allowed(),
        before={},
        culprits={},
        named=check.named_in(image),
    )
    return _of_this_machine(check.facts(image, [found], judged), image, known.libraries)


def _of_this_machine(
    facts: dict[str, Any], image: check.Image, libraries: Mapping[str, import_story.Library]
) -> dict[str, Any]:
    """What is there, in place of what the lock says of an image; what is missing of the lock is told."""
    locked = facts["release"]["packs"]
    missing = sorted(locked.keys() - image.packs.keys())
    packs = {name: version for name, version in locked.items() if name not in missing}
    torch = libraries.get("torch")
    return {
        **facts,
        "release": {**facts["release"], "packs": packs, "release_version": ""},
        "torch": {"torch": torch.version} if torch else {},
        "apt": [],
        "notes": [*facts["notes"], *(f"the pack {name} of the lock is not in this ComfyUI" for name in missing)],
    }
