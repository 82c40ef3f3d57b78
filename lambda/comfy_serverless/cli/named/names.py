"""The names of workflows that this user has listed last, for shells to complete: they read a file, and wait for nobody.

It is no more than help at the keyboard: what is not in it can be run all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from comfy_serverless.cli.paths import cache_folder
from comfy_serverless.workflows.reference import NAME

_MOST = 1000


def names_file() -> Path:
    """Where they are."""
    return cache_folder() / "workflow-names"


def remember(names: Iterable[str]) -> None:
    """Write them, a name a line. What cannot be written is not: nothing depends on it.

    Shells read them: only what a workflow can be called is written, whatever an API says.
    """
    path = names_file()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    plain = [name for name in names if NAME.fullmatch(name)]
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text("".join(f"{name}\n" for name in plain[:_MOST]), encoding="utf-8")
        part.replace(path)
