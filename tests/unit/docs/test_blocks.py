"""Every block of the documentation says how it is tested, and what is no command is what it claims to be."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest

from comfy_serverless.jobs.request import JobRequest
from tests.doc_blocks import PAGES, ROOT, Block, blocks

BLOCKS = list(blocks())
REQUESTS = [block for block in BLOCKS if block.kind in {"request", "requests", "models"}]
#: What a page says of a SHA-256: the first digits.
SHORT_SHA = re.compile(r"\b([0-9a-f]{4})…")


def requests_of(block: Block) -> list[str]:
    text = SHORT_SHA.sub(lambda found: found[1].ljust(64, "0"), block.text)
    if block.kind == "models":
        return [f'{{"workflow": "thumbnail", {text}}}']
    return text.splitlines() if block.kind == "requests" else [text]


def test_there_are_blocks_of_every_page_that_shows_something() -> None:
    assert {"README.md", "quickstart.md", "python.md", "api.md", "batches.md"} <= {block.page.name for block in BLOCKS}
    for page in PAGES:
        fences = sum(line.startswith("```") for line in page.read_text(encoding="utf-8").splitlines())
        assert fences == 2 * sum(block.page == page for block in BLOCKS), page


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_block_says_how_it_is_tested(block: Block) -> None:
    if block.kind == "run":
        assert block.argument in {"local", "dev"}
    elif block.kind == "tested by":
        assert all((ROOT / name.strip()).is_file() for name in block.argument.split(","))
    elif block.kind == "not run":
        assert len(block.argument.split()) > 2, "a reason"
    else:
        assert block.kind in {"request", "requests", "models", "json", "drawing", "layers"}, "see CONTRIBUTING.md"


@pytest.mark.parametrize("block", REQUESTS, ids=lambda block: block.name)
def test_a_request_is_one(block: Block) -> None:
    for text in requests_of(block):
        assert JobRequest.parse(json.loads(text)).workflow == "thumbnail"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "json"], ids=lambda block: block.name)
def test_json_is_json(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


def test_a_json_block_is_never_called_something_else() -> None:
    assert {b.kind for b in BLOCKS if b.language == "json"} <= {"request", "models", "json"}


def test_the_layers_are_those_that_import_linter_holds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [c for c in project["tool"]["importlinter"]["contracts"] if c["name"] == "rooms point one way"]
    (block,) = [block for block in BLOCKS if block.kind == "layers"]
    assert block.text.splitlines() == contract["layers"]


def test_the_sdk_program_of_the_readme_is_the_example() -> None:
    program = (ROOT / "examples" / "sdk_quickstart.py").read_text(encoding="utf-8").partition("annotations\n\n")[2]
    assert program in {block.text for block in BLOCKS if block.page.name == "README.md"}


def test_what_is_made_with_make_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    code = re.compile(r"`make ([a-z0-9-]+)|^make ([a-z0-9-]+)", re.MULTILINE)
    asked = {first or second for page in PAGES for first, second in code.findall(page.read_text(encoding="utf-8"))}
    assert asked
    assert asked <= targets


def test_every_file_that_a_page_names_is_there() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"`([\w./-]+\.py)`", page.read_text(encoding="utf-8"))
    }
    assert named
    assert {entry for entry in named if not any(f"/{file}".endswith(f"/{entry[1]}") for file in files)} == set()
