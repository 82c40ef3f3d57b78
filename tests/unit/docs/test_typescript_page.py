"""The example for TypeScript: the page shows it as it is, and its packages are locked by their hashes alone."""

from __future__ import annotations

import json
from typing import Any

from tests.doc_blocks import ROOT, blocks

FOLDER = ROOT / "examples" / "typescript"


def lock() -> dict[str, Any]:
    packages: dict[str, Any] = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    return packages


def test_the_program_of_the_page_is_the_example() -> None:
    program = (FOLDER / "quickstart.ts").read_text(encoding="utf-8").split("\n\n", 1)[1]
    assert program in {block.text for block in blocks() if block.language == "typescript"}


def test_every_package_has_its_hash_and_no_registrys_address() -> None:
    packages = {name: entry for name, entry in lock().items() if name}
    assert "node_modules/@comfyorg/sdk" in packages
    assert [name for name, entry in packages.items() if not entry.get("integrity", "").startswith("sha512-")] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []


def test_the_lock_is_that_of_the_packages_that_are_asked_for() -> None:
    asked = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))
    for kind in ("dependencies", "devDependencies"):
        assert lock()[""][kind] == asked[kind]
        for name, version in asked[kind].items():
            assert lock()[f"node_modules/{name}"]["version"] == version
