"""Inputs that cannot be used: what is said about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.stub import Stubber

from comfy_serverless.errors import AssetUnavailable, ComfyError, InvalidWorkflow, MissingAsset
from comfy_serverless.worker.inputs.plan import MAX_INPUTS
from tests.unit.hostile_server import HostileServer
from tests.unit.input_world import InputFolder, Prepare, data_url, graph, name_of, picture

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def reason(caught: pytest.ExceptionInfo[ComfyError], address: str = "10.image") -> str:
    reason: str = caught.value.details["inputs"][address]
    assert reason in caught.value.message
    return reason


def two_loaders() -> dict[str, Any]:
    return graph() | {"20": {"class_type": "LoadImage", "inputs": {"image": "example.png"}}}


class TestRefusals:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("photo.png", "file name or a word, and no upload of yours has this name; send an s3://"),
            ("photo", "file name or a word"),
            ("", "file name or a word"),
            ("C:\\photos\\a.png", "file name or a word"),
            ("c:/photos/a", "file name or a word"),
            ("file:///etc/passwd", "file: addresses are not accepted"),
            ("gs://bucket/key", "gs: addresses are not accepted"),
            ("s3:/inbox/a.png", "form s3://bucket/key"),
            ("s3://inbox", "names no object in its bucket: it must be s3://BUCKET/KEY"),
            ("s3://inbox/", "names no object in its bucket"),
            ("S3:///a.png", "names no bucket: it must be s3://BUCKET/KEY"),
            ("s3://In_box!/a", "form s3://bucket/key"),
            ("s3://inbox/folder/", "names a folder"),
            ("s3://inbox/" + "ä" * 600, "key of more than 1024 bytes"),
            ("s3://inbox/\ud800", "form s3://bucket/key"),
            ("data:image/png,abc", "must be base64"),
            ("data:image/png;base64", "must be base64"),
            ("data:image/png;base64,a*b" + "A" * 40, "not valid base64"),
            ("data:image/png;base64,A", "not valid base64"),
            ("data:image/png;base64,", "is empty"),
            ("data:image/png;base64,AAAAAAAA", "is not an image"),
            ("ä" * 50, "not valid base64"),
            (data_url(b"<svg/>", "image/svg+xml"), "SVG"),
            (data_url(picture(image_format="WEBP")[:30]), "truncated or damaged"),
        ],
    )
    def test_what_cannot_be_understood_says_what_is_accepted(
        self, prepare: Prepare, folder: InputFolder, source: str, message: str
    ) -> None:
        with pytest.raises(MissingAsset, match=r"10\.image \(node 10 input 'image'\)") as caught:
            prepare(graph(), {"10.image": source})
        assert message in reason(caught)
        assert caught.value.code == "missing_asset"
        assert folder.uploads == 0
        assert len(caught.value.message) < 1000

    def test_objects_and_buckets_that_do_not_exist_are_told_apart(self, prepare: Prepare) -> None:
        inputs = {"10.image": "s3://inbox/a+b.png", "20.image": "s3://nowhere/a.png"}
        with pytest.raises(MissingAsset) as caught:
            prepare(two_loaders(), inputs)
        assert "does not exist (NoSuchKey); keys are written as they are" in reason(caught)
        assert "no bucket 'nowhere'" in reason(caught, "20.image")

    @pytest.mark.parametrize(
        ("code", "status", "message"),
        [
            ("AccessDenied", 403, "s3:GetObject"),
            ("AccessDenied", 403, "Without s3:ListBucket"),
            ("PermanentRedirect", 301, "of another region"),
            ("AuthorizationHeaderMalformed", 400, "of another region"),
            ("InvalidObjectState", 403, "restore it first"),
            ("Strange", 400, "is refused by S3"),
        ],
    )
    def test_the_refusals_of_s3_say_what_to_do(
        self, prepare: Prepare, s3: S3Client, code: str, status: int, message: str
    ) -> None:
        with Stubber(s3) as stub:
            stub.add_client_error("get_object", code, http_status_code=status)
            with pytest.raises(MissingAsset, match=r"s3://inbox/a\.png") as caught:
                prepare(graph(), {"10.image": "s3://inbox/a.png"})
        assert message in reason(caught)

    def test_a_failing_s3_is_tried_again_and_then_the_job_may_be(self, prepare: Prepare, s3: S3Client) -> None:
        with Stubber(s3) as stub:
            for _ in range(3):
                stub.add_client_error("get_object", "SlowDown", http_status_code=503)
            with pytest.raises(AssetUnavailable) as caught:
                prepare(graph(), {"10.image": "s3://inbox/a.png"})
            stub.assert_no_pending_responses()
        assert caught.value.retryable

    def test_only_allowed_buckets_are_read(self, prepare: Prepare, s3: S3Client) -> None:
        s3.create_bucket(Bucket="other")
        s3.put_object(Bucket="inbox", Key="a.png", Body=picture())
        s3.put_object(Bucket="other", Key="a.png", Body=picture())
        assert prepare(graph(), {"10.image": "s3://inbox/a.png"}, allowed_input_buckets=("inbox",))
        with pytest.raises(MissingAsset, match="ALLOWED_INPUT_BUCKETS has inbox"):
            prepare(graph(), {"10.image": "s3://other/a.png"}, allowed_input_buckets=("inbox",))

    def test_private_addresses_and_plain_http_are_refused_unless_allowed(
        self, prepare: Prepare, server: HostileServer
    ) -> None:
        url = server.serve("/a", picture())
        inputs = {"10.image": url, "20.image": url.replace("http:", "https:")}
        with pytest.raises(MissingAsset) as caught:
            prepare(two_loaders(), inputs, allow_private_addresses=False)
        assert "only https" in reason(caught)
        assert "is not allowed: it is at 127.0.0.1" in reason(caught, "20.image")
        assert server.requests == []

    def test_secrets_in_addresses_are_not_told(self, prepare: Prepare, server: HostileServer) -> None:
        url = server.url("/gone.png?X-Amz-Signature=SECRET")
        with pytest.raises(MissingAsset, match=r"/gone\.png\?….* has no such file") as caught:
            prepare(two_loaders(), {"10.image": url, "20.image": "https://me:SECRET@h.example/"})
        assert "SECRET" not in caught.value.message + str(caught.value.details)

    @pytest.mark.parametrize("kind", ["s3", "announced", "endless", "data"])
    def test_files_over_the_limit_are_refused(
        self, prepare: Prepare, s3: S3Client, server: HostileServer, kind: str
    ) -> None:
        content = b"x" * 300_000
        s3.put_object(Bucket="inbox", Key="a", Body=content)
        source = {
            "s3": "s3://inbox/a",
            "announced": server.serve("/a", content),
            "endless": server.endless("/endless"),
            "data": data_url(content),
        }[kind]
        with pytest.raises(MissingAsset, match="MAX_INPUT_BYTES"):
            prepare(graph(), {"10.image": source}, max_input_bytes=200_000)

    def test_the_limit_itself_is_allowed(self, prepare: Prepare) -> None:
        workflow = {"1": {"class_type": "LoadAudio", "inputs": {"audio": data_url(b"x" * 1000, "audio/wav")}}}
        assert prepare(workflow, max_input_bytes=1000)
        with pytest.raises(MissingAsset, match="has 1000 bytes; the limit is 999"):
            prepare(workflow, max_input_bytes=999)

    def test_images_with_too_many_pixels_are_refused(self, prepare: Prepare) -> None:
        with pytest.raises(MissingAsset, match="MAX_INPUT_PIXELS"):
            prepare(graph(image=data_url(picture(size=(100, 100)))), max_input_pixels=9_999)

    def test_all_failures_are_told_together_and_nothing_else_is(self, prepare: Prepare, server: HostileServer) -> None:
        workflow = graph(image=server.url("/gone")) | {
            "20": {"class_type": "LoadImage", "inputs": {"image": server.serve("/html", b"<html>")}},
            "21": {"class_type": "LoadImage", "inputs": {"image": data_url(picture())}},
        }
        with pytest.raises(MissingAsset) as caught:
            prepare(workflow, {"Photo.image": "photo.png"})
        assert set(caught.value.details["inputs"]) == {"Photo.image", "20.image"}

    def test_a_request_for_very_many_files_is_refused(self, prepare: Prepare) -> None:
        workflow = {
            str(number): {"class_type": "LoadAudio", "inputs": {"audio": data_url(b"%d" % number)}}
            for number in range(MAX_INPUTS + 1)
        }
        with pytest.raises(MissingAsset, match="at most 100"):
            prepare(workflow)


class TestAddresses:
    def test_addresses_that_mean_nothing_are_told_together(self, prepare: Prepare) -> None:
        with pytest.raises(InvalidWorkflow) as caught:
            prepare(graph(), {"10.imag": "x", "99.image": "x", "10.image": data_url(picture())})
        assert "did you mean '10.image'" in caught.value.details["inputs"]["10.imag"]
        assert set(caught.value.details["inputs"]) == {"10.imag", "99.image"}

    def test_a_connected_input_is_not_overwritten_with_a_file_name(self, prepare: Prepare) -> None:
        with pytest.raises(InvalidWorkflow, match="is connected to node '10'"):
            prepare(graph(), {"11.image": data_url(picture())})


def test_an_input_that_comfyui_elsewhere_does_not_take_is_named_as_its_sender_knows_it(
    prepare: Prepare, folder: InputFolder
) -> None:
    content = picture()
    name = name_of(content, folder="")
    folder.upload_failure = MissingAsset(f"{name} has 110,000,000 bytes, and the ComfyUI takes at most 104,857,600")
    with pytest.raises(
        MissingAsset, match=r"10\.image \(node 10 input 'image'\) from data:.*: has 110,000,000 by"
    ) as raised:
        prepare(graph(), {"10.image": data_url(content)})
    assert name not in raised.value.message
