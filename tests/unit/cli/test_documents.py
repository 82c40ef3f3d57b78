"""What `run` reads: any file that has a workflow in it, and plain words about one that has none."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from comfy_serverless.cli.documents import Document, check_plainly, read_document
from comfy_serverless.cli.made_files import read_value
from comfy_serverless.errors import ComfyError, InvalidRequest, InvalidWorkflow
from tests.unit.embedded_files import SAVED
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


@pytest.mark.parametrize("name", ["my lines.jsonl", "lines.NDJSON"])
def test_a_manifest_is_told_where_it_is_run(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(f"{TEXT}\n{TEXT}\n")
    with pytest.raises(InvalidRequest, match="line 2") as caught:
        read_value(str(file))
    assert f"`comfy-serverless batch submit {shlex.quote(str(file))}`" in caught.value.message
    other = file.with_suffix(".json")
    other.write_text(f"{TEXT}\n{TEXT}\n")
    with pytest.raises(InvalidRequest, match=r"follows it\)\.$"):
        read_value(str(other))


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


def test_what_the_editor_saved_beside_it_goes_back_into_the_pictures(tmp_path: Path) -> None:
    document = read(tmp_path, png(prompt=TEXT, workflow=json.dumps(EDITOR)))
    assert document.extra_data == {"extra_pnginfo": {"workflow": EDITOR}}


def test_the_numbers_that_comfyui_writes_into_pictures_are_read(tmp_path: Path) -> None:
    text = json.dumps({"1": {**GRAPH["4"], "is_changed": [float("nan")]}})
    assert read(tmp_path, png(prompt=text)).graph["1"]["inputs"] == GRAPH["4"]["inputs"]


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (png(), InvalidWorkflow, "given carries no workflow: only what ComfyUI has saved"),
        (png(prompt="{"), InvalidWorkflow, "the prompt is not JSON"),
        (png(parameters="a fox\nSteps: 20, Sampler: Euler"), InvalidWorkflow, "generation parameters as A1111"),
        (png()[:40], InvalidWorkflow, "carries no workflow"),
        (b"\xff\xd8\xff\xe0", InvalidWorkflow, "carries no workflow"),
        (b"GIF89a\xff\xff\1\0", InvalidRequest, "is not JSON: its content is image/gif"),
        (b"\x1f\x8b\x08broken", InvalidRequest, "packed by gzip, and damaged"),
        ('{"a": "caf\u00e9"}'.encode("cp1252"), InvalidRequest, "save it as UTF-8"),
        (b"", InvalidRequest, "is empty"),
        (b"\xef\xbb\xbf \n", InvalidRequest, "is empty"),
        (b"{'1': 2}", InvalidRequest, "is not JSON: .*line 1"),
        (b"[" * 200_000, InvalidRequest, "nested too deeply"),
        (EDITOR, InvalidWorkflow, "has no nodes"),
        ([1], InvalidRequest, "not a list"),
        ({"workflow": GRAPH, "sett": {}}, InvalidRequest, r"sett: is not a field of a request \(did you mean 'set'"),
        ({"workflow": GRAPH, "set": [1]}, InvalidRequest, "set: should be"),
        ({"workflow": GRAPH, "deadline_s": "x"}, InvalidRequest, "deadline_s: should be"),
        ({"workflow": 5}, InvalidRequest, "workflow: must be a workflow"),
    ],
)
def test_what_has_none_is_told_what_it_is(tmp_path: Path, content: object, kind: type[ComfyError], words: str) -> None:
    with pytest.raises(kind, match=words):
        read(tmp_path, content)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "no.json", tmp_path):
        with pytest.raises(InvalidRequest, match=f"the workflow {missing} cannot be read"):
            read_document(str(missing))


BAD_FIELDS: list[dict[str, Any]] = [
    *({"inputs": {"1.image": value}} for value in (7, True, [1, 2], {"a": 1}, [], [None])),
    *({name: value} for name in ("set", "inputs", "extra_data", "metadata") for value in (7, True, [1], "text")),
    {"metadata": {"a": [1]}},
    *({"deadline_s": value} for value in ("x", True, -1, [1], float("inf"))),
    {"job_id": {"a": 1}},
    {"sett": {}},
    {"workflow": 7},
    {"workflow": ""},
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=json.dumps)
def test_a_field_that_no_door_takes_is_refused_before_anything_else(tmp_path: Path, fields: dict[str, object]) -> None:
    request = {"workflow": GRAPH, **fields}
    with pytest.raises(InvalidRequest):
        read(tmp_path, request)
    with pytest.raises(InvalidRequest):  # where there is no pydantic
        check_plainly(request)


def test_a_good_request_passes_without_pydantic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    for name in [name for name in sys.modules if name.startswith("comfy_serverless.jobs.request")]:
        monkeypatch.delitem(sys.modules, name)
    request = {"workflow": GRAPH, "set": {"3.seed": 1}, "inputs": {"1.image": ["a", "b"]}, "metadata": {"a": "b"}}
    assert read(tmp_path, request).values == {"3.seed": 1}
    with pytest.raises(InvalidRequest, match="`inputs`"):
        read(tmp_path, {**request, "inputs": 7})


@pytest.mark.parametrize("name", ["x" * 300, "~nosuch/fox", "a\0b", "half \ud83d", "../" * 2000])
def test_a_workflow_that_no_file_can_be_called_is_not_here(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="there is no such file"):
        read(tmp_path, {"workflow": name})


def test_a_workflow_that_only_the_api_has_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "request.json").write_text(json.dumps({"workflow": "of the image", "set": {"seed": 1}}))
    document = read_document("request.json", elsewhere=True)
    assert (document.named, document.graph, document.values) == ("of the image", {}, {"seed": 1})


@pytest.mark.parametrize("broken", ["{", "", "[" * 200_000])
def test_a_picture_whose_editors_text_is_broken_is_run_without_it(tmp_path: Path, broken: str) -> None:
    document = read(tmp_path, png(prompt=TEXT, workflow=broken))
    assert (document.graph, document.extra_data) == (GRAPH, {})
    assert [warning for warning in document.warnings if warning.startswith("left out: the workflow of the editor")]


@pytest.mark.parametrize("name", ["SaveAnimatedWEBP.webp", "SaveVideo.mp4", "SaveLatent.latent", "SaveSVGNode.svg"])
def test_any_file_that_comfyui_made_brings_its_workflow(name: str) -> None:
    document = read_document(str(SAVED / name))
    assert document.graph
    assert "nodes" in document.extra_data["extra_pnginfo"]["workflow"]


def test_a_file_that_comfyui_made_comes_through_standard_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    content = (SAVED / "SaveAudio.flac").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read_document("-").graph["2"]["class_type"] == "SaveAudio"


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    for content in (TEXT.encode(), png(prompt=TEXT)):
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        assert read_document(str(pipe)).graph == GRAPH
        writer.join()
        pipe.unlink()


def test_what_the_editor_alone_has_saved_is_found_in_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "fox.png"
    picture.write_bytes(png(workflow=json.dumps(EDITOR)))
    assert read_value(str(picture)) == ({"workflow": EDITOR}, ())


def test_where_there_is_no_sandbox_files_are_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("comfy_serverless.sandbox.sandbox.Sandbox", None)
    assert read_document(str(SAVED / "SaveWEBM.webm")).graph
