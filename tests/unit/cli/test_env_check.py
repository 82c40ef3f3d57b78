"""`comfy-serverless env check`: what an image has, whether every pack imports, whether the lock is stale."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.cli.environments import check
from comfy_serverless.cli.main import main
from comfy_serverless.environments.image import container
from comfy_serverless.environments.lock_file import release_version
from tests.patience import PATIENCE_S, is_alive, wait_until
from tests.unit.fake_comfyui import FakeComfyUI

ROOT = Path(__file__).parents[3]
PROBLEM = {
    "pack": "toy",
    "reason": "No module named 'cv2'",
    "kind": "missing_module",
    "subject": "cv2",
    "what": "the module cv2 is missing",
    "declared": "declared by nobody",
    "do": "add the line `opencv-python-headless`",
}


def facts(release: str = "0" * 12, *, problems: tuple[Mapping[str, Any], ...] = ()) -> dict[str, Any]:
    built = {"release_version": release, "comfyui": "0.33.0", "commit": "2" * 40, "from": "lock"}
    return {
        "release": {**built, "packs": {"toy": "1.2.0"}},
        "inputs_sha256": "1" * 64,
        "libraries": 96,
        "torch": {"torch": "2.14.1"},
        "apt": ["libgl1"],
        "classes": {"ComfyUI": 887, "toy": 3},
        "problems": list(problems),
        "notes": ["toy seems to declare X, too"],
    }


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with our own build file and lock, where the command runs."""
    (tmp_path / "comfyui").mkdir()
    for name in ("comfy-build.yaml", "comfy-build.lock"):
        shutil.copy(ROOT / "comfyui" / name, tmp_path / "comfyui")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container engine that prints what the two files say; it writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(
        f'#!/bin/sh\necho "$@" >>{folder}/calls\nfor last; do :; done\necho words of ComfyUI\ncat {folder}/$last.json\n'
    )
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def answers(docker: Path, read_only: Mapping[str, Any], writable: Mapping[str, Any] | None = None) -> None:
    for mode, said in (("read-only", read_only), ("writable", writable or read_only)):
        (docker / f"{mode}.json").write_text(json.dumps(said))


def here(checkout: Path) -> str:
    return release_version((checkout / "comfyui" / "comfy-build.lock").read_text())


def test_an_image_is_started_as_lambda_does_and_as_it_comes(
    checkout: Path, docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(docker, facts(here(checkout)))
    assert main(["env", "check", "--image", "mine:1"]) == 0
    shown = capsys.readouterr()
    assert f"  release    {here(checkout)}\n  ComfyUI    0.33.0 (22222222)\n  libraries  96, torch 2.14.1" in shown.out
    assert "classes    890: 887 of ComfyUI, 3 of packs" in shown.out
    assert [line.split() for line in shown.out.splitlines() if line.startswith("toy")] == [["toy", "1.2.0", "3", "yes"]]
    assert shown.err.splitlines() == ["note: toy seems to declare X, too", "every pack imports"]
    lambdas, sagemakers = (docker / "calls").read_text().splitlines()
    assert "--read-only --tmpfs /tmp:rw,exec,mode=1777 --user 993:990 --network none" in lambdas
    assert "--read-only" not in sagemakers
    assert all("--entrypoint /opt/worker/bin/python mine:1 " in call for call in (lambdas, sagemakers))


def test_a_pack_that_does_not_import_is_said_with_what_to_do(
    checkout: Path, docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [facts(here(checkout), problems=({**PROBLEM, "modes": [mode]},)) for mode in ("as Lambda", "as SageMaker")]
    answers(docker, *lost)
    assert main(["env", "check"]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[1:] == [
        "toy: the module cv2 is missing",
        "    ComfyUI says: No module named 'cv2'",
        "    declared by nobody",
        "    do: add the line `opencv-python-headless`",
        "1 problem",
    ]
    answers(docker, lost[0], facts(here(checkout)))
    assert main(["env", "check", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["problems"][0]["modes"] == ["as Lambda"]
    assert (document["name"], document["stale"]) == ("comfy-serverless:cpu", [])


def test_an_image_of_another_lock_is_stale(checkout: Path, docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(docker, facts("abcdefabcdef"))
    assert main(["env", "check"]) == 1
    said = capsys.readouterr().err
    assert f"stale: the image is of release abcdefabcdef, and comfyui/comfy-build.lock is {here(checkout)}" in said


def test_a_lock_of_another_build_file_is_stale(
    checkout: Path, docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkout / "comfyui" / "comfy-build.yaml"
    file.write_text(file.read_text().replace("baseComfyVersion: ", "baseComfyVersion: v0.39.0 # "))
    answers(docker, facts(here(checkout)))
    assert main(["env", "check"]) == 1
    assert "is not of comfyui/comfy-build.yaml any more: ComfyUI is v0.39.0" in capsys.readouterr().err


def test_an_image_that_is_not_there_is_said(docker: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (docker / "docker").write_text("#!/bin/sh\necho Error: No such image: mine:1 >&2\nexit 125\n")
    assert main(["env", "check", "--image", "mine:1", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "the image mine:1 cannot be checked: Error: No such image: mine:1. Build it first: make image" in said


def test_an_engine_that_does_not_run_is_not_an_image_to_build(
    docker: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "docker: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"
    (docker / "docker").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 125\n")
    assert main(["env", "check"]) == 1
    assert f"{said}. Start Docker first" in capsys.readouterr().err


def test_without_a_container_engine_it_says_so(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert main(["env", "check"]) == 1
    assert "can only be checked with docker" in capsys.readouterr().err


def test_a_comfyui_on_this_machine_is_started_as_it_is(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ComfyUI"
    (folder / "custom_nodes" / "toy").mkdir(parents=True)
    fake = FakeComfyUI(folder)
    (folder / "program.py").rename(folder / "main.py")
    lost = "Cannot import /x/custom_nodes/toy module for custom nodes: No module named 'cv2'"
    fake.says(lost, object_info={"KSampler": {"python_module": "nodes"}})
    assert main(["env", "check", "--comfyui", str(folder), "--python", sys.executable]) == 1
    shown = capsys.readouterr()
    assert "  ComfyUI    0.33.0" in shown.out
    assert "toy: the module cv2 is missing" in shown.err
    (start,) = fake.starts
    assert start["arguments"][:2] == ["--cpu", "--disable-auto-launch"]


def test_a_folder_or_a_python_that_is_none_is_said(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["env", "check", "--comfyui", str(tmp_path / "gone")]) == 1
    assert "gone is no ComfyUI: it has no main.py" in capsys.readouterr().err
    (tmp_path / "main.py").touch()
    assert main(["env", "check", "--comfyui", str(tmp_path), "--python", "/gone/python"]) == 1
    assert "/gone/python is no Python that can be started" in capsys.readouterr().err


def test_what_a_comfyui_that_does_not_start_wrote_is_shown_and_no_pack_is_called_good(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ComfyUI"
    (folder / "custom_nodes" / "toy").mkdir(parents=True)
    (folder / "main.py").write_text("raise SystemExit('no module named kit')\n")
    lock = json.loads((checkout / "comfyui/comfy-build.lock").read_text())
    pack = {
        "id": None,
        "source": "local",
        "version": None,
        "ref": None,
        "repository": None,
        "commit": None,
        "url": None,
    }
    empty = {"requirements": [], "install_scripts": [], "sha256": "1" * 64, "size": 1}
    lock["packs"] = [{"name": name, **pack, **empty} for name in ("elsewhere", "toy")]
    (checkout / "comfyui/comfy-build.lock").write_text(json.dumps(lock))
    assert main(["env", "check", "--comfyui", str(folder), "--python", sys.executable]) == 1
    shown = capsys.readouterr()
    assert "no module named kit" in shown.err
    assert "the pack elsewhere of the lock is not in this ComfyUI" in shown.err
    [row] = [line.split() for line in shown.out.splitlines() if line.startswith("toy")]
    assert row[-2:] == ["not", "known"]
    assert "elsewhere" not in shown.out


#: A container engine whose container runs until it is removed.
HANGING = """#!/bin/sh
echo "$@" >>{folder}/calls
case $1 in
run) echo $$ >{folder}/client; while [ ! -e {folder}/removed ]; do sleep 0.1; done ;;
rm) touch {folder}/removed; echo $3 ;;
esac
"""


@pytest.fixture
def hanging(docker: Path) -> Path:
    (docker / "docker").write_text(HANGING.format(folder=docker))
    return docker


@pytest.fixture
def deaf() -> Iterator[None]:
    """Should the command not listen for a signal, it is this test that fails, and not pytest that ends."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, lambda *_: None) for number in numbers}
    yield
    for number, before in previous.items():
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN), "what was there stands again"
        signal.signal(number, before)


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=["TERM", "HUP", "INT"]
)
def test_whatever_ends_the_command_its_container_is_removed(
    hanging: Path, checkout: Path, number: signal.Signals, code: int
) -> None:
    def send() -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while not (hanging / "client").exists() and time.monotonic() < give_up_at:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    assert ended(["env", "check", "--image", "mine:1"]) == code
    started, removed = (hanging / "calls").read_text().splitlines()
    name = started.split()[started.split().index("--name") + 1]
    assert removed == f"rm --force {name}"
    client = int((hanging / "client").read_text())
    # One that was still being made as the signal came ends because its container is gone, and nobody waits for it.
    assert wait_until(lambda: not is_alive(client))


@pytest.mark.usefixtures("checkout")
def test_a_container_is_removed_even_if_the_signal_comes_while_it_is_being_started(
    hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(subprocess.Popen[Any]):
        def __init__(self, command: Sequence[str], **options: Any) -> None:
            super().__init__(command, **options)
            if "run" in command:
                raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    assert ended(["env", "check", "--image", "mine:1"]) == 130
    started, removed = (hanging / "calls").read_text().splitlines()
    name = started.split()[started.split().index("--name") + 1]
    assert removed == f"rm --force {name}"


def ended(arguments: list[str]) -> int:
    """The code that a command ends with, in whatever way."""
    try:
        return main(arguments)
    except SystemExit as left:
        return int(str(left.code))


def test_a_container_that_was_being_made_is_removed_a_moment_later(
    hanging: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (
        f"rm) if [ -e {hanging}/asked ]; then touch {hanging}/removed; echo $3; else touch {hanging}/asked; exit 1; fi"
    )
    text = (hanging / "docker").read_text()
    (hanging / "docker").write_text(re.sub(r"^rm\).*?;;", f"{first} ;;", text, flags=re.MULTILINE))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        container.run(["mine:1"], goes_on=stop)
    assert (hanging / "removed").exists()


def test_where_there_is_no_terminal_it_says_now_and_then_that_it_goes_on(
    checkout: Path, docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "SAID_EVERY_S", 0.0)
    monkeypatch.setattr(container, "TOLD_EVERY_S", 0.05)
    answers(docker, facts(here(checkout)))
    script = (docker / "docker").read_text()
    (docker / "docker").write_text(
        script.replace("for last", f"until [ -e {docker}/go ]; do sleep 0.05; done\nfor last")
    )
    said: list[str] = []

    def hear(text: str) -> None:
        said.append(text)
        (docker / "go").touch()

    monkeypatch.setattr(check, "say", hear)
    assert main(["env", "check", "--image", "mine:1"]) == 0
    assert said[0].startswith("mine:1: ComfyUI in the image, as on Lambda (1 of 2), ")
    assert "so far" in said[0]
