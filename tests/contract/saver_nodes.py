"""Nodes of a pack: one saves as those of well-known packs do (below folders of its own, silently, late, or elsewhere),
one takes a whole folder.

Loaded by the embedded engine, and copied to a real ComfyUI as a pack of custom nodes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Shown = dict[str, Any]


def content_of(prefix: str) -> bytes:
    """What a saver writes, whatever it calls the file."""
    return f"made by a saver for {prefix}".encode()


def _file(name: str, subfolder: str = "", folder_type: str = "output") -> Shown:
    return {"filename": name, "subfolder": subfolder, "type": folder_type}


def _in_its_own_folder(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "characters").mkdir(exist_ok=True)
    (output / "characters" / f"{prefix}.bin").write_bytes(content_of(prefix))
    return {"files": [_file(f"{prefix}.bin", "characters")]}


def _silently(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "characters").mkdir(exist_ok=True)
    (output / "characters" / f"{prefix}.bin").write_bytes(content_of(prefix))
    return {}


def _under_any_name(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "20261129_121500.bin").write_bytes(content_of(prefix))
    return {}


def _without_making_folders(output: Path, temp: Path, prefix: str) -> Shown:
    (output / f"{prefix}.bin").write_bytes(content_of(prefix))
    return {"files": [_file(f"{prefix}.bin")]}


def _in_temp(output: Path, temp: Path, prefix: str) -> Shown:
    temp.mkdir(exist_ok=True)
    (temp / f"{prefix}.bin").write_bytes(content_of(prefix))
    return {}


def _with_a_caption(output: Path, temp: Path, prefix: str) -> Shown:
    (output / f"{prefix}.bin").write_bytes(content_of(prefix))
    (output / f"{prefix}.txt").write_bytes(content_of(prefix))
    return {"files": [_file(f"{prefix}.bin")]}


def _late(output: Path, temp: Path, prefix: str) -> Shown:
    threading.Timer(0.3, lambda: (output / f"{prefix}.bin").write_bytes(content_of(prefix))).start()
    return {}


def _late_and_named(output: Path, temp: Path, prefix: str) -> Shown:
    return {**_late(output, temp, prefix), "files": [_file(f"{prefix}.bin")]}


def _by_an_absolute_path(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "deep").mkdir(exist_ok=True)
    (output / "deep" / f"{prefix}.bin").write_bytes(content_of(prefix))
    return {"files": [_file(f"{prefix}.bin", str(output / "deep"))]}


def _elsewhere(output: Path, temp: Path, prefix: str) -> Shown:
    elsewhere = output.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / f"{prefix}.bin").write_bytes(content_of(prefix))
    return {"files": [_file(f"{prefix}.bin", str(elsewhere))]}


def _by_an_upload_of_its_own(output: Path, temp: Path, prefix: str) -> Shown:
    return {"files": [_file(f"{prefix}.bin", "out")]}


def _nothing(output: Path, temp: Path, prefix: str) -> Shown:
    return {}


SAVES: dict[str, Callable[[Path, Path, str], Shown]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        *(_in_its_own_folder, _silently, _under_any_name, _without_making_folders, _in_temp, _with_a_caption),
        *(_late, _late_and_named, _by_an_absolute_path, _elsewhere, _by_an_upload_of_its_own, _nothing),
    )
}


def files_below(folder: Path) -> list[str]:
    """The names of all files below a folder, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class SaverOfAPack:
    """The node as a real ComfyUI knows it."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    CATEGORY = "contract"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"saves": (list(SAVES),), "filename_prefix": ("STRING", {"default": "ComfyUI"})}}

    def run(self, saves: str, filename_prefix: str) -> dict[str, Any]:
        import folder_paths  # type: ignore[import-not-found]

        folders = (Path(folder_paths.get_output_directory()), Path(folder_paths.get_temp_directory()))
        return {"ui": SAVES[saves](*folders, filename_prefix)}


class FolderOfAPack:
    """The loader of a folder. As most of them, it never says that it must run again."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    CATEGORY = "contract"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"directory": ("STRING", {"default": "."})}}

    def run(self, directory: str) -> tuple[str]:
        import folder_paths

        return ("\n".join(files_below(Path(folder_paths.get_input_directory(), directory))),)


NODE_CLASS_MAPPINGS = {"SaverOfAPack": SaverOfAPack, "FolderOfAPack": FolderOfAPack}
