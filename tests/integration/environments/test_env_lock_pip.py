"""`env lock` where uv is not installed: pip does what it can, and says what it cannot."""

from __future__ import annotations

import pytest

from comfy_serverless.environments.locking.uv import Uv
from tests.integration.environments.env_world import Project, registered


@pytest.fixture
def with_pip(made: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(Uv, "found", lambda: None)
    return made


def test_wheels_are_locked_as_uv_would(with_pip: Project) -> None:
    with_pip.write(registered("kit_good", "1.1.0"), registered("kit_conflict_b"))
    with_pip.lock()
    found = {each.name: each for each in with_pip.locked.requirements}
    assert {name: each.version for name, each in found.items()} == {
        "kit-colors": "1.2", "kit-engine": "0.33.1", "kit-geometry": "2.0", "kit-math": "2.0", "numpy": "2.4.6",
        "pillow": "13.0.0",
    }  # fmt: skip
    assert found["kit-colors"].hashes[0].startswith("sha256:")
    assert "kit-geometry 2.0" in found["kit-math"].declared_by
    assert with_pip.world.index.url not in with_pip.lock_path.read_text()


def test_what_pip_cannot_do_is_told(with_pip: Project) -> None:
    with_pip.write(registered("kit_good", "1.1.0"), overrides=["kit-math==1.0"])
    assert "pip cannot apply overrides (kit-math==1.0): that needs uv" in with_pip.fail()["message"]
    with_pip.write(registered("kit_needs_compiler"))
    message = with_pip.fail()["message"]
    assert "kit_needs_compiler (requirements.txt, line 1) asks for kit-compiled" in message
    assert "pip looks at wheels only" in message


def test_a_conflict_has_its_lines_also_of_pip(with_pip: Project) -> None:
    with_pip.write(registered("kit_conflict_a"), registered("kit_old_numpy"))
    error = with_pip.fail()
    assert error["code"] == "environment_conflict"
    assert "kit_old_numpy (requirements.txt, line 1) asks for numpy==1.23.5" in error["message"]
