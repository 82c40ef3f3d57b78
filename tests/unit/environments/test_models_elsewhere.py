"""Models that an install has outside of models/, and where models are from by what lies beside them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.environments.further_folders import FurtherFolder, file_of, further_folders
from comfy_serverless.environments.model_hashes import HashCache
from comfy_serverless.environments.scan.found import Found
from comfy_serverless.environments.scan.install import scan
from comfy_serverless.environments.scan.model_notes import address_beside
from tests.environments import packs as kit

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = "0" * 64
CIVITAI = "https://civitai.com/api/download/models/128713"
HUGGING = "https://huggingface.co/owner/repo/resolve/main/a.safetensors"
PATHS = """
comfyui:
  base_path: {disk}
  is_default: true
  checkpoints: ckpt
  loras: |
    lora
    lycoris
  configs: configs
  custom_nodes: nodes
  ../up: lora
other:
  vae: {disk}/vae
  upscale_models: nowhere
"""


@pytest.fixture
def install(tmp_path: Path) -> Path:
    """An install with a disk beside it."""
    disk = {
        "ckpt/sd/a.safetensors": CONTENT,
        "ckpt/broken.safetensors": b"<html>",
        "lora/x.pt": b"x",
        "lycoris/x.pt": b"another",
        "lycoris/same.pt": b"same",
        "vae/v.pt": b"v",
        "configs/c.pt": b"c",
        "nodes/p/w.pt": b"w",
    }
    kit.unpack(disk, tmp_path / "disk")
    home = kit.unpack({"custom_nodes/x": b"", "models/loras/same.pt": b"same"}, tmp_path / "ComfyUI")
    (home / "extra_model_paths.yaml").write_text(PATHS.format(disk=tmp_path / "disk"))
    return home


def scanned(install: Path) -> Found:
    return scan(install, HashCache(install / "c"), python=None, with_models=True, show=lambda *_: None)


def test_models_outside_of_an_install_are_taken_as_if_they_were_in_it(install: Path) -> None:
    found = scanned(install)
    assert [(model.path, model.local_path, model.source) for model in found.models] == [
        ("loras/same.pt", "loras/same.pt", "local"),
        ("checkpoints/sd/a.safetensors", "checkpoints/sd/a.safetensors", "local"),
        ("loras/x.pt", "loras/x.pt", "local"),
        ("vae/v.pt", "vae/v.pt", "local"),
    ]
    assert found.models[1].sha256 == SHA256
    disk = install.parent / "disk"
    assert f"{disk}/ckpt/broken.safetensors: it is a web page" in "\n".join(found.left_out)
    assert f"{disk}/lycoris/x.pt: there is a loras/x.pt in {disk}/lora already" in found.left_out
    (taken,) = [remark for remark in found.remarks if "outside of it" in remark]
    assert f"{disk}/ckpt (1), {disk}/lora (1), {disk}/vae (1)" in taken
    said = "\n".join(found.remarks)
    assert "comfyui: ../up is not taken" in said
    assert f"upscale_models is not taken from {install}/nowhere, which is no folder of this machine" in said


def test_a_model_that_is_outside_of_an_install_is_found_there_when_it_is_sent(install: Path) -> None:
    models, disk = install / "models", install.parent / "disk"
    assert file_of("loras/same.pt", models) == models / "loras/same.pt"
    assert file_of("checkpoints/sd/a.safetensors", models) == disk / "ckpt/sd/a.safetensors"
    assert file_of("loras/gone.pt", models) == models / "loras/gone.pt", "it is looked for there"


def test_an_install_may_have_no_models_of_its_own(tmp_path: Path) -> None:
    kit.unpack({"disk/a.pt": b"a", "ComfyUI/custom_nodes/x": b""}, tmp_path)
    (tmp_path / "ComfyUI/extra_models_config.yaml").write_text("desktop: {base_path: ../disk, loras: .}")
    found = scanned(tmp_path / "ComfyUI")
    assert [model.path for model in found.models] == ["loras/a.pt"]


def test_a_base_path_may_have_a_home_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.unpack({"disk/loras/a.pt": b"a", "ComfyUI/models/loras/b.pt": b"b"}, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", "disk")
    install = tmp_path / "ComfyUI"
    expected = [FurtherFolder("loras", tmp_path / "disk" / "loras")]
    for base in ("~/disk", "~/$WHERE", "../disk"):
        (install / "extra_model_paths.yaml").write_text(f"one: {{base_path: {base}, loras: loras}}")
        assert [FurtherFolder(one.type, one.folder.resolve()) for one in further_folders(install)] == expected
    (install / "extra_model_paths.yaml").write_text(f"one: {{loras: {install}/models/loras}}")
    assert further_folders(install) == [], "its own are no further ones"


@pytest.mark.parametrize("text", ["a: [", "- x", "", "one: two", "\x00"])
def test_a_file_that_names_no_folders_costs_nothing_else(tmp_path: Path, text: str) -> None:
    kit.unpack({"models/loras/b.pt": b"b", "custom_nodes/x": b""}, tmp_path)
    (tmp_path / "extra_model_paths.yaml").write_text(text)
    found = scanned(tmp_path)
    assert [model.path for model in found.models] == ["loras/b.pt"]
    is_broken = text in ("a: [", "\x00")
    assert any("extra_model_paths.yaml is not read" in remark for remark in found.remarks) == is_broken


def test_it_is_said_what_reading_such_a_file_needs(install: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert any("comfy-serverless[env]" in remark for remark in scanned(install).remarks)


def version(sha256: str, url: str = CIVITAI) -> dict[str, Any]:
    """As managers of models keep what CivitAI says of a version."""
    file = {"name": "a.safetensors", "hashes": {"SHA256": sha256.upper()}, "downloadUrl": url}
    other = {"name": "a-pruned.safetensors", "hashes": {"SHA256": OTHER}, "downloadUrl": f"{CIVITAI}?type=Pruned"}
    return {
        "id": 128713,
        "modelId": 4384,
        "downloadUrl": url,
        "files": [other, file],
        "images": [{"url": HUGGING[:-12]}],
    }


@pytest.mark.parametrize(
    ("name", "note", "address"),
    [
        ("a.civitai.info", version(SHA256), CIVITAI),
        ("a.metadata.json", {"sha256": SHA256, "civitai": version(SHA256)}, CIVITAI),
        ("a.json", {"sha256": SHA256, "url": HUGGING}, HUGGING),
        ("a.safetensors.json", {"download_url": HUGGING}, HUGGING),
        ("a.metadata", {"source": "s3://bucket/a.safetensors"}, "s3://bucket/a.safetensors"),
        ("a.json", {"url": "https://civitai.com/models/4384"}, ""),
        ("a.json", {"url": HUGGING.replace("/resolve/", "/blob/")}, ""),
        ("a.json", {"url": "http://example.com/a.safetensors"}, ""),
        ("a.json", [1, {"url": None}], ""),
        ("b.civitai.info", version(SHA256), ""),
    ],
)
def test_an_address_beside_a_model_is_taken(tmp_path: Path, name: str, note: object, address: str) -> None:
    model = tmp_path / "a.safetensors"
    (tmp_path / name).write_text(json.dumps(note))
    assert address_beside(model, SHA256)[0] == address


@pytest.mark.parametrize("text", ["", "not json", "[" * 100_000, '{"url": "https://[/resolve/"}', "\xff"])
def test_what_is_beside_a_model_may_be_anything(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    assert address_beside(tmp_path / "a.safetensors", SHA256) == ("", "")


def test_an_address_of_another_content_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.civitai.info").write_text(json.dumps(version("1" * 64)))
    address, remark = address_beside(tmp_path / "a.safetensors", SHA256)
    assert address == ""
    assert remark == "a.civitai.info beside it is of another file, by the SHA-256 in it: its address is not taken"


def test_an_address_with_a_token_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a.civitai.info").write_text(json.dumps(version(SHA256, f"{CIVITAI}?token=0123456789abcdef")))
    address, remark = address_beside(tmp_path / "a.safetensors", SHA256)
    assert address == ""
    assert "names an address that is not taken" in remark
    assert "0123456789abcdef" not in remark


def test_a_model_with_an_address_needs_nobodys_machine(install: Path) -> None:
    (install.parent / "disk/ckpt/sd/a.civitai.info").write_text(json.dumps(version(SHA256)))
    (install.parent / "disk/vae/v.json").write_text(json.dumps({"sha256": OTHER, "url": HUGGING}))
    found = scanned(install)
    models = {model.path: model for model in found.models}
    known = models["checkpoints/sd/a.safetensors"]
    assert (known.source, known.source_uri, known.sha256) == ("address", CIVITAI, SHA256)
    assert models["vae/v.pt"].source == "local"
    assert "models/vae/v.pt: v.json beside it is of another file" in "\n".join(found.remarks)
