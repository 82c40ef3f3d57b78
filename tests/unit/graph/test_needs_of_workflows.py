"""What a workflow needs: its models and where they are from, its classes and their packs, keys."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_serverless.graph.needs import Model, Needs, needs_of
from tests.unit.editor_samples import node, saved
from tests.unit.needs_samples import (
    FOX_URL,
    OBJECT_INFO,
    SHA256,
    STYLE_URL,
    entry,
    loader,
    with_checkpoint,
    with_subgraph,
)

EITHER = pytest.mark.parametrize("object_info", [OBJECT_INFO, None], ids=["declared", "nothing declared"])


def models(found: Needs) -> dict[str, Model]:
    return {f"{model.folder}/{model.name}": model for model in found.models}


def one(found: Needs) -> Model:
    (model,) = found.models
    return model


@EITHER
def test_a_loader_names_a_model_and_the_file_says_where_it_is_from(object_info: dict[str, Any] | None) -> None:
    found = one(needs_of(with_checkpoint(), object_info))
    assert (found.folder, found.name, found.url, found.source) == (
        "checkpoints",
        "fox.safetensors",
        FOX_URL,
        "properties",
    )
    assert found.there is (None if object_info is None else False)
    assert [(use.node_id, use.class_type, use.input_name) for use in found.used_by] == [
        ("1", "CheckpointLoaderSimple", "ckpt_name")
    ]


def test_a_model_that_comfyui_offers_is_there() -> None:
    found = needs_of(with_checkpoint("there.safetensors"), OBJECT_INFO)
    assert one(found).there is True
    assert found.missing_models == []


@EITHER
@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_what_does_not_run_needs_nothing(mode: int, object_info: dict[str, Any] | None) -> None:
    found = needs_of(with_checkpoint(mode=mode), object_info)
    assert (found.models, found.nodes) == ((), ())
    assert needs_of(with_subgraph([], mode=mode), object_info).models == ()


@EITHER
def test_a_loader_within_a_subgraph_counts(object_info: dict[str, Any] | None) -> None:
    found = one(needs_of(with_subgraph([]), object_info))
    assert (found.folder, found.name, found.url) == ("diffusion_models", "inner.safetensors", FOX_URL)
    assert found.used_by[0].node_id == "5:10"


@EITHER
@pytest.mark.parametrize("host", [{}, {"properties": {"proxyWidgets": [["10", "unet_name"]]}}], ids=["input", "proxy"])
def test_the_hosts_own_value_wins_over_the_inner_entry(
    host: dict[str, Any], object_info: dict[str, Any] | None
) -> None:
    found = one(needs_of(with_subgraph(["other.safetensors"], host=host), object_info))
    assert (found.name, found.url) == ("other.safetensors", "")
    own = {"properties": {**host.get("properties", {}), "models": [entry("other.safetensors", STYLE_URL, "unet")]}}
    workflow = with_subgraph(["inner.safetensors"], host=own)
    assert one(needs_of(workflow, object_info)).url == FOX_URL


def test_an_unknown_class_beside_it_does_not_change_what_a_host_gives() -> None:
    workflow = with_subgraph(["a prompt", "other.safetensors"])
    (definition,) = workflow["definitions"]["subgraphs"]
    slot = {"name": "text", "type": "STRING", "widget": {"name": "text"}, "link": 6}
    definition["nodes"].append(node(11, "NobodyHasThis", ["inner prompt"], [slot]))
    definition["links"].append(
        {"id": 6, "origin_id": -10, "origin_slot": 0, "target_id": 11, "target_slot": 0, "type": "STRING"}
    )
    definition["links"][0]["origin_slot"] = 1
    definition["inputs"].insert(0, {"id": "b", "name": "text", "type": "STRING", "linkIds": [6]})
    workflow["nodes"][0]["inputs"].insert(0, {"name": "text", "type": "STRING", "link": None})
    found = needs_of(workflow, OBJECT_INFO)
    assert one(found).name == "other.safetensors"
    assert [each.class_type for each in found.unknown_nodes] == ["NobodyHasThis"]
    assert found.inputs == (), "which values they have is not known without that class"
    assert "within node 5" in found.notes[0]


def test_what_an_unknown_class_is_linked_to_cannot_be_set_and_names_nothing() -> None:
    source = node(1, "NobodyHasThis", ["x"], outputs=[{"name": "name", "type": "COMBO", "links": [1, 2]}])
    slots = [
        {"name": name, "type": "COMBO", "link": link, "widget": {"name": name}}
        for link, name in ((1, "ckpt_name"), (2, "seed"))
    ]
    checkpoint = loader(2, "CheckpointLoaderSimple", ["stale.safetensors"], inputs=slots[:1])
    sampler = node(3, "KSampler", [5, "fixed", 20, "euler"], slots[1:])
    found = needs_of(
        saved([source, checkpoint, sampler], [[1, 1, 0, 2, 0, "COMBO"], [2, 1, 0, 3, 0, "COMBO"]]), OBJECT_INFO
    )
    assert found.models == ()
    assert [one.address for one in found.inputs] == ["3.steps", "3.sampler_name"]


def test_of_an_unknown_class_whatever_ends_like_a_model_is_one() -> None:
    workflow = saved(
        [node(1, "NobodyHasThis", ["deep.safetensors", 1, "fast"]), node(2, "Other", {"lora_name": "a.pt"})], []
    )
    found = models(needs_of(workflow, OBJECT_INFO))
    assert set(found) == {"/deep.safetensors", "loras/a.pt"}
    assert found["/deep.safetensors"].there is None, "nobody knows where it would be looked for"
    assert found["loras/a.pt"].there is False


def test_the_file_says_the_folder_of_a_class_that_we_do_not_know() -> None:
    found = one(
        needs_of(
            saved([loader(1, "PackLoader", ["big.gguf", ""], entry("big.gguf", directory="unet"))], []), OBJECT_INFO
        )
    )
    assert (found.folder, found.there) == ("diffusion_models", False), "its folder has a new name"


def test_the_list_of_a_pack_tells_which_folder_it_lists() -> None:
    found = one(needs_of(saved([node(1, "PackLoader", ["gone.safetensors", ""])], []), OBJECT_INFO))
    assert found.folder == "checkpoints", "its choices are the checkpoints"


def test_switched_off_entries_of_a_list_are_not_needed() -> None:
    values = [{}, {"on": True, "lora": "one.safetensors"}, {"on": False, "lora": "two.safetensors"}]
    in_editor = needs_of(saved([node(1, "Power Lora Loader (rgthree)", values)], []), OBJECT_INFO)
    graph = {"1": {"class_type": "Power Lora Loader (rgthree)", "inputs": {"lora_1": values[1], "lora_2": values[2]}}}
    assert set(models(in_editor)) == set(models(needs_of(graph, OBJECT_INFO))) == {"loras/one.safetensors"}


def test_what_is_in_the_list_and_no_file_is_no_model() -> None:
    assert needs_of(saved([node(1, "VAELoader", ["pixel_space"])], []), OBJECT_INFO).models == ()
    assert one(needs_of(saved([node(1, "VAELoader", ["taesd"])], []), OBJECT_INFO)).there is False
    assert needs_of(saved([node(1, "LoraLoaderModelOnly", ["None", 1])], []), OBJECT_INFO).models == ()


def test_a_text_is_no_model_whatever_it_ends_with() -> None:
    graph = {
        "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "like.safetensors"}},
        "2": {"class_type": "PackLoader", "inputs": {"file": "https://example.com/a.safetensors", "note": "b.ckpt"}},
    }
    assert needs_of(graph, OBJECT_INFO).models == ()


@pytest.mark.parametrize(
    "name", ["ink.safetensors", "STYLES/Ink.safetensors", "styles\\ink.safetensors", "old/ink.safetensors"]
)
def test_a_model_under_another_name_is_missing_and_the_name_is_told(name: str) -> None:
    found = one(needs_of(saved([node(1, "LoraLoaderModelOnly", [name, 1])], []), OBJECT_INFO))
    assert (found.there, found.near) == (False, "styles/ink.safetensors")


def test_a_graph_in_api_format_names_models_too_and_the_editors_workflow_beside_it_says_where_from() -> None:
    graph = {"4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "fox.safetensors"}}}
    bare = needs_of(graph, OBJECT_INFO)
    assert (one(bare).url, bare.nodes[0].pack) == ("", None)
    with_saved = needs_of(graph, OBJECT_INFO, saved=with_checkpoint())
    assert one(with_saved).url == FOX_URL
    assert with_saved.nodes[0].pack is not None


def test_a_loader_that_is_linked_names_nothing() -> None:
    graph = {"4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ["9", 0]}}}
    assert needs_of(graph, OBJECT_INFO).models == ()


def test_a_loader_that_is_linked_to_a_constant_names_its_text() -> None:
    graph = {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ["9", 0]}},
        "9": {"class_type": "PrimitiveString", "inputs": {"value": "fox.safetensors"}},
    }
    found = one(needs_of(graph, OBJECT_INFO))
    assert (found.folder, found.name, found.used_by[0].node_id) == ("checkpoints", "fox.safetensors", "4")
    graph["9"] = {"class_type": "StringConcatenate", "inputs": {"string_a": "fox.safetensors"}}
    assert [model.used_by[0].node_id for model in needs_of(graph, OBJECT_INFO).models] == ["9"], (
        "an input nobody declares"
    )


def test_the_file_as_a_whole_may_say_where_models_are_from() -> None:
    workflow = saved(
        [loader(1, "CheckpointLoaderSimple", ["fox.safetensors"])], [], models=[entry("fox.safetensors"), 5]
    )
    assert one(needs_of(workflow, OBJECT_INFO)).url == FOX_URL


def test_one_model_of_several_nodes_is_one() -> None:
    nodes = [loader(number, "CheckpointLoaderSimple", ["fox.safetensors"]) for number in range(1, 15)]
    found = needs_of(
        saved([*nodes, loader(20, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors"))], []),
        OBJECT_INFO,
    )
    assert (one(found).url, len(one(found).used_by)) == (FOX_URL, 10)
    assert found.nodes[0].count == 15


def test_the_hash_of_an_entry_is_taken_if_it_is_a_sha256() -> None:
    def hash_of(**given: str) -> str:
        workflow = saved([loader(1, "CheckpointLoaderSimple", ["a.ckpt"], entry("a.ckpt", **given))], [])
        return one(needs_of(workflow, OBJECT_INFO)).sha256

    assert hash_of(hash=SHA256.upper(), hash_type="SHA256") == SHA256
    assert hash_of(hash=SHA256) == SHA256
    assert hash_of(hash="abc", hash_type="SHA256") == hash_of(hash=SHA256, hash_type="BLAKE3") == ""


@pytest.mark.parametrize(
    ("told", "url"),
    [
        (
            "https://huggingface.co/a/b/blob/main/x/fox.safetensors",
            "https://huggingface.co/a/b/resolve/main/x/fox.safetensors",
        ),
        (f"{FOX_URL}?download=true", FOX_URL),
        (STYLE_URL, STYLE_URL),
        (f"{STYLE_URL}?token=secret&type=Model&fp=fp16", f"{STYLE_URL}?type=Model&fp=fp16"),
        (f"{STYLE_URL}?type=Model&api_key=secret", f"{STYLE_URL}?type=Model"),
        ("ftp://example.com/fox.safetensors", ""),
        ("https://me:secret@example.com/fox.safetensors", ""),
        ("https://exa mple.com\n/fox", ""),
        ("https://[broken/fox.safetensors", ""),
        (f"https://example.com/{'x' * 3000}", ""),
    ],
)
def test_addresses_are_those_of_files_and_nothing_else(told: str, url: str) -> None:
    workflow = saved([loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors", told))], [])
    assert one(needs_of(workflow, OBJECT_INFO)).url == url


def test_addresses_in_notes_are_of_use_where_no_node_says_one() -> None:
    note = node(
        9, "MarkdownNote", ["## Models\n\n- [fox](https://huggingface.co/a/b/blob/main/fox%20two.safetensors).\n"]
    )
    found = one(
        needs_of(saved([note, loader(1, "CheckpointLoaderSimple", ["old/fox two.safetensors"])], []), OBJECT_INFO)
    )
    assert (found.url, found.source) == ("https://huggingface.co/a/b/resolve/main/fox%20two.safetensors", "note")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a fox, embedding:ink, at dusk", ["ink"]),
        ("(embedding:styles/ink.pt:1.2) fox", ["styles/ink.pt"]),
        ("embedding:one embedding:two.", ["one", "two"]),
        ("[embedding:one]|embedding:two", ["one", "two"]),
        ("an embedding: none", []),
    ],
)
def test_embeddings_are_named_in_prompts(text: str, names: list[str]) -> None:
    graph = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["4", 1]}}}
    assert [(model.folder, model.name) for model in needs_of(graph, OBJECT_INFO).models] == [
        ("embeddings", name) for name in names
    ]


def test_embeddings_are_there_with_and_without_their_endings() -> None:
    graph = {"6": {"class_type": "CLIPTextEncode", "inputs": {"text": "embedding:ink.pt embedding:gone"}}}
    found = models(needs_of(graph, OBJECT_INFO, embeddings={"ink"}))
    assert {name: model.there for name, model in found.items()} == {"embeddings/ink.pt": True, "embeddings/gone": False}
    assert one(needs_of({"6": {**graph["6"], "inputs": {"text": "embedding:x"}}}, OBJECT_INFO)).there is None


def test_models_that_come_with_the_job_are_there() -> None:
    brought = [Model(folder="checkpoints", name="fox.safetensors", url=STYLE_URL, sha256=SHA256)]
    found = one(needs_of(with_checkpoint(), OBJECT_INFO, brought=brought))
    assert (found.there, found.url, found.sha256) == (True, STYLE_URL, SHA256)


def test_classes_come_with_the_pack_that_the_file_names() -> None:
    packs = [{"cnr_id": "comfyui-toy", "ver": "1.2.0"}, {"aux_id": "somebody/Toys", "ver": "a" * 40}, {}, {"cnr_id": 5}]
    nodes = [node(number, f"Toy{number}", properties=pack) for number, pack in enumerate(packs)]
    found = needs_of(saved([*nodes, node(9, "SaveImage", ["x"])], []), OBJECT_INFO)
    told = {each.class_type: each for each in found.nodes}
    assert told["Toy0"].pack is not None
    assert (told["Toy0"].pack.cnr_id, told["Toy0"].pack.ver, told["Toy0"].known) == ("comfyui-toy", "1.2.0", False)
    assert told["Toy1"].pack is not None
    assert told["Toy1"].pack.aux_id == "somebody/Toys"
    assert told["Toy2"].pack is told["Toy3"].pack is None
    assert told["SaveImage"].known is True
    assert all(each.known is None for each in needs_of(saved(nodes, []), None).nodes)


def test_what_only_the_editor_has_is_no_class_that_anybody_lacks() -> None:
    kinds = ("Note", "MarkdownNote", "Reroute", "PrimitiveNode", "SetNode", "GetNode", "Label (rgthree)")
    nodes = [node(number, kind, ["x"]) for number, kind in enumerate(kinds)]
    assert needs_of(saved(nodes, []), OBJECT_INFO).nodes == ()


def test_partner_nodes_are_told() -> None:
    found = needs_of(saved([node(1, "PaidPicture", ["a fox"])], []), OBJECT_INFO)
    assert found.partner_nodes == ("PaidPicture",)


def test_the_nodes_of_a_group_count() -> None:
    inner = [
        {"type": "CheckpointLoaderSimple", "widgets_values": ["old.ckpt"]},
        {"type": "Nobody", "widgets_values": []},
    ]
    host = node(3, "workflow>Mine", ["fox.safetensors"])
    found = needs_of(saved([host], [], extra={"groupNodes": {"Mine": {"nodes": inner, "links": []}}}), None)
    assert (one(found).folder, one(found).name) == ("checkpoints", "fox.safetensors")
    assert [each.class_type for each in found.nodes] == ["CheckpointLoaderSimple", "Nobody"]


def test_the_answer_is_json_with_null_for_what_is_not_known() -> None:
    document = needs_of(with_checkpoint(), None).to_json()
    assert document["models"] == [
        {
            "folder": "checkpoints",
            "name": "fox.safetensors",
            "url": FOX_URL,
            "sha256": None,
            "size_bytes": None,
            "there": None,
            "near": None,
            "source": "properties",
            "used_by": [{"node_id": "1", "class_type": "CheckpointLoaderSimple", "input_name": "ckpt_name"}],
        }
    ]
    assert document["nodes"][0]["pack"] == {"cnr_id": "comfy-core", "aux_id": None, "ver": "0.33.0"}
    assert document["missing"] == {"models": 0, "nodes": 0}
