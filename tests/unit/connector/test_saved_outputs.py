"""Outputs as files and as pictures, whatever they are called and whatever is in them."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from comfy_serverless.connector.facts import Timings
from comfy_serverless.connector.notebooks import as_html
from comfy_serverless.connector.outputs import Output
from comfy_serverless.connector.pictures import picture_of
from comfy_serverless.connector.run import Execution
from comfy_serverless.files import OutputKind


def output(name: str = "a.png", content: bytes | None = b"bytes", **changes: Any) -> Output:
    facts: dict[str, Any] = {
        "node_id": "9",
        "class_type": "SaveImage",
        "title": "The <b>result</b>",
        "index": 0,
        "name": name,
        "kind": OutputKind.IMAGE,
        "content_type": "image/png",
        "content": content,
    }
    return Output(**(facts | changes))


def saved(output: Output, folder: Path) -> Path:
    execution = Execution("p", (output,), (), Timings(0, 0, 0), (), 1)
    return execution.save(folder)[0]


def image(mode: str = "RGB", *, form: str = "PNG", size: tuple[int, int] = (640, 320)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("a.png", "a.png", "a-2.png"),
        ("no ending", "no ending", "no ending-2"),
        (".hidden", ".hidden", ".hidden-2"),
        ("a.tar.gz", "a.tar.gz", "a.tar-2.gz"),
        ("../../etc/a.png", "a.png", "a-2.png"),
        ("/etc/passwd", "passwd", "passwd-2"),
        ("..", "output", "output-2"),
        ("", "output", "output-2"),
        ("日本語.png", "日本語.png", "日本語-2.png"),
        ("a\0b.png", "a_b.png", "a_b-2.png"),
    ],
)
def test_a_name_is_a_name_in_the_folder_and_none_is_taken_twice(
    tmp_path: Path, name: str, first: str, second: str
) -> None:
    assert saved(output(name, b"1"), tmp_path) == tmp_path / first
    assert saved(output(name, b"2"), tmp_path) == tmp_path / second
    assert [(tmp_path / first).read_bytes(), (tmp_path / second).read_bytes()] == [b"1", b"2"]


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "ü" * 300, "a." + "b" * 300])
def test_a_long_name_is_cut_to_what_file_systems_take(tmp_path: Path, name: str) -> None:
    assert len({saved(output(name), tmp_path) for _ in range(12)}) == 12


def test_a_link_of_that_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "elsewhere")
    assert saved(output(), tmp_path).name == "a-2.png"
    assert not (tmp_path / "elsewhere").exists()


def test_many_at_once_get_a_file_each(tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(saved(output(), tmp_path))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == len(list(tmp_path.iterdir())) == 12


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("broke off")

    with pytest.raises(OSError, match="broke off"):
        saved(output(content=None, fetch=Broken), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mode", "form"), [("RGB", "JPEG"), ("RGBA", "WEBP"), ("CMYK", "TIFF"), ("I;16", "TIFF")])
def test_any_image_is_a_picture_of_a_notebook(mode: str, form: str) -> None:
    made = output(content=image(mode, form=form), content_type=f"image/{form.lower()}")
    png = made._repr_png_()
    assert png is not None
    assert Image.open(io.BytesIO(png)).size == picture_of(made.read()).size == (640, 320)


def test_a_png_is_shown_as_it_is() -> None:
    content = image()
    assert output(content=content).as_png() == content


@pytest.mark.parametrize(
    "unreadable",
    [
        output(content=b"no image", content_type="image/webp"),
        output(content=image(form="JPEG")[:50], content_type="image/jpeg"),
        output(content=None, content_type="image/jpeg"),
        output(kind=OutputKind.VIDEO, content_type="video/mp4"),
    ],
)
def test_what_is_no_picture_is_shown_by_its_name(unreadable: Output) -> None:
    assert unreadable._repr_png_() is None
    assert f"<pre>{unreadable.content_type}</pre>" in as_html([unreadable], ())


def test_a_page_shows_small_pictures_and_no_markup_of_others() -> None:
    text = output("t.txt", b"<script>alert(1)</script>", kind=OutputKind.TEXT, content_type="text/plain")
    page = as_html([output(content=image()), text], ["<i>careful</i>"])
    assert "<script>" not in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<img ") == 1
    assert "and 6 more" in as_html([text] * 30, ())


def test_a_prompt_gets_one_short_line() -> None:
    assert repr(output("a.png", b"x" * 10_000)) == "<Output a.png (image/png) of node 9 The <b>result</b>>"
