"""Build files for the tests: the official tool's, and the smallest."""

from __future__ import annotations

from pathlib import Path

OFFICIAL = sorted(Path("tests/fixtures/build_files").glob("*.yaml"))


def build_text(definition: str = "", *, schema: str = "comfy-build/1", base: str = "v0.33.0") -> str:
    """A file with these lines in its definition, which are indented by two blanks."""
    return (
        f"schema: {schema}\nid: null\nname: mine\ndescription: ''\nsyncedRevision: null\ndefinition:\n"
        f"  schema: distribution-definition/0\n  baseComfyVersion: {base}\n{definition}"
    )


def pack_text(*lines: str) -> str:
    """A file with one pack of these lines."""
    return build_text("  customNodes:\n    - " + "\n      ".join(lines) + "\n")


def model_text(*lines: str) -> str:
    """A file with one model of these lines."""
    return build_text("  models:\n    - " + "\n      ".join(lines) + "\n")
