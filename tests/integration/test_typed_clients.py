"""Typed clients as type checkers see them; and the one of the examples, which is what the command prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from comfy_serverless.cli.local_run import started
from comfy_serverless.cli.named.client.generate import Described, client_of
from comfy_serverless.settings import Settings
from comfy_serverless.workflows.folder import Folder
from comfy_serverless.workflows.schema import schema_of
from tests.patience import PATIENCE_S
from tests.unit.cli.named.client_samples import EMPTY, HOSTILE, POSTER

ROOT = Path(__file__).parents[2]
GOOD = """\
from pathlib import Path
from poster import InvalidInputs, Poster
from result import ResultWorkflow
from thing import Workflow3dThing

poster = Poster().with_options(sticky="ana", on_progress=lambda done, what: None)
photo = poster.upload(b"...")
result = poster.run(photo=photo, prompt="a fox", sampler="ddim", frames=[Path("a.png"), "s3://b/c.png"], cfg=7)
content: bytes = result.picture[0].bytes()
saved: list[Path] = result.save("out")
status: str = poster.submit(photo="a.png").cancel()
refusal: type[Exception] = InvalidInputs
ResultWorkflow().run(class_="x", a_b="y", model="model 4999.safetensors", open=True)
Workflow3dThing().run().outputs[0].save()
"""
BAD = """\
from poster import Poster
Poster().run()
Poster().run(photo="a.png", sampler="eulr")
Poster().run(photo=5)
Poster().run(photo="a.png", promt="x")
Poster().run(photo=["a.png"])
Poster().run(photo="a.png").pictures
"""


def mypy(folder: Path, name: str) -> list[str]:
    """What mypy says of a file, in its strict mode, for the oldest Python that clients are for."""
    line = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.10", "--no-color-output", name]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    done = subprocess.run(
        line, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment
    )
    return [text for text in done.stdout.splitlines() if ": error:" in text] or done.stderr.splitlines()


def test_mypy_knows_the_types_of_any_workflow(tmp_path: Path) -> None:
    for name, described in (("poster", POSTER), ("result", HOSTILE), ("thing", EMPTY)):
        (tmp_path / f"{name}.py").write_text(client_of(described), encoding="utf-8")
    (tmp_path / "good.py").write_text(GOOD)
    assert mypy(tmp_path, "good.py") == []
    (tmp_path / "bad.py").write_text(BAD)
    lines = {int(told.split(":")[1]) for told in mypy(tmp_path, "bad.py")}
    assert lines == set(range(2, 8))


def pyright(folder: Path, name: str) -> set[int]:
    """The lines of a file of which pyright complains in its strict mode, for the oldest Python that clients are for."""
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "pythonVersion": "3.10", "include": [name]})
    )
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", "--project", str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    told = json.loads(done.stdout)
    assert told["summary"]["filesAnalyzed"] > 0, done.stdout
    return {one["range"]["start"]["line"] + 1 for one in told["generalDiagnostics"] if one["severity"] == "error"}


def test_pyright_knows_them_too(tmp_path: Path) -> None:
    for name, described in (("poster", POSTER), ("result", HOSTILE), ("thing", EMPTY)):
        (tmp_path / f"{name}.py").write_text(client_of(described), encoding="utf-8")
        assert pyright(tmp_path, f"{name}.py") == set(), "a client itself"
    (tmp_path / "good.py").write_text(GOOD)
    assert pyright(tmp_path, "good.py") == set()
    (tmp_path / "bad.py").write_text(BAD)
    assert pyright(tmp_path, "bad.py") == set(range(2, 8))


def test_the_client_of_the_examples_is_what_the_command_prints() -> None:
    with started(None, Settings()) as connector:
        declared = connector.object_info_now()
    version = Folder(ROOT / "workflows").version("thumbnail", declared)
    assert version is not None
    outputs = {one.name: one.node_id for one in version.outputs}
    described = Described(
        name="thumbnail", number=0, alias="live", schema=schema_of(version, declared), outputs=outputs
    )
    committed = (ROOT / "examples" / "thumbnail_client.py").read_text(encoding="utf-8")
    assert client_of(described) == committed, (
        "comfy-serverless workflows client thumbnail > examples/thumbnail_client.py"
    )
