"""Several prompts and several clients at once: which prompt runs when, and which client hears of it."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import requests
import websocket

from tests.contract.engines import EngineProcess

TIMEOUT_S = 120.0
SHOW = {"1": {"class_type": "PreviewAny", "inputs": {"source": "a"}}}


def sleeper(seconds: float) -> dict[str, Any]:
    """A prompt that takes some seconds and can be interrupted."""
    return {
        "1": {"class_type": "ContractSleep", "inputs": {"seconds": seconds, "steps": 100, "mode": "progress"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def submit(engine: EngineProcess, prompt: dict[str, Any], **body: Any) -> str:
    answer = requests.post(f"{engine.url}/prompt", json={"prompt": prompt, **body}, timeout=TIMEOUT_S)
    answer.raise_for_status()
    return str(answer.json()["prompt_id"])


def connect(engine: EngineProcess, client_id: str) -> websocket.WebSocket:
    url = f"ws://127.0.0.1:{engine.port}/ws?clientId={client_id}"
    return websocket.create_connection(url, timeout=TIMEOUT_S, suppress_origin=True)


def hear(socket: websocket.WebSocket, last: str) -> list[dict[str, Any]]:
    """All messages up to the first one of that type."""
    heard = [json.loads(socket.recv())]
    while heard[-1]["type"] != last:
        heard.append(json.loads(socket.recv()))
    return heard


def wait_until_running(engine: EngineProcess) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not requests.get(f"{engine.url}/queue", timeout=TIMEOUT_S).json()["queue_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # the first node has to start, too


def test_the_order_survives_a_deletion(engine: EngineProcess) -> None:
    running = submit(engine, sleeper(20))
    wait_until_running(engine)
    ids = [str(uuid.UUID(int=number)) for number in range(6)]
    for number in (1, 5, 2, 4, 3):
        submit(engine, SHOW, prompt_id=ids[number], number=number)
    requests.post(f"{engine.url}/queue", json={"delete": [ids[1]]}, timeout=TIMEOUT_S)
    requests.post(f"{engine.url}/interrupt", json={"prompt_id": running}, timeout=TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while requests.get(f"{engine.url}/prompt", timeout=TIMEOUT_S).json()["exec_info"]["queue_remaining"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    history = requests.get(f"{engine.url}/history", timeout=TIMEOUT_S).json()
    assert list(history) == [running, *ids[2:]]


def test_everybody_hears_of_the_interrupt_of_a_prompt_that_belongs_to_nobody(engine: EngineProcess) -> None:
    stranger = connect(engine, "stranger")
    running = submit(engine, sleeper(20))
    wait_until_running(engine)
    requests.post(f"{engine.url}/interrupt", timeout=TIMEOUT_S)
    interrupted = hear(stranger, "execution_interrupted")[-1]["data"]
    assert (interrupted["prompt_id"], interrupted["node_id"]) == (running, "1")
    stranger.close()


def test_who_joins_is_told_the_running_node_only_if_the_prompt_is_theirs(engine: EngineProcess) -> None:
    submit(engine, sleeper(20), client_id="owner")
    wait_until_running(engine)
    owner, stranger = connect(engine, "owner"), connect(engine, "stranger")
    assert hear(owner, "executing")[-1]["data"] == {"node": "1"}
    requests.post(f"{engine.url}/interrupt", timeout=TIMEOUT_S)
    greeting, *others = [hear(stranger, "status") for _ in range(2)]
    assert greeting[-1]["data"]["sid"] == "stranger"
    assert [message["type"] for messages in others for message in messages] == ["status"]
    owner.close()
    stranger.close()
