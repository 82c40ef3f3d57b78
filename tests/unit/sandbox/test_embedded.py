"""What is inside of a picture, film, sound or model: the workflow, whoever wrote it, and in whatever way."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.sandbox.embedded import Missing, read_embedded, says_it_may_hold
from comfy_serverless.sandbox.embedded.window import Window
from comfy_serverless.sandbox.refused import Refused
from comfy_serverless.sandbox.sandbox import Sandbox
from tests.patience import PATIENCE_S
from tests.unit import embedded_files as files

SAVED = sorted(path for path in files.SAVED.iterdir() if path.suffix != ".md")


def read(content: bytes) -> dict[str, Any]:
    return read_embedded(Window.over(content))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.name)
def test_what_was_saved_brings_prompt_and_workflow(path: Path) -> None:
    content = path.read_bytes()
    assert says_it_may_hold(content)
    found = read(content)
    document = found["document"]
    assert list(document) == ["prompt", "workflow"]
    assert all("class_type" in node for node in document["prompt"].values())
    assert {node["type"] for node in document["workflow"]["nodes"]} >= {"EmptyImage"}
    assert found["warnings"] == []
    saver = path.stem.partition("-")[0]
    if saver != "libav":
        assert saver in {node["class_type"] for node in document["prompt"].values()}


@pytest.mark.parametrize("name", files.WITH_BOTH)
def test_both_are_found_however_they_are_written(name: str) -> None:
    content = files.WITH_BOTH[name]
    assert says_it_may_hold(content[:4096])
    assert read(content) == {"document": files.BOTH, "warnings": []}


@pytest.mark.parametrize("name", files.WITH_PROMPT)
def test_a_graph_alone_is_the_prompt(name: str) -> None:
    found = read(files.WITH_PROMPT[name])
    assert found["document"] == {"prompt": files.GRAPH}


@pytest.mark.parametrize("name", files.WITH_WORKFLOW)
def test_a_workflow_of_the_editor_alone_is_the_workflow(name: str) -> None:
    assert read(files.WITH_WORKFLOW[name])["document"] == {"workflow": files.EDITOR}


def test_what_is_left_out_is_said() -> None:
    assert read(files.WITH_PROMPT["civitai"])["warnings"] == ["left out, beside the nodes: 'extra', 'extraMetadata'"]
    (warning,) = read(files.WITH_WORKFLOW["a prompt in words"])["warnings"]
    assert warning.startswith("left out: the prompt is not JSON")
    for others in ("another comment", "braces of NovelAI", "the prompt twice"):
        assert read(files.WITH_PROMPT[others])["warnings"] == []
    (warning,) = read(files.WITH_PROMPT["a broken workflow"])["warnings"]
    assert warning.startswith("left out: the workflow of the editor is not JSON")


def test_numbers_that_json_does_not_have_become_null() -> None:
    text = files.PROMPT.replace('"color": 255', '"color": NaN, "is_changed": [-Infinity]')
    inputs = read(files.png_by_pillow(prompt=text))["document"]["prompt"]["3"]["inputs"]
    assert (inputs["color"], inputs["is_changed"]) == (None, [None])


A1111 = "a fox\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
WITHOUT: dict[str, tuple[bytes, str]] = {
    "plain": (files.pillow("PNG"), "only what ComfyUI has saved itself does"),
    "a1111": (files.png_by_pillow(parameters=A1111), "generation parameters as A1111 and Civitai write them.*no graph"),
    "a1111 in a photo": (
        files.pillow(
            "JPEG", exif=b"Exif\0\0" + files.exif({}, inner={0x9286: b"UNICODE\0" + A1111.encode("utf-16-be")})
        ),
        "generation parameters as A1111",
    ),
    "swarm": (files.png_by_pillow(parameters='{"sui_image_params": {"prompt": "a fox"}}'), "parameters of SwarmUI"),
    "invoke": (files.png_by_pillow(invokeai_metadata='{"seed": 1}'), "metadata of InvokeAI"),
    "a broken prompt": (files.png_by_pillow(prompt="{"), "the prompt is not JSON"),
    "an empty prompt": (files.png_by_pillow(prompt=""), "the prompt is empty"),
    "a prompt of no nodes": (files.png_by_pillow(prompt="[1]"), "the prompt is no object of nodes"),
    "deep": (files.png_by_pillow(workflow='{"nodes": ' + "[" * 80 + "]" * 80 + "}"), "more than 64 levels deep"),
    "deeper": (files.png_by_pillow(workflow='{"nodes": ' + "[" * 99_000), "nested too deeply|is not JSON"),
    "deep in a text": (
        files.png_by_pillow(comment=json.dumps({"workflow": json.dumps({"nodes": json.loads("[" * 80 + "]" * 80)})})),
        "more than 64 levels deep",
    ),
    "a bare mp3": (b"\xff\xfb\x90\x00" + b"\0" * 400, "carries no workflow"),
    "html": (b"<!doctype html><html></html>", "no format that carries a workflow"),
    "nothing": (b"", "no format that carries a workflow"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_a_file_without_one_is_told_what_it_has_instead(name: str) -> None:
    content, words = WITHOUT[name]
    with pytest.raises(Refused, match=words):
        read(content)


# Ranges


class Sparse:
    """A file of which only what is asked for is fetched."""

    def __init__(self, head: bytes, tail: bytes, size: int) -> None:
        self.size = size
        self._head, self._tail = head, tail
        self.known: list[tuple[int, int]] = []

    def pread(self, count: int, offset: int) -> bytes:
        end = min(self.size, offset + count)
        content = bytearray(end - offset)
        for at, part in ((0, self._head), (self.size - len(self._tail), self._tail)):
            begin, after = max(offset, at), min(end, at + len(part))
            if begin < after:
                content[begin - offset : after - offset] = part[begin - at : after - at]
        return bytes(content)

    def read(self, block: int) -> dict[str, Any]:
        while True:
            try:
                return read_embedded(Window(self.pread, self.size, known=self.known))
            except Missing as missing:
                self.known.append((missing.offset, min(self.size, missing.offset + max(block, missing.size))))


def _film_of(size: int) -> Sparse:
    moov = files.box(b"moov", files.box(b"mvhd", b"\0" * 100), files.box(b"udta", files.mdta(files.TEXTS)))
    mdat = size - len(files.FTYP) - len(moov)
    return Sparse(files.FTYP + b"\0\0\0\1mdat" + mdat.to_bytes(8), moov, size)


def _webm_of(size: int) -> Sparse:
    small = files.matroska_with_tags_behind(files.TEXTS, clusters=1, cluster_bytes=0)
    tags = files.tags(files.TEXTS)
    cluster = size - len(small)
    whole = files.EBML + files.element(0x18538067, b"", size_bytes=8)[:4]
    inner = size - len(whole) - 8
    index = files.element(
        0x114D9B74,
        files.element(
            0x4DBB, files.element(0x53AB, b"\x12\x54\xc3\x67"), files.element(0x53AC, (inner - len(tags)).to_bytes(8))
        ),
    )
    head = whole + (1 << 56 | inner).to_bytes(8) + index + b"\x1f\x43\xb6\x75" + (1 << 56 | cluster).to_bytes(8)
    return Sparse(head, tags, size)


@pytest.mark.parametrize("film", [_film_of(2_500_000_000), _webm_of(2_500_000_000)], ids=["mp4", "webm"])
def test_a_film_of_gigabytes_is_read_where_its_workflow_stands(film: Sparse) -> None:
    assert film.read(4096)["document"] == files.BOTH
    assert len(film.known) < 8
    assert sum(end - begin for begin, end in film.known) < 100_000


@pytest.mark.parametrize("name", files.WITH_BOTH)
def test_a_file_that_comes_in_pieces_is_read_as_a_whole_one(name: str) -> None:
    content = files.WITH_BOTH[name]
    assert Sparse(content, b"", len(content)).read(64)["document"] == files.BOTH


# In the child


def test_the_child_reads_what_is_there_and_says_what_it_needs(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    content = files.WITH_BOTH["mp4 behind"]
    path.write_bytes(content)
    deadline = time.monotonic() + 2 * PATIENCE_S
    with path.open("rb") as file:

        def ask(*known: tuple[int, int]) -> Any:
            return sandbox.read_embedded(
                file.fileno(), size=len(content), known=known, deadline=deadline, turn="", owner=""
            )

        assert ask((0, 4096)) == {"missing": [len(files.FTYP) + 5008, 8]}
        assert ask((0, len(content)))["document"] == files.BOTH


def test_the_child_refuses_a_file_without_one(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    path.write_bytes(files.pillow("PNG"))
    size = path.stat().st_size
    deadline = time.monotonic() + 2 * PATIENCE_S
    with path.open("rb") as file, pytest.raises(Refused, match="carries no workflow"):
        sandbox.read_embedded(file.fileno(), size=size, known=[(0, size)], deadline=deadline, turn="", owner="")
