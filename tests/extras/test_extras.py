"""Each extra, installed into a fresh environment, and the lines that README and docs say run with it.

`make extras`. It needs a package index, or pip's cache. Of the two environments each is filled twice: pip only adds,
so that `.[lite]` after `.` is what `.[lite]` alone would be.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from local.aws.collector import Collector
from tests.contract.engines import EngineProcess
from tests.doc_blocks import blocks
from tests.environments.outside import outside
from tests.unit.jobs_table import NAME, REGION, create_table

ROOT = Path(__file__).parents[2]
#: What each command lacks in an environment with nothing but the package.
NEEDS = [
    ("aws", ("keys", "ls", "--stack", "s")),
    ("aws", ("batch", "status", "x", "--stack", "s")),
    ("remote", ("upload", "LICENSE")),
    ("remote", ("jobs", "ls")),
    ("remote", ("keys", "ls", "--remote")),
    ("remote", ("run", "workflows/thumbnail.json", "--remote")),
    ("env", ("env", "lock")),
]

pytestmark = pytest.mark.timeout(1800)


_FOLDERS = {"lambda", "workflows", "events", "comfyui", "requirements"}


class Environment:
    """A virtual environment with our package in it, and a checkout as the current folder."""

    def __init__(self, folder: Path) -> None:
        self._python = folder / "venv" / "bin" / "python"
        self.checkout = folder / "checkout"
        self.checkout.mkdir(parents=True)
        files = subprocess.run(
            ["git", "ls-files", "-z", "--", "*"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in filter(None, files.stdout.split("\0")):
            if name.split("/")[0] in {*_FOLDERS, "pyproject.toml", "README.md", "LICENSE"}:
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                (self.checkout / name).write_bytes((ROOT / name).read_bytes())
        venv.create(folder / "venv", with_pip=False)

    def install(self, what: str) -> None:
        """`pip install` something, in the checkout."""
        command = [sys.executable, "-m", "pip", "--python", str(self._python), "install", "-q", "--no-compile", what]
        done = subprocess.run(command, cwd=self.checkout, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command of the environment, without anything of ours in its variables."""
        program = self._python.parent / command[0]
        environment = {"PATH": f"{self._python.parent}:{os.environ['PATH']}", "HOME": str(self.checkout), **variables}
        return subprocess.run(
            [str(program), *command[1:]],
            cwd=self.checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def succeeds(self, *command: str, **variables: str) -> str:
        """The same, of a command that must; what it prints."""
        done = self.run(*command, **variables)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("plain"))
    made.install(".")
    return made


@pytest.fixture(scope="module")
def with_aws(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("aws"))
    made.install(".[aws]")
    return made


@pytest.fixture(scope="module")
def with_env(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("env"))
    made.install(".[env]")
    return made


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    """Variables with which AWS is a table on this machine."""
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    variables = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": REGION}
    variables |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    session = boto3.Session("a", "b", region_name=REGION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", variables["AWS_ENDPOINT_URL"])
        create_table(session)
    yield variables
    server.stop()


#: In lines that are for an API, or for a shell.
_OTHERS = ("--remote", "$(", "|")


def lines_of_docs(start: str) -> list[list[str]]:
    """The commands in README and docs that begin so and are to be run, in their order, each once."""
    text = "\n".join(block.text for block in blocks() if block.kind != "not run")
    found = re.findall(rf"(?m)^{start} [^\n]*", text)
    return [shlex.split(line, comments=True) for line in dict.fromkeys(found)]


def is_here(workflow: str) -> bool:
    """Whether it is a file of the checkout, or the name of one in its workflows/."""
    return (ROOT / workflow).is_file() or (ROOT / "workflows" / f"{workflow}.json").is_file()


def says_what_it_lacks(environment: Environment, extra: str, *command: str, **variables: str) -> None:
    done = environment.run("comfy-serverless", *command, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr


@pytest.mark.parametrize(("extra", "command"), NEEDS)
def test_without_extras_a_command_says_which_one_it_needs(
    plain: Environment, extra: str, command: tuple[str, ...]
) -> None:
    says_what_it_lacks(plain, extra, *command, COMFY_BASE_URL="http://127.0.0.1:9")


def test_without_extras_there_is_no_engine_and_a_comfyui_elsewhere_runs_everything(
    plain: Environment, tmp_path: Path
) -> None:
    assert "comfy-serverless 0." in plain.succeeds("comfy-serverless", "--version")
    lacking = plain.run("comfy-serverless", "run", "workflows/thumbnail.json")
    assert lacking.returncode == 1
    assert "pip install '.[lite]'" in lacking.stderr
    engine = EngineProcess(tmp_path / "engine")
    try:
        line = ("comfy-serverless", "run", "workflows/thumbnail.json", "--input", "LoadImage.image=events/photo.jpg")
        assert "1 output" in plain.succeeds(*line, COMFYUI_URL=engine.url)
    finally:
        engine.close()


def test_lite_runs_what_the_readme_runs_from_a_terminal_and_from_python(plain: Environment) -> None:
    plain.install(".[lite]")
    # What needs a shell is run with its page (tests/integration/test_docs.py).
    lines = [line for line in lines_of_docs("comfy-serverless run") if not any(of in "".join(line) for of in _OTHERS)]
    lines = [line for line in lines if is_here(line[2])]  # others were pushed first: their page runs them
    assert len(lines) >= 2
    assert ["thumbnail"] in [line[2:3] for line in lines]
    assert any("--input" in line for line in lines)
    for line in lines:
        assert ("inputs of thumbnail" if "--help" in line else "output") in plain.succeeds(*line)
    program = (
        "import json\nfrom comfy_serverless import ComfyConnector\n"
        "workflow = json.load(open('workflows/text_to_image.json'))\n"
        "(image,) = ComfyConnector().generate_images(workflow)\nprint(image.size)"
    )
    assert plain.succeeds("python", "-c", program).startswith("(")
    says_what_it_lacks(plain, "aws", "keys", "ls", "--stack", "s")


def test_remote_reaches_an_api(plain: Environment) -> None:
    plain.install(".[remote]")
    for command in (("upload", "LICENSE"), ("jobs", "ls"), ("run", "workflows/text_to_image.json", "--remote")):
        done = plain.run("comfy-serverless", *command, COMFY_BASE_URL="http://127.0.0.1:9")
        assert (done.returncode, done.stdout) == (1, "")
        assert "http://127.0.0.1:9 cannot be reached" in done.stderr, "all is there: it is the API that is not"


#: A program of somebody's own, in whose process our spans are.
_SPAN = """
import sys
from comfy_serverless import tracing
tracing.begin(sys.argv[1], service="mine")
with tracing.span("painted"):
    pass
tracing.flush(60)
"""


def test_tracing_sends_spans_and_without_it_a_program_goes_on_and_says_so(plain: Environment) -> None:
    with Collector() as collector:
        done = plain.run("python", "-c", _SPAN, collector.endpoint)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "pip install '.[tracing]'" in done.stderr
        plain.install(".[tracing]")
        assert plain.succeeds("python", "-c", _SPAN, collector.endpoint) == ""
        assert [(span.service, span.name) for span in collector.spans] == [("mine", "painted")]


def test_aws_makes_keys_and_reaches_stacks(with_aws: Environment, aws: dict[str, str]) -> None:
    keys = ("comfy-serverless", "keys")
    made = with_aws.succeeds(*keys, "create", "ci", "--owner", "team", "--table", NAME, **aws)
    assert made.strip()
    assert "ci" in with_aws.succeeds(*keys, "ls", "--table", NAME, **aws)
    done = with_aws.run("comfy-serverless", "batch", "status", "x", "--stack", "s", **aws)
    assert done.returncode == 1
    assert "pip install" not in done.stderr, "all is there: it is the stack that is not"
    lacking = with_aws.run("comfy-serverless", "run", "workflows/thumbnail.json")
    assert "pip install '.[lite]'" in lacking.stderr


def test_both_together_run_and_make_keys(with_aws: Environment, aws: dict[str, str]) -> None:
    with_aws.install(".[lite,aws]")
    line = ("comfy-serverless", "run", "workflows/thumbnail.json", "--input", "LoadImage.image=events/photo.jpg")
    assert "1 output" in with_aws.succeeds(*line)
    assert with_aws.succeeds(
        "comfy-serverless", "keys", "create", "me", "--owner", "me", "--table", NAME, **aws
    ).strip()


def test_both_work_on_batches_with_a_key_alone(with_aws: Environment) -> None:
    with_aws.install(".[aws,remote]")
    for action in (("ls",), ("submit", "events/manifest.jsonl"), ("run", "thumbnail", "--each", "events/photo.jpg")):
        done = with_aws.run(
            "comfy-serverless", "batch", *action, COMFY_BASE_URL="http://127.0.0.1:9", COMFY_API_KEY="k"
        )
        assert "http://127.0.0.1:9 cannot be reached" in done.stderr, done.stderr


def test_env_locks_an_environment(with_env: Environment, tmp_path: Path) -> None:
    assert "is of comfyui/comfy-build.yaml" in with_env.run("comfy-serverless", "env", "lock", "--check").stderr
    with outside(tmp_path) as world:
        # What ComfyUI and torch ask for of the real index is no part of this.
        (with_env.checkout / "requirements" / "torch-needs.in").write_text("")
        (with_env.checkout / "comfyui" / "comfy-build.lock").unlink()
        build_file = with_env.checkout / "comfyui" / "comfy-build.yaml"
        pack = {"name": "kit-good", "id": "kit-good", "registryVersion": "1.0.0"}
        definition = {"schema": "distribution-definition/0", "baseComfyVersion": "v0.33.0", "customNodes": [pack]}
        build_file.write_text(json.dumps({"schema": "comfy-build/1", "definition": definition}))
        reached = {"COMFY_REGISTRY_URL": world.registry.url, "COMFYUI_REPOSITORY": world.comfyui.url, **world.variables}
        assert "1 pack " in with_env.succeeds("comfy-serverless", "env", "lock", **reached)
