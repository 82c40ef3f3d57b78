"""The command line: ComfyUI's flags, where they mean something here, and a few of our own."""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comfy_lite import __version__
from comfy_lite.node import Directories
from comfy_lite.releases import NEWEST, RELEASES, Release

logger = logging.getLogger("comfy_lite")

_DESCRIPTION = f"""\
A small engine that speaks ComfyUI {NEWEST.version}'s HTTP and websocket interface and runs its image nodes without
any model. For laptops, tests and CI: it starts in well under a second and needs aiohttp, numpy and Pillow.
"""
_EPILOG = """\
examples:
  python -m comfy_lite --port 8188                        serve on http://127.0.0.1:8188, files below this folder
  python -m comfy_lite --port 8188 --base-directory /tmp/lite --step-ms 200
  python -m comfy_lite --port 8188 --enable-faults        then POST /lite/faults {"fault": "crash", "at": "node"}

then:
  curl http://127.0.0.1:8188/object_info                  lists the nodes
  curl http://127.0.0.1:8188/prompt -d '{"prompt": {"1": {"class_type": "EmptyImage", "inputs": {"width": 64,
    "height": 64, "batch_size": 1, "color": 255}}, "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0],
    "filename_prefix": "hello"}}}}'                       writes output/hello_00001_.png
"""
_PREVIEW_METHODS = ("none", "auto", "latent2rgb", "taesd")
_IGNORED_SWITCHES = (
    "--cpu",
    "--disable-api-nodes",
    "--disable-auto-launch",
    "--disable-metadata",
    "--disable-smart-memory",
    "--highvram",
    "--lowvram",
    "--normalvram",
)
_IGNORED_VALUES = ("--cuda-device", "--user-directory")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed command line."""

    port: int
    listen: tuple[str, ...]
    directories: Directories
    step_s: float
    start_delay_s: float
    max_upload_bytes: float
    previews: bool
    print_server: bool
    log_level: str
    log_stdout: bool
    enable_faults: bool
    custom_nodes: bool
    release: Release


def parse(arguments: Sequence[str]) -> Options:
    """Parse the command line. Exits with status 2 if it has something unknown."""
    given = _parser().parse_args(arguments)
    base = _absolute(given.base_directory) if given.base_directory else _default_base()
    # As in ComfyUI, a folder of this name *inside* the given one, because it is emptied.
    temp = (_absolute(given.temp_directory) if given.temp_directory else base) / "temp"
    # ComfyUI shows its default limit as a whole number, and one given by the flag as a float.
    upload_mb = 100 if given.max_upload_size is None else given.max_upload_size
    return Options(
        port=given.port,
        listen=tuple(given.listen.split(",")),
        directories=Directories(
            input=_absolute(given.input_directory or base / "input"),
            output=_absolute(given.output_directory or base / "output"),
            temp=temp,
            models=_model_places(given.extra_model_paths_config),
        ),
        step_s=given.step_ms / 1000,
        start_delay_s=given.start_delay_ms / 1000,
        max_upload_bytes=upload_mb * 1024 * 1024,
        previews=given.preview_method != "none",
        print_server=not given.dont_print_server,
        log_level=given.verbose,
        log_stdout=given.log_stdout,
        enable_faults=given.enable_faults,
        custom_nodes=not given.disable_all_custom_nodes,
        release=next(release for release in RELEASES if release.version == given.comfyui_version),
    )


def _model_places(configs: Sequence[str]) -> dict[str, list[Path]]:
    """The places that the files list, by model folder. YAML that is not JSON is skipped, though ComfyUI may read it."""
    places: dict[str, list[Path]] = {}
    for config in configs:
        try:
            sections = json.loads(Path(config).read_bytes())
        except (OSError, ValueError) as error:
            logger.warning("%s was not read: %s", config, error)
            continue
        for section in sections.values():
            base = Path(section["base_path"])
            for folder, place in section.items():
                if folder not in {"base_path", "is_default"}:
                    places.setdefault(folder, []).append(base / place)
    return places


def _absolute(folder: str | Path) -> Path:
    """The absolute folder without `..`, which the checks that keep clients inside it rely on."""
    return Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow links


def _default_base() -> Path:
    """The current folder, or a fresh temporary one if that is read-only."""
    here = Path.cwd()
    return here if os.access(here, os.W_OK) else Path(tempfile.mkdtemp(prefix="comfy_lite-"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m comfy_lite",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"comfy_lite {__version__}")
    network = parser.add_argument_group("network")
    network.add_argument("--port", type=int, default=8188, help="port to listen on; 0 finds a free one and logs it")
    network.add_argument(
        "--listen",
        metavar="IP",
        default="127.0.0.1",
        nargs="?",
        const="0.0.0.0,::",
        help="addresses, separated by commas; without a value: all (default: 127.0.0.1)",
    )
    network.add_argument("--max-upload-size", metavar="MB", type=float, help="largest request body (default: 100)")
    _add_folder_flags(parser)
    behaviour = parser.add_argument_group("behaviour")
    behaviour.add_argument(
        "--step-ms", metavar="MS", type=float, default=20.0, help="time a sampling step takes (default: 20)"
    )
    behaviour.add_argument(
        "--preview-method",
        choices=_PREVIEW_METHODS,
        default="auto",
        help="anything but none sends previews while sampling (default: auto)",
    )
    behaviour.add_argument(
        "--disable-all-custom-nodes",
        action="store_true",
        help="leave out what ComfyUI ships as a custom node: SaveImageWebsocket",
    )
    behaviour.add_argument(
        "--comfyui-version",
        choices=[release.version for release in RELEASES],
        default=NEWEST.version,
        help="the ComfyUI to speak as (default: %(default)s)",
    )
    behaviour.add_argument(
        "--enable-faults", action="store_true", help="offer /lite/faults: failures on demand, for tests"
    )
    behaviour.add_argument(
        "--start-delay-ms", metavar="MS", type=float, default=0.0, help="wait before listening, for tests"
    )
    _add_log_flags(parser)
    _add_ignored_flags(parser)
    return parser


def _add_folder_flags(parser: argparse.ArgumentParser) -> None:
    folders = parser.add_argument_group("folders", "default: input, output and temp in the current folder")
    folders.add_argument("--base-directory", metavar="D", help="the folder the three are in")
    folders.add_argument("--input-directory", metavar="D", help="where LoadImage looks and uploads go")
    folders.add_argument("--output-directory", metavar="D", help="where SaveImage writes")
    folders.add_argument(
        "--extra-model-paths-config",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="further places of models to list, as JSON (this program reads no other YAML)",
    )
    folders.add_argument("--temp-directory", metavar="D", help="previews go to D/temp, which is emptied at the start")


def _add_log_flags(parser: argparse.ArgumentParser) -> None:
    log = parser.add_argument_group("log")
    log.add_argument(
        "--verbose", nargs="?", default="INFO", const="DEBUG", choices=_LOG_LEVELS, help="level (default: INFO)"
    )
    log.add_argument("--log-stdout", action="store_true", help="log to stdout instead of stderr")
    log.add_argument("--dont-print-server", action="store_true", help="do not print the address")


def _add_ignored_flags(parser: argparse.ArgumentParser) -> None:
    ignored = parser.add_argument_group("accepted for ComfyUI's sake", "these change nothing here")
    for flag in _IGNORED_SWITCHES:
        ignored.add_argument(flag, action="store_true")
    for flag in _IGNORED_VALUES:
        ignored.add_argument(flag, metavar="X")
