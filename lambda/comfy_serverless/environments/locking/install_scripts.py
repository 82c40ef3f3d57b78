"""Finds what the install scripts of a pack would fetch. ComfyUI-Manager runs them; here nothing does, and nobody reads
them as code: it is a list for people, of addresses and commands that stand in the text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comfy_serverless.environments.lock_file import InstallScript
from comfy_serverless.environments.locking.requirement_lines import decoded
from comfy_serverless.redaction import redact_url

#: ComfyUI-Manager runs the first; of the others people are told in READMEs.
NAMES: Final = (
    "install.py", "install.sh", "install.bat", "install.ps1", "setup.sh", "post_install.py", "postinstall.py",
    "install_requirements.py", "install-manual.py",
)  # fmt: skip
_ADDRESS: Final = re.compile(r"""(?:git\+)?(?:https?|ftp|s3|gs|ssh|git)://[^\s"'`<>()\[\]{},;\\]+""")
_COMMAND: Final = re.compile(
    r"\b(?:(?:uv\s+)?pip3?\s+(?:install|download)|git\s+(?:clone|submodule)|apt(?:-get)?\s+(?:-\S+\s+)*install|conda\s+install"
    r"|brew\s+install|npm\s+(?:install|ci)|yarn\s+install|cargo\s+(?:build|install)|make\b|curl\s|wget\s|aria2c\s)[^\n|&;]*"
)
_DOWNLOADS: Final = re.compile(
    r"\b(?:hf_hub_download|snapshot_download|load_file_from_url|gdown\.\w+|urlretrieve|cached_download)\b"
)
_MOST_BYTES: Final = 1_000_000
_MOST_FOUND: Final = 100
_LONGEST: Final = 200


def scripts_of(folder: Path) -> tuple[InstallScript, ...]:
    """The install scripts of a pack, sorted, with what each would fetch."""
    files = [folder / name for name in NAMES if (folder / name).is_file()]
    return tuple(
        InstallScript(path.name, fetches(path.read_bytes()[:_MOST_BYTES], is_python=path.suffix == ".py"))
        for path in sorted(files)
    )


def fetches(content: bytes, *, is_python: bool) -> tuple[str, ...]:
    """Addresses and commands in a script, sorted, without passwords and queries."""
    text = decoded(content)
    found = {_shown(command) for command in _commands(text, is_python=is_python)}
    found |= {redact_url(match[0].rstrip(".:")) for match in _ADDRESS.finditer(text)}
    found |= {match[0] + "(…)" for match in _DOWNLOADS.finditer(text)}
    return tuple(sorted(found)[:_MOST_FOUND])


def _commands(text: str, *, is_python: bool) -> Iterator[str]:
    if not is_python:
        lines = (line for line in text.splitlines() if not line.lstrip().startswith(("#", "rem ", "REM ", "::")))
        for line in lines:
            yield from (match[0] for match in _COMMAND.finditer(line))
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from (match[0] for match in _COMMAND.finditer(text))
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.List | ast.Tuple):  # [sys.executable, "-m", "pip", "install", "x"]
            words = [_word(element) for element in node.elts]
            yield from (match[0] for match in _COMMAND.finditer(" ".join(words)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield from (match[0] for match in _COMMAND.finditer(node.value))
        elif isinstance(node, ast.JoinedStr):
            yield from (match[0] for match in _COMMAND.finditer("".join(map(_word, node.values))))


def _word(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.FormattedValue):
        return _word(node.value)
    return f"{{{ast.unparse(node)}}}" if isinstance(node, ast.Name | ast.Attribute) else "{…}"


def _shown(command: str) -> str:
    one_line = " ".join(command.split())
    return re.sub(_ADDRESS, lambda match: redact_url(match[0]), one_line)[:_LONGEST].rstrip("\"') ")
