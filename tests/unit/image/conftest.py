"""Fixtures of the tests of the image's build."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """The folder `comfyui` of a repository."""
    folder = tmp_path / "comfyui"
    (folder / "archives").mkdir(parents=True)
    return folder
