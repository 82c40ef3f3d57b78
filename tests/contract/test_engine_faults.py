"""Failures on demand: each fault does what it says, once, and only where it was armed."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from typing import Any

import pytest
import requests
import websocket

from tests.contract.engines import EngineProcess, StartEngine, lite_only
from tests.patience import PATIENCE_S, wait_until

pytestmark = lite_only

PROMPT = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "f"}},
}


class Client:
    """A client with a websocket, like the connector."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        self.client_id = uuid.uuid4().hex
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{engine.port}/ws?clientId={self.client_id}", timeout=PATIENCE_S, suppress_origin=True
        )

    def submit(self) -> str:
        body = {"prompt": PROMPT, "client_id": self.client_id}
        answer = requests.post(f"{self.engine.url}/prompt", json=body, timeout=PATIENCE_S)
        answer.raise_for_status()
        return str(answer.json()["prompt_id"])

    def next(self) -> tuple[str, Any]:
        """The kind of the next message, and which node it is about."""
        told = json.loads(self.socket.recv())
        return told["type"], told["data"].get("node")

    def messages(self) -> list[dict[str, Any]]:
        """The messages until the prompt ends, or the connection does."""
        heard: list[dict[str, Any]] = []
        while True:
            try:
                text = self.socket.recv()
            except (websocket.WebSocketException, OSError):
                return heard
            if not text:
                return heard
            heard.append(json.loads(text))
            if heard[-1]["type"] == "executing" and heard[-1]["data"]["node"] is None:
                return heard


def arm(engine: EngineProcess, **fault: Any) -> requests.Response:
    return requests.post(f"{engine.url}/lite/faults", json=fault, timeout=PATIENCE_S)


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


@pytest.fixture
def faulty(start_engine: StartEngine) -> EngineProcess:
    return start_engine("--enable-faults")


def test_faults_are_off_unless_asked_for(engine: EngineProcess) -> None:
    assert arm(engine, fault="crash").status_code == 405


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"fault": "earthquake"}, "unknown fault 'earthquake'"),
        ({"fault": "out_of_memory", "at": "start"}, "cannot strike at 'start'"),
        ({"fault": "crash", "at": "noon"}, "'noon' is not a valid"),
        ({"fault": "crash", "sound": "loud"}, "sound"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(faulty: EngineProcess, fault: dict[str, Any], message: str) -> None:
    answer = arm(faulty, **fault)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("point", "executed"),
    [({"at": "start"}, 0), ({"at": "node", "node": "SaveImage"}, 0), ({"at": "end"}, 1)],
    ids=["start", "node", "end"],
)
def test_a_crash_ends_the_process_at_the_point_asked_for(
    faulty: EngineProcess, point: dict[str, Any], executed: int
) -> None:
    client = Client(faulty)
    arm(faulty, fault="crash", exit_code=9, **point).raise_for_status()
    with contextlib.suppress(requests.ConnectionError):  # the process may die before it has answered
        client.submit()
    assert faulty.process.wait(PATIENCE_S) == 9
    assert len(list(faulty.folder("output").iterdir())) == executed


def test_a_crash_before_the_prompt_is_accepted_leaves_the_client_without_an_answer(faulty: EngineProcess) -> None:
    arm(faulty, fault="crash", at="prompt").raise_for_status()
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{faulty.url}/prompt", json={"prompt": PROMPT}, timeout=PATIENCE_S)
    assert faulty.process.wait(PATIENCE_S) == 1


def test_a_node_that_hangs_never_returns_but_http_answers_on(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="hang", at="node", node="2").raise_for_status()
    prompt_id = client.submit()
    while client.next() != ("executing", "2"):
        pass
    time.sleep(0.3)  # it hangs a moment after it has said so
    requests.post(f"{faulty.url}/interrupt", timeout=PATIENCE_S).raise_for_status()
    time.sleep(0.3)
    assert requests.get(f"{faulty.url}/history/{prompt_id}", timeout=PATIENCE_S).json() == {}
    assert requests.get(f"{faulty.url}/prompt", timeout=PATIENCE_S).json() == {"exec_info": {"queue_remaining": 1}}


def test_a_server_that_hangs_answers_nothing(faulty: EngineProcess) -> None:
    arm(faulty, fault="hang").raise_for_status()

    def is_silent() -> bool:
        with contextlib.suppress(requests.ReadTimeout):
            requests.get(f"{faulty.url}/prompt", timeout=0.5)
            return False
        return True

    assert wait_until(is_silent)


@pytest.mark.parametrize("point", ["node", "end"])
def test_dropped_sockets_lose_messages_while_the_prompt_goes_on(faulty: EngineProcess, point: str) -> None:
    client = Client(faulty)
    arm(faulty, fault="drop_sockets", at=point).raise_for_status()
    prompt_id = client.submit()
    assert "execution_success" not in kinds(client.messages())
    history = _history(faulty, prompt_id)
    assert history["status"]["completed"]


def test_sockets_can_be_dropped_at_once_and_opened_again(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="drop_sockets").raise_for_status()
    assert kinds(client.messages()) == ["status"]
    again = Client(faulty)
    again.submit()
    assert "execution_success" in kinds(again.messages())


def test_a_mute_engine_runs_prompts_and_says_nothing(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="mute", at="start").raise_for_status()
    prompt_id = client.submit()
    assert _history(faulty, prompt_id)["status"]["completed"]
    client.socket.settimeout(0.3)
    assert set(kinds(client.messages())) <= {"status", "execution_start"}


def test_out_of_memory_strikes_as_often_as_asked_and_looks_like_torch(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="out_of_memory", at="node", node="SaveImage", times=2).raise_for_status()
    ends = []
    for _ in range(3):
        client.submit()
        ends.append(next(m for m in client.messages() if m["type"] in ("execution_error", "execution_success")))
    assert [end["type"] for end in ends] == ["execution_error", "execution_error", "execution_success"]
    assert ends[0]["data"]["exception_type"] == "torch.OutOfMemoryError"
    assert ends[0]["data"]["node_type"] == "SaveImage"


def test_a_worker_that_ends_leaves_a_server_that_runs_nothing(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="end_worker", at="node").raise_for_status()
    client.submit()
    client.submit()

    def in_queue() -> tuple[int, int]:
        queue = requests.get(f"{faulty.url}/queue", timeout=PATIENCE_S).json()
        return len(queue["queue_running"]), len(queue["queue_pending"])

    assert wait_until(lambda: in_queue() == (1, 1)), in_queue()
    time.sleep(0.3)
    assert in_queue() == (1, 1), "and it stays so"


def test_slow_answers_are_slow_until_disarmed(faulty: EngineProcess) -> None:
    arm(faulty, fault="slow_answers", seconds=0.3).raise_for_status()

    def takes_longer() -> bool:
        return requests.get(f"{faulty.url}/prompt", timeout=PATIENCE_S).elapsed.total_seconds() >= 0.3

    assert wait_until(takes_longer)
    requests.delete(f"{faulty.url}/lite/faults", timeout=PATIENCE_S).raise_for_status()
    assert wait_until(lambda: not takes_longer())


def test_a_late_start_can_be_asked_for(start_engine: StartEngine) -> None:
    started = time.monotonic()
    start_engine("--start-delay-ms", "700")
    assert time.monotonic() - started > 0.7


def _history(engine: EngineProcess, prompt_id: str) -> dict[str, Any]:
    for _ in range(100):
        history = requests.get(f"{engine.url}/history/{prompt_id}", timeout=PATIENCE_S).json()
        if history:
            return dict(history[prompt_id])
        time.sleep(0.05)
    raise AssertionError("the prompt never ended")


def test_a_signal_can_end_the_process(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="crash", at="node", signal=11).raise_for_status()
    with contextlib.suppress(requests.ConnectionError):
        client.submit()
    assert faulty.process.wait(PATIENCE_S) == -11


@pytest.mark.parametrize(
    ("fault", "exception"),
    [("node_error", "ValueError"), ("disk_full", "OSError"), ("cuda_error", "RuntimeError")],
)
def test_a_node_can_fail_for_several_reasons(faulty: EngineProcess, fault: str, exception: str) -> None:
    client = Client(faulty)
    arm(faulty, fault=fault, at="node", node="SaveImage").raise_for_status()
    client.submit()
    error = next(message for message in client.messages() if message["type"] == "execution_error")
    assert (error["data"]["node_type"], error["data"]["exception_type"]) == ("SaveImage", exception)


def test_a_lost_gpu_stays_lost(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="cuda_error", at="node", node="SaveImage").raise_for_status()
    for _ in range(2):
        client.submit()
        assert "execution_error" in kinds(client.messages())


def test_sockets_can_be_dropped_again_and_again(faulty: EngineProcess) -> None:
    arm(faulty, fault="drop_sockets", every_s=0.1).raise_for_status()
    for _ in range(3):
        assert kinds(Client(faulty).messages()) == ["status"]
    requests.delete(f"{faulty.url}/lite/faults", timeout=PATIENCE_S).raise_for_status()
    client = Client(faulty)
    client.submit()
    assert "execution_success" in kinds(client.messages())


def test_messages_can_be_late(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="late_messages", at="prompt", seconds=0.4).raise_for_status()
    started = time.monotonic()
    client.submit()
    assert "execution_success" in kinds(client.messages())
    assert time.monotonic() - started > 0.3


def test_messages_can_come_twice(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="double_messages", at="prompt").raise_for_status()
    client.submit()
    assert kinds(client.messages()).count("execution_success") == 2


def test_a_prompt_can_be_over_before_its_submit_is_answered(faulty: EngineProcess) -> None:
    client = Client(faulty)
    arm(faulty, fault="late_answer", at="prompt", seconds=0.5).raise_for_status()
    prompt_id = client.submit()
    assert requests.get(f"{faulty.url}/history/{prompt_id}", timeout=PATIENCE_S).json()[prompt_id]["status"][
        "completed"
    ]
