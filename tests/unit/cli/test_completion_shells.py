"""The scripts of `completion` in the shells that they are for, as somebody types: zsh and fish, where these are there.

bash is in every image; the others are asked for by hand (`apt-get install zsh fish`), and their tests are left out
without them.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from comfy_serverless.cli.main import main
from tests.patience import PATIENCE_S

zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
fish = pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
#: What is typed, and what stands there after a tab.
TYPED = {
    "comfy-serverless workf": "comfy-serverless workflows ",
    "comfy-serverless workflows prom": "comfy-serverless workflows promote ",
    "comfy-serverless workflows show pos": "comfy-serverless workflows show poster ",
    "comfy-serverless workflows push poster poster.json --writ": "--write-inputs",
    "comfy-serverless completion z": "comfy-serverless completion zsh ",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with what `workflows ls` has shown last, and the scripts."""
    (tmp_path / "comfy-serverless").mkdir()
    (tmp_path / "comfy-serverless" / "workflow-names").write_text("poster\nsmall\n")
    for shell in ("zsh", "fish"):
        with redirect_stdout(StringIO()) as printed:
            assert main(["completion", shell]) == 0
        (tmp_path / f"script.{shell}").write_text(printed.getvalue())
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": str(home), "TERM": "dumb"}


@fish
@pytest.mark.parametrize("typed", TYPED)
def test_fish_completes_commands_options_and_names(home: Path, typed: str) -> None:
    done = subprocess.run(
        ["fish", "--private", "--no-config", "-c", f"source {home}/script.fish; complete -C '{typed}'"],
        env=environment(home),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == ""
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert offered == [TYPED[typed].split()[-1]]


@zsh
@pytest.mark.parametrize("typed", TYPED)
def test_zsh_completes_commands_options_and_names(home: Path, typed: str) -> None:
    """Typed into a terminal, as zsh completes nowhere else; then the line is executed as words."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment(home))
    try:
        _type(terminal, f"autoload -U compinit; compinit -u -D; source {home}/script.zsh; echo load''ed\n")
        _await(terminal, "loaded")
        _type(terminal, f"{typed}\t")
        _await(terminal, TYPED[typed].split()[-1])
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


def _type(terminal: int, text: str) -> None:
    os.write(terminal, text.encode())


def _await(terminal: int, wanted: str) -> None:
    """Read what the terminal shows, until it shows this."""
    shown, until = "", time.monotonic() + PATIENCE_S
    while wanted not in shown:
        left = until - time.monotonic()
        assert left > 0, shown
        if select.select([terminal], [], [], left)[0]:
            shown += os.read(terminal, 65_536).decode(errors="replace")
