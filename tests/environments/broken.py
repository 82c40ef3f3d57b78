"""Environments that cannot be locked, and what somebody reads of each: tests/fixtures/environments/broken.txt.

`python -m tests.environments.broken` records the file anew; read what has changed in it before it is committed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.environments import packs
from tests.environments.checkout import Checkout, git, local, registry
from tests.environments.local_server import Answer
from tests.environments.outside import Outside, outside
from tests.environments.registry import BANNED, FLAGGED, PENDING

RECORDED = Path(__file__).parents[1] / "fixtures" / "environments" / "broken.txt"
#: Nobody listens there.
_NOBODY = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Broken:
    """One environment.

    Attributes:
        entries: makes the packs' entries in the build file, and what is wrong outside of it.
        more: the text of more-requirements.txt.
    """

    entries: Callable[[Outside], tuple[str, ...]] = lambda _: ()
    comfyui: str = "v0.33.0"
    pip: tuple[str, ...] = ()
    more: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def _of(*names: str) -> Callable[[Outside], tuple[str, ...]]:
    return lambda _: tuple(registry(name) for name in names)


def _text(*entries: str) -> Callable[[Outside], tuple[str, ...]]:
    return lambda _: entries


def _published(version: str, status: str) -> Callable[[Outside], tuple[str, ...]]:
    def publish(world: Outside) -> tuple[str, ...]:
        world.registry.publish("kit_web", version, status=status, files=packs.files("kit_web"))
        return (registry("kit_web", version),)

    return publish


def _troubled(path: str, answer: Answer) -> Callable[[Outside], tuple[str, ...]]:
    def trouble(world: Outside) -> tuple[str, ...]:
        world.registry.trouble[path] = answer
        return (registry("kit_web"),)

    return trouble


_WEB = "/nodes/kit-web/versions/2.0.0"
_WEB_ARCHIVE = "/archives/kit-web/2.0.0/node.zip"
ENVIRONMENTS: Mapping[str, Broken] = {
    # What the build file says.
    "no commit of ComfyUI": Broken(comfyui="''"),
    "a ComfyUI that there is not": Broken(comfyui="v9.9.9"),
    "several mistakes at once": Broken(
        _text("name: ../x\nid: kit\nregistryVersion: 1.0.0", "name: kit-good\nid: kit-good")
    ),
    "two packs for one folder": Broken(
        _text(registry("kit_twin", folder="Kit_Twin"), git("kit_twin", "https://git.example.com/kit/kit_twin", "main"))
    ),
    "a pack in Comfy's own store": Broken(_text("name: kit-web\nblobId: 0b5c")),
    # Where packs come from.
    "a pack that the registry does not have": Broken(_text("name: kit-god\nid: kit-god\nregistryVersion: 1.0.0")),
    "a version that there is not": Broken(_text("name: kit-good\nid: kit-good\nregistryVersion: 9.0.0")),
    "a pending version": Broken(_published("3.0.0", PENDING)),
    "a flagged version": Broken(_published("4.0.0", FLAGGED)),
    "a banned version": Broken(_published("5.0.0", BANNED)),
    "a registry that nobody answers for": Broken(_of("kit_web"), variables={"COMFY_REGISTRY_URL": _NOBODY}),
    "a registry that answers with a page": Broken(_troubled(_WEB, Answer(200, b"<html>", "text/html"))),
    "an archive that is none": Broken(_troubled(_WEB_ARCHIVE, Answer(200, b"PK\3\4 and no more", "application/zip"))),
    "a tag that there is not": Broken(lambda world: (git("kit_web", world.repository("kit_web").url, "v9"),)),
    "a repository that there is not": Broken(
        lambda world: (git("kit_web", f"file://{world.folder}/git/none.git", "v1"),)
    ),
    "a local pack that is not here": Broken(_text(local("kit_web"))),
    # What packs ask for.
    "two packs in conflict": Broken(_of("kit_conflict_a", "kit_conflict_b")),
    "a pack pinned below ComfyUI's numpy": Broken(_of("kit_old_numpy")),
    "a library that nobody publishes": Broken(_of("kit_unsatisfiable")),
    "a library for Windows": Broken(_of("kit_other_platform")),
    "a library for a newer Python": Broken(_of("kit_newer_python")),
    "lines that are no requirements": Broken(_of("kit_odd_lines")),
    "an index that nobody answers for": Broken(
        _of("kit_good"), variables={"UV_DEFAULT_INDEX": f"{_NOBODY}/simple/", "UV_HTTP_RETRIES": "0"}
    ),
    "a line of one's own that cannot be": Broken(_of("kit_good"), more="# of kit-good\nkit-nowhere\n"),
    "a line of one's own against a pack's": Broken(_of("kit_conflict_a"), more="kit-math>=2\n"),
    "an override that cannot be": Broken(_of("kit_good"), pip=("kit-math==7",)),
}


def said(title: str, world: Outside, folder: Path) -> str:
    """What somebody reads who locks it: the exit code, and all that is printed, without this machine's addresses."""
    broken = ENVIRONMENTS[title]
    checkout = Checkout(folder, world)
    try:
        checkout.write(*broken.entries(world), comfyui=broken.comfyui, pip=broken.pip)
        if broken.more:
            (folder / "comfyui" / "more-requirements.txt").write_text(broken.more)
        done = checkout.env("lock", **broken.variables)
    finally:
        world.registry.trouble.clear()
    assert not checkout.lock_file.exists(), f"{title}: nothing is written"
    return without_places(f"exit code {done.returncode}\n{done.stdout}{done.stderr}", world)


def without_places(text: str, world: Outside) -> str:
    """A text without folders and ports of this run."""
    for here, there in ((world.registry.url, "https://registry"), (world.index.url, "https://index")):
        text = text.replace(here, there)
    text = text.replace(str(world.folder), "/outside")
    # The resolver asks for many at once: which of them fails first is chance.
    text = re.sub(r"/simple/[a-z-]+/", "/simple/…/", text)
    return re.sub(r"in \d+(\.\d+)?m?s", "in a moment", text).rstrip() + "\n"


def recorded(path: Path = RECORDED) -> dict[str, str]:
    """What was recorded, by title."""
    parts = re.split(r"^== (.+)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text.rstrip() + "\n" for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def record(found: Mapping[str, str], path: Path = RECORDED) -> None:
    """Write the file anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f"== {title}\n{text}" for title, text in found.items()), encoding="utf-8")


def main() -> None:
    with tempfile.TemporaryDirectory() as name, outside(Path(name)) as world:
        found = {}
        for number, title in enumerate(ENVIRONMENTS):
            (Path(name) / f"checkout-{number}").mkdir()
            found[title] = said(title, world, Path(name) / f"checkout-{number}")
            print(f"== {title}\n{found[title]}", flush=True)
    record(found)


if __name__ == "__main__":
    main()
