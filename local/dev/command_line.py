"""`make dev`: the whole service on this machine, behind http://127.0.0.1:8189. Ctrl-C ends it.

python -m local [--port PORT] [--workers N] [--release NAME=…] [--log-dir DIR]
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from comfy_serverless.connector.confinement import hide_process
from comfy_serverless.connector.engine import Engine
from comfy_serverless.connector.launch import choose_engine
from comfy_serverless.errors import ComfyError, InvalidSetting
from comfy_serverless.settings import Settings
from local.aws.gateway import PortTaken
from local.aws.processes import ENGINE_VARIABLES, LOOPBACK, MODEL_VARIABLES, NotListening, ProcessDied
from local.aws.release import ReleaseWish
from local.dev import API_KEY, Backend, DevStack, StoppedEarly
from local.dev.ending import Ending

ROOT = Path(__file__).parents[2]
PORT = 8189
BACKENDS: tuple[Backend, ...] = ("lambda", "sagemaker")
T = TypeVar("T")
#: Where logs and variables are, unless somebody says otherwise; with another port, in a folder named after it.
LOG_FOLDER = ROOT / "out" / "dev"
VARIABLES = "env.sh"
PRICE_VARIABLES = ("USD_PER_SECOND", "USD_PER_REQUEST")
WRONG_USAGE, INTERRUPTED = 2, 130

_EPILOG = f"""\
settings (environment variables):
  PORT             where it listens (default: {PORT})
  API_KEY          the key it takes (default: {API_KEY})
  BACKEND          lambda (default) or sagemaker: what runs jobs
  COMFYUI_DIR      a ComfyUI checkout to run jobs on; also {", ".join(ENGINE_VARIABLES[1:])}
  HF_TOKEN         for models that need a licence; also {", ".join(MODEL_VARIABLES[1:])}
  USD_PER_SECOND   what a second of a worker costs, for estimates; also {", ".join(PRICE_VARIABLES[1:])}

then, in another terminal (env.sh lies where the logs are: with another PORT in out/dev/PORT/):
  source out/dev/env.sh
  python -m examples.sdk_tour
  comfy-serverless batch submit events/manifest.jsonl --watch
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    console = Console(stderr=True, highlight=False)
    try:
        options = _options(arguments)
        check_settings(os.environ)
    except ComfyError as error:
        console.print(f"[bold red]{error.code}[/]: ", end="")
        print(error.message, file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    hide_process()  # a developer's own credentials may be in the environment, and workflows run beside it
    stack = DevStack(
        port=options.port,
        api_key=os.environ.get("API_KEY") or API_KEY,
        workers=options.workers,
        backend=options.backend,
        releases=options.releases,
        log_folder=options.log_dir or log_folder_of(options.port),
        environment=prices(os.environ),
    )

    def end() -> None:
        stack.end_soon()
        with suppress(OSError):  # the terminal may be gone
            print("stopping …", file=sys.stderr, flush=True)

    ending = Ending(end)
    written: list[Path] = []
    try:
        with console.status("Starting"):
            stack.start()
            stack.describe()
        stack.go_on()
        written = _write_variables(stack, beside_logs_only=options.log_dir is not None)
        key = "the one in API_KEY" if os.environ.get("API_KEY") else stack.api_key
        print(f"comfy-serverless is ready at {stack.url}  key: {key}  docs: {stack.url}/docs", flush=True)
        print(f"Console: {stack.url}/", flush=True)
        console.print(f"In another terminal: source {_short(written[-1])}", style="dim", soft_wrap=True)
        ending.wait()
    except StoppedEarly:
        pass
    except Exception as error:
        if ending.is_asked:  # a terminal's Ctrl-C goes to the processes that start, too
            return 0
        if not isinstance(error, PortTaken | ProcessDied | NotListening | OSError):
            raise
        console.print("[bold red]It did not start:[/] ", end="")
        print(error, file=sys.stderr)
        return 1
    finally:
        for path in written:
            path.unlink(missing_ok=True)
        stack.stop()
    return 0


def check_settings(environment: Mapping[str, str]) -> None:
    """Check what jobs will run with, in the words of the command line.

    Raises:
        InvalidSetting: a variable cannot be used.
        EngineUnavailable: nothing answers at COMFYUI_URL.
    """
    _from_environment("PORT", environment, port_number)
    _from_environment("BACKEND", environment, _backend)
    _from_environment("API_KEY", environment, _key)
    _from_environment("INITIAL_PORT", environment, port_number)
    chosen = {name: environment[name] for name in (*ENGINE_VARIABLES, *MODEL_VARIABLES) if environment.get(name)}
    settings = Settings.from_environment(chosen | prices(environment))
    if settings.comfyui_url:
        engine = Engine(settings)
        try:
            engine.wait_ready()
        finally:
            engine.close()
    elif chosen:
        choose_engine(settings)


def prices(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that say what jobs cost: without them nobody knows."""
    return {name: environment[name] for name in PRICE_VARIABLES if environment.get(name)}


def log_folder_of(port: int) -> Path:
    """Where the logs and variables of a `make dev` are: two of one checkout do not disturb each other."""
    return LOG_FOLDER if port == PORT else LOG_FOLDER / str(port)


def port_number(text: str) -> int:
    """A port. Raises ValueError for a text that is none."""
    value = int(text) if text.isascii() and text.isdecimal() else 0
    if not 1 <= value <= 65535:
        raise ValueError("must be a port between 1 and 65535")
    return value


def _backend(text: str) -> str:
    if text not in BACKENDS:
        raise ValueError(f"must be {' or '.join(BACKENDS)}")
    return text


def _key(text: str) -> str:
    if not all("!" <= letter <= "~" for letter in text):
        raise ValueError("must be letters, digits and signs of ASCII, without blanks: it is sent in a header")
    return text


def _from_environment(variable: str, environment: Mapping[str, str], convert: Callable[[str], T]) -> T | None:
    """A variable's value; None without one. Raises InvalidSetting, naming it, but never a key."""
    text = environment.get(variable)
    if not text:
        return None
    try:
        return convert(text)
    except ValueError as error:
        shown = "" if variable == "API_KEY" else f"={text!r}"
        raise InvalidSetting(f"{variable}{shown} cannot be used: {error}") from error


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m local",
        description=(__doc__ or "").splitlines()[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    port = _from_environment("PORT", os.environ, port_number) or PORT
    backend = _from_environment("BACKEND", os.environ, _backend) or BACKENDS[0]
    parser.add_argument("--port", type=_told(port_number), default=port, help="where it listens")
    parser.add_argument("--workers", type=_told(_count), default=1, help="jobs that run at once (default: 1)")
    parser.add_argument("--backend", choices=BACKENDS, default=backend, help="what runs jobs (default: lambda)")
    parser.add_argument(
        "--release",
        action="append",
        default=[],
        dest="releases",
        type=_told(ReleaseWish.parse),
        metavar="NAME=ENGINE",
        help="a release beside it, for `comfy-serverless release`; its engine is a folder with a ComfyUI checkout, or "
        "the command that starts one (repeat)",
    )
    parser.add_argument("--log-dir", type=Path, help="where logs go (default: out/dev/, or out/dev/PORT/)")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdecimal() else 0
    if value < 1:
        raise ValueError("must be a whole number above 0")
    return value


def _told(convert: Callable[[str], T]) -> Callable[[str], T]:
    """The same for argparse, which says nothing of a plain ValueError's message."""

    def converted(text: str) -> T:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from None

    return converted


def _write_variables(stack: DevStack, *, beside_logs_only: bool) -> list[Path]:
    """Write what is for `source`; returns the files. A key that the caller has chosen is not written anywhere.

    The file that the pages name is written too, unless it is that of another `make dev` which still listens.
    """
    variables = {name: value for name, value in stack.client_variables.items() if value != os.environ.get("API_KEY")}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
    own, usual = stack.log_folder / VARIABLES, LOG_FOLDER / VARIABLES
    paths = [own] if beside_logs_only or own == usual or _is_in_use(usual) else [usual, own]
    for path in paths:
        path.write_text("".join(lines), encoding="utf-8")
    return paths


def _is_in_use(variables: Path) -> bool:
    """Whether something listens where a file with variables says."""
    try:
        match = re.search(rf"COMFY_BASE_URL=http://{re.escape(LOOPBACK)}:([0-9]+)", variables.read_text("utf-8"))
        with socket.create_connection((LOOPBACK, int(match[1]) if match else 0), timeout=1):
            return True
    except OSError:
        return False


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
