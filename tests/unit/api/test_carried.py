"""`POST /api/v2/workflows/read`: the workflow in a file that somebody drops, a picture or JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.api.assets import MAX_SENT_BYTES
from comfy_serverless.table.asset_names import digest_of
from comfy_serverless.table.assets import Naming
from tests.unit.api_world import Answer, ApiWorld, api_world
from tests.unit.named_world import GRAPH
from tests.unit.picture_files import png_chunk, png_with

EDITORS = {"nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [64, 64, 1, 255]}], "links": [], "version": 0.4}
SEED = 18446744073709551615


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


def read(api: ApiWorld, *, owner: str = "team", name: str = "fox.png", **parts: bytes | str) -> Answer:
    """Send a form of these parts; bytes are a file."""
    body = b""
    for field, value in parts.items():
        content, file = (value, f'; filename="{name}"') if isinstance(value, bytes) else (value.encode(), "")
        body += b'--cut\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
            field.encode(),
            file.encode(),
            content,
        )
    headers = {"content-type": "multipart/form-data; boundary=cut"}
    return api.request("POST", "/api/v2/workflows/read", body=body + b"--cut--\r\n", headers=headers, owner=owner)


def picture(**texts: object) -> bytes:
    """A picture as ComfyUI writes it."""
    return png_with(
        *(png_chunk(b"tEXt", name.encode() + b"\0" + json.dumps(value).encode()) for name, value in texts.items())
    )


def uploaded(api: ApiWorld, content: bytes, name: str, *, owner: str = "team", kind: str = "image/png") -> str:
    naming = Naming(file_path=name, content_type=kind, tags=(), expires_in_s=None)
    return str(api.services.assets.store(owner, io.BytesIO(content), digest_of(io.BytesIO(content)), naming).id)


def test_a_picture_gives_the_graph_and_the_editors_workflow(api: ApiWorld) -> None:
    answer = read(api, file=picture(prompt=GRAPH, workflow=EDITORS))

    assert answer.status == 200
    assert answer.json == {"workflow": {"prompt": GRAPH, "workflow": EDITORS}, "warnings": []}


def test_what_is_read_goes_into_a_push_as_it_is(api: ApiWorld) -> None:
    workflow = read(api, file=picture(prompt=GRAPH, workflow=EDITORS)).json["workflow"]

    pushed = api.request("PUT", "/api/v2/workflows/poster", body={"workflow": workflow, "dry_run": True})

    assert pushed.status == 200, pushed.text
    assert {one["name"] for one in pushed.json["inputs"]} >= {"width", "height"}


@pytest.mark.parametrize("document", [GRAPH, EDITORS, {"prompt": GRAPH}])
def test_a_file_of_json_is_answered_itself(api: ApiWorld, document: dict[str, Any]) -> None:
    answer = read(api, file=json.dumps(document).encode(), name="fox.json")

    assert answer.json["workflow"] == document


def test_seeds_keep_all_their_digits(api: ApiWorld) -> None:
    graph = {"3": {"class_type": "KSampler", "inputs": {"seed": SEED}}}

    assert str(SEED) in read(api, file=picture(prompt=graph)).text


def test_an_asset_of_any_size_is_read_where_it_lies(api: ApiWorld) -> None:
    content = picture(prompt=GRAPH) + b"\0" * (MAX_SENT_BYTES + 1)
    asset = uploaded(api, content, "large.png")

    assert read(api, asset_id=asset).json["workflow"]["prompt"] == GRAPH
    too_much = read(api, file=content)
    assert too_much.status == 413
    assert "asset_id" in too_much.json["error"]["message"]


def test_an_asset_may_be_json(api: ApiWorld) -> None:
    asset = uploaded(api, json.dumps(GRAPH).encode(), "poster.json", kind="application/json")

    assert read(api, asset_id=asset).json["workflow"] == GRAPH


def test_another_owners_asset_is_not_there(api: ApiWorld) -> None:
    asset = uploaded(api, picture(prompt=GRAPH), "fox.png", owner="others")

    answer = read(api, asset_id=asset)

    nobodys = read(api, asset_id="00000000-0000-4000-8000-000000000000")
    assert answer.status == nobodys.status == 404
    assert answer.text.replace(asset, "") == nobodys.text.replace("00000000-0000-4000-8000-000000000000", "")


@pytest.mark.parametrize(
    ("content", "name", "status", "says"),
    [
        (picture(), "fox.png", 422, "'fox.png'"),
        (b"GIF89a", "fox.gif", 400, "'fox.gif' is not JSON"),
        (b'{"a": 1}', "a.json", 422, "is JSON, and no workflow"),
        (b"[1]", "a.json", 422, "is JSON, and no workflow"),
        (b"", "a.json", 400, "is empty"),
        (b"[" * 100_000, "deep.json", 400, "nested too deeply"),
        (b"\x89PNG\r\n\x1a\n" + b"\xff" * 100, "cut.png", 422, "'cut.png'"),
    ],
)
def test_what_carries_none_is_refused_by_its_name(
    api: ApiWorld, content: bytes, name: str, status: int, says: str
) -> None:
    answer = read(api, file=content, name=name)

    assert answer.status == status, answer.text
    assert says in answer.json["error"]["message"]


def test_exactly_one_file_is_named(api: ApiWorld) -> None:
    neither, both = read(api), read(api, file=b"{}", asset_id="x")

    assert neither.status == both.status == 422
    assert "exactly one" in both.json["error"]["message"]
