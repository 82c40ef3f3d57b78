"""`comfy-serverless assets ls` and `outputs ls`: an owner's files, page by page."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from comfy_serverless.cli.main import main
from tests.unit.cli.scripted_api import Asked, Told, output, scripted_api

ASSET = {"id": "a-1", "file_path": "photo.jpg", "content_type": "image/jpeg", "size_bytes": 1234567}


@pytest.mark.parametrize("word", ["ls", "list"])
def test_assets_are_listed_page_after_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    def answer(asked: Asked) -> Told:
        query = dict(parse_qsl(asked.path.partition("?")[2]))
        more: dict[str, Any] = {} if "cursor" in query else {"next_cursor": "on"}
        return Told(body={"assets": [{**ASSET, "created_at": "2026-11-30T12:00:00Z"}], **more})

    with scripted_api(answer) as api:
        monkeypatch.setenv("COMFY_BASE_URL", api.url)
        assert main(["assets", word]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split() for line in lines] == [
            ["id", "name", "type", "size", "uploaded"],
            *[["a-1", "photo.jpg", "image/jpeg", "1.2", "MB", "2026-11-30", "12:00"]] * 2,
        ]
        assert main(["assets", word, "--limit", "1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["next_cursor"] == "on"
        assert [asked.path for asked in api.asked] == [
            "/api/v2/assets?limit=20",
            "/api/v2/assets?limit=19&cursor=on",
            "/api/v2/assets?limit=1",
        ]


def test_outputs_are_chosen_by_kind_batch_workflow_and_label(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_api(lambda _: Told(body={"outputs": [output(b"12", job_id="fox-1")]})) as api:
        monkeypatch.setenv("COMFY_BASE_URL", api.url)
        chosen = ("--type", "image", "--batch", "many", "--workflow", "poster@3", "--label", "a=b")
        assert main(["outputs", "ls", *chosen]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["fox-1", "9", "Picture", "fox_00001_.png"]
        assert dict(parse_qsl(api.asked[0].path.partition("?")[2])) == {
            "type": "image",
            "batch": "many",
            "workflow": "poster@3",
            "metadata[a]": "b",
            "limit": "20",
        }
