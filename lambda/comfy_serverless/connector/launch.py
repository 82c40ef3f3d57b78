"""Which ComfyUI is started, and where it keeps its files. Pure decisions; starting it is `process`'s part."""

from __future__ import annotations

import importlib.util
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_serverless.connector.model_paths import write_paths_config
from comfy_serverless.errors import EngineUnavailable, InvalidSetting
from comfy_serverless.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """How ComfyUI is started.

    Attributes:
        command: the arguments, without `--port`.
        cwd: where it is started; None for the current folder.
        environment: variables set in addition.
        own_folder: where engines keep their files, each in a folder of its own. None leaves it to the engine.
    """

    command: Sequence[str]
    cwd: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    own_folder: Path | None = None

    def arguments(self, port: int, *, first_port: int) -> list[str]:
        """The whole command line for a port.

        Args:
            first_port: where it was first started; names its folder, so that a restart elsewhere finds its inputs.
        """
        folder = ["--base-directory", str(self.own_folder / str(first_port))] if self.own_folder else []
        return [*self.command, *folder, "--port", str(port)]


def choose_engine(settings: Settings) -> EngineChoice:
    """`API_COMMAND_LINE`, else `COMFYUI_DIR`, else `ComfyUI/` beside the caller, else the embedded engine.

    Raises:
        InvalidSetting: COMFYUI_DIR is not a ComfyUI checkout.
        EngineUnavailable: nothing is configured and the embedded engine is not installed.
    """
    if settings.api_command_line:
        paths = _model_paths_config(settings)
        environment = {"MODEL_PATHS_CONFIG": paths} if paths else {}
        return EngineChoice(shlex.split(settings.api_command_line), environment=environment)
    directory = settings.comfyui_dir
    if directory is not None and not (directory / "main.py").is_file():
        raise InvalidSetting(f"COMFYUI_DIR={str(directory)!r} cannot be used: there is no main.py in it")
    if directory is None and Path("ComfyUI/main.py").is_file():
        directory = Path("ComfyUI")
    if directory is not None:
        python = settings.comfyui_python or _python_of(directory)
        arguments = [*shlex.split(settings.comfyui_args), *_model_paths_arguments(settings)]
        return EngineChoice([python, "main.py", *arguments], cwd=directory.resolve())
    return _embedded_engine(settings)


def folders_of(stats: Mapping[str, Any], cwd: Path) -> dict[str, list[Path]]:
    """Where a ComfyUI started in `cwd` keeps its files, by folder type, from `/system_stats`' `argv`.

    Several candidates where versions differ; who looks for a file takes the first that has it.
    """
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
        "input": [flags.get("--input-directory", base / "input")],
        "output": [flags.get("--output-directory", base / "output")],
        # ComfyUI puts a folder `temp` below what it is given.
        "temp": [temp / "temp", temp],
    }


def engine_name(stats: Mapping[str, Any]) -> str:
    """What runs here, for results: "ComfyUI 0.3.64", or the embedded engine and what it stands in for."""
    system = stats.get("system") or {}
    version = system.get("comfyui_version", "unknown")
    if "comfy_lite_version" in system:
        return f"comfy_lite {system['comfy_lite_version']} (ComfyUI {version})"
    return f"ComfyUI {version}"


def _python_of(directory: Path) -> str:
    candidates = [directory / name / "bin" / "python" for name in (".venv", "venv")]
    return next((str(path.absolute()) for path in candidates if path.exists()), "python3")


def _model_paths_arguments(settings: Settings) -> list[str]:
    """Last on the command line: the last place that is named comes first when ComfyUI looks for a model."""
    paths = _model_paths_config(settings)
    return ["--extra-model-paths-config", paths] if paths else []


def _model_paths_config(settings: Settings) -> str | None:
    """The file that tells ComfyUI where fetched models are. Without it only jobs that name models cannot run."""
    try:
        return str(write_paths_config(settings))
    except OSError as error:
        logger.warning("no models can be fetched, MODEL_STORE_DIR cannot be written: %s", error)
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
    logger.warning("no ComfyUI is configured: the embedded engine runs (no models). COMFYUI_DIR=… for yours")
    # The engine is a sibling package: found wherever we were.
    source = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "comfy_lite", *_model_paths_arguments(settings)]
    return EngineChoice(command, environment={"PYTHONPATH": path}, own_folder=folder)
