"""What `run` reads: any file that has a workflow in it, and plain words about one that has none."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from comfy_serverless.cli.documents import Document, read_document
from comfy_serverless.errors import ComfyError, InvalidRequest, InvalidWorkflow, UiFormatWorkflow
from tests.unit.workflow_samples import text_to_image

GRAPH = text_to_image()
EDITOR = {"nodes": [], "links": [], "last_node_id": 1}
TEXT = json.dumps(GRAPH, ensure_ascii=False)


def read(tmp_path: Path, content: bytes | str | object) -> Document:
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    file = tmp_path / "given"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_document(str(file))


def png(**texts: str) -> bytes:
    """A picture with these texts in it, as ComfyUI writes them."""
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: gzip.compress(text.encode("utf-8-sig")),
        lambda text: text.replace("\n", "\r\n").encode(),
    ],
    ids=["utf-8", "bom", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gzip", "crlf"],
)
def test_any_unicode_is_read(tmp_path: Path, encode: Callable[[str], bytes]) -> None:
    assert read(tmp_path, encode(json.dumps(GRAPH, indent=1))).graph == GRAPH


@pytest.mark.parametrize(
    "document",
    [
        GRAPH,
        {"prompt": GRAPH, "client_id": "x"},
        {"workflow": GRAPH},
        {"workflow": TEXT},
        {"output": GRAPH, "workflow": EDITOR},
        {"prompt": GRAPH, "workflow": EDITOR},
    ],
    ids=["graph", "prompt body", "request", "text", "graphToPrompt", "picture's pair"],
)
def test_the_workflow_is_found_in_what_stands_around_it(tmp_path: Path, document: object) -> None:
    assert read(tmp_path, document).graph == GRAPH


def test_a_request_brings_its_set_its_inputs_and_its_deadline(tmp_path: Path) -> None:
    request = {"workflow": GRAPH, "set": {"3.seed": 1}, "inputs": {"1.image": "s3://b/k"}, "deadline_s": 5}
    document = read(tmp_path, {**request, "metadata": {"a": "b"}, "job_id": "x", "reply": None})
    assert (document.values, document.inputs, document.deadline_s) == ({"3.seed": 1}, {"1.image": "s3://b/k"}, 5.0)
    assert document.left_out == ("job_id", "metadata")


def test_a_request_may_name_its_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOWS_DIR", str(tmp_path / "named"))
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "fox.json").write_text(TEXT)
    for name in ("fox", "fox.json"):
        assert read(tmp_path, {"workflow": name}).graph == GRAPH
    with pytest.raises(InvalidRequest, match=r"names the workflow 'fix', and there is no such file in .*named"):
        read(tmp_path, {"workflow": "fix"})


@pytest.mark.parametrize("packed", [False, True])
def test_a_picture_that_comfyui_made_brings_its_workflow(tmp_path: Path, packed: bool) -> None:
    plain = png(prompt=TEXT, workflow=json.dumps(EDITOR))
    if packed:  # as a zTXt chunk, before the picture's own
        data = b"prompt\0\0" + zlib.compress(TEXT.encode("latin-1"))
        chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
        plain = png()
        plain = plain[:33] + chunk + plain[33:]
    assert read(tmp_path, plain).graph == GRAPH


def test_the_numbers_that_comfyui_writes_into_pictures_are_read(tmp_path: Path) -> None:
    text = json.dumps({"1": {**GRAPH["4"], "is_changed": [float("nan")]}})
    assert read(tmp_path, png(prompt=text)).graph["1"]["inputs"] == GRAPH["4"]["inputs"]


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (png(), InvalidWorkflow, "a picture that carries no workflow"),
        (png(workflow=json.dumps(EDITOR)), InvalidWorkflow, "the editor's own format only.*Export"),
        (png(prompt="{"), InvalidRequest, "the prompt in .* is not JSON"),
        (png()[:40], InvalidWorkflow, "carries no workflow"),
        (b"\xff\xd8\xff\xe0", InvalidRequest, "is not JSON: it is a JPEG"),
        (b"\x1f\x8b\x08broken", InvalidRequest, "is not JSON"),
        ('{"a": "caf\u00e9"}'.encode("cp1252"), InvalidRequest, "save it as UTF-8"),
        (b"", InvalidRequest, "is empty"),
        (b"\xef\xbb\xbf \n", InvalidRequest, "is empty"),
        (b"{'1': 2}", InvalidRequest, "is not JSON: .*line 1"),
        (b"[" * 200_000, InvalidWorkflow, "nested too deeply"),
        (EDITOR, UiFormatWorkflow, "Export"),
        ([1], InvalidWorkflow, "not a list"),
        ({"workflow": GRAPH, "sett": {}}, InvalidRequest, "sett; it has workflow, set"),
        ({"workflow": GRAPH, "set": [1]}, InvalidRequest, "`set` of the request must be an object"),
        ({"workflow": GRAPH, "deadline_s": "x"}, InvalidRequest, "number of seconds"),
        ({"workflow": 5}, InvalidWorkflow, "not a number"),
    ],
)
def test_what_has_none_is_told_what_it_is(tmp_path: Path, content: object, kind: type[ComfyError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        read(tmp_path, content)
    assert type(caught.value) is kind


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.json", tmp_path):
        with pytest.raises(InvalidRequest, match=f"the workflow {missing} cannot be read"):
            read_document(str(missing))
