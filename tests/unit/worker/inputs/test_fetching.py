"""Bringing a job's inputs to ComfyUI: real S3 calls (moto), a real web server, real images."""

from __future__ import annotations

import base64
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from comfy_serverless.errors import AssetUnavailable, DeadlineExceeded, EngineUnavailable, MissingAsset
from tests.patience import PATIENCE_S, QuietClock
from tests.unit.hostile_server import HostileServer
from tests.unit.input_world import InputFolder, Prepare, data_url, graph, name_of, picture

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class TestSources:
    def test_every_kind_of_source_becomes_a_file_in_the_input_folder(
        self, prepare: Prepare, s3: S3Client, server: HostileServer, folder: InputFolder
    ) -> None:
        content = picture()
        s3.put_object(Bucket="inbox", Key="a.png", Body=content)
        for source in (
            "s3://inbox/a.png",
            "S3://inbox/a.png",
            server.serve("/whatever.exe", content),
            data_url(content),
            data_url(content, "image/png;charset=x"),
            data_url(content, ""),
            data_url(content).replace("+", "%2B").replace("=", "%3D"),
            base64.b64encode(content).decode(),
            base64.urlsafe_b64encode(content).decode().rstrip("="),
            base64.encodebytes(content).decode(),
        ):
            folder.files.clear()
            result = prepare(graph(), {"10.image": source})
            assert result["10"]["inputs"]["image"] == name_of(content), source[:40]
            assert folder.files == {name_of(content): content}

    @pytest.mark.parametrize("key", ["my photo.png", "a+b.png", "Größe/é.png", "100%25.png", "a?b#c.png", "x//y.png"])
    def test_a_key_is_taken_as_it_is_written(self, prepare: Prepare, s3: S3Client, key: str) -> None:
        s3.put_object(Bucket="inbox", Key=key, Body=picture())
        assert prepare(graph(), {"10.image": f"s3://inbox/{key}"})["10"]["inputs"]["image"] == name_of(picture())

    def test_addresses_in_file_inputs_of_the_graph_are_fetched_too(
        self, prepare: Prepare, s3: S3Client, folder: InputFolder
    ) -> None:
        s3.put_object(Bucket="inbox", Key="clip.MP4", Body=b"video")
        s3.put_object(Bucket="inbox", Key="song", Body=b"audio", ContentType="audio/flac")
        workflow = graph(image=data_url(picture())) | {
            "20": {"class_type": "LoadVideo", "inputs": {"file": "s3://inbox/clip.MP4"}},
            "21": {"class_type": "CustomLoader", "inputs": {"audio": "s3://inbox/song"}},
        }
        result = prepare(workflow)
        assert result["10"]["inputs"]["image"] == name_of(picture())
        assert result["20"]["inputs"]["file"] == name_of(b"video", ".mp4")
        assert result["21"]["inputs"]["audio"] == name_of(b"audio", ".flac", folder="")
        assert workflow["20"]["inputs"]["file"] == "s3://inbox/clip.MP4"

    def test_texts_and_nodes_that_take_addresses_are_left_alone(self, prepare: Prepare, folder: InputFolder) -> None:
        workflow = graph() | {
            "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "https://a.example/b.png"}},
            "2": {"class_type": "LoadImageFromUrl", "inputs": {"image": "https://a.example/b.png"}},
            "3": {"class_type": "VHS_LoadVideoPath", "inputs": {"video": "https://a.example/b.mp4"}},
            "4": {"class_type": "SaveImage", "inputs": {"filename_prefix": "s3://x/y", "images": ["10", 0]}},
        }
        assert prepare(workflow) == workflow
        assert folder.uploads == 0

    def test_one_source_is_fetched_once_however_often_it_is_used(
        self, prepare: Prepare, server: HostileServer, folder: InputFolder
    ) -> None:
        url = server.serve("/a", picture())
        workflow = graph(image=url) | {"20": {"class_type": "LoadImage", "inputs": {"image": url}}}
        result = prepare(workflow, {"20.image": url})
        assert result["10"]["inputs"]["image"] == result["20"]["inputs"]["image"] == name_of(picture())
        assert (folder.uploads, len(server.requests)) == (1, 1)

    def test_what_the_request_says_wins_and_the_more_specific_address_too(self, prepare: Prepare) -> None:
        red, blue = data_url(picture("red")), data_url(picture("blue"))
        result = prepare(
            graph(image="s3://nowhere/x.png"), {"10.image": blue, "Photo.image": red, "LoadImage.image": red}
        )
        assert result["10"]["inputs"]["image"] == name_of(picture("blue"))

    def test_the_ending_of_a_file_comes_from_a_list_not_from_its_sender(self, prepare: Prepare, s3: S3Client) -> None:
        s3.put_object(Bucket="inbox", Key="evil.html", Body=b"<script>", ContentType="text/html")
        workflow = {"1": {"class_type": "LoadAudio", "inputs": {"audio": "s3://inbox/evil.html"}}}
        assert prepare(workflow)["1"]["inputs"]["audio"] == name_of(b"<script>", ".bin")

    @pytest.mark.parametrize(
        ("content_type", "ending"),
        [("audio/wav", ".wav"), ("audio/mpeg", ".mp3"), ("video/mp4", ".mp4"), ("text/html", ".bin")],
    )
    def test_a_file_without_a_name_gets_the_ending_of_its_type(
        self, prepare: Prepare, content_type: str, ending: str
    ) -> None:
        workflow = {"1": {"class_type": "LoadAudio", "inputs": {"audio": "nothing"}}}
        result = prepare(workflow, {"1.audio": data_url(b"sound", content_type)})
        assert result["1"]["inputs"]["audio"].endswith(ending)

    def test_files_are_fetched_at_the_same_time(self, prepare: Prepare, server: HostileServer) -> None:
        together = threading.Barrier(4, timeout=PATIENCE_S)
        for number in range(4):
            content = picture(size=(number + 1, 1))
            server.serve(f"/{number}", content)
            answer = server.answers[f"/{number}"]

            def wait_for_the_others(request: Any, answer: Any = answer) -> None:
                together.wait()
                answer(request)

            server.answers[f"/{number}"] = wait_for_the_others
        workflow = {
            str(number): {"class_type": "LoadImage", "inputs": {"image": server.url(f"/{number}")}}
            for number in range(4)
        }
        assert len({node["inputs"]["image"] for node in prepare(workflow).values()}) == 4

    def test_a_connection_that_broke_off_is_tried_again(self, prepare: Prepare, server: HostileServer) -> None:
        server.serve("/a", picture())
        answer = server.answers["/a"]

        def fail_once(request: Any) -> None:
            server.answers["/a"] = answer
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")

        server.answers["/a"] = fail_once
        assert prepare(graph(image=server.url("/a")))["10"]["inputs"]["image"] == name_of(picture())


class TestTime:
    def test_a_slow_server_is_left_after_the_limit_of_one_input(self, prepare: Prepare, server: HostileServer) -> None:
        with QuietClock() as clock:
            start = clock()
            with pytest.raises(MissingAsset, match="INPUT_TIMEOUT_S"):
                prepare(graph(image=server.drip("/a", b"HTTP/1.1 200 OK\r\n\r\n")), input_timeout_s=0.4)
            assert clock() - start < 5

    def test_the_end_of_the_jobs_time_is_said_to_be_that(self, prepare: Prepare, server: HostileServer) -> None:
        with pytest.raises(DeadlineExceeded, match="before its inputs") as caught:
            prepare(graph(image=server.drip("/a", b"HTTP/1.1 200 OK\r\n\r\n")), within_s=0.4)
        assert "10.image" in caught.value.details["inputs"]

    def test_a_job_without_time_fetches_nothing(self, prepare: Prepare, server: HostileServer) -> None:
        with pytest.raises(DeadlineExceeded):
            prepare(graph(image=server.serve("/a", picture())), within_s=-1)
        assert server.requests == []

    def test_a_graph_without_inputs_needs_no_time(self, prepare: Prepare) -> None:
        assert prepare(graph(), within_s=-1) == graph()


class TestOrder:
    def test_no_temporary_file_is_left_behind(
        self, prepare: Prepare, server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        prepare(graph(image=server.serve("/a", picture())))
        with pytest.raises(MissingAsset):
            prepare(graph(image=server.serve("/b", b"no image")))
        assert list(tmp_path.iterdir()) == []

    def test_a_connector_that_cannot_take_files_is_not_the_inputs_fault(
        self, prepare: Prepare, folder: InputFolder
    ) -> None:
        folder.failure = EngineUnavailable("ComfyUI did not start")
        with pytest.raises(EngineUnavailable):
            prepare(graph(image=data_url(picture())))

    def test_a_full_disk_is_said_to_be_that(self, prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
        real = tempfile.NamedTemporaryFile

        class FullDisk:
            def __init__(self, **options: Any) -> None:
                self._file = real(**options)
                self.name = self._file.name

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                self._file.close()

            def write(self, _: bytes) -> int:
                raise OSError(28, "No space left on device")

            def __getattr__(self, name: str) -> Any:
                return getattr(self._file, name)

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", FullDisk)
        with pytest.raises(AssetUnavailable, match="No space left on device"):
            prepare(graph(image=data_url(picture())))

    def test_a_name_with_every_character_survives_the_way_to_the_server(
        self, prepare: Prepare, server: HostileServer
    ) -> None:
        path = quote("/Größe +&;=,'()!*~ 100%.png")
        server.serve(path, picture())
        assert prepare(graph(image=server.url(path)))["10"]["inputs"]["image"] == name_of(picture())
