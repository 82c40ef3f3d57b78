"""What the engine may know: variables by a list, and nothing of the process that has started it."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector import confinement
from comfy_serverless.connector.confinement import EngineUser, confining_prefix, engine_environment, engine_user
from comfy_serverless.errors import InvalidSetting
from comfy_serverless.settings import Settings
from tests.patience import PATIENCE_S, is_alive, wait_until

PRYING = Path(__file__).parents[2] / "prying_engine.py"
IS_ROOT = os.geteuid() == 0


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD", "XDG_CACHE_HOME"),
        *("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONUNBUFFERED", "UV_CACHE_DIR", "CC"),
        *("HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
        *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION"),
        *("PYTORCH_CUDA_ALLOC_CONF", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "OMP_NUM_THREADS"),
        *("HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_CACHE", "TOKENIZERS_PARALLELISM", "IMAGEIO_FFMPEG_EXE"),
        *("COMFYUI_ARGS", "MODEL_PATHS_CONFIG", "AWS_REGION", "AWS_DEFAULT_REGION"),
    ],
)
def test_what_comfyui_and_its_nodes_need_passes(name: str) -> None:
    assert engine_environment({name: "value"}) == {name: "value"}


CREDENTIALS = [
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_METADATA_TOKEN", "AWS_LAMBDA_METADATA_API", "aws_secret_access_key"),
    *(setting.metadata["variable"] for setting in fields(Settings) if setting.metadata["is_secret"]),
]


@pytest.mark.parametrize("name", CREDENTIALS)
@pytest.mark.parametrize("more", [(), ("*",), ("A*", "a*", "C*")])
def test_the_workers_credentials_never_pass(name: str, more: tuple[str, ...]) -> None:
    assert engine_environment({name: "value"}, more) == {}


#: What an operator may hand to a node by its full name; and where a secret is, which is none.
NAMED_IN_FULL = {"HF_TOKEN", "CIVITAI_TOKEN", "HUGGING_FACE_TOKEN_PARAMETER", "CIVITAI_TOKEN_PARAMETER"}


@pytest.mark.parametrize("name", [*(name for name in CREDENTIALS if name not in NAMED_IN_FULL), "AWS_*", "AWS_S*"])
def test_a_setting_that_asks_for_them_is_named(name: str) -> None:
    with pytest.raises(InvalidSetting, match="never handed to ComfyUI"):
        engine_environment({}, [name])


@pytest.mark.parametrize("name", ["A-B", "A B", "*A", "A**", "A=B"])
def test_a_setting_that_names_no_variable_is_named(name: str) -> None:
    with pytest.raises(InvalidSetting, match="ENGINE_ENVIRONMENT"):
        engine_environment({}, [name])


@pytest.mark.parametrize(
    "name",
    [
        *("JOBS_TABLE", "OUTPUT_BUCKET", "JOB_QUEUE_URL", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY"),
        *("OPENAI_API_KEY", "HF_TOKEN", "HF_TOKEN_PATH", "COMFY_API_KEY", "GITHUB_TOKEN", "DATABASE_PASSWORD"),
    ],
)
def test_anything_else_passes_by_name_only(name: str) -> None:
    assert engine_environment({name: "value"}) == {}
    assert engine_environment({name: "value"}, ["OTHER", name]) == {name: "value"}


def test_a_beginning_lets_through_what_speaks_of_no_secret() -> None:
    environment = {"MY_NODE_MODE": "fast", "MY_NODE_API_KEY": "secret", "MYOTHER": "1"}
    assert engine_environment(environment, ["MY_NODE_*"]) == {"MY_NODE_MODE": "fast"}


STARTING = """
    import os, sys, time, threading
    from pathlib import Path
    from comfy_serverless.connector import confinement
    from comfy_serverless.connector.process import ComfyProcess
    report, user, *words = sys.argv[1:]
    confinement.ENGINE_USER = user or confinement.ENGINE_USER
    in_memory = os.environ["AWS_SECRET_ACCESS_KEY"] + "-copy"
    held = open(__file__ if "__file__" in globals() else "/etc/hostname")
    os.set_inheritable(held.fileno(), True)
    comfy = ComfyProcess(
        lambda port: [{python!r}, {prying!r}, report, *words, "--port", str(port)],
        host="127.0.0.1", first_port=19888, answers=lambda _: True, user=confinement.engine_user(),
    )
    comfy.start()
    comfy.wait_ready({patience})
    print(os.getpid(), comfy.cpu_seconds(), flush=True)
    comfy.stop()
    print(comfy.pid, flush=True)
"""


def pry(folder: Path, *, before: str = "", user: str = "", python: str = sys.executable) -> dict[str, Any]:
    """Start the prying engine from a process with credentials. Returns its report."""
    confinement.hide_process()  # this process knows the secret, too
    secret = f"secret-{uuid.uuid4().hex}"
    report = folder / "report.json"
    script = textwrap.dedent(STARTING.format(python=python, prying=str(prying_copy(folder)), patience=PATIENCE_S))
    environment = {**os.environ, "PYTHONPATH": "lambda", "AWS_SECRET_ACCESS_KEY": secret, "OTHER_TOKEN": secret}
    answer = subprocess.run(
        [sys.executable, "-c", before + script, str(report), user, secret[::-1]],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=PATIENCE_S,
    )
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(report.read_text())
    assert found["parent"] == int(answer.stdout.split()[0]), "it has looked at the process that has the credentials"
    assert found["looked_at"] > 0
    return found


def prying_copy(folder: Path) -> Path:
    copy = folder / PRYING.name
    copy.write_bytes(PRYING.read_bytes())
    return copy


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder in which every user can write: pytest's are closed."""
    folder = Path("/tmp") / f"prying-{uuid.uuid4().hex}"
    folder.mkdir()
    folder.chmod(0o777)
    try:
        yield folder
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_an_engine_that_tries_every_way_finds_no_credentials(tmp_path: Path) -> None:
    report = pry(tmp_path)
    assert report["found"] == []
    assert report["ways"] == report["links"] == []
    assert str(report["parent"]) not in report["descriptors"]
    assert not {name for name in report["variables"] if name.startswith("AWS_") or "TOKEN" in name}


CRASHING = """
import os, resource, signal, sys
from comfy_serverless.connector.confinement import hide_process
if sys.argv[1] == "hidden":
    hide_process()
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
os.chdir(sys.argv[2])
os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.parametrize("how", ["hidden", "open"])
def test_a_signal_makes_no_core_of_a_hidden_process(tmp_path: Path, how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": "lambda"}
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", CRASHING, how, str(tmp_path)], environment, setpgroup=0)
    status = os.waitpid(pid, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGSEGV
    may_have_cores = resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    assert os.WCOREDUMP(status) == (how == "open" and may_have_cores)
    assert bool(list(tmp_path.iterdir())) <= (how == "open")


def test_it_inherits_nothing_but_its_output(tmp_path: Path) -> None:
    targets = [entry.split(" -> ") for entry in pry(tmp_path)["own_descriptors"]]
    assert {number for number, target in targets if not target.startswith("/proc/")} == {"0", "1", "2"}
    assert all(target.startswith(("/dev/null", "pipe:", "/proc/")) for _, target in targets), targets


def test_it_would_find_them_in_a_process_that_is_open(tmp_path: Path) -> None:
    """The test's own test: without our measures the probe finds the secret in several places."""
    opened = "import comfy_serverless.connector.process as p; p.hide_process = lambda: None; "
    opened += "p.confining_prefix = lambda user: []\n"
    report = pry(tmp_path, before=opened)
    found = " ".join(report["found"])
    assert "in environ of" in found
    assert "in mem of" in found
    assert "of its caller" in found
    assert {"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"} <= set(report["ways"])
    assert {"cwd", "root", "exe", "fd"} <= set(report["links"])


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_where_we_are_root_it_is_another_user_and_ends_with_us() -> None:
    nobody = pwd.getpwnam("nobody")
    with open_folder() as folder:
        report = pry(folder, user="nobody", python="/usr/bin/python3")
    assert report["uid"] == nobody.pw_uid
    assert report["found"] == []
    assert report["ways"] == report["links"] == []
    assert str(report["parent"]) not in report["descriptors"]


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_another_user_ends_when_we_are_killed() -> None:
    program = """
        import os, signal, time
        from comfy_serverless.connector import confinement
        from comfy_serverless.connector.process import ComfyProcess
        confinement.ENGINE_USER = "nobody"
        comfy = ComfyProcess(lambda _: ["/bin/sh", "-c", "echo up; sleep 600"], host="127.0.0.1", first_port=19888,
                             answers=lambda _: True, user=confinement.engine_user())
        comfy.start()
        while "up" not in comfy.log_tail:
            time.sleep(0.01)
        print(comfy.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "lambda"},
        check=False,
        timeout=PATIENCE_S,
    )
    assert answer.returncode == -signal.SIGKILL, answer.stderr
    assert wait_until(lambda: not is_alive(int(answer.stdout)))


@pytest.mark.skipif(not IS_ROOT, reason="only root has capabilities to lose")
def test_root_without_that_user_keeps_the_rights_over_files_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "output"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, 12345, 12345)
    script = f"grep CapEff /proc/self/status; touch {theirs}/picture.png && echo written"
    answer = subprocess.run([*confining_prefix(None), "sh", "-c", script], capture_output=True, text=True, check=True)
    assert "CapEff:\t000000000000001b" in answer.stdout
    assert "written" in answer.stdout


def test_the_user_must_be_able_to_write_in_the_engines_folder(tmp_path: Path) -> None:
    state = tmp_path.stat()
    tmp_path.chmod(0o700)
    assert EngineUser("u", state.st_uid, state.st_gid, tmp_path).may_write(tmp_path)
    stranger = EngineUser("u", state.st_uid + 1, state.st_gid + 1, tmp_path)
    assert not stranger.may_write(tmp_path)
    tmp_path.chmod(0o777)
    assert stranger.may_write(tmp_path)


def test_nobody_but_root_becomes_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "ENGINE_USER", "nobody")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert engine_user() is None
    assert confining_prefix(None)[1:] in ([], ["--pdeathsig", "KILL", "--"])
