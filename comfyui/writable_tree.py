"""Makes the folder that ComfyUI runs in where its own cannot be written: packs may write there as they do on a PC.

    python writable_tree.py /opt/comfyui /tmp/comfyui

    files of ComfyUI's folder     copied, so that `dirname(folder_paths.__file__)` is a folder that can be written
    custom_nodes, models, web     folders are made, small files copied, large ones linked
    input, output, temp, user     made, if they are missing
    every other folder            a link

Every start runs the image's code: what has changed in a copy is put right, and code or links that the image does not
have are removed from where Python looks. What else packs have left there (settings, downloads) stays.

It needs no library, and runs without `site`, because all of it is a part of a cold start.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import all_suffixes
from pathlib import Path

MIRRORED = ("custom_nodes", "models", "web")
KEPT = ("input", "output", "temp", "user")
#: Larger files are linked: weights and pictures, which packs read. A pack finds its folder, with links resolved, by the
#: place of its code, and writes its settings anew: those are small.
LARGEST_COPY_BYTES = 1 << 20
#: Lambda loads files of an image as they are read: several at once hide how long each takes.
_AT_ONCE = 16


def make_tree(image: Path, tree: Path) -> None:
    """Make the tree, or put it right. Another ComfyUI may run in it meanwhile: it finds every file at any time.

    Raises:
        OSError: the tree cannot be written.
    """
    tree.mkdir(parents=True, exist_ok=True)
    _remove_foreign_code(image, tree)
    files: list[tuple[Path, Path]] = []
    for entry in os.scandir(image):
        if entry.name in MIRRORED:
            files += _mirrored(Path(entry.path), tree / entry.name)
        elif entry.name in KEPT:
            continue
        elif entry.is_dir():
            _link(Path(entry.path), tree / entry.name)
        else:
            files.append((Path(entry.path), tree / entry.name))
    for name in (*MIRRORED, *KEPT):
        (tree / name).mkdir(exist_ok=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda pair: _place(*pair), files):
            pass  # raises what a thread has raised


def _mirrored(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Make the folders and links; returns the files, each with its place."""
    for folder, folders, names in os.walk(source):
        place = target / os.path.relpath(folder, source)
        if place.is_symlink() or not place.is_dir():
            place.unlink(missing_ok=True)
            place.mkdir()
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink():
                _link(path, place / name)
            elif name in names:
                yield path, place / name


def _place(source: Path, target: Path) -> None:
    state = source.stat()
    if state.st_size > LARGEST_COPY_BYTES:
        _link(source, target)
        return
    new = _beside(target)
    shutil.copyfile(source, new)
    new.chmod(0o755 if state.st_mode & 0o111 else 0o644)
    _put(new, target)


def _link(source: Path, target: Path) -> None:
    if not (target.is_symlink() and target.readlink() == source):
        new = _beside(target)
        new.symlink_to(source)
        _put(new, target)


def _put(new: Path, target: Path) -> None:
    """Give the new file its name. A pack can have made a folder of this name."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    new.replace(target)


def _beside(target: Path) -> Path:
    """A name that no other process uses."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def _remove_foreign_code(image: Path, tree: Path) -> None:
    """Remove what an earlier ComfyUI has left where Python looks for code, and what leads there."""
    code = tuple(all_suffixes())
    for folder, folders, names in os.walk(tree):
        if Path(folder) == tree:
            folders[:] = [name for name in folders if name not in (*KEPT, "models", "web")]
        for name in (*folders, *names):
            path = Path(folder, name)
            original = image / path.relative_to(tree)
            if path.is_symlink():
                if path.readlink() != original:
                    path.unlink()
            elif name in names and name.endswith(code) and not original.is_file():
                path.unlink()


if __name__ == "__main__":
    make_tree(Path(sys.argv[1]), Path(sys.argv[2]))
