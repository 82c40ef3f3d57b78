"""What somebody who does not see or point would stumble over: axe's findings, in a light and a dark room."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

REPORTS = Path(__file__).parents[2] / "out" / "console" / "axe"


def check_accessible(page: Page, name: str) -> None:
    """Fail if axe finds anything on the page as it is now; what it looked at is left in out/console/axe.

    Args:
        page: a page that shows what it is for.
        name: what the report is called: the page's, and its state if there are several.
    """
    found: list[str] = []
    report: dict[str, Any] = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        told = _run(page)
        report[scheme] = {
            "passed": sorted(rule["id"] for rule in told["passes"]),
            "undecided": sorted(rule["id"] for rule in told["incomplete"]),
            "found": told["violations"],
        }
        found += [f"{scheme}: {_finding(rule)}" for rule in told["violations"]]
    page.emulate_media(color_scheme="light")
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / f"{name}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    assert not found, f"{name}: axe has found\n" + "\n".join(found)


def _run(page: Page) -> dict[str, Any]:
    if not page.evaluate("() => Boolean(globalThis.axe)"):
        page.evaluate(_axe())
    told: dict[str, Any] = page.evaluate("() => axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    return told


def _finding(rule: dict[str, Any]) -> str:
    where = "; ".join(" ".join(map(str, node["target"])) + f" ({node['failureSummary']})" for node in rule["nodes"][:5])
    return f"{rule['id']} ({rule['impact']}): {rule['help']}: {where}"


@cache
def _axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
