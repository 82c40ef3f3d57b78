"""Texts that no file can be called are no files, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.cli.paths import is_file, is_folder, local_path

#: No such user, a user with a letter that none has, too long, a zero, half of a character.
NOBODYS = ["~nosuchuser/x", "~\0/x", "~\ud800", "x" * 300, "a\0b", "\ud800", ""]


@pytest.mark.parametrize("text", NOBODYS)
def test_what_no_file_can_be_called_is_no_file(text: str) -> None:
    path = local_path(text)
    assert not is_file(path)
    assert is_folder(path) == (text == "")


def test_a_home_is_known_and_what_is_like_one_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert is_file(local_path("~/a.jpg"))
    assert not is_file(local_path("./~/a.jpg"))
    assert local_path("~nosuchuser/a.jpg") == Path("~nosuchuser/a.jpg")


@pytest.mark.parametrize("beginning", ["file://", "FILE://", "file://localhost"])
def test_a_file_address_is_the_file_in_it_decoded(tmp_path: Path, beginning: str) -> None:
    path = tmp_path / "a füchs #1 100%.png"
    path.write_bytes(b"x")
    assert is_file(local_path(beginning + path.as_uri().removeprefix("file://")))


@pytest.mark.parametrize(
    "text", ["file://host/a.png", "file:a.png", "file://a.png", "file:///a.png?x", "file:///a%00b"]
)
def test_what_is_no_file_of_this_machine_is_none(text: str) -> None:
    assert not is_file(local_path(text))
