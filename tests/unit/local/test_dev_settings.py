"""`make dev` checks what it was given before it starts anything, and two of a checkout leave each other alone."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local.aws.processes import ENGINE_VARIABLES, LOOPBACK, MODEL_VARIABLES, free_port
from local.dev import DevStack
from local.dev import command_line as dev


@pytest.fixture(autouse=True)
def _nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "INITIAL_PORT", "BACKEND", "API_KEY", *ENGINE_VARIABLES, *MODEL_VARIABLES):
        monkeypatch.delenv(name, raising=False)

    def start(_stack: DevStack) -> None:
        raise AssertionError("it starts although it cannot work")

    monkeypatch.setattr(DevStack, "start", start)
    monkeypatch.setattr(dev, "hide_process", lambda: None)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PORT": "abc"}, "invalid_setting: PORT='abc' cannot be used: must be a port"),
        ({"PORT": "0"}, "invalid_setting: PORT='0'"),
        ({"PORT": "65536"}, "invalid_setting: PORT='65536'"),
        ({"PORT": "-1"}, "invalid_setting: PORT='-1'"),
        ({"PORT": "²"}, "invalid_setting: PORT='²'"),
        ({"INITIAL_PORT": "abc"}, "invalid_setting: INITIAL_PORT='abc' cannot be used: must be a port"),
        ({"COMFYUI_DIR": "x" * 300}, "invalid_setting: COMFYUI_DIR='xxx"),
        ({"BACKEND": "foo"}, "invalid_setting: BACKEND='foo' cannot be used: must be lambda or sagemaker"),
        ({"BACKEND": "Lambda"}, "must be lambda or sagemaker"),
        ({"COMFYUI_DIR": "/nope"}, "invalid_setting: COMFYUI_DIR='/nope' cannot be used"),
        ({"COMFYUI_URL": "ftp://x"}, "invalid_setting: COMFYUI_URL='ftp://x'"),
        ({"COMFYUI_URL": "http://127.0.0.1:9"}, "engine_unavailable: no ComfyUI answers at http://127.0.0.1:9"),
        ({"HF_TOKEN": "a secret"}, "invalid_setting: HF_TOKEN cannot be used"),
        ({"USD_PER_SECOND": "cheap"}, "invalid_setting: USD_PER_SECOND='cheap'"),
        ({"API_KEY": "a secret"}, "invalid_setting: API_KEY cannot be used"),
        ({"API_KEY": "schlüssel"}, "invalid_setting: API_KEY cannot be used"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert dev.main([]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert told in error
    assert "secret" not in error


@pytest.mark.parametrize(
    "arguments", [("--port", "abc"), ("--port", "0"), ("--workers", "0"), ("--workers", "x"), ("--backend", "foo")]
)
def test_so_are_options(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        dev.main(arguments)
    assert exit_.value.code == 2
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dev, "LOG_FOLDER", tmp_path)
    return tmp_path


def written(port: int, *, folder: Path | None = None) -> list[Path]:
    stack: Any = SimpleNamespace(
        log_folder=folder or dev.log_folder_of(port),
        client_variables={"COMFY_BASE_URL": f"http://{LOOPBACK}:{port}", "COMFY_STACK": "local"},
    )
    stack.log_folder.mkdir(parents=True, exist_ok=True)
    return dev._write_variables(stack, beside_logs_only=folder is not None)


def test_each_port_has_variables_of_its_own_and_the_first_has_the_usual_file_too(folder: Path) -> None:
    with socket.socket() as first:
        first.bind((LOOPBACK, 0))
        first.listen()
        port, other = first.getsockname()[1], free_port()
        assert written(port) == [folder / "env.sh", folder / str(port) / "env.sh"]
        assert written(other) == [folder / str(other) / "env.sh"], "the usual one is that of a program that listens"
        assert f":{port}\n" in (folder / "env.sh").read_text()
    assert folder / "env.sh" in written(other), "nobody listens there any more"


def test_the_usual_port_and_a_folder_that_was_chosen_have_one_file(folder: Path, tmp_path: Path) -> None:
    assert written(dev.PORT) == [folder / "env.sh"]
    chosen = tmp_path / "chosen"
    assert written(free_port(), folder=chosen) == [chosen / "env.sh"]


def test_prices_of_the_environment_are_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, object] = {}

    def made(_self: object, **options: object) -> None:
        given.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(DevStack, "__init__", made)
    monkeypatch.setenv("USD_PER_SECOND", "0.0005")
    with pytest.raises(ValueError, match="enough"):
        dev.main([])
    assert given["environment"] == {"USD_PER_SECOND": "0.0005"}
