"""Where two releases' nodes differ for a workflow: what they give on, which frames, which choices they refuse."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from comfy_lite.releases import Release
from tests.contract.engines import EngineProcess
from tests.patience import PATIENCE_S

FINISH_TIMEOUT_S = 120.0


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def picture(color: int = 255) -> dict[str, Any]:
    return node("EmptyImage", width=8, height=8, batch_size=1, color=color)


def save(source: str) -> dict[str, Any]:
    return node("SaveImage", images=[source, 0], filename_prefix="release")


def submit(engine: EngineProcess, prompt: dict[str, Any]) -> dict[str, Any]:
    return dict(requests.post(f"{engine.url}/prompt", json={"prompt": prompt}, timeout=PATIENCE_S).json())


def run(engine: EngineProcess, prompt: dict[str, Any]) -> dict[str, Any]:
    """The history of a prompt, once it has ended."""
    prompt_id = submit(engine, prompt)["prompt_id"]
    deadline = time.monotonic() + FINISH_TIMEOUT_S
    while time.monotonic() < deadline:
        history = requests.get(f"{engine.url}/history/{prompt_id}", timeout=PATIENCE_S).json()
        if history:
            return dict(history[prompt_id])
        time.sleep(0.02)
    raise AssertionError("the prompt did not end")


SAVERS: dict[str, dict[str, Any]] = {
    "SaveImage": {"filename_prefix": "first"},
    "PreviewImage": {},
    "SaveAnimatedWEBP": {
        "filename_prefix": "first",
        "fps": 6.0,
        "lossless": True,
        "quality": 80,
        "method": "default",
    },
    "SaveAnimatedPNG": {"filename_prefix": "first", "fps": 6.0, "compress_level": 4},
}


@pytest.mark.parametrize("saver", SAVERS)
def test_what_saves_images_gives_them_on(saver: str, release: str, engine_of_release: EngineProcess) -> None:
    graph = {"1": picture(), "2": node(saver, images=["1", 0], **SAVERS[saver]), "3": save("2")}
    outputs = run(engine_of_release, graph)["outputs"]
    assert list(outputs) == (["2", "3"] if Release(release).renews_nodes else ["2"])


def test_text_that_was_shown_can_be_linked(release: str, engine_of_release: EngineProcess) -> None:
    graph = {"1": node("PreviewAny", source=3.5), "2": node("PreviewAny", source=["1", 0])}
    outputs = run(engine_of_release, graph)["outputs"]
    shown = {"text": ["3.5"]}
    assert outputs == ({"1": shown, "2": shown} if Release(release).renews_nodes else {"1": shown})


@pytest.mark.parametrize(
    ("index", "length", "frames"),
    [(-1, 1, [3]), (-2, 2, [2, 3]), (-1, 3, [3]), (-3, 2, [1, 2]), (-4, 1, [1]), (-9, 2, [1, 2]), (7, 2, [3])],
)
def test_frames_are_counted_from_the_end(
    index: int, length: int, frames: list[int], release: str, engine_of_release: EngineProcess
) -> None:
    graph = {
        **{str(number): picture(number * 51 << 16) for number in (1, 2, 3)},
        "4": node("ImageBatch", image1=["1", 0], image2=["2", 0]),
        "5": node("ImageBatch", image1=["4", 0], image2=["3", 0]),
        "6": node("ImageFromBatch", image=["5", 0], batch_index=index, length=length),
        "7": node("ImageScale", image=["6", 0], upscale_method="nearest-exact", width=1, height=1, crop="disabled"),
        "8": node("PreviewAny", source=["7", 0]),
    }
    if index < 0 and not Release(release).renews_nodes:
        (error,) = submit(engine_of_release, graph)["node_errors"]["6"]["errors"]
        assert error["type"] == "value_smaller_than_min"
        return
    (text,) = run(engine_of_release, graph)["outputs"]["8"]["text"]
    assert [number for number in (1, 2, 3) if f"{number / 5:.4f}" in text] == frames


def test_a_choice_that_there_is_not_is_refused(release: str, engine_of_release: EngineProcess) -> None:
    blend = node("ImageBlend", image1=["1", 0], image2=["1", 0], blend_factor=0.5, blend_mode="dodge")
    graph = {"1": picture(), "2": blend, "3": save("2")}
    if not Release(release).checks_every_choice:
        kind, error = run(engine_of_release, graph)["status"]["messages"][-1]
        assert (kind, error["exception_message"].strip()) == ("execution_error", "Unsupported blend mode: dodge")
        return
    (error,) = submit(engine_of_release, graph)["node_errors"]["2"]["errors"]
    assert error["details"] == (
        "blend_mode: 'dodge' not in ['normal', 'multiply', 'screen', 'overlay', 'soft_light', 'difference']"
    )
    assert error["extra_info"]["input_name"] == "blend_mode"


def test_how_a_value_that_is_no_text_is_named(release: str, engine_of_release: EngineProcess) -> None:
    graph = {"1": picture(), "2": node("ImageRotate", image=["1", 0], rotation=3), "3": save("2")}
    (error,) = submit(engine_of_release, graph)["node_errors"]["2"]["errors"]
    named = "3" if Release(release).checks_every_choice else "'3'"
    assert error["details"].startswith(f"rotation: {named} not in ['none', ")
