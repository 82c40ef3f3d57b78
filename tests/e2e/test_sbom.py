"""The bill of materials of a real image."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from tools import sbom

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("target", ["api", "mcp"])
def test_a_bill_names_what_is_in_the_image(target: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert sbom.main(request.getfixturevalue(f"{target}_image"), str(tmp_path / "out" / "sbom.json")) == 0
    bill = json.loads((tmp_path / "out" / "sbom.json").read_text())
    found = {component["name"]: component for component in bill["components"]}
    version = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]
    assert found["comfy-serverless"]["version"] == version
    assert found["boto3"]["purl"].startswith("pkg:pypi/boto3@")
    assert found["opentelemetry-sdk"]["purl"].startswith("pkg:pypi/opentelemetry-sdk@")
    assert found["libc6"]["purl"].startswith("pkg:deb/debian/libc6@")
    assert found["debian"]["type"] == "operating-system"
    assert "torch" not in found
    assert ("mcp" in found) == (target == "mcp")
    assert len(found) == len(bill["components"])
