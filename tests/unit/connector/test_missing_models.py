"""A workflow that misses models fails with their list, with where each is from, and with the commands that help."""

from __future__ import annotations

from typing import Any

from comfy_serverless.connector.refusals import command_to_add, explained, refusal
from comfy_serverless.errors import InvalidWorkflow
from tests.unit.editor_samples import saved
from tests.unit.needs_samples import FOX_URL, OBJECT_INFO, SHA256, entry, loader, with_checkpoint

GRAPH: dict[str, Any] = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "fox.safetensors"}},
    "5": {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {"model": ["4", 0], "lora_name": "ink.safetensors", "strength_model": 1},
    },
    "6": {"class_type": "PackLoader", "inputs": {"file": "big.gguf", "note": ""}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
}


def not_in_list(node_id: str, name: str, value: str) -> dict[str, Any]:
    problem = {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": f"{name}: '{value}' not in []",
        "extra_info": {"input_name": name, "received_value": value, "input_config": [[], {}]},
    }
    return {node_id: {"errors": [problem], "dependent_outputs": ["9"], "class_type": GRAPH[node_id]["class_type"]}}


SAID = {
    **not_in_list("4", "ckpt_name", "fox.safetensors"),
    **not_in_list("5", "lora_name", "ink.safetensors"),
    **not_in_list("6", "file", "big.gguf"),
}
FAILED = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": ""}


def failure(beside: object = None) -> InvalidWorkflow:
    return explained(refusal(FAILED, SAID), GRAPH, OBJECT_INFO, tuple(OBJECT_INFO), (), beside)


def test_the_message_has_the_list_and_the_commands() -> None:
    message = failure(with_checkpoint()).message
    for part in (
        "3 models are missing: ",
        f"checkpoints/fox.safetensors (`comfy-serverless models add {FOX_URL} --folder checkpoints`)",
        "loras/ink.safetensors (`comfy-serverless models add FILE --folder loras --name ink.safetensors`)",
        "?/big.gguf (`comfy-serverless models add FILE --folder FOLDER --name big.gguf`)",
        "`comfy-serverless needs FILE` lists all that the workflow needs",
        "--manifest models.json",
        '"models": [{',
    ):
        assert part in message


def test_programs_are_told_the_folder_and_where_the_editors_workflow_says_it_is() -> None:
    workflow = saved(
        [
            loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors", hash=SHA256)),
            loader(2, "PackLoader", ["big.gguf", ""], entry("big.gguf", f"{FOX_URL}.gguf", "unet")),
        ],
        [],
    )
    fox, ink, big = failure(workflow).details["missing_models"]
    assert fox == {
        "node_id": "4",
        "class_type": "CheckpointLoaderSimple",
        "input_name": "ckpt_name",
        "name": "fox.safetensors",
        "folder": "checkpoints",
        "url": FOX_URL,
        "sha256": SHA256,
    }
    assert (ink["folder"], "url" in ink) == ("loras", False)
    assert (big["folder"], big["url"]) == ("diffusion_models", f"{FOX_URL}.gguf")


def test_what_stands_beside_a_graph_and_is_no_workflow_says_nothing() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    for beside in (None, 5, "x", {"nodes": 5}, {"nodes": [{"properties": {"models": 5}}]}, {"nodes": [], "x": deep}):
        assert failure(beside).details["missing_models"] == failure().details["missing_models"]


def test_the_command_names_a_model_as_the_workflow_does() -> None:
    civitai = "https://civitai.com/api/download/models/123"
    add = "comfy-serverless models add"
    assert command_to_add("loras", "a b/ink.safetensors", civitai) == (
        f"{add} {civitai} --folder 'loras/a b' --name ink.safetensors"
    )
    assert command_to_add("vae", "x\\y.safetensors", "") == f"{add} FILE --folder vae/x --name y.safetensors"
    assert (
        command_to_add("vae", "y z.pt", "https://h.example/y%20z.pt")
        == f"{add} https://h.example/y%20z.pt --folder vae"
    )


def test_an_address_in_a_message_lets_nobody_in() -> None:
    workflow = saved(
        [loader(1, "CheckpointLoaderSimple", ["fox.safetensors"], entry("fox.safetensors", f"{FOX_URL}?token=secret"))],
        [],
    )
    assert "secret" not in failure(workflow).message


def test_one_model_of_many_nodes_is_listed_once() -> None:
    graph = {str(number): GRAPH["4"] for number in range(40)} | {"99": GRAPH["9"]}
    said = {node_id: not_in_list("4", "ckpt_name", "fox.safetensors")["4"] for node_id in graph if node_id != "99"}
    error = explained(refusal(FAILED, said), graph, OBJECT_INFO, ())
    assert "1 model is missing: checkpoints/fox.safetensors" in error.message
    assert len(error.details["missing_models"]) == 40
    assert "of node 0 and 39 more" in error.message
    assert error.message.count("fox.safetensors") == 2, "in the list, and in the command"


def test_a_model_is_told_once_and_a_better_name_beside_it() -> None:
    message = explained(refusal(FAILED, SAID), GRAPH, {}, ()).message
    assert message.startswith("3 models are missing: checkpoints/fox.safetensors (`")
    assert "of node 5; ?/big.gguf" in message
    declared = {"CheckpointLoaderSimple": {"input": {"required": {"ckpt_name": [["foxes.safetensors"]]}}}}
    near = explained(refusal(FAILED, SAID), GRAPH, declared, ()).message
    assert near.startswith("Node 4 (CheckpointLoaderSimple): ")
    assert "did you mean 'foxes.safetensors'?). 3 models are missing: checkpoints/fox.safetensors (`" in near
    assert "Node 5" not in near


def test_a_file_that_is_not_there_is_told_with_how_to_give_it() -> None:
    problem = {
        "type": "custom_validation_failed",
        "message": "Custom validation failed for node",
        "details": "image - Invalid image file: a.png",
        "extra_info": {"input_name": "image"},
    }
    said = {"1": {"errors": [problem], "dependent_outputs": [], "class_type": "LoadImage"}}
    message = refusal(FAILED, said).message
    assert message.endswith(
        "a.png (ComfyUI has no such file: give it with --input, in `inputs` of the job, or by `upload_image` of Python)"
    )


def test_the_bare_id_of_an_asset_is_told_with_how_to_name_it() -> None:
    asset_id = "25d27883-a2b6-4abb-800d-2b0373c2a2d9"
    problem = {
        "type": "custom_validation_failed",
        "message": "Custom validation failed for node",
        "details": f"image - Invalid image file: {asset_id}",
        "extra_info": {"input_name": "image"},
    }
    said = {"1": {"errors": [problem], "dependent_outputs": [], "class_type": "LoadImage"}}
    told = refusal(FAILED, said).message
    assert f'or by {{"__type": "core/ASSET", "info": {{"id": "{asset_id}"}}}})' in told
