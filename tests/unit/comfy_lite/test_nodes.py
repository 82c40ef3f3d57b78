"""The nodes of comfy_lite, executed without an engine: what ComfyUI made of the same workflows, paths, the stand-in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfy_lite.node import Directories, NodeResult
from comfy_lite.nodes import ALL
from comfy_lite.nodes.load import resolve
from comfy_lite.nodes.painting import Motif, paint, signed
from comfy_lite.nodes.pixels import to_pillow
from comfy_lite.nodes.resample import resize
from comfy_lite.nodes.save import SavePlace
from tests.contract.node_cases import CASES, INPUTS, NODES
from tests.contract.node_runners import Expectations, FakeContext, InProcessRunner, difference

PICTURE = np.full((1, 6, 8, 3), 0.25, np.float32)


@pytest.fixture(scope="module")
def expectations() -> Expectations:
    return Expectations()


@pytest.fixture
def context(tmp_path: Path) -> FakeContext:
    folders = Directories(input=tmp_path / "input", output=tmp_path / "output", temp=tmp_path / "temp")
    for folder in (folders.input, folders.output, folders.temp):
        folder.mkdir()
    return FakeContext(folders, {"1": {"class_type": "SaveImage", "inputs": {}}})


def execute(context: FakeContext, node: str, **inputs: Any) -> NodeResult:
    return ALL[node].execute(context, **inputs)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("node", NODES)
def test_a_node_makes_what_comfyui_made(node: str, tmp_path: Path, expectations: Expectations) -> None:
    runner = InProcessRunner(tmp_path)
    cases = [case for case in CASES if case.node == node]
    assert cases
    for case in cases:
        assert difference(runner.run(case), expectations.of(case), case.name) <= 1


def test_every_node_is_compared_with_comfyui_or_belongs_to_the_stand_in() -> None:
    stand_in = {"CheckpointLoaderSimple", "CLIPTextEncode", "EmptyLatentImage"} | {
        "KSampler",
        "KSamplerAdvanced",
        "VAEDecode",
        "VAEEncode",
    }
    assert set(ALL) == set(NODES) | stand_in


class TestWhereFilesAreSaved:
    def save(self, context: FakeContext, prefix: str, count: int = 1) -> list[str]:
        result = execute(context, "SaveImage", images=PICTURE.repeat(count, 0), filename_prefix=prefix)
        assert result.ui is not None
        return [f"{file['subfolder']}|{file['filename']}" for file in result.ui["images"]]

    def test_counters_continue_from_the_highest_on_disk(self, context: FakeContext) -> None:
        (context.directories.output / "a_00041_.png").touch()
        (context.directories.output / "a_00003_.webp").touch()
        (context.directories.output / "a_b_00099_.png").touch()
        (context.directories.output / "a_photo.png").touch()
        assert self.save(context, "a", 2) == ["|a_00042_.png", "|a_00043_.png"]
        assert self.save(context, "a") == ["|a_00044_.png"]
        assert self.save(context, "a_b") == ["|a_b_00100_.png"]

    def test_a_prefix_may_name_subfolders(self, context: FakeContext) -> None:
        assert self.save(context, "x/y/name") == ["x/y|name_00001_.png"]
        assert (context.directories.output / "x/y/name_00001_.png").is_file()

    def test_variables_in_a_prefix_are_filled_in(self, context: FakeContext) -> None:
        assert self.save(context, "%width%x%height%_%batch_num%", 2) == ["|8x6_0_00001_.png", "|8x6_1_00002_.png"]
        [saved] = self.save(context, "%year%-%month%-%day%_%hour%%minute%%second%")
        assert "%" not in saved

    @pytest.mark.parametrize("prefix", ["../out", "a/../../out", "/etc/out"])
    def test_a_prefix_may_not_lead_out_of_the_folder(self, context: FakeContext, prefix: str) -> None:
        with pytest.raises(Exception, match="outside the output folder"):
            self.save(context, prefix)
        assert list(context.directories.output.parent.glob("out*")) == [context.directories.output]

    def test_an_absolute_prefix_inside_the_folder_is_allowed(self, context: FakeContext) -> None:
        folder = context.directories.output
        place = SavePlace.find(folder, str(folder / "sub/name"), width=1, height=1)
        assert (place.folder, place.file_name(0, "png")) == (folder / "sub", "name_00001_.png")

    def test_previews_go_to_the_temp_folder_under_names_of_their_own(self, context: FakeContext) -> None:
        names = set()
        for _ in range(3):
            shown = execute(context, "PreviewImage", images=PICTURE).ui
            assert shown is not None
            [file] = shown["images"]
            assert file["type"] == "temp"
            names.add(file["filename"])
        assert {path.name for path in context.directories.temp.iterdir()} == names
        assert len(names) == 3


def test_saved_images_carry_the_prompt_and_the_clients_workflow(context: FakeContext) -> None:
    context.extra_pnginfo = MappingProxyType({"workflow": {"title": "ü"}})
    execute(context, "SaveImage", images=PICTURE, filename_prefix="a")
    with Image.open(context.directories.output / "a_00001_.png") as picture:
        assert json.loads(picture.info["prompt"]) == context.prompt
        assert json.loads(picture.info["workflow"]) == {"title": "ü"}


class TestWhichFilesAreLoaded:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("a.png", "input/a.png"),
            ("sub/a.png", "input/sub/a.png"),
            ("a.png [input]", "input/a.png"),
            ("a.png [output]", "output/a.png"),
            ("sub/a.png [temp]", "temp/sub/a.png"),
            ("sub/../a.png", "input/a.png"),
            ("../output/a.png", None),
            ("../inputs/a.png", None),
            ("/etc/passwd", None),
            ("/etc/passwd [temp]", None),
        ],
    )
    def test_a_name_means_a_file_inside_its_folder(self, context: FakeContext, name: str, expected: str | None) -> None:
        path = resolve(context.directories, name)
        assert path == (context.directories.input.parent / expected if expected else None)

    def test_a_file_that_is_missing_or_outside_is_refused(self, context: FakeContext) -> None:
        validate = ALL["LoadImage"].validate
        assert validate is not None
        (context.directories.input / "a.png").touch()
        assert validate(context.directories, "a.png") is None
        assert validate(context.directories, "b.png") == "Invalid image file: b.png"
        assert validate(context.directories, "/etc/passwd") == "Invalid image file: /etc/passwd"

    def test_the_fingerprint_is_that_of_the_bytes(self, context: FakeContext) -> None:
        fingerprint = ALL["LoadImageMask"].fingerprint
        assert fingerprint is not None
        (context.directories.input / "a.png").write_bytes(b"abc")
        expected = hashlib.sha256(b"abc").hexdigest()
        assert fingerprint(context.directories, image="a.png", channel="red") == expected

    def test_what_is_no_image_is_an_error(self, context: FakeContext) -> None:
        (context.directories.input / "a.png").write_bytes(b"not an image")
        with pytest.raises(OSError, match="cannot identify image file"):
            execute(context, "LoadImage", image="a.png")

    def test_pillow_is_strict_again_after_a_truncated_file(self, context: FakeContext) -> None:
        (context.directories.input / "a.png").write_bytes((INPUTS / "truncated.png").read_bytes())
        assert execute(context, "LoadImage", image="a.png").outputs[0].shape == (1, 17, 24, 3)
        with Image.open(INPUTS / "truncated.png") as picture, pytest.raises(OSError, match="truncated"):
            picture.load()


def test_inputs_are_never_changed_in_place(context: FakeContext) -> None:
    image, mask = PICTURE.copy(), np.full((1, 6, 8), 0.5, np.float32)
    execute(
        context, "ImageCompositeMasked", destination=image, source=1 - image, x=1, y=1, resize_source=False, mask=mask
    )
    execute(context, "FeatherMask", mask=mask, left=3, top=3, right=3, bottom=3)
    execute(context, "GrowMask", mask=mask, expand=2, tapered_corners=True)
    execute(context, "ImageBlur", image=image, blur_radius=2, sigma=1.0)
    assert np.array_equal(image, PICTURE)
    assert np.all(mask == 0.5)


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(8, 6), (3, 2), (200, 90), (1, 1)])
def test_white_stays_white_and_black_stays_black(method: str, size: tuple[int, int]) -> None:
    for value in (0.0, 1.0):
        resized = resize(np.full((2, 6, 8, 3), value, np.float32), *size, method=method)
        assert resized.shape == (2, size[1], size[0], 3)
        assert resized.dtype == np.float32
        assert np.allclose(resized, value, atol=1e-5)


class TestTheStandIn:
    def run(self, context: FakeContext, *, seed: int = 1234, steps: int = 5, size: int = 64, batch: int = 1) -> Any:
        model, clip, vae = execute(context, "CheckpointLoaderSimple", ckpt_name="x").outputs
        [positive] = execute(context, "CLIPTextEncode", text="a photo of a dog", clip=clip).outputs
        [negative] = execute(context, "CLIPTextEncode", text="cat", clip=clip).outputs
        [empty] = execute(context, "EmptyLatentImage", width=size, height=size, batch_size=batch).outputs
        [latent] = execute(
            context,
            "KSampler",
            model=model,
            seed=seed,
            steps=steps,
            cfg=7.0,
            sampler_name="euler",
            scheduler="karras",
            positive=positive,
            negative=negative,
            latent_image=empty,
            denoise=1.0,
        ).outputs
        [image] = execute(context, "VAEDecode", samples=latent, vae=vae).outputs
        return image

    def test_it_reports_every_step_with_a_preview(self, context: FakeContext) -> None:
        self.run(context, steps=5)
        assert context.progress == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
        assert len(context.previews) == 5

    def test_the_same_request_gives_the_same_picture_and_another_seed_another(self, context: FakeContext) -> None:
        first, again, other = self.run(context), self.run(context), self.run(context, seed=2**64 - 1)
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_each_picture_of_a_batch_is_another(self, context: FakeContext) -> None:
        images = self.run(context, batch=3)
        assert images.shape == (3, 64, 64, 3)
        assert not np.array_equal(images[0], images[1])
        assert np.array_equal(images[:1], self.run(context))

    def test_the_picture_is_the_same_on_every_machine(self) -> None:
        levels = np.asarray(to_pillow(paint(Motif("a photo of a dog", 1234, 5), 16, 16)))
        expected = [[86, 135, 150], [127, 119, 94], [10, 23, 30]]
        assert np.abs(levels[[2, 8, 15], [3, 8, 12]].astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("size", [(16, 16), (64, 64), (96, 240), (512, 512)])
    def test_every_picture_says_that_no_model_was_run(self, size: tuple[int, int]) -> None:
        width, height = size
        grey = np.full((height, width, 3), 0.5, np.float32)
        band = signed(grey, ("text", "seed 1"))[-height // 8 :]
        assert band.max() > 0.6
        assert band.min() < 0.2

    def test_any_text_can_be_painted_and_written(self) -> None:
        for text in ("", "\ud800", "中文 ✓ ä", "long " * 4000):
            assert signed(paint(Motif(text, 0, 1), 24, 24), (text, text)).shape == (24, 24, 3)

    def test_sizes_are_cut_to_multiples_of_eight(self, context: FakeContext) -> None:
        assert self.run(context, size=71).shape == (1, 64, 64, 3)
        [latent] = execute(context, "VAEEncode", pixels=np.zeros((1, 21, 40, 3), np.float32), vae=None).outputs
        assert latent.pixels.shape == (1, 16, 40, 3)

    def test_no_steps_leave_the_latent_as_it_is(self, context: FakeContext) -> None:
        [latent] = execute(context, "VAEEncode", pixels=PICTURE.repeat(2, 1).repeat(2, 2)[:, :8], vae=None).outputs
        [positive] = execute(context, "CLIPTextEncode", text="", clip=None).outputs
        [same] = execute(
            context,
            "KSamplerAdvanced",
            noise_seed=1,
            steps=5,
            positive=positive,
            latent_image=latent,
            start_at_step=5,
            end_at_step=10000,
        ).outputs
        weightless = {"seed": 1, "steps": 5, "positive": positive, "latent_image": latent, "denoise": 0.0}
        assert same is latent
        assert execute(context, "KSampler", **weightless).outputs == (latent,)
        assert context.progress == []

    def test_it_takes_its_time(self, context: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr("comfy_lite.nodes.text_to_image.time.sleep", pauses.append)
        context.step_s = 0.25
        self.run(context, steps=3)
        assert pauses == [0.25, 0.25, 0.25]
