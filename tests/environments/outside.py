"""All of the outside at once: what most tests of environments want.

with outside(tmp_path) as world:
    world.registry.publish("kit_good")
    subprocess.run([...], env={**os.environ, **world.variables})
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.environments import packs, repositories, wheels
from tests.environments.registry import Registry
from tests.environments.repositories import Repository
from tests.environments.wheel_index import WheelIndex


@dataclass(slots=True)
class Outside:
    """Registry, package index, ComfyUI's repository; repositories of packs are made when they are asked for."""

    folder: Path
    registry: Registry
    index: WheelIndex
    wheelhouse: wheels.Wheelhouse
    comfyui: Repository
    _packs: dict[str, Repository] = field(default_factory=dict)

    def repository(self, name: str) -> Repository:
        """The repository of a pack of the kit."""
        if name not in self._packs:
            self._packs[name] = repositories.of_pack(self.folder / "git", name)
        return self._packs[name]

    def library(self, name: str) -> Repository:
        """A repository of a library in Python, for requirements such as `NAME @ git+file://…`."""
        if name not in self._packs:
            self._packs[name] = Repository(self.folder / "git", name)
            self._packs[name].commit(wheels.source_files(name, "1.0"), tag="v1.0")
        return self._packs[name]

    @property
    def variables(self) -> dict[str, str]:
        """Variables with which pip and uv see this package index and no other, and git sees nobody's settings."""
        return {
            "PIP_INDEX_URL": self.index.simple,
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_DEFAULT_INDEX": self.index.simple,
            "UV_NO_CONFIG": "1",
            **repositories.ENVIRONMENT,
        }


@contextmanager
def outside(folder: Path) -> Iterator[Outside]:
    """The outside, with every pack of the kit published in all its versions."""
    house = wheels.fill(wheels.Wheelhouse(folder / "wheels"))
    (folder / "git").mkdir(parents=True, exist_ok=True)
    with Registry() as registry, WheelIndex(house.folder) as index:
        for name in packs.names():
            for version in packs.versions(name):
                registry.publish(name, version)
        yield Outside(folder, registry, index, house, repositories.comfyui(folder / "git"))
