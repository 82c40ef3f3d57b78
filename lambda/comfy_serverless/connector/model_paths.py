"""Where fetched models are, and the file that says so to ComfyUI. For the connector, which starts it, and for jobs.

MODEL_STORE_DIR/blobs/{sha256}                           the contents, for all processes that share the folder
MODEL_STORE_DIR/seen/{process}/models/{folder}/{name}    links to them, which this process's ComfyUI sees
MODEL_STORE_DIR/seen/{process}/extra_model_paths.yaml    tells it so
MODEL_DATA_DIR/{folder}/{name}                           models that came with a SageMaker endpoint

Each process has links of its own: what a job has brought is seen by the one ComfyUI that runs it. The mode of
MODEL_STORE_DIR decides who may read there; below it, the links are open to everybody, and the contents to us.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_serverless import locks
from comfy_serverless.connector import places
from comfy_serverless.connector.confinement import engine_user
from comfy_serverless.connector.model_folders import MODEL_FOLDERS, RENAMED_FOLDERS

if TYPE_CHECKING:
    from comfy_serverless.settings import Settings

#: By store and process, with the descriptor of its lock: a process that was forked has another one than its parent.
_own_directories: dict[tuple[Path, int], tuple[Path, int]] = {}
_making = threading.Lock()
#: Lets everybody list a folder and open what is in it.
_READABLE = 0o055


def store_directory(settings: Settings) -> Path:
    """Where models are kept: MODEL_STORE_DIR, else this user's own folder among the temporary files."""
    default = Path(tempfile.gettempdir()) / f"comfy-serverless-models-{os.getuid()}"
    return settings.model_store_dir or default


def make_store_directory(settings: Settings) -> Path:
    """Make the store directory, if it is missing, for this user alone; an engine of another user may read there.

    Raises:
        OSError: it cannot be made, or another user has put something there.
    """
    directory = store_directory(settings).absolute()
    directory.mkdir(mode=0o700, parents=settings.model_store_dir is not None, exist_ok=True)
    found = directory.lstat()
    if settings.model_store_dir is None and (not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid()):
        raise PermissionError(f"{directory} is not a folder of this user's own; set MODEL_STORE_DIR")
    if engine_user() is not None and (found.st_mode & _READABLE) != _READABLE:
        directory.chmod(stat.S_IMODE(found.st_mode) | _READABLE)
    places.hold(directory)
    return directory


def own_directory(settings: Settings) -> Path:
    """This process's own folder in the store, the same at every call; those of processes that are gone are removed.

    It is made again, empty, if it is gone.

    Raises:
        OSError: it cannot be made.
    """
    directory = make_store_directory(settings)
    with _making:
        key = directory, os.getpid()
        if key not in _own_directories:
            _own_directories[key] = _make_own(directory / "seen")
        own, descriptor = _own_directories[key]
        if not locks.is_at(descriptor, own):  # it has been cleaned up, and ComfyUI knows it by its name
            _own_directories[key] = own, _make_again(own)  # if it fails, the next call must find the old one gone
            os.close(descriptor)
        return own


def write_paths_config(settings: Settings) -> Path:
    """Write the file for ComfyUI's `--extra-model-paths-config`. Returns its path.

    It is JSON, which is YAML too. The store comes last among the places of a folder, so that nothing a job brings can
    hide a model of the operator's.

    Raises:
        OSError: it cannot be written.
    """
    directory = own_directory(settings)
    folders = {folder: folder for folder in MODEL_FOLDERS}
    config: dict[str, dict[str, str]] = {}
    if settings.model_data_dir.is_dir():
        config["sagemaker"] = {"base_path": str(settings.model_data_dir), **folders}
    own = {folder: folder for folder in MODEL_FOLDERS if folder not in RENAMED_FOLDERS}
    config["comfy_serverless"] = {"base_path": str(directory / "models"), **own}
    path = directory / "extra_model_paths.yaml"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    path.chmod(0o644)
    return path


def _make_own(directories: Path) -> tuple[Path, int]:
    """Make a folder that this process holds until it ends, by a lock that ends with it."""
    directories.mkdir(mode=0o755, exist_ok=True)
    while (held := _locked(own := Path(tempfile.mkdtemp(dir=directories, prefix=f"{os.getpid()}-")))) is None:
        pass  # another process took it for one that was left
    own.chmod(0o755)  # ComfyUI is another user where we are root
    for directory in directories.iterdir():
        if directory != own:
            _remove_if_left(directory)
    return own, held


def _make_again(own: Path) -> int:
    own.parent.mkdir(mode=0o755, exist_ok=True)
    while True:
        own.mkdir(mode=0o755, exist_ok=True)
        if (held := _locked(own)) is not None:
            own.chmod(0o755)
            return held


def _locked(own: Path) -> int | None:
    """Lock a folder as long as this process lives; None if it was removed before it was locked."""
    try:
        descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if locks.is_at(descriptor, own):
        return descriptor
    os.close(descriptor)
    return None


def _remove_if_left(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # removed meanwhile, or no folder of ours
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:  # its process lives
        pass
    finally:
        os.close(descriptor)
