"""One table of types of files: each question about a file has one answer."""

from __future__ import annotations

from mimetypes import types_map

import pytest

from comfy_serverless import files
from comfy_serverless.files import TYPES, UNKNOWN_TYPE, OutputKind, kept_ending, kind_of, type_of_head, type_of_name

#: What a browser runs, or what can hold what it runs.
ACTIVE = (".html", ".htm", ".svg", ".xml", ".xhtml", ".js", ".mjs", ".css", ".pdf", ".zip")


def test_an_ending_stands_once_in_the_table() -> None:
    endings = [kind.ending for kind in TYPES]
    assert len(endings) == len(set(endings))
    assert all(ending == ending.lower() and ending.startswith(".") for ending in endings)


def test_a_media_type_has_one_name() -> None:
    names = {kind.content_type for kind in TYPES}
    assert not names & {alias for kind in TYPES for alias in kind.aliases}


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.ending)
def test_names_and_beginnings_say_the_same(kind: files.FileType) -> None:
    assert (type_of_name(f"A{kind.ending.upper()}") or UNKNOWN_TYPE) == kind.content_type
    if kind.head is not None:
        at, mark = kind.head
        head = b"\0" * at + mark + b"\0" * files.HEAD_BYTES
        assert type_of_head(head[: files.HEAD_BYTES]) == kind.content_type


@pytest.mark.parametrize("ending", ACTIVE)
def test_nothing_that_runs_in_a_browser_is_shown_or_keeps_its_ending(ending: str) -> None:
    content_type = types_map.get(ending, "application/xhtml+xml")
    assert not files.is_shown(content_type)
    assert kept_ending(f"a{ending}", content_type) == ".bin"


def test_a_browser_is_shown_a_type_whatever_it_is_called() -> None:
    assert files.is_shown("image/png")
    assert files.is_shown("Audio/X-WAV; rate=8000")
    assert not files.is_shown("image/apng")
    assert not files.is_shown(UNKNOWN_TYPE)


def test_unknown_names_say_nothing() -> None:
    assert type_of_name("a.unknown") is None
    assert type_of_name("latent.latent") is None
    assert type_of_name("A.WEBP") == "image/webp"
    assert type_of_name("page.html") == "text/html"


def test_an_input_keeps_its_own_ending_before_that_of_its_type() -> None:
    assert kept_ending("a.MOV", "video/mp4") == ".mov"
    assert kept_ending("a.exe", "video/mp4; codecs=x") == ".mp4"
    assert kept_ending("", "audio/x-m4a") == ".m4a"
    assert kept_ending("a.safetensors", "") == ".bin"
    assert kept_ending("", "image/avif") == ".bin"


@pytest.mark.parametrize(
    ("key", "content_type", "kind"),
    [
        ("images", "image/svg+xml", OutputKind.IMAGE),
        ("images", "video/mp4", OutputKind.VIDEO),
        ("latents", UNKNOWN_TYPE, OutputKind.LATENT),
        ("3d", "model/gltf-binary", OutputKind.FILE),
        ("text", "text/plain; charset=utf-8", OutputKind.TEXT),
        ("x", "application/json", OutputKind.FILE),
    ],
)
def test_the_family_of_a_type_is_the_kind_of_an_output(key: str, content_type: str, kind: OutputKind) -> None:
    assert kind_of(key, content_type) is kind


@pytest.mark.parametrize("ending", ["m3u8", "m3u", "mpd", "ffconcat", "sdp", "idx", "avs", "pls", "xspf", "ism"])
def test_no_input_has_the_name_of_a_list_of_other_files(ending: str) -> None:
    """FFmpeg takes a playlist for one by its name, and reads what that names: any file of the disk."""
    assert kept_ending(f"clip.{ending}", f"video/{ending}") == ".bin"
    assert kept_ending(f"clip.{ending}", "video/mp4") == ".mp4"


@pytest.mark.parametrize("content_type", ["application/vnd.apple.mpegurl", "application/dash+xml", "audio/x-mpegurl"])
def test_nor_by_its_type(content_type: str) -> None:
    assert kept_ending("clip", content_type) == ".bin"
