"""The same request everywhere: whatever shape it has, each door makes the same of it, and says the same about it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest

from comfy_serverless.jobs.declarations import DeclarationsReader, DeclarationsWriter
from tests.unit import editor_samples
from tests.unit.api_world import ASSETS
from tests.unit.request_doors import (
    ALL,
    BYTES,
    GRAPH,
    LOADER,
    OF_SAVED,
    PICTURE,
    PNGINFO,
    SAVED,
    TEXTS,
    UI,
    WITH_SAVED,
    Doors,
    Seen,
    opened,
)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """One world for all cases: each drops under a name of its own."""
    with opened(tmp_path_factory.mktemp("workflows")) as made:
        yield made


def text(value: object) -> str:
    return json.dumps(value)


def of_file(name: str) -> dict[str, str]:
    """The labels of a job that runs a file of WORKFLOWS_DIR."""
    return {"workflow": name, "version": "0"}


#: A shape, what it means, and words of what is said about it.
SHAPES: Mapping[str, tuple[object, Seen, tuple[str, ...]]] = {
    "a request": ({"workflow": GRAPH}, Seen(), ()),
    "a bare graph": (GRAPH, Seen(), ()),
    "a body of /prompt": ({"prompt": GRAPH}, Seen(), ()),
    "with what ComfyUI's clients send": (
        {"prompt": GRAPH, "client_id": "a", "prompt_id": "b", "number": 1, "front": True},
        Seen(),
        ("client_id", "prompt_id", "number", "front"),
    ),
    "with a client's id beside a workflow": ({"workflow": GRAPH, "client_id": "a"}, Seen(), ("client_id",)),
    "with data for ComfyUI": ({"prompt": GRAPH, "extra_data": PNGINFO}, Seen(extra_data=PNGINFO), ()),
    "in a workflow": ({"workflow": {"prompt": GRAPH, "extra_data": PNGINFO}}, Seen(extra_data=PNGINFO), ()),
    "a request with it": ({"workflow": GRAPH, "extra_data": PNGINFO}, Seen(extra_data=PNGINFO), ()),
    "with more of the editor": (
        {"workflow": GRAPH, "extra_data": {"preview_method": "auto"}},
        Seen(extra_data={"preview_method": "auto"}),
        (),
    ),
    "beside the prompt": ({"prompt": GRAPH, **PNGINFO}, Seen(extra_data=PNGINFO), ()),
    "a picture's pair": ({"prompt": GRAPH, "workflow": UI}, Seen(extra_data=PNGINFO), ()),
    "a picture's pair of texts": ({"prompt": text(GRAPH), "workflow": text(UI)}, Seen(extra_data=PNGINFO), ()),
    "graphToPrompt": ({"output": GRAPH, "workflow": UI}, Seen(extra_data=PNGINFO), ()),
    "graphToPrompt in a workflow": ({"workflow": {"output": GRAPH, "workflow": UI}}, Seen(extra_data=PNGINFO), ()),
    "a pair in a prompt": ({"prompt": {"output": GRAPH, "workflow": UI}}, Seen(extra_data=PNGINFO), ()),
    "JSON in a text": ({"workflow": text(GRAPH)}, Seen(), ()),
    "a text in a text": ({"workflow": text(text(GRAPH))}, Seen(), ()),
    "a prompt in a text": ({"workflow": text({"prompt": GRAPH})}, Seen(), ()),
    "with a mark in the text": ({"workflow": "\ufeff" + text(GRAPH)}, Seen(), ()),
    "a text in all": (text({"workflow": GRAPH}), Seen(), ()),
    "of RunPod": ({"input": {"workflow": GRAPH}}, Seen(), ()),
    "of RunPod, with more": (
        {"input": {"workflow": GRAPH}, "id": "a", "webhook": "https://a.example", "policy": {}},
        Seen(),
        ("id", "webhook", "policy"),
    ),
    "of RunPod, with pictures": (
        {"input": {"workflow": LOADER, "images": [{"name": "fox.png", "image": f"data:image/png;base64,{PICTURE}"}]}},
        Seen(LOADER, inputs={"1.image": f"data:image/png;base64,{PICTURE}"}),
        (),
    ),
    "with a picture that nobody wants": (
        {"input": {"workflow": LOADER, "images": [{"name": "cat.png", "image": PICTURE}]}},
        Seen(LOADER),
        ("cat.png",),
    ),
    "of cog": ({"input": {"workflow_json": text(GRAPH)}}, Seen(), ()),
    "with workflow_json": ({"workflow_json": text(GRAPH)}, Seen(), ()),
    "with workflow_api": ({"workflow_api": GRAPH}, Seen(), ()),
    "an HTTP envelope": ({"body": text({"workflow": GRAPH}), "headers": {}}, Seen(), ("headers",)),
    "an envelope in an envelope": ({"body": {"input": {"prompt": GRAPH}}}, Seen(), ()),
    "instances": ({"instances": [{"workflow": GRAPH}]}, Seen(), ()),
    "the only one in a list": ([{"workflow": GRAPH}], Seen(), ()),
    "a bare graph in a list": ([GRAPH], Seen(), ()),
    "an entry of the history": (
        {"prompt": [7, "id", GRAPH, {**PNGINFO, "client_id": "a"}, ["2"]]},
        Seen(extra_data=PNGINFO),
        (),
    ),
    "an entry of the history, whole": (
        {"prompt": [7, "id", GRAPH, {}, ["2"]], "outputs": {"2": {}}, "status": {"completed": True}, "meta": {}},
        Seen(),
        ("outputs", "status", "meta"),
    ),
    "an answer of the history": (
        {"an-id": {"prompt": [7, "id", GRAPH, {}, ["2"]], "outputs": {}, "status": {}}},
        Seen(),
        ("outputs", "status"),
    ),
    "nulls": (
        {"workflow": GRAPH, **dict.fromkeys(("set", "inputs", "metadata", "output", "models", "reply", "extra_data"))},
        Seen(),
        (),
    ),
    "numbers for labels": (
        {"workflow": GRAPH, "metadata": {"user": 42, "is": True, "of": 1.5, "no": None}},
        Seen(labels={"user": "42", "is": "true", "of": "1.5"}),
        (),
    ),
    "a number of seconds as a text": ({"workflow": GRAPH, "deadline_s": "60"}, Seen(), ()),
    "an input of null": ({"workflow": LOADER, "inputs": {"1.image": None}}, Seen(LOADER), ("1.image",)),
    "an address with blanks": (
        {"workflow": LOADER, "inputs": {"1.image": " s3://photos/fox.png\n"}},
        Seen(LOADER, inputs={"1.image": "s3://photos/fox.png"}),
        (),
    ),
    "an address with blanks in the graph": (
        {"1": {"class_type": "LoadImage", "inputs": {"image": "https://a.example/fox.png\n"}}, "2": GRAPH["2"]},
        Seen({"1": {"class_type": "LoadImage", "inputs": {"image": "https://a.example/fox.png"}}, "2": GRAPH["2"]}),
        (),
    ),
    "base64 in the graph": (
        {"1": {"class_type": "LoadImage", "inputs": {"image": PICTURE}}, "2": GRAPH["2"]},
        Seen(
            {
                "1": {"class_type": "LoadImage", "inputs": {"image": f"data:image/png;base64,{PICTURE}"}},
                "2": GRAPH["2"],
            }
        ),
        (),
    ),
    "NaN outside of inputs": (
        {"1": {**GRAPH["1"], "is_changed": [float("nan")]}, "2": GRAPH["2"]},
        Seen(),
        (),
    ),
    "NaN for ComfyUI": (
        {"workflow": GRAPH, "extra_data": {"extra_pnginfo": {"a": [float("nan"), 1]}}},
        Seen(extra_data={"extra_pnginfo": {"a": [None, 1]}}),
        ("extra_data",),
    ),
    "numbers in links": (
        {"1": GRAPH["1"], "2": {**GRAPH["2"], "inputs": {"images": [1, 0], "filename_prefix": "x"}}},
        Seen(),
        ("node 2",),
    ),
    "a name": ({"workflow": "pair"}, Seen(extra_data=PNGINFO, labels=of_file("pair")), ()),
    "a name that begins like a list": ({"workflow": "[v2] poster"}, Seen(labels=of_file("[v2] poster")), ()),
    "a name with data for ComfyUI beside it": (
        {"workflow": "[v2] poster", **PNGINFO, "extra_data": {"preview_method": "none"}},
        Seen(extra_data={**PNGINFO, "preview_method": "none"}, labels=of_file("[v2] poster")),
        (),
    ),
    "in an envelope, with a field of others": ({"input": {"workflow": GRAPH, "randomise": 1}}, Seen(), ("randomise",)),
    "a name in an envelope, with one": (
        {"input": {"workflow": "[v2] poster", "randomise": 1}},
        Seen(labels=of_file("[v2] poster")),
        ("randomise",),
    ),
    "what the editor saved": (SAVED, Seen(OF_SAVED, WITH_SAVED), ()),
    "a request with it, of the editor": ({"workflow": SAVED}, Seen(OF_SAVED, WITH_SAVED), ()),
    "of the editor, in a prompt": ({"prompt": SAVED, "client_id": "a"}, Seen(OF_SAVED, WITH_SAVED), ("client_id",)),
    "of the editor, in a text of RunPod": ({"input": {"workflow": text(SAVED)}}, Seen(OF_SAVED, WITH_SAVED), ()),
    "of the editor, with values": (
        {"workflow": SAVED, "set": {"The canvas.color": 7, "2.filename_prefix": "y"}},
        Seen(
            {
                "1": {**OF_SAVED["1"], "inputs": {**OF_SAVED["1"]["inputs"], "color": 7}},
                "2": {**OF_SAVED["2"], "inputs": {**OF_SAVED["2"]["inputs"], "filename_prefix": "y"}},
            },
            WITH_SAVED,
        ),
        (),
    ),
    "of the editor, with data for ComfyUI in it": (
        {**SAVED, "extra_data": {"preview_method": "none"}, "client_id": "a"},
        Seen(OF_SAVED, {**WITH_SAVED, "preview_method": "none"}),
        ("client_id",),
    ),
    "of the editor, with data beside it": (
        {"workflow": SAVED, "extra_data": PNGINFO},
        Seen(OF_SAVED, PNGINFO),
        (),
    ),
    "a name, of the editor": ({"workflow": "saved"}, Seen(OF_SAVED, WITH_SAVED, labels=of_file("saved")), ()),
    "words for a prompt beside a graph of RunPod": (
        {"workflow_api": GRAPH, "prompt": "{red|blue} fox: a {study}"},
        Seen(),
        ("prompt",),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_same_request_at_every_door(doors: Doors, name: str) -> None:
    sent, meant, words = SHAPES[name]
    graph = GRAPH if meant.graph is None else meant.graph
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert not seen.code, (door, seen)
        got = Seen(seen.graph, seen.extra_data, seen.inputs, seen.labels)
        assert got == Seen(graph, meant.extra_data or {}, meant.inputs or {}, meant.labels or {}), door
        said = " ".join(seen.warnings)
        assert all(word in said for word in words), (door, said)
        assert bool(said) == bool(words), (door, said)


OF_EDITOR = [name for name in SHAPES if "editor" in name and name != "with more of the editor"]


def test_what_the_editor_saved_is_the_same_where_the_api_knows_the_nodes(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is converted there, and the worker gets a graph: workers of any release run it."""
    declarations = DeclarationsReader(doors.s3, ASSETS, lambda: "nodes")
    DeclarationsWriter(doors.s3, ASSETS, "nodes").write(editor_samples.OBJECT_INFO)
    monkeypatch.setattr(doors.api, "services", replace(doors.api.services, declarations=declarations))
    monkeypatch.setattr(doors.engine, "declares", {})
    for name in OF_EDITOR:
        sent, meant, words = SHAPES[name]
        seen = doors.generate(json.dumps(sent).encode())
        assert (seen.code, seen.graph, seen.extra_data) == ("", meant.graph, meant.extra_data), (name, seen)
        assert all(word in " ".join(seen.warnings) for word in words), (name, seen)


REFUSED: Mapping[str, tuple[object, str, str]] = {
    "a node of the editor that nobody has": (
        editor_samples.with_unknown(),
        "workflow_format_ui",
        "NobodysNode",
    ),
    "values that do not fit what the editor saved": (
        {"workflow": SAVED, "set": {"9.seed": 1}},
        "invalid_workflow",
        "9.seed",
    ),
    "nothing but the editor's frame": ({"workflow": {"nodes": [], "links": []}}, "workflow_format_ui", "no nodes"),
    "two workflows": ({"workflow": GRAPH, "prompt": LOADER}, "invalid_request", "two workflows"),
    "a name and a graph": ({"workflow": "pair", "prompt": LOADER}, "invalid_request", "two workflows"),
    "a slip of the pen": ({"workflow": GRAPH, "deadlin_s": 5}, "invalid_request", "did you mean 'deadline_s'"),
    "a slip beside a prompt": ({"prompt": GRAPH, "deadlin_s": 5}, "invalid_request", "did you mean 'deadline_s'"),
    "a slip in an envelope": (
        {"input": {"workflow": GRAPH, "metdata": {}}},
        "invalid_request",
        "did you mean 'metadata'",
    ),
    "two in a list": ([{"workflow": GRAPH}, {"workflow": LOADER}], "invalid_request", "a list"),
    "no workflow": ({"set": {}}, "invalid_request", "workflow"),
    "broken JSON in a text": ({"workflow": "{'1': {}}"}, "invalid_request", "double quotes"),
    "words for a prompt": (
        {"workflow": GRAPH, "prompt": "{red|blue} fox"},
        "invalid_request",
        "prompt: is not a field",
    ),
    "pictures for a name": (
        {"workflow": "pair", "images": [{"name": "a", "image": PICTURE}]},
        "invalid_request",
        "`inputs`",
    ),
    "data for ComfyUI that is no object": ({"workflow": GRAPH, "extra_data": [1]}, "invalid_request", "extra_data"),
}


def test_how_long_to_wait_is_of_the_api_alone(doors: Doors) -> None:
    content = json.dumps({"workflow": GRAPH, "wait_s": 0}).encode()
    for door in ALL:
        seen: Seen = getattr(doors, door)(content)
        assert (seen.code, "wait_s" in " ".join(seen.warnings)) == ("", door != "generate"), door


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_refused_alike_at_every_door(doors: Doors, name: str) -> None:
    sent, code, words = REFUSED[name]
    for door in ALL:
        if door == "manifest" and isinstance(sent, list):
            continue  # a list there is one request a line
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert (seen.code, words in seen.message) == (code, True), (door, seen)


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


ENCODINGS: Mapping[str, Callable[[str], bytes]] = {
    "a mark": lambda it: it.encode("utf-8-sig"),
    "two marks": lambda it: ("\ufeff\ufeff" + it).encode(),
    "UTF-16": lambda it: it.encode("utf-16"),
    "UTF-16 without a mark": lambda it: it.encode("utf-16-le"),
    "UTF-16, the other way": lambda it: b"\xfe\xff" + it.encode("utf-16-be"),
    "UTF-32": lambda it: it.encode("utf-32"),
    "gzip": lambda it: packed(it.encode()),
    "gzip twice": lambda it: packed(packed(it.encode())),
    "gzip of UTF-16": lambda it: packed(it.encode("utf-16")),
    "gzip in members": lambda it: packed(it[:9].encode()) + packed(it[9:].encode()),
    "pretty, of Windows": lambda it: json.dumps(json.loads(it), indent=2).replace("\n", "\r\n").encode(),
    "blanks around": lambda it: f"\r\n\t {it} \r\n\r\n".encode(),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_an_encoding_is_the_same_at_every_door(doors: Doors, name: str) -> None:
    content = ENCODINGS[name](json.dumps({"workflow": GRAPH}, ensure_ascii=False))
    try:
        content.decode()
    except UnicodeDecodeError:
        open_doors: tuple[str, ...] = BYTES
    else:
        open_doors = BYTES if b"\0" in content else TEXTS
    for door in open_doors:
        seen: Seen = getattr(doors, door)(content)
        assert (seen.code, seen.graph) == ("", GRAPH), (door, seen)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"workflow": {"1": 5,}}', "the comma before it is one too many"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 50, "image/png"),
        ('{"workflow": "\xfc"}'.encode("cp1252"), "UTF-8"),
        (packed(b"{" + b" " * 40_000_000), "unpacked|can be a request"),
        (packed(b'{"workflow": "pair"}')[:-9], "breaks off"),
        (b"{'workflow': 1}", "double quotes"),
    ],
    ids=["comma", "picture", "cp1252", "bomb", "cut", "quotes"],
)
def test_what_cannot_be_read_is_refused_at_every_door_with_the_place(doors: Doors, content: bytes, words: str) -> None:
    for door in BYTES:
        seen: Seen = getattr(doors, door)(content)
        assert seen.code == "invalid_request", (door, seen)
        assert re.search(words, seen.message), (door, seen)
