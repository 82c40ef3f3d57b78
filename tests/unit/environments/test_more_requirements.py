"""more-requirements.txt: read as pip reads it, with words for what can stand in a pack's file only."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_serverless.environments.locking.more_requirements import MoreRequirements
from comfy_serverless.errors import NotLocked


def test_lines_have_a_place_and_remarks_are_none() -> None:
    found = MoreRequirements("# cv2\n\nopencv-python-headless>=4 # of kit\nwinlib ; sys_platform == 'win32'\n").declared
    (line,) = found.lines
    assert (line.name, line.requirement) == ("opencv-python-headless", "opencv-python-headless>=4")
    assert line.place == "more-requirements.txt, line 3"
    assert str(line) == "more-requirements.txt: opencv-python-headless>=4"


def test_what_a_lock_remembers_does_not_depend_on_order_and_remarks(tmp_path: Path) -> None:
    (tmp_path / "more-requirements.txt").write_bytes("\ufeffb\r\na==1 # x\r\n".encode("utf-16"))
    assert MoreRequirements.read(tmp_path).lines == ("a==1", "b") == MoreRequirements("a==1\n#\nb").lines


def test_no_such_file_asks_for_nothing(tmp_path: Path) -> None:
    found = MoreRequirements.read(tmp_path)
    assert (found.lines, found.declared.lines) == ((), [])


def test_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "more-requirements.txt").mkdir()
    with pytest.raises(NotLocked, match=r"more-requirements\.txt cannot be read"):
        MoreRequirements.read(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-r other.txt", "names another file: write the lines of that in its place"),
        ("-e .", "is a folder or file of somebody's machine: name a version, or a repository"),
        ("./wheels/x-1-py3-none-any.whl", "is a folder or file of somebody's machine"),
        ("opencv-python-headless=4.1", "a version is written with two signs"),
        ("x @ https://me:secret@host/x-1-py3-none-any.whl", "has a password or token in its address"),
    ],
)
def test_a_line_that_nobody_can_install_is_a_problem_with_its_number(line: str, said: str) -> None:
    (problem,) = MoreRequirements(f"numpy\n{line}\n").declared.problems
    assert problem.startswith("more-requirements.txt, line 2: ")
    assert said in problem
    assert "secret" not in problem
