"""The page and the contact sheet of a batch: they work from their folder, and run nothing that a line says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image

from comfy_serverless.cli.batches.download import Download, Downloaded
from comfy_serverless.cli.batches.gallery import Failure, Item, page
from comfy_serverless.cli.batches.names import NameTemplate
from comfy_serverless.cli.batches.of_stack import OfReport
from comfy_serverless.cli.batches.sheet import RESERVED, TILES, draw
from comfy_serverless.cli.contact_sheet import MARGIN, WIDTH, Tile, tile_sheet
from comfy_serverless.errors import InvalidRequest
from tests.unit.cli.batches.result_world import BUCKET, png, put_line
from tests.unit.jobs_table import REGION, aws


class Found(HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def s3() -> Iterator[Any]:
    with aws() as session:
        client = session.client("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield client


def downloaded(s3: Any, folder: Path, contents: dict[str, bytes], **options: Any) -> Downloaded:
    rows = [
        put_line(s3, line, {"x.png": content}, source=f"s3://b/{name}", **options)
        for line, (name, content) in enumerate(contents.items(), start=1)
    ]
    download = Download(
        source=OfReport(s3), folder=folder, template=NameTemplate.parse("{input}"), batch="b", reserved=RESERVED
    )
    return download.run(iter(rows))


def test_page_and_sheet_show_every_picture_from_the_folder(s3: Any, tmp_path: Path) -> None:
    names = {"a b#1?.jpg": png("red", (900, 300)), "grün:ö.jpg": png("blue"), "50%.jpg": png("green")}
    done = downloaded(s3, tmp_path, names, metadata={"sku": "A<1>"})
    paths = draw(tmp_path, done.files, [], title="autumn", subtitle="3 files")
    assert [path.name for path in paths] == ["gallery.html", "contact-sheet.png"]
    text = paths[0].read_text()
    found = Found(text)
    shown = [image for image in found.all("img") if image.get("src")]
    assert all(image["loading"] == "lazy" and image["width"] and image["height"] for image in shown)
    links = [link["href"] for link in found.all("a") if link.get("class") == "picture"]
    for address in [*links, *(image["src"] for image in shown)]:
        assert address is not None
        assert address.startswith("./")
        assert (tmp_path / unquote(address)).is_file()
    assert len(links) == len(shown) == 3
    assert "sku: A&lt;1&gt;" in text
    with Image.open(paths[1]) as sheet:
        assert sheet.width == WIDTH
    with Image.open(tmp_path / unquote(str(shown[0]["src"]))) as thumb:
        assert max(thumb.size) <= 480


def test_drawn_again_it_replaces_its_own_and_nothing_else(s3: Any, tmp_path: Path) -> None:
    done = downloaded(s3, tmp_path, {"a.jpg": png("red")})
    draw(tmp_path, done.files, [], title="first", subtitle="")
    draw(tmp_path, done.files, [], title="second", subtitle="")
    assert "second" in (tmp_path / "gallery.html").read_text()
    for name, content in {"gallery.html": b"<p>mine</p>", "contact-sheet.png": png("red")}.items():
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidRequest, match=f"{name} is there"):
            draw(tmp_path, done.files, [], title="third", subtitle="")
        assert (tmp_path / name).read_bytes() == content
        (tmp_path / name).write_bytes(kept)


def test_many_pictures_are_several_sheets(s3: Any, tmp_path: Path) -> None:
    done = downloaded(s3, tmp_path, {"a.jpg": png("red")})
    many = done.files * (TILES + 1)
    paths = draw(tmp_path, many, [], title="many", subtitle="")
    assert [path.name for path in paths] == ["gallery.html", "contact-sheet.png", "contact-sheet-2.png"]


def test_what_is_no_picture_is_shown_as_what_it_is(s3: Any, tmp_path: Path) -> None:
    broken = downloaded(s3, tmp_path, {"broken.jpg": b"no picture"}).files
    text = downloaded(s3, tmp_path, {"text.txt": b"<b>words</b>"}, kind="text").files
    video = downloaded(s3, tmp_path, {"film.mp4": b"film"}, kind="video").files
    sound = downloaded(s3, tmp_path, {"sound.wav": b"sound"}, kind="audio").files
    paths = draw(tmp_path, [*broken, *text, *video, *sound], [], title="", subtitle="")
    assert [path.name for path in paths] == ["gallery.html"]
    page_text = paths[0].read_text()
    found = Found(page_text)
    assert [one["preload"] for one in (*found.all("video"), *found.all("audio"))] == ["none", "none"]
    assert "&lt;b&gt;words&lt;/b&gt;" in page_text


def test_nothing_that_a_line_says_is_run() -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    item = Item(PurePosixPath(f"{evil}.png"), "image", evil, {evil: evil}, (PurePosixPath("t.jpg"), 1, 1), evil)
    failure = Failure(3, evil, evil, evil)
    text = page([item], [failure], title=evil, subtitle=evil)
    found = Found(text)
    assert len(found.all("script")) == 1
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = next(str(meta["content"]) for meta in found.all("meta") if meta.get("http-equiv"))
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_page_asks_no_server_for_anything() -> None:
    text = page([], [], title="t", subtitle="s")
    assert not re.findall(r"https?://|@import|url\(", text)
    assert "prefers-color-scheme" in text
    assert "light dark" in text


def test_failures_are_listed_with_their_lines() -> None:
    failures = [Failure(line, "failed", "missing_asset", f"no {line}") for line in range(1, 700)]
    text = page([], failures, title="t", subtitle="s")
    assert "699 lines without a result" in text
    assert "and 199 more" in text


def test_tiles_fill_rows_and_stay_between_the_margins() -> None:
    tiles = [Tile(Image.new("RGB", (width, 100), (250, 0, 0)), "caption") for width in (50, 100, 157, 300, 10) * 5]
    sheet = tile_sheet(tiles, title="x" * 300, subtitle="")
    for x in (MARGIN - 2, WIDTH - MARGIN + 2):
        assert (250, 0, 0) not in {sheet.getpixel((x, y)) for y in range(sheet.height)}
