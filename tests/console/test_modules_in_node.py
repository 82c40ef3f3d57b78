"""The modules as they are served mean what their sources mean: only blanks and comments are left out."""

from __future__ import annotations

import json
import subprocess
from importlib.resources import files
from pathlib import Path

from comfy_serverless.api.console import console_files
from tests.patience import PATIENCE_S
from tests.typescript import NODE

_COMPARE = Path(__file__).parent / "js" / "means_the_same.cjs"


def differing(pairs: dict[str, tuple[str, str]]) -> list[str]:
    """The names of those whose two texts mean different programs."""
    done = subprocess.run(
        [NODE, "--expose-internals", _COMPARE],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_every_module_means_what_its_source_means() -> None:
    folder = files("comfy_serverless.api").joinpath("console")
    served = {name: file.text for name, file in console_files().items() if name.endswith(".js")}
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in served}
    assert len(served) > 20
    assert differing({name: (sources[name], served[name]) for name in served}) == []
    assert sum(map(len, served.values())) < 0.9 * sum(map(len, sources.values()))


def test_what_means_something_else_is_found() -> None:
    pairs = {"blank in a text": ('"a , b"', '"a,b"'), "signs": ("a + +b", "a++; b"), "same": ("a  +  b // c", "a+b")}
    assert differing(pairs) == ["blank in a text", "signs"]
