"""Thumbnails by the image's own sandbox, as a user who may start no thread there: root, which tests run as, may.

The image of the embedded engine has no PyAV, and makes no videos; that of ComfyUI has ComfyUI's. Here it has this
environment's, at the place where ComfyUI's would be.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.e2e.lambda_container import SANDBOX, docker

pytestmark = [pytest.mark.container, pytest.mark.timeout(600)]

#: Kinds of files by codec: what ComfyUI, its packs and FFmpeg write most.
VIDEOS = {"h264": "mp4", "hevc": "mp4", "mpeg4": "avi", "libvpx": "webm", "libvpx-vp9": "webm", "ffv1": "mkv"}
#: Whose decoders would take threads for a large picture.
PICTURES = ("png", "jpg", "webp", "avif", "gif", "tiff", "bmp")
LARGE, FRAME = (1600, 1200), (640, 480)
_PROGRAM = """
import json, time
from pathlib import Path
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.settings import Settings
from comfy_serverless.worker.thumbnails import libraries_of
libraries = libraries_of(Settings.from_environment({"COMFYUI_PYTHON": "/comfyui/bin/python"}))
sandbox, made = Sandbox(libraries), {}
for path in Path("/made").iterdir():
    with path.open("rb") as file:
        try:
            is_video, deadline = path.stem != "picture", time.monotonic() + 60
            webp = sandbox.make_thumbnail(file.fileno(), is_video=is_video, deadline=deadline, turn="a", owner="")
            made[path.name] = webp[8:12].decode()
        except Exception as error:
            made[path.name] = repr(error)
print(json.dumps(made))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and videos, in a folder that everybody may read."""
    folder = tmp_path_factory.mktemp("made")
    folder.chmod(0o755)
    noise = Image.effect_noise(LARGE, 60).convert("RGB")
    for ending in PICTURES:
        noise.save(folder / f"picture.{ending}")
    frame = av.VideoFrame.from_ndarray(np.asarray(noise.resize(FRAME)), format="rgb24")
    for codec, ending in VIDEOS.items():
        with av.open(str(folder / f"{codec}.{ending}"), "w") as container:
            stream = container.add_stream(codec, rate=8)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = *FRAME, "yuv420p"
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return folder


def test_every_kind_of_picture_and_video_has_one(lite_image: str, made: Path, tmp_path: Path) -> None:
    packages = Path(av.__file__).parents[1]
    theirs = "/comfyui/lib/python3.11/site-packages"
    (python := tmp_path / "python").touch(mode=0o755)  # nobody starts it
    mounts = {
        made: "/made",
        python: "/comfyui/bin/python",
        packages / "av": f"{theirs}/av",
        packages / "av.libs": f"{theirs}/av.libs",
    }
    said = docker(
        *("run", "--rm", *SANDBOX),
        *(word for here, there in mounts.items() for word in ("--volume", f"{here}:{there}:ro")),
        *("--entrypoint", "/opt/worker/bin/python", lite_image, "-c", _PROGRAM),
    )
    assert said, "the program has failed"
    assert json.loads(said) == {path.name: "WEBP" for path in made.iterdir()}
