"""The image of the function behind /mcp: the API's libraries as they are there, and those of the protocol."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.image.test_dockerfile import STAGES

ROOT = Path(__file__).parents[3]


def pins(name: str) -> dict[str, str]:
    """The versions in a lock."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_its_lock_has_the_libraries_of_the_api_in_the_same_versions() -> None:
    assert pins("api").items() <= pins("mcp").items()
    assert pins("mcp").items() <= pins("dev").items(), "what the tests run with is what is deployed"
    assert {"mcp", "mcp-types"} <= pins("mcp").keys() - pins("api").keys()


def test_its_lock_has_hashes_and_no_address_of_a_registry() -> None:
    text = (ROOT / "requirements" / "mcp.txt").read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") >= len(pins("mcp"))
    assert "://" not in text


def test_it_is_built_from_its_lock_and_begins_with_its_handler() -> None:
    assert "--no-deps --require-hashes -r /build/mcp.txt" in STAGES["mcp-venv"]
    assert "COPY --from=mcp-venv /opt/worker/ /opt/worker/" in STAGES["mcp"]
    assert "COPY --from=release /opt/release/ /opt/" in STAGES["mcp"], (
        "it goes by what was told of this build's workers"
    )
    assert 'CMD ["comfy_serverless.handlers.mcp.handler"]' in STAGES["mcp"]
    kept = "! -name s3 ! -name dynamodb ! -name sqs ! -name sts"
    assert kept in STAGES["mcp-venv"], "the services of AWS that it talks to"
    assert "!requirements/mcp.txt" in (ROOT / ".dockerignore").read_text(encoding="utf-8")
