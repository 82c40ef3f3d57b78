"""Nodes of a pack: one saves as those of well-known packs do (below folders of its own, silently, late, or elsewhere),
one takes a whole folder.

Loaded by the embedded engine, and copied to a real ComfyUI as a pack of custom nodes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Shown = dict[str, Any]
#: How many files come of a node that goes on after its job, every 20 ms.
_ON_AND_ON = 200


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


def _under_odd_names(output: Path, temp: Path, prefix: str) -> Shown:
    names = [f"{prefix}\n2.bin", f" {prefix}\x1b[31m.bin", f"-{prefix}.bin", f"{prefix}\u202e.bin", f"..{prefix}.bin"]
    for name in names:
        (output / name).write_bytes(content_of(prefix))
    return {"files": [_file(name) for name in names[:2]]}


def _for_a_while(output: Path, temp: Path, prefix: str) -> Shown:
    def write() -> None:
        with (output / f"{prefix}.bin").open("wb", buffering=0) as file:
            for byte in content_of(prefix):
                file.write(bytes([byte]))
                time.sleep(0.01)

    threading.Thread(target=write).start()
    return {}


def _with_pauses(output: Path, temp: Path, prefix: str) -> Shown:
    """As what encodes a film: it may have nothing to write for longer than a file is at rest."""

    def write() -> None:
        content = content_of(prefix)
        with (output / f"{prefix}.bin").open("wb", buffering=0) as file:
            for half in (content[:9], content[9:]):
                file.write(half)
                time.sleep(0.4)

    threading.Thread(target=write).start()
    return {}


def _by_a_program_that_pauses(output: Path, temp: Path, prefix: str) -> Shown:
    content = content_of(prefix).decode()
    waits = "sys.stdout.flush(); time.sleep(0.4)"
    program = f"import sys, time; print({content[:9]!r}, end=''); {waits}; print({content[9:]!r}, end='')"
    with (output / f"{prefix}.bin").open("wb") as file:
        subprocess.Popen([sys.executable, "-c", program], stdout=file)
    return {}


def _nothing(output: Path, temp: Path, prefix: str) -> Shown:
    return {}


def _copied_with_old_times(output: Path, temp: Path, prefix: str) -> Shown:
    """As from an archive, or out of the pack itself: also the folders have their times, the output folder too."""
    (output / "set" / "deep").mkdir(parents=True)
    (output / "set" / "deep" / f"{prefix}.bin").write_bytes(content_of(prefix))
    for path in (output / "set" / "deep" / f"{prefix}.bin", output / "set" / "deep", output / "set", output):
        os.utime(path, (1_600_000_000,) * 2)
    return {}


def _in_a_folder_that_nobody_may_change(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "set" / "deep").mkdir(parents=True)
    (output / "set" / "deep" / f"{prefix}.bin").write_bytes(content_of(prefix))
    (output / "set" / "deep").chmod(0o500)
    (output / "set").chmod(0o500)
    return {}


def _in_a_folder_that_nobody_may_read(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "set").mkdir()
    (output / "set" / f"{prefix}.bin").write_bytes(content_of(prefix))
    (output / "set").chmod(0)
    return {}


def _in_a_folder_that_is_moved(output: Path, temp: Path, prefix: str) -> Shown:
    (output.parent / "user" / "set").mkdir()
    (output.parent / "user" / "set" / f"{prefix}.bin").write_bytes(content_of(prefix))
    (output.parent / "user" / "set").rename(output / "set")
    return {}


def _in_a_folder_that_it_works_in(output: Path, temp: Path, prefix: str) -> Shown:
    before = Path.cwd()
    (output / "work").mkdir()
    os.chdir(output / "work")
    try:
        Path(f"{prefix}.bin").write_bytes(content_of(prefix))
    finally:
        os.chdir(before)
    return {"files": [_file(f"{prefix}.bin", "work")]}


def _in_the_folder_of_another_job(output: Path, temp: Path, prefix: str) -> Shown:
    folder = output / "comfy-serverless" / "somebodys"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}.bin").write_bytes(content_of(prefix))
    return {"files": [_file(f"{prefix}.bin", "comfy-serverless/somebodys")]}


def _after_it_has_emptied_temp(output: Path, temp: Path, prefix: str) -> Shown:
    shutil.rmtree(temp, ignore_errors=True)
    return _without_making_folders(output, temp, prefix)


def _put_in_place(output: Path, prefix: str) -> None:
    (output / ".unfinished").write_bytes(content_of(prefix))
    (output / ".unfinished").replace(output / "latest.bin")


def _always_in_the_same_place(output: Path, temp: Path, prefix: str) -> Shown:
    _put_in_place(output, prefix)
    return {"files": [_file("latest.bin")]}


def _in_the_same_place_again_later(output: Path, temp: Path, prefix: str) -> Shown:
    _put_in_place(output, prefix)
    threading.Timer(0.2, lambda: _put_in_place(output, prefix)).start()
    time.sleep(0.4)
    return {"files": [_file("latest.bin")]}


def _another_name_for_a_foreign_file(output: Path, temp: Path, prefix: str) -> Shown:
    os.link(output.parent / "user" / "foreign.txt", output / f"{prefix}.txt")
    return {"files": [_file(f"{prefix}.txt")]}


def _a_foreign_file_moved(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "foreign.txt").rename(output / f"{prefix}.txt")
    return {"files": [_file(f"{prefix}.txt")]}


def _a_link_to_a_foreign_file(output: Path, temp: Path, prefix: str) -> Shown:
    (output / f"{prefix}.txt").symlink_to(output.parent / "user" / "foreign.txt")
    return {"files": [_file(f"{prefix}.txt")]}


def _a_folder_that_becomes_a_link(output: Path, temp: Path, prefix: str) -> Shown:
    (output / "deep").mkdir()
    (output / "deep" / "foreign.txt").write_bytes(b"")
    (output / "deep" / "foreign.txt").unlink()
    (output / "deep").rmdir()
    (output / "deep").symlink_to(output.parent / "user")
    (output.parent / "user" / "new.txt").write_bytes(b"foreign")
    return {"files": [_file("foreign.txt", "deep"), _file("new.txt", "deep")]}


def _a_picture_for_the_next_job(output: Path, temp: Path, prefix: str) -> Shown:
    (output.parent / "input" / f"{prefix}.png").write_bytes(content_of(prefix))
    return {"images": [_file(f"{prefix}.png", folder_type="input")]}


def _a_cache_in_folders_of_its_own(output: Path, temp: Path, prefix: str) -> Shown:
    folder = output.parent / "input" / "pack" / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}.png").write_bytes(content_of(prefix))
    os.utime(folder.parent, (1_700_000_000,) * 2)
    os.utime(folder.parents[1], (1_700_000_000,) * 2)
    return {}


def _among_the_files_that_jobs_bring(output: Path, temp: Path, prefix: str) -> Shown:
    folder = output.parent / "input" / "comfy-serverless"
    folder.mkdir(exist_ok=True)
    (folder / f"{prefix}.png").write_bytes(content_of(prefix))
    return {}


def _a_link_in_the_input_folder(output: Path, temp: Path, prefix: str) -> Shown:
    (output.parent / "user" / f"{prefix}.txt").write_bytes(content_of(prefix))
    (output.parent / "input" / f"{prefix}.png").symlink_to(output.parent / "user" / f"{prefix}.txt")
    return {}


def _on_and_on(output: Path, temp: Path, prefix: str) -> Shown:
    """As what uploads or encodes in the background: its files come while later jobs run."""

    def write() -> None:
        for number in range(_ON_AND_ON):
            for folder in (output, output / prefix, temp):
                folder.mkdir(exist_ok=True)
                (folder / f"{prefix}-{number}.bin").write_bytes(content_of(prefix))
            time.sleep(0.02)

    threading.Thread(target=write).start()
    return _without_making_folders(output, temp, prefix)


#: What a node puts into the input folder, for a later job.
CACHES: dict[str, Callable[[Path, Path, str], Shown]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        *(_a_picture_for_the_next_job, _a_cache_in_folders_of_its_own, _among_the_files_that_jobs_bring),
        _a_link_in_the_input_folder,
    )
}


def _an_output_folder_that_is_gone(output: Path, temp: Path, prefix: str) -> Shown:
    output.rename(output.parent / "gone")
    return {}


def _an_output_folder_that_is_a_link(output: Path, temp: Path, prefix: str) -> Shown:
    output.rename(output.parent / "gone")
    output.symlink_to(output.parent / "user")
    return {}


def _an_input_folder_that_is_gone(output: Path, temp: Path, prefix: str) -> Shown:
    (output.parent / "input").rename(output.parent / "gone")
    return {}


#: What goes on after its job.
GOES_ON: dict[str, Callable[[Path, Path, str], Shown]] = {"on and on": _on_and_on}
#: What takes a folder away that every job needs.
BREAKS: dict[str, Callable[[Path, Path, str], Shown]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (_an_output_folder_that_is_gone, _an_output_folder_that_is_a_link, _an_input_folder_that_is_gone)
}
#: What takes files that are not the run's for its own.
TRICKS: dict[str, Callable[[Path, Path, str], Shown]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        *(_another_name_for_a_foreign_file, _a_foreign_file_moved, _a_link_to_a_foreign_file),
        _a_folder_that_becomes_a_link,
    )
}
SAVES: dict[str, Callable[[Path, Path, str], Shown]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        *(_in_its_own_folder, _silently, _under_any_name, _without_making_folders, _in_temp, _with_a_caption),
        *(_late, _late_and_named, _by_an_absolute_path, _elsewhere, _by_an_upload_of_its_own, _nothing),
        *(_with_pauses, _by_a_program_that_pauses),
        *(_under_odd_names, _for_a_while, _always_in_the_same_place, _in_the_same_place_again_later),
        *(_copied_with_old_times, _in_a_folder_that_is_moved, _in_a_folder_that_it_works_in),
        *(_in_a_folder_that_nobody_may_change, _in_a_folder_that_nobody_may_read),
        *(_in_the_folder_of_another_job, _after_it_has_emptied_temp),
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
        saves = ([*SAVES, *TRICKS, *CACHES, *BREAKS, *GOES_ON],)
        return {"required": {"saves": saves, "filename_prefix": ("STRING", {"default": "ComfyUI"})}}

    def run(self, saves: str, filename_prefix: str) -> dict[str, Any]:
        import folder_paths  # type: ignore[import-not-found]

        folders = (Path(folder_paths.get_output_directory()), Path(folder_paths.get_temp_directory()))
        return {"ui": (SAVES | TRICKS | CACHES | BREAKS | GOES_ON)[saves](*folders, filename_prefix)}


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
