"""What ComfyUI says of all nodes is read as JSON has it, and what it has said before is not parsed again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.connector import state_messages
from comfy_serverless.connector.events import _FrameReader
from comfy_serverless.connector.facts import EventSeen
from comfy_serverless.connector.state_messages import StateMessages

PROMPT = "0b7a4f5e-94a3-4a0f-8f1e-2f4f4b6d3c11"


def state(node: str, *, value: float = 0.0, name: str = "running") -> dict[str, Any]:
    return {"value": value, "max": 1.0, "state": name, "node_id": node, "prompt_id": PROMPT, "parent_node_id": None}


def message(nodes: Any, *, prompt: str = PROMPT) -> bytes:
    return json.dumps({"type": "progress_state", "data": {"prompt_id": prompt, "nodes": nodes}}).encode()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where something was parsed."""
    places: list[int] = []
    parse = state_messages._value_at

    def parse_and_count(text: str, at: int) -> Any:
        places.append(at)
        return parse(text, at)

    monkeypatch.setattr(state_messages, "_value_at", parse_and_count)
    return places


def test_only_what_has_changed_is_parsed(parsed: list[int]) -> None:
    reader, nodes = StateMessages(least_bytes=0), dict[str, Any]()
    for number in range(300):
        for name in ("running", "finished"):
            nodes[str(number)] = state(str(number), name=name)
            sent = message(nodes)
            assert reader.read(sent) == json.loads(sent)
    assert len(parsed) == 600, "a node each time, of up to 300"
    nodes["150"] = state("150", value=0.5)  # one that has run beside the others, or once more
    sent = message(nodes)
    assert reader.read(sent) == json.loads(sent)
    assert len(parsed) < 600 + 300


def test_the_facts_of_a_reader_of_frames_are_those_of_json() -> None:
    reader, nodes = _FrameReader(), dict[str, Any]()
    facts = []
    for number in range(60):
        nodes = {**nodes, str(number): state(str(number))}
        facts.append((reader.read(1, message(nodes)), nodes))
    for fact, said in facts:  # an earlier one stays as it was
        assert fact == (PROMPT, EventSeen("progress_state", {"prompt_id": PROMPT, "nodes": said}))


names = st.text('ab"\\\n\u00e9\u2028', max_size=3)
states = st.one_of(
    st.builds(state, names, value=st.sampled_from([0.0, 1.0, 12.0]), name=st.sampled_from(["running", "finished"])),
    st.sampled_from([{}, {"a": {}}, 1, 12, None, "x", [1]]),
)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(names, states, max_size=5),
            st.sampled_from([PROMPT, "other", 'a"b', ""]),
            st.sampled_from([None, 1]),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_whatever_comes_it_is_read_as_json_has_it_or_left(
    sent: list[tuple[dict[str, Any], str, int | None, bool]],
) -> None:
    reader = StateMessages(least_bytes=0)
    for nodes, prompt, indent, ascii_only in sent:
        whole = {"type": "progress_state", "data": {"prompt_id": prompt, "nodes": nodes}}
        payload = json.dumps(whole, indent=indent, ensure_ascii=ascii_only).encode()
        assert reader.read(payload) in (None, json.loads(payload))


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "progress", "data": {"prompt_id": "p", "nodes": {}}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": {}, "a": {"b": 1}}}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": {}}, "more": 1}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": {}}}, "sid": "x"}',
        '{"type": "progress_state", "data": {"nodes": {"a": {}}, "prompt_id": "p"}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": {} "b": {}}}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": {},}}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": {}}}} }',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {, "a": {}}}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": null}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": 1}}}',
    ],
)
def test_any_other_form_is_left_to_json(text: str) -> None:
    reader = StateMessages(least_bytes=0)
    for _ in range(2):
        assert reader.read(b'{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"a": {}}}}') is not None
        assert reader.read(text.encode()) is None


@pytest.mark.parametrize("ending", ['{"a": {}, "b": nul', '{"a": {}, "b": {"c": }}}}'])
def test_what_is_no_json_is_an_error(ending: str) -> None:
    with pytest.raises(ValueError, match="Expecting"):
        StateMessages(least_bytes=0).read(
            f'{{"type": "progress_state", "data": {{"prompt_id": "p", "nodes": {ending}'.encode()
        )
