"""Decides which ComfyUI to start, and where it keeps its files. `process` starts it."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_serverless import setting_values
from comfy_serverless.connector.model_paths import write_paths_config
from comfy_serverless.errors import EngineUnavailable, InvalidSetting
from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """How to start ComfyUI.

    Attributes:
        command: the arguments, without `--port`.
        cwd: the folder to start it in; None for the current folder.
        environment: additional variables.
        own_folder: where engines keep their files, each in its own folder. None leaves it to the engine.
    """

    command: Sequence[str]
    cwd: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    own_folder: Path | None = None

    def arguments(self, port: int, *, first_port: int) -> list[str]:
        """The whole command line for a port.

        Args:
            first_port: the port of its first start. Names its folder: a restart on another port finds its inputs.
        """
        folder = ["--base-directory", str(self.own_folder / str(first_port))] if self.own_folder else []
        return [*self.command, *folder, "--port", str(port)]


def choose_engine(settings: Settings) -> EngineChoice:
    """Choose `API_COMMAND_LINE`, else `COMFYUI_DIR`, else `ComfyUI/` beside the caller, else the embedded engine.

    Raises:
        InvalidSetting: COMFYUI_DIR is not a ComfyUI checkout, its Python is not there, or a command line is none.
        EngineUnavailable: nothing is configured and the embedded engine is not installed.
    """
    if settings.api_command_line:
        paths = model_paths_config(settings)
        environment = {"MODEL_PATHS_CONFIG": paths} if paths else {}
        return EngineChoice(_words("API_COMMAND_LINE", settings.api_command_line), environment=environment)
    directory = settings.comfyui_dir
    if directory is not None:
        try:
            setting_values.checkout(str(directory))
        except ValueError as error:
            raise InvalidSetting(f"COMFYUI_DIR={str(directory)!r} cannot be used: {error}") from error
    if directory is None and Path("ComfyUI/main.py").is_file():
        directory = Path("ComfyUI")
    if directory is not None:
        python = _python(settings.comfyui_python, directory) if settings.comfyui_python else python_of(directory)
        arguments = [*_words("COMFYUI_ARGS", settings.comfyui_args), *_model_paths_arguments(settings)]
        return EngineChoice([python, "main.py", *arguments], cwd=directory.resolve())
    return _embedded_engine(settings)


def folders_of(stats: Mapping[str, Any], cwd: Path) -> dict[str, Path]:
    """Where a ComfyUI started in `cwd` keeps its files, by folder type, from `argv` in `/system_stats`."""
    argv = [str(argument) for argument in stats.get("system", {}).get("argv") or ()]
    flags: dict[str, Path] = {}
    for position, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        if name.startswith("--") and name.endswith("-directory"):
            value = value or (argv[position + 1] if position + 1 < len(argv) else "")
            flags[name] = cwd / value
    script = cwd / argv[0] if argv else cwd
    base = flags.get("--base-directory", script.parent if script.suffix == ".py" else cwd)
    temp = flags.get("--temp-directory", base)
    return {
        "input": flags.get("--input-directory", base / "input"),
        "output": flags.get("--output-directory", base / "output"),
        # ComfyUI makes a folder `temp` inside the given one; the given one may hold anything.
        "temp": temp / "temp",
        # Sets that nodes save to train with are beside them (0.33.0); no argument says where.
        "datasets": base / "datasets",
    }


def places_of(model_folders: Sequence[Mapping[str, Any]], cwd: Path) -> dict[str, tuple[Path, ...]]:
    """Where a ComfyUI started in `cwd` looks for models, by folder, from `/experiment/models`."""
    return {str(folder["name"]): tuple(cwd / str(path) for path in folder["folders"]) for folder in model_folders}


def engine_name(stats: Mapping[str, Any]) -> str:
    """The engine's name, for results: "ComfyUI 0.3.64", or the embedded engine and the version it stands in for."""
    system = stats.get("system") or {}
    version = system.get("comfyui_version", "unknown")
    if "comfy_lite_version" in system:
        return f"comfy_lite {system['comfy_lite_version']} (ComfyUI {version})"
    return f"ComfyUI {version}"


def _words(variable: str, text: str) -> list[str]:
    try:
        return setting_values.split(text)
    except ValueError as error:
        raise InvalidSetting(f"{variable} cannot be used: {error}") from error


def _python(text: str, directory: Path) -> str:
    """COMFYUI_PYTHON, which may be meant from the checkout."""
    try:
        found = setting_values.python(text)
        if "/" not in found or Path(found).is_absolute():
            return found
        return setting_values.python(str((directory / found).absolute()))
    except ValueError as error:
        raise InvalidSetting(f"COMFYUI_PYTHON={text!r} cannot be used: {error}") from error


def python_of(directory: Path) -> str:
    """The Python of a checkout: of the environment in its folder, else the one on the path."""
    candidates = [directory / name / "bin" / "python" for name in (".venv", "venv")]
    return next((str(path.absolute()) for path in candidates if path.exists()), "python3")


def _model_paths_arguments(settings: Settings) -> list[str]:
    """The last arguments of the command line: ComfyUI searches the operator's places first."""
    paths = model_paths_config(settings)
    return ["--extra-model-paths-config", paths] if paths else []


def model_paths_config(settings: Settings) -> str | None:
    """The file with the places of fetched models, written anew. Without it all jobs run but those that name models."""
    try:
        return str(write_paths_config(settings))
    except OSError as error:
        logger.warning("models cannot be fetched because MODEL_STORE_DIR is not writable: %s", error)
        return None


def _embedded_engine(settings: Settings) -> EngineChoice:
    missing = [name for name in ("comfy_lite", "aiohttp", "numpy") if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineUnavailable(
            "no ComfyUI is configured, and the embedded engine lacks "
            f"{', '.join(missing)}: set COMFYUI_DIR to a ComfyUI checkout, COMFYUI_URL to a running one, "
            "or install the extra `lite` (in a checkout: pip install '.[lite]')"
        )
    folder = Path(tempfile.gettempdir()) / f"comfy_lite-{os.getuid()}"
    logger.warning("no ComfyUI is configured: the embedded engine runs (no models). Set COMFYUI_DIR to run yours")
    # The engine is a sibling package, which a process in any folder must find.
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "comfy_lite", *_model_paths_arguments(settings)]
    return EngineChoice(command, environment={"PYTHONPATH": path}, own_folder=folder)
