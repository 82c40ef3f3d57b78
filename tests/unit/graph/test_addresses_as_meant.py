"""What people paste for a file is taken as it was meant, and nothing else is touched."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_serverless.fetch.sources import parse
from comfy_serverless.graph.file_inputs import as_address, with_addresses

CONTENT = b"\x89PNG\r\n\x1a\n" + bytes(range(240)) + b"\xfb\xef\xbe" * 30
TEXT = base64.b64encode(CONTENT).decode()
DATA = f"data:image/png;base64,{TEXT}"


def content_of(text: str) -> bytes:
    access: Any = SimpleNamespace(max_bytes=1_000_000)
    with parse(as_address(text)).open(access, deadline=0.0) as stream:
        return b"".join(stream.chunks)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (" s3://b/k.png\n", "s3://b/k.png"),
        ("\ts3://b/a b.png", "s3://b/a b.png"),
        ('"https://a.example/x.png"', "https://a.example/x.png"),
        ("'s3://b/k.png' ", "s3://b/k.png"),
        ("https://a.example/x?y='z'", "https://a.example/x?y='z'"),
        (f"b'{TEXT}'", DATA),
        (f'b"{TEXT}"', DATA),
        (TEXT, DATA),
        (DATA, DATA),
        (f"image/png;base64,{TEXT}", DATA),
        (f"{DATA}\\n", DATA),
        ("photo.png", "photo.png"),
        ("it's", "it's"),
        ("", ""),
    ],
)
def test_an_address_is_taken_as_it_was_meant(text: str, meant: str) -> None:
    assert as_address(text) == meant
    assert as_address(meant) == meant


@pytest.mark.parametrize(
    "text",
    [
        DATA,
        TEXT,
        f"image/png;base64,{TEXT}",
        f"b'{TEXT}'",
        DATA.replace("+", " "),
        TEXT.replace("+", "-").replace("/", "_"),
        "\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
        "\\n".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
        DATA.rstrip("="),
    ],
    ids=["data", "bare", "no scheme", "bytes", "plus as space", "of addresses", "wrapped", "written wraps", "no end"],
)
def test_base64_is_read_however_it_was_written(text: str) -> None:
    assert "+" in TEXT
    assert content_of(text) == CONTENT


@given(st.text(max_size=80))
def test_any_text_is_taken_without_a_failure(text: str) -> None:
    assert isinstance(as_address(text), str)


def test_only_inputs_that_take_files_are_changed() -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": " s3://b/k.png "}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": " s3://b/k.png "}},
        "3": {"class_type": "LoadImage", "inputs": {"image": " a photo.png "}},
        "4": {"class_type": "LoadImage", "inputs": {"image": ["1", 0]}},
    }
    changed = with_addresses(graph)
    assert changed["1"]["inputs"]["image"] == "s3://b/k.png"
    assert [changed[node_id] is graph[node_id] for node_id in ("2", "3", "4")] == [True, True, True]
