"""A ComfyUI folder as somebody has it at home: packs of every origin, a few small models, and what lies about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.environments import packs
from tests.environments.repositories import Repository, git

#: Path below models/ -> content. Placeholders and configs come with ComfyUI's repository.
MODELS: Mapping[str, bytes] = {
    "checkpoints/kit.safetensors": b"a checkpoint",
    "checkpoints/sd15/kit-inpaint.safetensors": b"another checkpoint",
    "loras/kit-style.safetensors": b"a lora",
    "text_encoders/gemma/kit-gemma.safetensors": b"a text encoder",
    "vae/kit-vae.pt": b"a vae",
}


def sha256(path: str) -> str:
    """The SHA-256 of one of MODELS."""
    return hashlib.sha256(MODELS[path]).hexdigest()


class Install:
    """A folder with ComfyUI in it (`folder`), cloned at a tag.

    `add_registry_pack` and the like put packs below custom_nodes, as ComfyUI-Manager, git, or a person does.
    """

    def __init__(self, folder: Path, comfyui: Repository, tag: str = "v0.33.0") -> None:
        self.folder = folder
        git(folder.parent, "clone", "-q", comfyui.url, str(folder))
        git(folder, "-c", "advice.detachedHead=false", "checkout", "-q", tag)
        # The address that a clone from the forge has; nothing is fetched from it.
        git(folder, "remote", "set-url", "origin", "https://github.com/comfyanonymous/ComfyUI")

    @property
    def custom_nodes(self) -> Path:
        return self.folder / "custom_nodes"

    def add_registry_pack(self, name: str, version: str | None = None, *, folder: str = "") -> Path:
        """As the Manager leaves a pack of the registry: its files, and the list of them in `.tracking`."""
        found = packs.files(name, version)
        made = packs.unpack(found, self.custom_nodes / (folder or packs.registry_id(name)))
        (made / ".tracking").write_text("\n".join(sorted(found)))
        return made

    def add_git_pack(self, name: str, repository: Repository, *, ref: str = "master", remote: str = "") -> Path:
        """A clone; `remote` is the address that it says it is of."""
        made = self.custom_nodes / name
        git(self.folder, "clone", "-q", repository.url, str(made))
        git(made, "-c", "advice.detachedHead=false", "checkout", "-q", ref)
        if remote:
            git(made, "remote", "set-url", "origin", remote)
        return made

    def add_local_pack(self, name: str) -> Path:
        """A folder, or a file, that somebody has put there by hand."""
        found = {path: content for path, content in packs.files(name).items() if path != "pyproject.toml"}
        one_file = list(found) == [f"{name}.py"]
        return packs.unpack(found, self.custom_nodes if one_file else self.custom_nodes / name)

    def add_disabled_pack(self, name: str) -> Path:
        """As the Manager disables a pack."""
        return packs.unpack(packs.files(name), self.custom_nodes / ".disabled" / packs.registry_id(name))

    def add_models(self, wanted: Iterable[str] = tuple(MODELS)) -> None:
        packs.unpack({f"models/{path}": MODELS[path] for path in wanted}, self.folder)

    def add_litter(self) -> None:
        """What lies about in any install, and belongs to no build."""
        packs.unpack(
            {
                "custom_nodes/__pycache__/websocket_image_save.cpython-311.pyc": b"",
                "custom_nodes/.DS_Store": b"",
                "models/checkpoints/half.safetensors.part": b"half",
                "models/checkpoints/.cache/huggingface/kit.lock": b"",
                "output/ComfyUI_00001_.png": b"",
                "input/example.png": b"",
                "user/default/comfy.settings.json": b"{}",
            },
            self.folder,
        )

    def snapshot(self) -> str:
        """A snapshot as ComfyUI-Manager writes it, of what is in custom_nodes."""
        registry, repositories, single = {}, {}, []
        for path in sorted(self.custom_nodes.iterdir()):
            if (path / ".git").is_dir():
                address = git(path, "remote", "get-url", "origin")
                repositories[address] = {"hash": git(path, "rev-parse", "HEAD"), "disabled": False}
            elif (path / ".tracking").is_file():
                registry[path.name] = _version((path / "pyproject.toml").read_text())
            elif path.suffix == ".py":
                single.append({"filename": path.name, "disabled": False})
        document = {
            "comfyui": git(self.folder, "rev-parse", "HEAD"),
            "git_custom_nodes": repositories,
            "cnr_custom_nodes": registry,
            "file_custom_nodes": single,
            "pips": {"kit-colors==1.2": "", "torch==2.14.1+cu130": "", "numpy==2.4.6": ""},
        }
        return json.dumps(document, indent=4)


def _version(pyproject: str) -> str:
    (line,) = (line for line in pyproject.splitlines() if line.startswith("version = "))
    return line.split('"')[1]
