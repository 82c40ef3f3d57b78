"""Templates are synthesized once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Node.js comes with the requirements: the machine may have none, or one too old for CDK.
os.environ.setdefault("JSII_NODE", str(Path(sys.executable).parent / "node"))

from tests.infra.stacks import Synthesized, synthesize


@pytest.fixture(scope="session")
def synthesized() -> Synthesized:
    return synthesize()
