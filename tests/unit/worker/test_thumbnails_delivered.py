"""Thumbnails beside the outputs of a job: where they stand, who names them, and that no job fails or waits for one."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.jobs.document import Output
from comfy_serverless.jobs.keys import KeyAllotment
from comfy_serverless.settings import Settings
from comfy_serverless.worker import thumbnails as module
from comfy_serverless.worker.delivery import Delivery
from comfy_serverless.worker.leftovers import FilesInUse, Leftovers
from comfy_serverless.worker.thumbnails import PATIENCE_S, Thumbnail, Thumbnails, libraries_of
from tests.patience import PATIENCE_S as LONG_S
from tests.patience import QuietClock
from tests.unit.fakes import OUT, made, png
from tests.unit.picture_files import png_claiming

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.connector.outputs import Output as Made

WEBP = b"RIFF\x04\0\0\0WEBP"


@pytest.fixture
def thumbnails(s3: S3Client) -> Iterator[Thumbnails]:
    with closing(Thumbnails(s3)) as made_by:
        yield made_by


@contextmanager
def delivery(s3: S3Client, thumbnails: Thumbnails | None, **changes: Any) -> Iterator[Delivery]:
    with ThreadPoolExecutor(4) as pool:
        fields: dict[str, Any] = {
            "job_id": "j",
            "owner": "",
            "keys": KeyAllotment("out", "j"),
            "s3": s3,
            "bucket": OUT,
            "pool": pool,
            "leftovers": Leftovers(FilesInUse(), job_id="j"),
            "thumbnails": thumbnails,
        }
        yield Delivery(**{**fields, **changes})


def delivered(s3: S3Client, thumbnails: Thumbnails | None, outputs: list[Made], **changes: Any) -> list[Output]:
    with delivery(s3, thumbnails, **changes) as at_work:
        done, undelivered = at_work.finish(outputs, timeout_s=LONG_S)
    assert undelivered == []
    return [one.output for one in done]


def keys(s3: S3Client) -> list[str]:
    return sorted(entry["Key"] for entry in s3.list_objects_v2(Bucket=OUT).get("Contents", ()))


def blocked(patch: pytest.MonkeyPatch, thumbnails: Thumbnails) -> threading.Event:
    """Have every thumbnail wait for the event."""
    event = threading.Event()

    def wait(*_: object, **__: object) -> bytes:
        assert event.wait(LONG_S)
        return WEBP

    patch.setattr(thumbnails._sandbox, "make_thumbnail", wait)
    return event


def test_a_picture_has_a_small_one_beside_it_which_is_no_output(s3: S3Client, thumbnails: Thumbnails) -> None:
    (output,) = delivered(s3, thumbnails, [made("a.png", png(800, 200))])
    assert output.s3_uri == f"s3://{OUT}/out/j/9/a.png"
    assert output.thumb_uri == f"s3://{OUT}/out/j/9/thumbs/a.png.webp"
    stored = s3.get_object(Bucket=OUT, Key="out/j/9/thumbs/a.png.webp")
    assert stored["ContentType"] == "image/webp"
    assert Image.open(io.BytesIO(stored["Body"].read())).size == (384, 96)
    assert s3.get_object(Bucket=OUT, Key="out/j/9/a.png")["Body"].read() == png(800, 200)
    assert keys(s3) == ["out/j/9/a.png", "out/j/9/thumbs/a.png.webp"]


@pytest.mark.parametrize(
    "name", ["a.txt", "a.svg", "a.wav", "a.json", "a.latent", "a.glb", "a.exr", "a.bin", "a.html", "a"]
)
def test_what_is_no_picture_and_no_video_is_not_even_looked_at(
    s3: S3Client, thumbnails: Thumbnails, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(thumbnails._sandbox, "make_thumbnail", lambda *arguments, **_: asked.append(arguments))
    (output,) = delivered(s3, thumbnails, [made(name, png())])
    assert output.thumb_uri is None
    assert asked == []


def test_no_output_can_take_the_place_of_a_thumbnail(s3: S3Client, thumbnails: Thumbnails) -> None:
    names = [
        ("a.png", "9", ""),
        ("a.png.webp", "9", ""),
        ("thumbs/a.png.webp", "9", ""),
        ("a.png.webp", "9/thumbs", ""),
        ("a.png.webp", "thumbs", "9"),
        ("a.png", "9", "thumbs"),
    ]
    outputs = [
        made(name, png(10 + index, 10), node_id=node, subfolder=folder, index=index)
        for index, (name, node, folder) in enumerate(names)
    ]
    done = delivered(s3, thumbnails, outputs)
    originals = [output.s3_uri for output in done]
    thumbs = [output.thumb_uri for output in done]
    assert None not in thumbs
    assert len({*originals, *thumbs}) == 2 * len(names)
    for index, output in enumerate(done):
        assert output.thumb_uri is not None
        key = output.thumb_uri.removeprefix(f"s3://{OUT}/")
        content = s3.get_object(Bucket=OUT, Key=key)["Body"].read()
        assert Image.open(io.BytesIO(content)).size == (10 + index, 10)


def test_the_key_of_a_thumbnail_fits_whatever_the_names() -> None:
    allotment = KeyAllotment("p" * 512, "j" * 64)
    key = allotment.of_thumbnail(allotment.key(made("x" * 400 + ".png", node_id="n" * 400)))
    assert len(key.encode()) <= 1024


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"<svg/>", png_claiming(30_000, 30_000), png()[:40]], ids=range(5)
)
def test_a_picture_that_cannot_be_decoded_is_delivered_without(
    s3: S3Client, thumbnails: Thumbnails, content: bytes
) -> None:
    bad, good = delivered(s3, thumbnails, [made("bad.png", content), made("good.png", index=1)])
    assert bad.thumb_uri is None
    assert good.thumb_uri is not None
    assert keys(s3) == ["out/j/9/bad.png", "out/j/9/good.png", "out/j/9/thumbs/good.png.webp"]


@pytest.mark.parametrize("answer", [b"", b"<script>", b"RIFF....AVI ", WEBP + bytes(2 << 20)], ids=range(4))
def test_what_a_child_answers_that_was_taken_over_is_not_stored(
    s3: S3Client, thumbnails: Thumbnails, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(thumbnails._sandbox, "make_thumbnail", lambda *_, **__: answer)
    (output,) = delivered(s3, thumbnails, [made()])
    assert output.thumb_uri is None
    assert keys(s3) == ["out/j/9/a.png"]


def test_a_pipe_in_the_place_of_a_picture_is_not_waited_for(thumbnails: Thumbnails, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    thumbnail = thumbnails.begin(made(path=tmp_path / "a.png"), S3Address(OUT, "j/9/a.png"), owner="")
    assert thumbnail.address(until=time.monotonic() + LONG_S) is None
    gone = thumbnails.begin(made(path=tmp_path / "gone.png"), S3Address(OUT, "j/9/b.png"), owner="")
    assert gone.address(until=time.monotonic() + LONG_S) is None


def test_a_picture_of_an_engine_elsewhere_has_one_too(s3: S3Client, thumbnails: Thumbnails) -> None:
    class Stream(io.RawIOBase):
        """What comes over HTTP: read once."""

        def __init__(self) -> None:
            self._content = io.BytesIO(png(500, 500))

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self._content.readinto(buffer)

    far = replace(made(), content=None, fetch=lambda: io.BufferedReader(Stream()))
    (output,) = delivered(s3, thumbnails, [far])
    assert output.thumb_uri is not None


def test_a_job_does_not_wait_long_for_a_picture_that_takes_long(
    s3: S3Client, thumbnails: Thumbnails, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Output] = []
    event = blocked(monkeypatch, thumbnails)
    outputs = [made(f"{index}.png", index=index) for index in range(12)]
    with QuietClock() as clock:
        begun = clock()
        done = delivered(s3, thumbnails, outputs, on_delivered=told.append)
        assert clock() - begun < 3 * PATIENCE_S  # once for all of them
    assert [output.thumb_uri for output in done] == [None] * 12
    assert sorted(told, key=lambda output: output.index) == done
    event.set()
    thumbnails._pool.shutdown(wait=True)
    assert len(told) == 12  # a late one is not told again


def test_an_original_is_stored_while_its_thumbnail_is_made_and_both_are_told_once(
    s3: S3Client, thumbnails: Thumbnails, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Output] = []
    event = blocked(monkeypatch, thumbnails)
    with delivery(s3, thumbnails, on_delivered=told.append) as at_work:
        at_work.hand_over(made())
        at_work._pending["out/j/9/a.png"].result(LONG_S)
        assert keys(s3) == ["out/j/9/a.png"]
        assert told == []
        event.set()
        (done,), _ = at_work.finish([made()], timeout_s=LONG_S)
    assert told == [done.output]
    assert done.output.thumb_uri is not None


def test_s3_that_refuses_a_thumbnail_costs_only_that(
    s3: S3Client, thumbnails: Thumbnails, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(params: dict[str, Any], **_: object) -> None:
        if "/thumbs/" in params["Key"]:
            params["Bucket"] = "no-such-bucket"

    s3.meta.events.register("provide-client-params.s3.PutObject", refuse)
    (output,) = delivered(s3, thumbnails, [made()])
    assert output.thumb_uri is None


def test_a_mistake_of_our_own_costs_a_thumbnail_and_is_logged(
    s3: S3Client, thumbnails: Thumbnails, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mistaken(*_: object, **__: object) -> bytes:
        raise KeyError("place")

    monkeypatch.setattr(thumbnails._sandbox, "make_thumbnail", mistaken)
    (output,) = delivered(s3, thumbnails, [made()])
    assert output.thumb_uri is None
    assert "bug: a thumbnail failed" in caplog.text


def test_another_content_under_the_same_name_gets_a_thumbnail_of_its_own(s3: S3Client, thumbnails: Thumbnails) -> None:
    (first,) = delivered(s3, thumbnails, [made("a.png", png(100, 50))])
    (again,) = delivered(s3, thumbnails, [made("a.png", png(100, 50))])
    assert again.thumb_uri == first.thumb_uri
    (other,) = delivered(s3, thumbnails, [made("a.png", png(100, 80))])
    assert other.thumb_uri not in (None, first.thumb_uri)
    assert other.thumb_uri is not None
    assert other.thumb_uri.startswith(f"s3://{OUT}/out/j/9/thumbs/a.png-")


def test_the_jobs_of_many_threads_get_their_own(s3: S3Client, thumbnails: Thumbnails) -> None:
    def run(number: int) -> list[Output]:
        outputs = [made(f"{index}.png", png(10 + number, 10 + index), index=index) for index in range(5)]
        return delivered(s3, thumbnails, outputs, keys=KeyAllotment("", f"job-{number}"))

    with ThreadPoolExecutor(6) as pool:
        for number, outputs in enumerate(pool.map(run, range(6))):
            for index, output in enumerate(outputs):
                if output.thumb_uri is None:  # six jobs at once may be too many for this machine's second
                    continue
                assert output.thumb_uri == f"s3://{OUT}/job-{number}/9/thumbs/{index}.png.webp"
                body = s3.get_object(Bucket=OUT, Key=output.thumb_uri.removeprefix(f"s3://{OUT}/"))["Body"]
                assert Image.open(io.BytesIO(body.read())).size == (10 + number, 10 + index)


def test_without_a_bucket_or_with_the_setting_off_there_is_none(s3: S3Client, thumbnails: Thumbnails) -> None:
    assert delivered(s3, thumbnails, [made()], bucket=None)[0].thumb_uri is None
    assert delivered(s3, None, [made()])[0].thumb_uri is None
    assert Thumbnails.of(Settings.from_environment({"THUMBNAILS": "false"}), s3) is None
    on = Thumbnails.of(Settings(), s3)
    assert on is not None
    on.close()


def test_what_is_settled_first_counts_and_is_told_once() -> None:
    told: list[str | None] = []
    thumbnail = Thumbnail()
    thumbnail.then(told.append)
    assert thumbnail.address(until=0.0) is None
    thumbnail.settle("s3://late")
    assert thumbnail.address(until=time.monotonic() + LONG_S) is None
    assert told == [None]


def test_the_libraries_of_comfyuis_python_are_found_where_they_have_pyav(tmp_path: Path) -> None:
    import sys

    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    settings = Settings(comfyui_python=str(python))
    assert libraries_of(settings) is None
    libraries = tmp_path / f"venv/lib/python3.{sys.version_info.minor}/site-packages"
    (libraries / "av").mkdir(parents=True)
    assert libraries_of(settings) == libraries
    assert libraries_of(Settings(comfyui_dir=tmp_path)) == libraries
    assert libraries_of(Settings()) is None
    assert libraries_of(Settings(comfyui_python="python3")) is None


def test_a_job_of_many_outputs_waits_a_little_longer_and_never_long() -> None:
    assert [round(module.patience_s(count), 2) for count in (1, 10, 100, 100_000)] == [1.03, 1.3, 4.0, 5.0]
