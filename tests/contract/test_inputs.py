"""Inputs of every kind, from the request to what the nodes see, on the embedded engine or a real ComfyUI."""

from __future__ import annotations

import base64
import io
import math
import os
import sys
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from subprocess import run
from typing import Any

import boto3
import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image

from comfy_serverless import ComfyConnector, Output, Settings
from comfy_serverless.worker.inputs.cache import InputCache
from comfy_serverless.worker.inputs.fetcher import InputFetcher, PreparedInputs
from tests.contract.engines import EngineProcess, free_port
from tests.patience import PATIENCE_S

REAL = bool(os.environ.get("COMFYUI_DIR"))
real_only = pytest.mark.skipif(not REAL, reason="the embedded engine has image nodes only: COMFYUI_DIR=…")

WIDTH, HEIGHT = 24, 16
Pixels = NDArray[np.uint8]
#: Prepares a graph and returns what to run.
Prepare = Callable[..., PreparedInputs]

_VIDEO = """
import sys, av, numpy
with av.open(sys.argv[1], "w", format="mp4") as file:
    stream = file.add_stream("h264", rate=8)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for number in range(8):
        frame = av.VideoFrame.from_ndarray(numpy.full((64, 64, 3), number * 30, numpy.uint8), format="rgb24")
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
"""


class SecondConnector(ComfyConnector):
    """A connector beside the one of this process."""

    _instance = None


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("engine")
    chosen = replace(Settings.from_environment(), initial_port=free_port())
    if not REAL:
        command = f"{sys.executable} -m comfy_lite --base-directory {folder}"
        return replace(chosen, api_command_line=command)
    for name in ("input", "output"):
        (folder / name).mkdir()
    folders = f"--input-directory {folder}/input --output-directory {folder}/output --temp-directory {folder}"
    return replace(chosen, comfyui_args=f"--cpu {folders}")


@pytest.fixture(scope="module")
def connector(settings: Settings) -> Iterator[ComfyConnector]:
    connector = ComfyConnector(settings=settings)
    yield connector
    connector.kill_api()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are taken into the cache."""
    names: list[str] = []
    take = InputCache._take

    def note(cache: InputCache, entry: Any, file: Path) -> None:
        names.append(entry.key.name)
        take(cache, entry, file)

    monkeypatch.setattr(InputCache, "_take", note)
    return names


@pytest.fixture
def fetcher(settings: Settings, connector: ComfyConnector) -> InputFetcher:
    return fetcher_for(settings, connector)


@pytest.fixture
def prepare(fetcher: InputFetcher) -> Iterator[Prepare]:
    with ExitStack() as shown:

        def prepare(graph: Mapping[str, Any], inputs: Mapping[str, str | list[str]]) -> PreparedInputs:
            prepared = fetcher.prepare(graph, inputs, job_id="job", owner="", deadline=time.monotonic() + 60)
            shown.callback(prepared.release)
            prepared.show(math.inf)
            return prepared

        yield prepare


def fetcher_for(settings: Settings, connector: ComfyConnector) -> InputFetcher:
    s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="unused", aws_secret_access_key="unused")
    return InputFetcher(settings=settings, s3=s3, connector=connector)


def graph(image: str = "nothing.png", *, with_mask: bool = True) -> dict[str, Any]:
    """Node 12 saves the image that node 10 loads, node 14 its mask."""
    nodes: dict[str, Any] = {
        "10": {"class_type": "LoadImage", "inputs": {"image": image}},
        "12": {"class_type": "SaveImage", "inputs": {"images": ["10", 0], "filename_prefix": "image"}},
    }
    if with_mask:
        nodes["13"] = {"class_type": "MaskToImage", "inputs": {"mask": ["10", 1]}}
        nodes["14"] = {"class_type": "SaveImage", "inputs": {"images": ["13", 0], "filename_prefix": "mask"}}
    return nodes


def noise(*shape: int, seed: int = 7) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(pixels: Pixels, image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format, **options)
    return file.getvalue()


def address(content: bytes, content_type: str = "image/png") -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def decoded(output: Output) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(output.read())).convert("RGB"))


def loaded_and_saved(pixels: Pixels) -> Pixels:
    """The 8-bit values after LoadImage has made them floats, and SaveImage has made them 8-bit again."""
    saved: Pixels = np.clip(255.0 * (pixels.astype(np.float32) / 255.0), 0, 255).astype(np.uint8)
    return saved


def mask_saved(mask: Pixels) -> Pixels:
    """The mask after LoadImage has read 255 - mask from alpha, and MaskToImage and SaveImage have saved it."""
    alpha = (255 - mask).astype(np.float32) / 255.0
    gray = np.clip(255.0 * (np.float32(1.0) - alpha), 0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def results(connector: ComfyConnector, prepared: PreparedInputs) -> dict[str, list[Output]]:
    """The outputs by node."""
    found: dict[str, list[Output]] = {}
    try:
        for output in connector.run(prepared.graph, deadline_s=120).outputs:
            found.setdefault(output.node_id, []).append(output)
    finally:
        prepared.release()
    return found


def check_mask(connector: ComfyConnector, prepared: PreparedInputs, *, image: Pixels, mask: Pixels) -> None:
    made = results(connector, prepared)
    np.testing.assert_array_equal(decoded(made["12"][0]), loaded_and_saved(image))
    np.testing.assert_array_equal(decoded(made["14"][0]), mask_saved(mask))


class TestMasks:
    def test_the_alpha_of_an_image_is_its_mask(self, connector: ComfyConnector, prepare: Prepare) -> None:
        pixels = noise(HEIGHT, WIDTH, 4)
        pixels[:4, :, 3] = 0
        prepared = prepare(graph(), {"10.image": address(encoded(pixels))})
        check_mask(connector, prepared, image=pixels[..., :3], mask=255 - pixels[..., 3])

    def test_a_gray_mask_becomes_exactly_the_mask_and_no_colour_is_lost_under_it(
        self, connector: ComfyConnector, prepare: Prepare
    ) -> None:
        image, mask = noise(HEIGHT, WIDTH, 3), noise(HEIGHT, WIDTH, seed=8)
        mask[:4], mask[-4:] = 255, 0
        prepared = prepare(graph(), {"10.image": address(encoded(image)), "10.mask": address(encoded(mask))})
        check_mask(connector, prepared, image=image, mask=mask)

    def test_a_transparent_mask_masks_where_it_is_transparent(
        self, connector: ComfyConnector, prepare: Prepare
    ) -> None:
        image, mask = noise(HEIGHT, WIDTH, 3), noise(HEIGHT, WIDTH, 4, seed=8)
        prepared = prepare(graph(), {"10.image": address(encoded(image)), "10.mask": address(encoded(mask))})
        check_mask(connector, prepared, image=image, mask=255 - mask[..., 3])

    def test_the_mask_of_an_image_takes_the_place_of_its_alpha(
        self, connector: ComfyConnector, prepare: Prepare
    ) -> None:
        image, mask = noise(HEIGHT, WIDTH, 4), noise(HEIGHT, WIDTH, seed=8)
        prepared = prepare(graph(), {"10.image": address(encoded(image)), "LoadImage.mask": address(encoded(mask))})
        check_mask(connector, prepared, image=image[..., :3], mask=mask)

    def test_a_turned_photo_is_upright_under_its_mask(self, connector: ComfyConnector, prepare: Prepare) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # must be turned clockwise
        image, mask = noise(HEIGHT, WIDTH, 3), noise(WIDTH, HEIGHT, seed=8)
        inputs = {"10.image": address(encoded(image, exif=exif)), "10.mask": address(encoded(mask))}
        check_mask(connector, prepare(graph(), inputs), image=np.rot90(image, -1), mask=mask)

    def test_an_image_that_comfyui_has_already_gets_a_mask(self, connector: ComfyConnector, prepare: Prepare) -> None:
        image, mask = noise(HEIGHT, WIDTH, 3, seed=9), noise(HEIGHT, WIDTH, seed=8)
        connector.upload_file(io.BytesIO(encoded(image)), "photo.png", subfolder="mine")
        prepared = prepare(graph("mine/photo.png [input]"), {"10.mask": address(encoded(mask))})
        check_mask(connector, prepared, image=image, mask=mask)


class TestBatches:
    def test_several_images_are_one_batch_in_their_order(self, connector: ComfyConnector, prepare: Prepare) -> None:
        images = [noise(HEIGHT, WIDTH, 3, seed=seed) for seed in (1, 2, 3)]
        prepared = prepare(graph(with_mask=False), {"10.image": [address(encoded(image)) for image in images]})
        made = results(connector, prepared)
        assert set(made) == {"12"}
        for output, image in zip(made["12"], images, strict=True):
            np.testing.assert_array_equal(decoded(output), loaded_and_saved(image))

    def test_a_batch_may_have_as_many_images_as_a_job_may_have_inputs(
        self, connector: ComfyConnector, prepare: Prepare
    ) -> None:
        images = [address(encoded(np.full((2, 2, 3), value, np.uint8))) for value in range(100)]
        made = results(connector, prepare(graph(with_mask=False), {"10.image": images}))
        values = np.arange(100, dtype=np.uint8)
        assert [int(decoded(output)[0, 0, 0]) for output in made["12"]] == list(loaded_and_saved(values))


class TestCache:
    def test_content_that_was_brought_is_not_taken_again(
        self, connector: ComfyConnector, prepare: Prepare, taken: list[str]
    ) -> None:
        source = address(encoded(noise(HEIGHT, WIDTH, 3, seed=20)))
        first = prepare(graph(with_mask=False), {"10.image": source})
        second = prepare(graph(with_mask=False), {"10.image": source})
        assert first.graph == second.graph
        assert len(taken) == 1
        results(connector, first)
        assert "10" in connector.run(second.graph, deadline_s=60).cached_nodes

    def test_a_job_that_comes_back_finds_its_node_cached_although_its_file_was_gone(
        self, connector: ComfyConnector, prepare: Prepare
    ) -> None:
        image = noise(HEIGHT, WIDTH, 3, seed=21)
        first = prepare(graph(with_mask=False), {"10.image": address(encoded(image))})
        results(connector, first)
        assert connector.input_directory is not None
        shown = connector.input_directory / first.graph["10"]["inputs"]["image"]
        first.release()
        assert not shown.exists()
        second = prepare(graph(with_mask=False), {"10.image": address(encoded(image))})
        assert "10" in connector.run(second.graph, deadline_s=60).cached_nodes

    def test_an_engine_elsewhere_is_given_everything_once_too(self, settings: Settings, tmp_path: Path) -> None:
        engine = EngineProcess(tmp_path / "elsewhere")
        connector = SecondConnector(settings=replace(settings, comfyui_url=engine.url))
        try:
            assert connector.input_directory is None
            fetcher = fetcher_for(settings, connector)
            image, mask = noise(HEIGHT, WIDTH, 3, seed=22), noise(HEIGHT, WIDTH, seed=23)
            connector.upload_file(io.BytesIO(encoded(image)), "photo.png", subfolder="mine")
            inputs = {"10.mask": address(encoded(mask))}
            for _ in range(2):
                prepared = fetcher.prepare(
                    graph("mine/photo.png"), inputs, job_id="job", owner="", deadline=time.monotonic() + 60
                )
                check_mask(connector, prepared, image=image, mask=mask)
            files = [path for path in engine.folder("input").rglob("*.png") if path.parent.name == "comfy-serverless"]
            assert len(files) == 1
            uploaded_at = files[0].stat().st_mtime_ns
            fetcher.prepare(graph("mine/photo.png"), inputs, job_id="job", owner="", deadline=time.monotonic() + 60)
            assert files[0].stat().st_mtime_ns == uploaded_at
        finally:
            connector.kill_api()
            engine.close()


@real_only
class TestOtherKinds:
    def test_a_sound_goes_in_and_comes_out(self, connector: ComfyConnector, prepare: Prepare) -> None:
        if not requests.get(f"{connector.server_address}/object_info/LoadAudio", timeout=PATIENCE_S).json():
            pytest.skip("this ComfyUI has no LoadAudio: torchaudio is not installed with it")
        file = io.BytesIO()
        with wave.open(file, "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(noise(8000).tobytes())
        nodes = {
            "1": {"class_type": "LoadAudio", "inputs": {"audio": address(file.getvalue(), "audio/wav")}},
            "2": {"class_type": "SaveAudio", "inputs": {"audio": ["1", 0], "filename_prefix": "sound"}},
        }
        prepared = prepare(nodes, {})
        assert prepared.graph["1"]["inputs"]["audio"].endswith(".wav")
        [output] = results(connector, prepared)["2"]
        assert output.kind.value == "audio"
        content = output.read()
        assert content[:4] == b"fLaC"
        stream_info = int.from_bytes(content[18:26])
        assert (stream_info >> 44, stream_info & (1 << 36) - 1) == (8000, 4000)

    def test_a_video_goes_in_and_comes_out(self, connector: ComfyConnector, prepare: Prepare, tmp_path: Path) -> None:
        path = tmp_path / "clip.mp4"
        run([os.environ.get("COMFYUI_PYTHON", sys.executable), "-c", _VIDEO, str(path)], check=True)
        nodes = {
            "1": {"class_type": "LoadVideo", "inputs": {"file": "nothing.mp4"}},
            "2": {
                "class_type": "SaveVideo",
                "inputs": {"video": ["1", 0], "filename_prefix": "clip", "format": "mp4", "codec": "h264"},
            },
        }
        prepared = prepare(nodes, {"LoadVideo.file": address(path.read_bytes(), "video/mp4")})
        assert prepared.graph["1"]["inputs"]["file"].endswith(".mp4")
        [output] = results(connector, prepared)["2"]
        assert output.kind.value == "video"
        assert output.read()[4:8] == b"ftyp"

    def test_a_latent_goes_in_and_comes_out(self, connector: ComfyConnector, prepare: Prepare) -> None:
        empty = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
        save = {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0], "filename_prefix": "latent"}}
        [made] = results(connector, prepare({"1": empty, "2": save}, {}))["2"]
        load = {"class_type": "LoadLatent", "inputs": {"latent": "nothing.latent"}}
        prepared = prepare({"1": load, "2": save}, {"1.latent": address(made.read(), "application/octet-stream")})
        [output] = results(connector, prepared)["2"]
        assert output.kind.value == "latent"

    def test_a_3d_model_is_where_its_loader_looks(self, connector: ComfyConnector, prepare: Prepare) -> None:
        render = connector.upload_file(io.BytesIO(encoded(noise(HEIGHT, WIDTH, 4))), "render.png")
        renders = dict.fromkeys(("image", "mask", "normal", "lineart"), render) | {
            "recording": "",
            "camera_info": {},
        }
        model = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
        inputs = {"model_file": address(model, "model/obj"), "image": renders, "width": 64, "height": 64}
        nodes = {
            "1": {"class_type": "Load3D", "inputs": inputs},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "model"}},
        }
        assert set(results(connector, prepare(nodes, {}))) == {"2"}
