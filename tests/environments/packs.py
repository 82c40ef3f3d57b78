"""Packs as others write them: their files, and archives as the registry hands them out."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / "kit"
#: The day that every file of the kit is of.
DAY = (2026, 10, 1, 12, 0, 0)


def names() -> list[str]:
    """The folder names of all packs."""
    return sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir())


def versions(name: str) -> list[str]:
    """The versions of a pack, oldest first."""
    return sorted(folder.name for folder in (FOLDER / name).iterdir())


def registry_id(name: str) -> str:
    """The id that the registry knows a pack by: `kit_good` -> `kit-good`."""
    return name.replace("_", "-")


def files(name: str, version: str | None = None) -> dict[str, bytes]:
    """The files of a pack (the newest version), with the pyproject.toml that the registry asks of every pack."""
    version = version or versions(name)[-1]
    folder = FOLDER / name / version
    found = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    if "__init__.py" in found:
        found.setdefault("pyproject.toml", _pyproject(name, version, found).encode())
    return found


def declared(found: Mapping[str, bytes]) -> list[str]:
    """The lines of requirements.txt that say something, as the registry shows them: `dependencies` of a version."""
    lines = (line.partition(" #")[0].strip() for line in found.get("requirements.txt", b"").decode().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def archive(found: Mapping[str, bytes], *, below: str = "") -> bytes:
    """A ZIP of the files, the same each time; `below` puts them into a folder, as archives of forges do."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(found):
            entry = zipfile.ZipInfo(below + name, DAY)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, found[name])
    return made.getvalue()


def unpack(found: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files below a folder. Returns the folder."""
    for name, content in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _pyproject(name: str, version: str, found: Mapping[str, bytes]) -> str:
    lines = "".join(f'  "{line}",\n' for line in declared(found) if not line.startswith(("-", ".")))
    return (
        f'[project]\nname = "{registry_id(name)}"\ndescription = "A pack of the tests"\nversion = "{version}"\n'
        f"dependencies = [\n{lines}]\n\n[project.urls]\nRepository = "
        f'"https://git.example.com/kit/{name}"\n\n[tool.comfy]\nPublisherId = "kit"\nDisplayName = "{name}"\n'
    )
