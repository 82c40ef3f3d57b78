"""How the connector handles silence, unanswered questions and other clients' prompts, on a live engine."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless import ComfyConnector, Progress, Settings
from comfy_serverless.connector.client import ComfyClient, RequestFailed
from comfy_serverless.connector.server import Server
from comfy_serverless.errors import EngineStalled, NodeExecutionError
from tests.contract.asking import queue
from tests.contract.engines import REAL_COMFYUI, EngineProcess, free_port
from tests.contract.packs_of_engine import fill_custom_nodes
from tests.patience import slack, wait_until

LITE_ENGINE = Path(__file__).parent / "lite_engine.py"
#: On a quiet machine.
STALL_S = 5.0 if REAL_COMFYUI else 2.0


def sleeping(seconds: float, *, steps: int, mode: str = "progress", seed: int = 0) -> dict[str, Any]:
    inputs = {"seconds": seconds, "steps": steps, "mode": mode, "seed": seed}
    return {
        "1": {"class_type": "ContractSleep", "inputs": inputs},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }


EMPTY = {"width": 8, "height": 8, "batch_size": 1, "color": 0}


def frames() -> dict[str, Any]:
    """Four pictures through the websocket after a silence, with reports of progress between them."""
    graph: dict[str, Any] = {"0": {"class_type": "EmptyImage", "inputs": EMPTY}}
    silence = {"seconds": 2.0, "steps": 1, "mode": "silent", "seed": 0, "image": ["0", 0]}
    graph["silence"] = {"class_type": "ContractSleep", "inputs": silence}
    for number in range(1, 5):
        pause = {"seconds": 0.4, "steps": 3, "mode": "progress", "seed": number, "image": ["silence", 0]}
        graph[f"pause {number}"] = {"class_type": "ContractSleep", "inputs": pause}
        graph[str(number)] = {"class_type": "SaveImageWebsocket", "inputs": {"images": [f"pause {number}", 0]}}
    return graph


@pytest.fixture
def connector(tmp_path: Path) -> Iterator[ComfyConnector]:
    chosen = replace(Settings.from_environment(), initial_port=free_port(), stall_s=STALL_S * slack())
    if REAL_COMFYUI:
        (tmp_path / "models").symlink_to(Path(REAL_COMFYUI) / "models")
        fill_custom_nodes(tmp_path, Path(REAL_COMFYUI))
        chosen = replace(chosen, comfyui_args=f"--cpu --base-directory {tmp_path}")
    else:
        chosen = replace(chosen, api_command_line=f"{sys.executable} {LITE_ENGINE} --base-directory {tmp_path}")
    warm = ComfyConnector(settings=chosen)
    yield warm
    warm.kill_api()


def test_a_job_behind_one_that_computes_nothing_but_reports_is_no_stall(connector: ComfyConnector) -> None:
    connector.run(sleeping(0.01, steps=1))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(connector.run, sleeping(STALL_S * slack() * 2, steps=20, seed=1))
        assert wait_until(lambda: queue(connector)["queue_running"])
        second = connector.run(sleeping(0.01, steps=1, seed=2))
        assert first.result().attempts == second.attempts == 1
    assert connector.starts == 1


@pytest.mark.parametrize("pause_s", [0.0, 0.3], ids=["quick reader", "slow reader"])
def test_an_unanswered_question_costs_no_second_run_and_no_picture(
    connector: ComfyConnector, monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    connector.run(sleeping(0.01, steps=1))
    ask, unanswered = ComfyClient.history, [True]

    def history(client: ComfyClient, prompt_id: str) -> Any:
        if unanswered:
            unanswered.clear()
            raise RequestFailed("timed out")
        return ask(client, prompt_id)

    def read_slowly(_: Progress) -> None:
        time.sleep(pause_s)

    monkeypatch.setattr(ComfyClient, "history", history)
    monkeypatch.setattr("comfy_serverless.connector.pace.QUIET_S", 0.1)
    execution = connector.run(frames(), on_progress=read_slowly)
    assert not unanswered
    assert [output.node_id for output in execution.outputs] == ["1", "2", "3", "4"]
    assert (execution.attempts, execution.warnings) == (1, ())


def test_what_is_given_up_on_an_engine_of_others_does_not_run_later(start_engine: Callable[..., EngineProcess]) -> None:
    engine = start_engine()
    client = ComfyClient(Server.at(engine.url))
    others = sleeping(5, steps=1, mode="silent", seed=1)
    client.submit(others, client_id="others", prompt_id=str(uuid.uuid4()))
    ours = ComfyConnector(settings=replace(Settings(), comfyui_url=engine.url, stall_s=1.0))
    try:
        with pytest.raises(EngineStalled):
            ours.run(sleeping(1, steps=1, seed=2))
    finally:
        ours.kill_api()
    queue = client.queue()
    assert [item[2] for item in queue["queue_running"]] == [others]
    assert queue["queue_pending"] == []


def test_a_node_that_shows_what_cannot_be_sent_is_named_with_the_reason_and_runs_once(
    connector: ComfyConnector,
) -> None:
    graph = {**sleeping(0.01, steps=1), "bad": {"class_type": "ContractBadUI", "inputs": {"kind": "bytes"}}}
    lines: list[str] = []
    with pytest.raises(NodeExecutionError, match="Object of type bytes is not JSON serializable") as failure:
        connector.run(graph, on_log=lines.extend)
    details = failure.value.details
    assert (details["node_id"], details["class_type"]) == ("bad", "ContractBadUI")
    # On a busy machine its process outlives its loop by so much that it is found silent before it is found dead.
    assert details["ended_as"] in ("engine_crashed", "engine_stalled")
    assert connector.run(sleeping(0.01, steps=1)).attempts == 1
    assert connector.starts == 2, "it has ended once"
