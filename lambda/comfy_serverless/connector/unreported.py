"""Finds files that nodes have written without showing them: VAESave, CheckpointSave, LoraSave and others do so.

It searches only if a node with a `filename_prefix` has shown nothing, so a usual workflow costs nothing.
"""

from __future__ import annotations

import itertools
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

#: The file system's clock lags behind the system's; ComfyUI reports its times in whole ms. In seconds.
_LAG_S, _ROUNDING_S = 0.01, 0.001


def unreported_files(
    graph: Mapping[str, Any],
    folders: Iterable[Path],
    *,
    silent: Collection[str],
    known: Collection[Path],
    between: tuple[float, float],
) -> dict[str, list[dict[str, str]]]:
    """The files of nodes that have shown nothing, as `{"filename": …}` by node id.

    Args:
        graph: as submitted.
        folders: the engine's output folders on this machine.
        silent: the nodes that have shown nothing.
        known: files that are outputs already.
        between: when it ran, in seconds since the epoch. ComfyUI runs one workflow at a time: files written before
            or after belong to another.
    """
    found: dict[str, list[dict[str, str]]] = {}
    taken = set(known)
    for node_id in silent:
        inputs = graph[node_id].get("inputs")
        prefix = inputs.get("filename_prefix") if isinstance(inputs, Mapping) else None
        if not isinstance(prefix, str):
            continue
        for folder in folders:
            for path in _files_of(prefix, folder, between):
                if path not in taken:
                    taken.add(path)
                    subfolder = path.parent.relative_to(folder).as_posix()
                    place = {"filename": path.name, "subfolder": "" if subfolder == "." else subfolder}
                    found.setdefault(node_id, []).append(place | {"type": "output"})
    return found


def _files_of(prefix: str, folder: Path, between: tuple[float, float]) -> list[Path]:
    """The files that a node with this prefix has written in that time, sorted by name."""
    began, ended = between
    subfolder, _, beginning = prefix.replace("\\", "/").rpartition("/")
    beginning = beginning.partition("%")[0]
    try:
        return sorted(
            path
            for directory in _directories(folder, PurePosixPath(subfolder).parts)
            for path in directory.iterdir()
            if path.name.startswith(beginning)
            and stat.S_ISREG((found := path.lstat()).st_mode)
            and began - _LAG_S <= found.st_mtime <= ended + _ROUNDING_S
        )
    except (OSError, ValueError):
        # There is no such folder: nothing was written.
        return []


def _directories(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """The folders that these parts can stand for. A part with a `%` is named after the day or the size, for example."""
    fixed = list(itertools.takewhile(lambda part: "%" not in part, parts))
    directory = folder.joinpath(*fixed).resolve()
    if not directory.is_relative_to(folder):
        return
    if len(fixed) == len(parts):
        yield directory
        return
    beginning = parts[len(fixed)].partition("%")[0]
    for inner in directory.iterdir():
        if inner.name.startswith(beginning) and inner.is_dir() and not inner.is_symlink():
            yield from _directories(inner, parts[len(fixed) + 1 :])
