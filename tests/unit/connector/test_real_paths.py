"""Where files really are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfy_serverless.connector.real_paths import folder_below, path_below, real_folder, way_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "output"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.png").touch()
    (root / "inside").symlink_to("a/b")
    (root / "outside").symlink_to("..")
    (tmp_path / "output-of-others").mkdir()
    return root


@pytest.fixture(params=["with /proc", "without /proc"])
def _proc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: str) -> str:
        raise FileNotFoundError(path)

    if request.param == "without /proc":
        readlink = os.readlink
        monkeypatch.setattr(
            os,
            "readlink",
            lambda path, **given: (none if "/proc/" in str(path) else readlink)(path, **given),
        )


@pytest.mark.usefixtures("_proc")
@pytest.mark.parametrize(
    ("relative", "found"),
    [
        ("", ""),
        ("a/b", "/a/b"),
        ("a//./b/..", "/a"),
        ("inside", "/a/b"),
        ("not there", "/not there"),
        ("outside", None),
        ("..", None),
        ("../output-of-others", None),
        ("/", None),
        ("a\0b", None),
        ("a" * 300, "/" + "a" * 300),  # that it is too long is found out where it is looked for
    ],
)
def test_a_folder_is_below_another_or_not(root: Path, relative: str, found: str | None) -> None:
    expected = None if found is None else f"{root}{found}"
    assert folder_below(str(root), relative) == expected
    if found is not None:
        assert real_folder(f"{root}/{relative}") == expected


def test_a_file_is_below_a_folder_or_not(root: Path) -> None:
    assert path_below(str(root), "inside/x.png") == f"{root}/a/b/x.png"
    assert path_below(str(root), "outside/x.png") is None
    assert path_below(str(root), "\0") is None
    assert path_below(str(root), "outside/output") is None, "the folder itself is no file"


def test_a_name_that_begins_alike_is_not_below(root: Path) -> None:
    assert way_below(str(root), f"{root}-of-others/x") is None
    assert way_below(str(root), f"{root}/a/x") == "a/x"
    assert way_below(str(root), str(root)) == ""


def test_a_link_that_may_not_be_read_leads_nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as /proc/1/cwd; a node may name anything."""

    def refused(path: str, **given: object) -> str:
        raise PermissionError(path)

    (root / "inside").unlink()
    (root / "inside").symlink_to("not there")
    monkeypatch.setattr(os, "readlink", refused)
    assert folder_below(str(root), "inside") is None
    assert path_below(str(root), "inside/x.png") is None
