"""No file is ever replaced by a result."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector.saving import save
from tests.patience import PATIENCE_S


def saved(folder: Path, name: str, content: bytes = b"new") -> str:
    return save(io.BytesIO(content), folder, name).name


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("fox_00001_.png", [], "fox_00001_.png"),
        ("fox_00001_.png", ["fox_00001_.png"], "fox_00002_.png"),
        ("fox_00001_.png", ["fox_00001_.png", "fox_00007_.png", "fox_00003_.jpg", "foxy_00009_.png"], "fox_00008_.png"),
        ("fox_00005_.png", ["fox_00005_.png", "fox_00001_.png"], "fox_00006_.png"),
        ("fox_99999_.png", ["fox_99999_.png"], "fox_100000_.png"),
        ("frame_00000.png", ["frame_00000.png"], "frame_00000-2.png"),
        ("20261129.txt", ["20261129.txt"], "20261129-2.txt"),
        ("20261129_0930_.txt", ["20261129_0930_.txt"], "20261129_0930_-2.txt"),
        ("fox_00001_", ["fox_00001_"], "fox_00002_"),
        ("99999999999_.png", ["99999999999_.png"], "100000000000_.png"),
        (f"{'9' * 300}_.png", [], f"{'9' * 236}.png"),
        ("half \ud83d.png", [], "half ?.png"),
        ("text_0.txt", ["text_0.txt"], "text_0-2.txt"),
        ("text_0.txt", ["text_0.txt", "text_0-2.txt", "text_0-9.txt"], "text_0-10.txt"),
        ("no ending", ["no ending"], "no ending-2"),
        ("a+(b)[c].png", ["a+(b)[c].png"], "a+(b)[c]-2.png"),
        ("狐_00001_.png", ["狐_00001_.png"], "狐_00002_.png"),
        ("../out.png", [], "out.png"),
        ("", [], "output"),
    ],
)
def test_a_name_that_is_taken_gets_the_next_free_number(
    tmp_path: Path, name: str, taken: list[str], expected: str
) -> None:
    for other in taken:
        (tmp_path / other).write_bytes(b"old")
    assert saved(tmp_path, name) == expected
    assert (tmp_path / expected).read_bytes() == b"new"
    assert all((tmp_path / other).read_bytes() == b"old" for other in taken)


def test_a_link_is_a_taken_name_wherever_it_leads(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "a.png").symlink_to(target)
    assert saved(tmp_path, "a.png") == "a-2.png"
    assert not target.exists()


def test_what_breaks_off_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("gone")

        def readinto(self, buffer: Any, /) -> int:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        save(Broken(b"x"), tmp_path, "a.png")
    assert not list(tmp_path.iterdir())


def test_two_processes_that_save_the_same_names_lose_nothing(tmp_path: Path) -> None:
    program = (
        "import io, sys\nfrom pathlib import Path\nfrom comfy_serverless.connector.saving import save\n"
        "for number in range(50):\n"
        "    save(io.BytesIO(f'{sys.argv[2]} {number}'.encode()), Path(sys.argv[1]), 'fox_00001_.png')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), who], env={"PYTHONPATH": "lambda"})
        for who in ("a", "b", "c")
    ]
    assert [process.wait(timeout=PATIENCE_S) for process in processes] == [0, 0, 0]
    assert {path.read_text() for path in tmp_path.iterdir()} == {
        f"{who} {number}" for who in "abc" for number in range(50)
    }
