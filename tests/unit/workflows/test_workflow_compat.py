"""What is wrong with a version on given workers, by declarations recorded from ComfyUI 0.33.0."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.workflows.checkup import Finding, Kind, Severity
from comfy_serverless.workflows.compat import problems_of
from comfy_serverless.workflows.version import NamedInput, NamedOutput, Version
from tests.unit.editor_samples import node, saved
from tests.unit.needs_samples import combo, declared

_RECORDED = json.loads((Path(__file__).parents[1] / "data" / "object_info.json").read_text())
CHECKPOINT = "v1-5-pruned-emaonly.safetensors"
PROMPT = NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT)


@pytest.fixture
def workers() -> dict[str, Any]:
    """What they declare: a test may change it."""
    return copy.deepcopy(_RECORDED["0.33.0"])


def graph(**changed: dict[str, Any]) -> dict[str, Any]:
    """Text to image. `node_3={"cfg": 9}` changes inputs."""
    found: dict[str, Any] = {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["6", 0],
                "latent_image": ["5", 0],
                "seed": -1,
                "steps": 4,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    }
    for name, inputs in changed.items():
        found[name.removeprefix("node_")]["inputs"] |= inputs
    return found


def version(whole: dict[str, Any] | None = None, **more: Any) -> Version:
    return Version(**{"name": "poster", "number": 1, "owner": "team", "graph": whole or graph(), **more})


def found(one: Version, workers: dict[str, Any], **more: Any) -> list[tuple[Kind, Severity, str]]:
    return [(each.kind, each.severity, each.message) for each in problems_of(one, workers, **more)]


def only(one: Version, workers: dict[str, Any], **more: Any) -> Finding:
    [each] = problems_of(one, workers, **more)
    return each


def test_nothing_is_wrong_with_what_comfyui_accepts(workers: dict[str, Any]) -> None:
    assert found(version(inputs=(PROMPT,), outputs=(NamedOutput(name="picture", node_id="9"),)), workers) == []


def test_a_class_that_is_gone_is_named_with_the_pack_that_the_editor_wrote_down(workers: dict[str, Any]) -> None:
    del workers["VAEDecode"]
    pack = {"Node name for S&R": "VAEDecode", "cnr_id": "better-vae", "ver": "1.2.0"}
    editors = saved([node(8, "VAEDecode", properties=pack)], [])
    one = only(version(editors=editors), workers)
    assert (one.kind, one.breaks, one.node_id, one.class_type) == (Kind.CLASS, True, "8", "VAEDecode")
    assert "better-vae 1.2.0" in one.message
    noted = only(version(needs={"nodes": [{"class_type": "VAEDecode", "pack": {"aux_id": "somebody/vae"}}]}), workers)
    assert "somebody/vae" in noted.message


def test_a_class_of_a_newer_comfyui_is_of_no_pack(workers: dict[str, Any]) -> None:
    del workers["VAEDecode"]
    core = {"cnr_id": "comfy-core", "ver": "0.99.0"}
    one = only(version(editors=saved([node(8, "VAEDecode", properties=core)], [])), workers)
    assert "it is of ComfyUI itself (the file is of 0.99.0), so take a newer one" in one.message
    assert "pack" not in one.message


def test_a_class_of_a_pack_that_did_not_import_says_why(workers: dict[str, Any]) -> None:
    del workers["VAEDecode"]
    lost = NotImported("better-vae", "No module named 'cv2'", classes=frozenset({"VAEDecode"}))
    assert "better-vae, which did not import: No module named 'cv2'" in only(version(), workers, lost=[lost]).message


def test_nodes_of_one_missing_class_are_one_finding(workers: dict[str, Any]) -> None:
    many = graph()
    many |= {str(number): {"class_type": "Gone", "inputs": {}} for number in range(100, 500)}
    one = only(version(many), workers)
    assert "node 100 and 399 more is of the class Gone" in one.message


def test_an_input_that_has_come_and_one_that_has_gone(workers: dict[str, Any]) -> None:
    inputs = workers["EmptyLatentImage"]["input"]["required"]
    inputs["frames"] = ["INT", {"min": 1}]
    del inputs["batch_size"]
    told = {kind: severity for kind, severity, _ in found(version(), workers)}
    assert told == {Kind.INPUT_MISSING: Severity.BREAKS, Kind.INPUT_UNKNOWN: Severity.WARNS}


def test_a_class_that_may_take_any_input_has_none_too_many(workers: dict[str, Any]) -> None:
    workers["EmptyLatentImage"]["input"]["optional"] = {}
    del workers["EmptyLatentImage"]["input"]["required"]["batch_size"]
    assert found(version(), workers) == []


@pytest.mark.parametrize(("link", "says"), [(["4", 7], "7"), (["4", 2], "VAE"), (["77", 0], "77")])
def test_a_link_that_no_longer_fits(workers: dict[str, Any], link: list[Any], says: str) -> None:
    one = only(version(graph(node_6={"clip": link})), workers)
    assert (one.kind, one.breaks, one.node_id, one.input_name) == (Kind.LINK, True, "6", "clip")
    assert says in one.message


def test_an_output_that_has_become_another_type(workers: dict[str, Any]) -> None:
    workers["CheckpointLoaderSimple"]["output"] = ["MODEL", "TEXT_ENCODER", "VAE"]
    assert only(version(), workers).kind is Kind.LINK


def test_a_model_that_is_gone_is_named_with_its_folder_and_how_it_comes(workers: dict[str, Any]) -> None:
    workers["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = combo("other.safetensors")
    one = only(version(), workers)
    assert (one.kind, one.breaks) == (Kind.MODEL, True)
    assert f"checkpoints/{CHECKPOINT}" in one.message
    assert "comfy-serverless models add" in one.message


def test_a_model_only_warns_as_long_as_no_worker_has_said_which_there_are(workers: dict[str, Any]) -> None:
    workers["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = combo()
    assert only(version(), workers, knows_models=False).severity is Severity.WARNS
    assert only(version(), workers).severity is Severity.BREAKS


def test_a_choice_that_is_gone_says_what_may_be_meant(workers: dict[str, Any]) -> None:
    one = only(version(graph(node_3={"sampler_name": "euler_x"})), workers)
    assert (one.kind, one.breaks, one.input_name) == (Kind.CHOICE, True, "sampler_name")
    assert "did you mean 'euler'?" in one.message


@pytest.mark.parametrize(("cfg", "kind"), [(1e9, Kind.RANGE), (-1, Kind.RANGE), ("much", Kind.VALUE)])
def test_a_number_out_of_its_range(workers: dict[str, Any], cfg: object, kind: Kind) -> None:
    assert (one := only(version(graph(node_3={"cfg": cfg})), workers)).kind is kind
    assert one.breaks


def test_a_value_that_callers_have_to_give_is_never_judged(workers: dict[str, Any]) -> None:
    sampler = NamedInput(name="sampler", targets=("3.sampler_name",), kind=InputKind.CHOICE, is_required=True)
    bad = graph(node_3={"sampler_name": "nothing of the kind"})
    assert found(version(bad, inputs=(sampler,)), workers) == []


def test_a_seed_of_minus_one_is_a_number_when_it_runs(workers: dict[str, Any]) -> None:
    workers["KSampler"]["input"]["required"]["luck"] = ["INT", {"min": 0}]
    lucky = NamedInput(name="luck", targets=("3.luck",), kind=InputKind.INTEGER, role=Role.SEED, default=-1)
    assert found(version(graph(node_3={"luck": -1}), inputs=(lucky,)), workers) == []
    assert only(version(graph(node_3={"luck": -1})), workers).kind is Kind.RANGE


def test_a_graph_without_an_output_node_breaks(workers: dict[str, Any]) -> None:
    workers["SaveImage"]["output_node"] = False
    assert only(version(), workers).kind is Kind.OUTPUT


def test_a_named_output_that_shows_nothing_any_more(workers: dict[str, Any]) -> None:
    workers["VAEDecode"]["output_node"] = True
    outputs = (NamedOutput(name="picture", node_id="9"), NamedOutput(name="raw", node_id="8"))
    assert found(version(outputs=outputs), workers) == []
    workers["SaveImage"]["output_node"] = False
    one = only(version(outputs=outputs), workers)
    assert (one.kind, one.breaks, one.name) == (Kind.OUTPUT, True, "picture")
    gone = only(version(outputs=(NamedOutput(name="old", node_id="77"),)), _RECORDED["0.33.0"])
    assert (gone.kind, gone.breaks, gone.name) == (Kind.OUTPUT, True, "old")


def test_a_named_input_whose_target_is_gone_breaks_though_comfyui_takes_the_graph(workers: dict[str, Any]) -> None:
    workers["CLIPTextEncode"]["input"]["required"] = {"clip": ["CLIP"]}
    one = only(version(inputs=(PROMPT,)), workers)
    assert (one.kind, one.breaks, one.name) == (Kind.TARGET, True, "prompt")
    nowhere = NamedInput(name="old", targets=("77.text",), kind=InputKind.TEXT)
    assert only(version(inputs=(nowhere,)), _RECORDED["0.33.0"]).kind is Kind.TARGET


def test_choices_that_callers_know_and_that_changed_warn(workers: dict[str, Any]) -> None:
    choices = tuple(workers["KSampler"]["input"]["required"]["sampler_name"][0])
    named: dict[str, Any] = {"name": "sampler", "targets": ("3.sampler_name",), "kind": InputKind.CHOICE}
    assert found(version(inputs=(NamedInput(**named, choices=choices),)), workers) == []
    more = only(version(inputs=(NamedInput(**named, choices=(*choices, "old_one")),)), workers)
    assert (more.kind, more.severity, more.name) == (Kind.CHOICES, Severity.WARNS, "sampler")
    assert "old_one" in more.message
    assert "new ones" in only(version(inputs=(NamedInput(**named, choices=choices[1:]),)), workers).message
    assert found(version(inputs=(NamedInput(**named, choices=choices[1:], is_narrowed=True),)), workers) == []


def test_a_range_that_has_become_narrower_and_a_type_that_changed_warn(workers: dict[str, Any]) -> None:
    steps = NamedInput(name="steps", targets=("3.steps",), kind=InputKind.INTEGER, minimum=0, maximum=99_999)
    text = NamedInput(name="text", targets=("3.steps",), kind=InputKind.TEXT)
    assert only(version(inputs=(steps,)), workers).kind is Kind.LIMITS
    assert only(version(inputs=(text,)), workers).kind is Kind.TYPE


def test_a_file_that_nobody_has_to_bring_is_told(workers: dict[str, Any]) -> None:
    loading = graph()
    loading["10"] = {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}
    loading["11"] = {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "x"}}
    one = only(version(loading), workers)
    assert (one.kind, one.severity) == (Kind.FILE, Severity.WARNS)
    photo = NamedInput(name="photo", targets=("10.image",), kind=InputKind.FILE, is_required=True)
    assert found(version(loading, inputs=(photo,)), workers) == []
    loading["10"]["inputs"]["image"] = "https://example.org/fox.png"
    assert found(version(loading), workers) == []


def test_what_is_no_graph_is_one_finding(workers: dict[str, Any]) -> None:
    assert only(version({"1": {"inputs": {}}}), workers).kind is Kind.GRAPH


def test_findings_have_an_end_and_the_rest_is_counted(workers: dict[str, Any]) -> None:
    many = {str(n): {"class_type": "SaveImage", "inputs": {}} for n in range(300)}
    told = problems_of(version(many), workers)
    assert len(told) == 201
    assert (told[-1].kind, told[-1].breaks) == (Kind.MORE, True)


def test_inputs_that_come_with_a_choice_are_judged(workers: dict[str, Any]) -> None:
    chosen = [{"key": "png", "inputs": {"required": {"depth": ["INT", {"min": 8, "max": 16}]}}}]
    growing = {"template": {"input": {"required": {"image": ["IMAGE"]}}, "prefix": "image", "min": 1, "max": 2}}
    workers["Saves"] = declared(
        {"images": ["COMFY_AUTOGROW_V3", growing], "format": ["COMFY_DYNAMICCOMBO_V3", {"options": chosen}]}
    )
    whole = graph()
    inputs = {"images.image0": ["8", 0], "format": "png", "format.depth": 8}
    whole["9"] = {"class_type": "Saves", "inputs": inputs}
    assert found(version(whole), workers) == []
    for change, kind in (
        ({"format.depth": 99}, Kind.RANGE),
        ({"format": "tiff"}, Kind.CHOICE),
        ({"images.image2": ["8", 0]}, Kind.INPUT_UNKNOWN),
        ({"images.image0": ["3", 0]}, Kind.LINK),
    ):
        whole["9"]["inputs"] = inputs | change
        assert (kind, True) in [(one.kind, one.breaks) for one in problems_of(version(whole), workers)]
    for name in ("format.depth", "images.image0"):
        whole["9"]["inputs"] = {key: value for key, value in inputs.items() if key != name}
        assert only(version(whole), workers).kind is Kind.INPUT_MISSING
