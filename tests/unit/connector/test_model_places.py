"""Where ComfyUI looks for models: asked once a start, and never of one that may not be ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector.client import RequestFailed
from comfy_serverless.connector.engine import Engine
from comfy_serverless.connector.launch import places_of
from comfy_serverless.errors import EngineUnavailable
from comfy_serverless.settings import Settings

FOLDERS = [{"name": "loras", "folders": ["/opt/ComfyUI/models/loras", "more/loras"]}]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine(Settings(comfyui_url="http://127.0.0.1:1"))
    monkeypatch.setattr(made, "_greeted_generation", 0)
    yield made
    made.close()


def answers(engine: Engine, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> list[Any]:
    left = list(answers)

    def model_folders() -> Any:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(engine.client, "model_folders", model_folders)
    return left


def test_places_are_in_the_order_of_the_search_and_absolute() -> None:
    found = places_of(FOLDERS, Path("/somewhere"))
    assert found == {"loras": (Path("/opt/ComfyUI/models/loras"), Path("/somewhere/more/loras"))}


def test_comfyui_is_asked_once_a_start(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    left = answers(engine, monkeypatch, FOLDERS, [])
    assert list(engine.model_places() or ()) == ["loras"]
    assert list(engine.model_places() or ()) == ["loras"]
    assert left == [[]]


def test_an_engine_that_has_not_answered_yet_is_not_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    left = answers(engine, monkeypatch, FOLDERS)
    monkeypatch.setattr(engine, "_greeted_generation", -1)
    assert engine.model_places() is None
    assert left == [FOLDERS]


def test_no_answer_is_asked_for_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(engine, monkeypatch, RequestFailed("refused"), FOLDERS)
    assert engine.model_places() is None
    assert list(engine.model_places() or ()) == ["loras"]


def test_a_comfyui_that_does_not_know_the_question_gets_no_models(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(engine, monkeypatch, RequestFailed("ComfyUI answered 404", status=404))
    with pytest.raises(EngineUnavailable, match="Use a newer one"):
        engine.model_places()
