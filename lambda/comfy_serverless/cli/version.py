"""`comfy-serverless --version`: the version of this program, and of the ComfyUI that `run` would use."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_serverless.settings import Settings


def print_versions() -> int:
    """Print them, without starting anything. Returns the exit code."""
    from comfy_serverless.settings import Settings

    settings = Settings.from_environment()
    print(f"comfy-serverless {version('comfy-serverless')}")
    print(_engine_in_words(settings))
    if settings.release_version:
        print(f"release: {settings.release_version}")
    return 0


def _engine_in_words(settings: Settings) -> str:
    if settings.comfyui_url:
        return _running_engine(settings)
    if settings.api_command_line:
        return "engine: what API_COMMAND_LINE starts"
    folder = settings.comfyui_dir or (Path("ComfyUI") if Path("ComfyUI/main.py").is_file() else None)
    if folder is not None:
        return f"engine: ComfyUI {_version_of_checkout(folder) or 'of unknown version'} in {folder}"
    return "engine: the embedded one (COMFYUI_DIR or COMFYUI_URL name another)"


def _running_engine(settings: Settings) -> str:
    from comfy_serverless.connector.engine import Engine

    engine = Engine(settings)
    try:
        engine.wait_ready()
        return f"engine: {engine.name} at {engine.client.server}"
    finally:
        engine.close()


def _version_of_checkout(folder: Path) -> str | None:
    """What a checkout says of itself in its pyproject.toml."""
    try:
        text = (folder / "pyproject.toml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r'^version\s*=\s*"([^"]+)"', text, re.MULTILINE)
    return found[1] if found else None
