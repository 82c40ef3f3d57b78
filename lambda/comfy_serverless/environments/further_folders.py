"""The folders outside of an install that it takes models from, too: its extra_model_paths.yaml names them.

    a111:
      base_path: /data/webui        in each section; relative to the file, with ~ and $VARIABLES
      checkpoints: models/Stable-diffusion
      loras: |                      a folder below models/, and where more of it is
        models/Lora
        models/LyCORIS

A build file knows models by their places below `models/`: that of a file here is the section's key, and what is behind
the folder. What lies in `models/` itself comes first, as in most installs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comfy_serverless.environments.build_file import rules

#: ComfyUI reads the first beside its main.py; the desktop application writes the other.
FILES: Final = ("extra_model_paths.yaml", "extra_models_config.yaml")
_MOST_BYTES: Final = 1_000_000
_NO_MODELS: Final = frozenset({"configs", "custom_nodes", "download_model_base"})
_SETTINGS: Final = frozenset({"base_path", "is_default"})


@dataclass(frozen=True, slots=True)
class FurtherFolder:
    """A folder of models, and the folder below `models/` that it stands for."""

    type: str
    folder: Path


def further_folders(install: Path, complain: Callable[[str], None] = lambda _: None) -> list[FurtherFolder]:
    """Those of an install that are there, in the order of its files.

    Args:
        complain: is told, in words, what of the files could not be used.
    """
    found = []
    for name in FILES:
        path = install / name
        if path.is_file():
            found += [one for one in _in_file(path, complain) if _is_used(one, install, path, complain)]
    return list(dict.fromkeys(found))


def file_of(local_path: str, models: Path) -> Path:
    """Where a file is that a build file says is below `models/`: there, or in a further folder of that install."""
    path = models / local_path
    if path.is_file():
        return path
    for one in further_folders(models.parent):
        if local_path.startswith(f"{one.type}/"):
            other = one.folder / local_path.removeprefix(f"{one.type}/")
            if other.is_file():
                return other
    return path


def _in_file(path: Path, complain: Callable[[str], None]) -> Iterator[FurtherFolder]:
    document = _read(path, complain)
    for section, entries in document.items():
        if not isinstance(entries, dict):
            continue
        base = _path(entries.get("base_path") or "", path.parent)
        for key, value in entries.items():
            if key in _SETTINGS or key in _NO_MODELS or not isinstance(value, str):
                continue
            wrong = rules.model_folder(str(key))
            if wrong:
                complain(f"{path.name}, {section}: {key} is not taken: {wrong}")
                continue
            yield from (
                FurtherFolder(str(key), _path(line.strip(), base)) for line in value.splitlines() if line.strip()
            )


def _read(path: Path, complain: Callable[[str], None]) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        complain(f'{path.name} is not read, and models elsewhere are not taken: pip install "comfy-serverless[env]"')
        return {}
    try:
        document = yaml.safe_load(path.read_bytes()[:_MOST_BYTES])
    except (OSError, yaml.YAMLError, ValueError) as error:
        complain(f"{path.name} is not read, and models elsewhere are not taken: {' '.join(str(error).split())}")
        return {}
    return document if isinstance(document, dict) else {}


def _path(text: object, base: Path) -> Path:
    return base / os.path.expandvars(Path(str(text)).expanduser())


def _is_used(one: FurtherFolder, install: Path, path: Path, complain: Callable[[str], None]) -> bool:
    if not one.folder.is_dir():
        complain(f"{path.name}: {one.type} is not taken from {one.folder}, which is no folder of this machine")
        return False
    models = (install / "models").resolve()
    return models != one.folder.resolve() and models not in one.folder.resolve().parents
