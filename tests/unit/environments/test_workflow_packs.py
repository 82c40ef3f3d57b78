"""What a workflow says of the environment that it wants."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.environments.build_file import Model, Pack
from comfy_serverless.environments.scan.found import Found
from comfy_serverless.environments.scan.workflow_packs import newer, read_needs
from comfy_serverless.graph.needs import needs_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def node(number: int, class_type: str, properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "type": class_type,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "properties": properties or {},
        **more,
    }


def read(*nodes: dict[str, Any]) -> Found:
    workflow = {"nodes": list(nodes), "links": [], "version": 0.4}
    needs = needs_of(workflow, None)
    return read_needs(needs, needs.to_json()["models"], source="workflow.json")


@pytest.mark.parametrize(
    ("properties", "pack"),
    [
        ({"cnr_id": "kit-good", "ver": "1.2.0"}, Pack(name="kit-good", id="kit-good", registry_version="1.2.0")),
        ({"cnr_id": "kit-good", "ver": "v1.2.0"}, Pack(name="kit-good", id="kit-good", registry_version="v1.2.0")),
        ({"cnr_id": "kit-good", "ver": COMMIT}, Pack(name="kit-good", id="kit-good", registry_version="latest")),
        ({"cnr_id": "kit-good", "ver": "nightly"}, Pack(name="kit-good", id="kit-good", registry_version="latest")),
        ({"cnr_id": "kit-good"}, Pack(name="kit-good", id="kit-good", registry_version="latest")),
        (
            {"cnr_id": "kit-good", "aux_id": "kit/ComfyUI-Good", "ver": COMMIT},
            Pack(name="kit-good", id="kit-good", repository="https://github.com/kit/ComfyUI-Good", git_ref=COMMIT),
        ),
        (
            {"aux_id": "kit/ComfyUI-Good", "ver": COMMIT[:10]},
            Pack(name="ComfyUI-Good", repository="https://github.com/kit/ComfyUI-Good", git_ref=COMMIT[:10]),
        ),
        (
            {"aux_id": "https://github.com/kit/Good.git", "ver": COMMIT},
            Pack(name="Good", repository="https://github.com/kit/Good", git_ref=COMMIT),
        ),
        ({"aux_id": "kit/Good"}, Pack(name="Good", repository="https://github.com/kit/Good")),
    ],
)
def test_a_node_names_its_pack(properties: dict[str, str], pack: Pack) -> None:
    found = read(node(1, "KitNode", properties))

    assert [one.pack for one in found.packs] == [pack]
    exact = pack.registry_version != "latest" and (pack.repository is None or pack.git_ref is not None)
    assert bool(found.remarks) == (not exact)


@pytest.mark.parametrize("properties", [{"cnr_id": "../x", "ver": "1.0.0"}, {"aux_id": "a/b c"}, {"aux_id": "-x/y"}])
def test_a_pack_with_a_name_that_none_has_is_left_out(properties: dict[str, str]) -> None:
    found = read(node(1, "KitNode", properties))

    assert found.packs == [] or "-x" in str(found.packs)
    assert len(found.left_out) + len(found.packs) == 1


def test_of_several_versions_the_newest_is_taken_and_told() -> None:
    found = read(*(node(at, f"K{at}", {"cnr_id": "kit", "ver": ver}) for at, ver in enumerate(("1.9.0", "1.10.0"))))

    assert [one.pack.registry_version for one in found.packs] == ["1.10.0"]
    assert found.remarks == ["kit: its nodes are of versions 1.9.0, 1.10.0; 1.10.0 is taken"]


def test_core_nodes_say_the_version_of_comfyui_and_nameless_ones_are_told() -> None:
    found = read(
        node(1, "KSampler", {"cnr_id": "comfy-core", "ver": "0.9.1"}),
        node(2, "VAEDecode", {"cnr_id": "comfy-core", "ver": "0.33.0"}),
        node(3, "SaveImage", {"cnr_id": "comfy-core", "ver": "unknown"}),
        node(4, "Mystery"),
    )

    assert (found.version, found.packs) == ("v0.33.0", [])
    assert "no pack is named for Mystery" in found.remarks[0]


def test_models_with_an_address_are_taken_and_the_others_told() -> None:
    entry = {
        "name": "a.safetensors",
        "url": "https://huggingface.co/x/y/resolve/main/a.safetensors",
        "directory": "vae",
    }
    found = read(
        node(1, "VAELoader", {"models": [entry]}, widgets_values=["a.safetensors"]),
        node(2, "LoraLoaderModelOnly", widgets_values=["deep/b.safetensors", 1.0]),
    )

    assert found.models == [Model(filename="a.safetensors", type="vae", source_uri=entry["url"])]
    assert found.left_out == ["models/loras/deep/b.safetensors: the workflow does not say where it is from"]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ("v0.9.0", "v0.10.0", "v0.10.0"),
        ("v0.33.0", "v0.10.0", "v0.33.0"),
        (COMMIT, "v0.33.0", COMMIT),
        ("v1", "master", "v1"),
    ],
)
def test_the_newer_of_two_versions(first: str, second: str, wanted: str) -> None:
    assert newer(first, second) == wanted
