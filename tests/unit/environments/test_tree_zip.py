"""The ZIP of a tree, whose hash is the tree's."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from comfy_serverless.environments import tree_zip


def written(folder: Path) -> bytes:
    made = io.BytesIO()
    tree_zip.write(folder, made)
    return made.getvalue()


def test_only_names_contents_and_whether_it_runs_count(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in ((one, ("b.py", "a.py", "sub/c.py")), (two, ("sub/c.py", "a.py", "b.py"))):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
    os.utime(two / "a.py", (1, 1))
    (two / "a.py").chmod(0o600)
    assert written(one) == written(two)
    (two / "a.py").chmod(0o755)
    assert written(one) != written(two)
    assert zipfile.ZipFile(io.BytesIO(written(one))).namelist() == ["a.py", "b.py", "sub/c.py"]


def test_what_is_none_of_the_packs_files_is_left_out(tmp_path: Path) -> None:
    for name in (
        ".git/config",
        "__pycache__/a.pyc",
        "sub/__pycache__/b.pyc",
        ".DS_Store",
        "env/pyvenv.cfg",
        "env/bin/x",
        "a.py",
        "old.pyc",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [str(name) for name in tree_zip.files_below(tmp_path)] == ["a.py"]


def test_links_inside_are_files_and_links_out_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "a.py").write_text("x")
    (folder / "b.py").symlink_to("a.py")
    assert zipfile.ZipFile(io.BytesIO(written(folder))).read("b.py") == b"x"
    (tmp_path / "secret").write_text("secret")
    (folder / "c.py").symlink_to(tmp_path / "secret")
    with pytest.raises(tree_zip.NotATree, match=r"c\.py is a link out of the folder"):
        written(folder)
    (folder / "c.py").unlink()
    (folder / "gone").symlink_to("nowhere")
    with pytest.raises(tree_zip.NotATree, match="gone is a link to a folder, or nowhere"):
        written(folder)
