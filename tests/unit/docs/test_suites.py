"""Whatever is proven is proven before a change is merged: each test belongs to one target, and CI runs them all."""

from __future__ import annotations

import re
from collections import Counter

from tests.doc_blocks import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
TARGETS = ("test", "test-services", "test-console", "extras", "infra", "e2e")


def folders_of(target: str) -> list[str]:
    """The folders of tests that a target runs."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None, target
    return re.findall(r"\btests/(\w+)(?= )", recipe[1])


def test_every_test_is_run_by_one_target() -> None:
    run = Counter(folder for target in TARGETS for folder in folders_of(target))
    there = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert dict(run) == dict.fromkeys(there, 1)


def test_every_one_of_these_targets_is_run_before_a_merge() -> None:
    assert [target for target in TARGETS if not re.search(rf"^make {target}( |$)", CI, re.MULTILINE)] == []


def test_no_target_leaves_a_test_of_its_folders_out() -> None:
    """But by a mark: the image with ComfyUI itself has a target of its own."""
    for target in ("test", "test-services", "test-console"):
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
        assert recipe is not None
        assert not re.search(r" -(k|m) |--ignore|--deselect", recipe[1])


def test_the_table_of_contributing_names_every_target() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*?## ", MAKEFILE, re.MULTILINE)) - {"help", "clean"}
    assert targets
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {target for target in targets if not re.search(rf"`make {target}\b[^-]", table)} == set()
