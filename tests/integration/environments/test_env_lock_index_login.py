"""A package index with user and password: it works, also for sources, and nothing of them is shown or locked."""

from __future__ import annotations

import pytest

from tests.environments.wheel_index import WheelIndex
from tests.integration.environments.env_world import Project, registered

USER, PASSWORD = "somebody", "p@ss/wo%rd"


@pytest.fixture
def index(made: Project) -> WheelIndex:
    return WheelIndex(made.world.wheelhouse.folder, login=f"{USER}:{PASSWORD}")


@pytest.mark.parametrize("how", ["address", "named", "pip"])
def test_sources_of_an_index_with_a_password_are_locked_without_it(
    how: str, made: Project, index: WheelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write(registered("kit_needs_compiler"))  # kit-compiled comes as sources: what builds it is read from the file
    with index:
        host = index.simple.removeprefix("http://")
        with_login = f"http://{USER}:p%40ss%2Fwo%25rd@{host}"
        if how == "address":
            monkeypatch.setenv("UV_DEFAULT_INDEX", with_login)
        elif how == "pip":
            monkeypatch.delenv("UV_DEFAULT_INDEX")
            monkeypatch.setenv("PIP_INDEX_URL", with_login)
        else:
            monkeypatch.setenv("UV_DEFAULT_INDEX", f"my-kit=http://{host}")
            monkeypatch.setenv("UV_INDEX_MY_KIT_USERNAME", USER)
            monkeypatch.setenv("UV_INDEX_MY_KIT_PASSWORD", PASSWORD)
        said = made.lock()
    text = made.lock_path.read_text()
    assert next(each.kind for each in made.locked.requirements if each.name == "kit-compiled") == "sdist"
    assert [each.name for each in made.locked.build_requirements] == ["kit-backend"]
    for secret in (USER, PASSWORD, "p%40ss", host):
        assert secret not in text
        assert secret not in said


def test_a_wrong_password_is_told_and_not_shown(
    made: Project, index: WheelIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write(registered("kit_needs_compiler"))
    with index:
        host = index.simple.removeprefix("http://")
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://{USER}:wrong-one@{host}")
        error = made.fail()
    assert "The package index lets nobody in without a user and password" in error["message"]
    assert "wrong-one" not in str(error)
    assert not made.lock_path.exists()
