"""Keys, verified uploads, and replies that always fit."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tempfile
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.exceptions import ProtocolError

from comfy_serverless.aws.presign import LinkSigner
from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import NodeExecutionError
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES, Job, JobError
from comfy_serverless.jobs.keys import KeyAllotment, safe_name
from comfy_serverless.settings import Settings
from comfy_serverless.worker.delivery import Delivery, delivery_error
from comfy_serverless.worker.leftovers import FilesInUse, Leftovers
from comfy_serverless.worker.put import PART_BYTES, ChecksumMismatch, Digest, KeyTaken, digest, pixels, upload
from comfy_serverless.worker.replies import Replies, choose_inline, inline_bytes
from comfy_serverless.worker.worker import Outcome
from tests.patience import PATIENCE_S
from tests.unit.fakes import OUT, made, png
from tests.unit.jobs.test_request import job, output

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ADDRESS = S3Address(OUT, "a/b.bin")


# Keys


def test_a_key_is_prefix_job_node_and_name() -> None:
    assert KeyAllotment("out", "job").key(made("a.png")) == "out/job/9/a.png"
    assert KeyAllotment("/out/", "job").key(made("a.png")) == "out/job/9/a.png"
    assert KeyAllotment("", "job").key(made("a.png")) == "job/9/a.png"


def test_the_same_name_in_two_folders_is_two_keys() -> None:
    keys = KeyAllotment("", "job")
    assert keys.key(made("a.tar.gz")) == "job/9/a.tar.gz"
    assert keys.key(made("a.tar.gz", subfolder="x", index=1)) == "job/9/a.tar-2.gz"
    assert keys.key(made("a.tar.gz")) == "job/9/a.tar.gz"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("..", "__"),
        ("", "_"),
        ("a\\b\x00c\n.png", "a_b_c_.png"),
        ("Größe 1.png", "Größe 1.png"),
        ("\ud800.png", "_.png"),
        ("x" * 500 + ".png", "x" * 146 + ".png"),
        ("a?b#c%d.png", "a_b_c_d.png"),
    ],
)
def test_names_from_workflows_are_made_harmless(name: str, safe: str) -> None:
    assert safe_name(name) == safe


names = st.text(max_size=300) | st.sampled_from(["a.png", "../a.png", "a/a.png", "a_a.png", ".", "result.json"])


@given(st.lists(st.tuples(names, names, st.integers(0, 3), names), max_size=20))
def test_keys_are_harmless_short_and_never_shared(outputs: list[tuple[str, str, int, str]]) -> None:
    keys = KeyAllotment("p" * 512, "j" * 64)
    made_outputs = {
        made(name, b"", node_id=node, index=index, subfolder=folder) for name, node, index, folder in outputs
    }
    allotted = [keys.key(made_output) for made_output in made_outputs]
    assert len(set(allotted)) == len(made_outputs)
    for key in allotted:
        parts = key.split("/")
        assert len(parts) == 4
        assert not {"", ".", ".."} & set(parts)
        assert key.isprintable()
        assert len(key.encode()) <= 1024
        assert key != keys.result_key


# Uploads


def stored(s3: S3Client) -> bytes:
    return s3.get_object(Bucket=OUT, Key="a/b.bin")["Body"].read()


def test_a_small_file_is_sent_at_once_with_its_checksum(s3: S3Client) -> None:
    sent: list[dict[str, Any]] = []
    s3.meta.events.register("provide-client-params.s3.PutObject", lambda params, **_: sent.append(dict(params)))
    answer = upload(s3, io.BytesIO(b"hello"), ADDRESS, content_type="text/plain")
    assert answer == Digest(5, hashlib.sha256(b"hello").hexdigest(), None)
    assert base64.b64decode(sent[0]["ChecksumSHA256"]) == hashlib.sha256(b"hello").digest()
    assert stored(s3) == b"hello"
    assert s3.head_object(Bucket=OUT, Key="a/b.bin")["ContentType"] == "text/plain"


@pytest.mark.parametrize("extra", [0, 1, 5_000_000])
def test_a_large_file_is_sent_in_parts(s3: S3Client, extra: int) -> None:
    content = bytes(range(256)) * (PART_BYTES // 256) + b"x" * extra
    answer = upload(s3, io.BytesIO(content), ADDRESS, content_type="video/mp4")
    assert (answer.size_bytes, answer.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert stored(s3) == content


def test_a_stream_that_hands_out_little_is_read_whole(s3: S3Client) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 1000))

    assert upload(s3, Slow(b"x" * 5000), ADDRESS, content_type="text/plain").size_bytes == 5000
    assert stored(s3) == b"x" * 5000


@pytest.mark.parametrize("size", [5, PART_BYTES + 5], ids=["at once", "in parts"])
def test_a_stream_that_can_be_read_only_once_is_stored_and_leaves_no_file(
    s3: S3Client, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Once(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation("seek")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert upload(s3, Once(b"x" * size), ADDRESS, content_type="text/plain").size_bytes == size
    assert stored(s3) == b"x" * size
    assert not list(tmp_path.iterdir())


def test_a_wrong_checksum_in_the_answer_is_an_error(s3: S3Client) -> None:
    s3.meta.events.register("after-call.s3.PutObject", lambda parsed, **_: parsed.update(ChecksumSHA256="AAAA"))
    with pytest.raises(ChecksumMismatch, match=r"a/b\.bin"):
        upload(s3, io.BytesIO(b"hello"), ADDRESS, content_type="text/plain")


def test_where_the_answer_has_no_checksum_the_size_is_compared(s3: S3Client) -> None:
    s3.meta.events.register("after-call.s3.PutObject", lambda parsed, **_: parsed.pop("ChecksumSHA256", None))
    upload(s3, io.BytesIO(b"hello"), ADDRESS, content_type="text/plain")
    s3.meta.events.register("after-call.s3.HeadObject", lambda parsed, **_: parsed.update(ContentLength=4))
    with pytest.raises(ChecksumMismatch, match="4 bytes after 5"):
        upload(s3, io.BytesIO(b"hello"), S3Address(OUT, "a/c.bin"), content_type="text/plain")


@pytest.mark.parametrize("size", [5, PART_BYTES + 5], ids=["at once", "in parts"])
def test_bytes_that_stand_there_already_count_as_stored(s3: S3Client, size: int) -> None:
    first = upload(s3, io.BytesIO(b"x" * size), ADDRESS, content_type="text/plain")
    assert upload(s3, io.BytesIO(b"x" * size), ADDRESS, content_type="text/plain") == first


@pytest.mark.parametrize("size", [5, PART_BYTES + 5], ids=["at once", "in parts"])
def test_other_bytes_are_never_replaced(s3: S3Client, size: int) -> None:
    upload(s3, io.BytesIO(b"x" * size), ADDRESS, content_type="text/plain")
    with pytest.raises(KeyTaken):
        upload(s3, io.BytesIO(b"y" * size), ADDRESS, content_type="text/plain")
    assert stored(s3) == b"x" * size
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=OUT)


def test_an_upload_whose_completion_got_no_answer_has_been_completed(s3: S3Client) -> None:
    complete = s3.complete_multipart_upload

    def complete_twice(**request: Any) -> Any:
        complete(**request)
        raise ClientError({"Error": {"Code": "NoSuchUpload"}}, "CompleteMultipartUpload")

    with patch.object(s3, "complete_multipart_upload", complete_twice):
        stored_now = upload(s3, io.BytesIO(b"x" * (PART_BYTES + 5)), ADDRESS, content_type="video/mp4")
    assert stored_now.size_bytes == PART_BYTES + 5
    assert stored(s3) == b"x" * (PART_BYTES + 5)


def test_an_upload_that_somebody_aborted_is_no_success(s3: S3Client) -> None:
    def gone(**_: Any) -> Any:
        raise ClientError({"Error": {"Code": "NoSuchUpload"}}, "CompleteMultipartUpload")

    with patch.object(s3, "complete_multipart_upload", gone), pytest.raises(ClientError):
        upload(s3, io.BytesIO(b"x" * (PART_BYTES + 5)), ADDRESS, content_type="video/mp4")


def test_an_upload_in_parts_that_fails_leaves_nothing_behind(s3: S3Client) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= PART_BYTES:
                raise OSError("disk")
            return super().read(size)

    with pytest.raises(OSError, match="disk"):
        upload(s3, Broken(b"x" * (PART_BYTES + 10)), ADDRESS, content_type="video/mp4")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=OUT)


def test_the_digest_without_an_upload_is_the_same(s3: S3Client) -> None:
    content = png(6, 2)
    assert digest(io.BytesIO(content), content_type="image/png") == upload(
        s3, io.BytesIO(content), ADDRESS, content_type="image/png"
    )


def test_a_picture_that_was_stored_has_its_size(s3: S3Client) -> None:
    stored = upload(s3, io.BytesIO(png(640, 480)), S3Address(OUT, "a.png"), content_type="image/png")
    assert stored.pixels == digest(io.BytesIO(png(640, 480)), content_type="image/png").pixels == (640, 480)


def test_pixels_come_from_the_header_alone() -> None:
    assert pixels(io.BytesIO(png(640, 480)[:64]), "image/png") == (640, 480)
    assert pixels(io.BytesIO(b"no image"), "image/png") is None
    assert pixels(io.BytesIO(png()), "application/octet-stream") is None


def test_whatever_goes_wrong_with_an_output_costs_that_output_alone(s3: S3Client) -> None:
    def cut() -> BinaryIO:
        raise ProtocolError("the connection was cut")

    lost = replace(made("b.png", index=1), content=None, fetch=cut)
    with ThreadPoolExecutor(1) as pool:
        delivery = Delivery(
            job_id="j",
            owner="",
            keys=KeyAllotment("", "j"),
            s3=s3,
            bucket=None,
            pool=pool,
            leftovers=Leftovers(FilesInUse(), job_id="j"),
        )
        delivered, undelivered = delivery.finish([made("a.png"), lost], timeout_s=PATIENCE_S)
    assert [delivery.output.name for delivery in delivered] == ["a.png"]
    assert "b.png of node 9" in str(undelivered[0])
    assert "ProtocolError: the connection was cut" in str(undelivered[0])


def test_an_upload_that_does_not_end_in_time_is_named(s3: S3Client) -> None:
    is_over = threading.Event()

    def late() -> BinaryIO:
        is_over.wait(PATIENCE_S)
        return io.BytesIO()

    outputs = [
        replace(made(name, index=index), content=None, fetch=late) for index, name in enumerate(("a.png", "b.png"))
    ]
    with ThreadPoolExecutor(1) as pool:
        delivery = Delivery(
            job_id="j",
            owner="",
            keys=KeyAllotment("", "j"),
            s3=s3,
            bucket=None,
            pool=pool,
            leftovers=Leftovers(FilesInUse(), job_id="j"),
        )
        delivered, undelivered = delivery.finish(outputs, timeout_s=0.01)
        is_over.set()
    assert delivered == []
    error = delivery_error(undelivered, of=2)
    assert error.code == "delivery_failed"
    assert "a.png of node 9" in error.message
    assert "2 of 2" in error.message


# Replies

#: Without AWS: the property test makes thousands.
FAKE_LINK = staticmethod(lambda *_: "https://bucket.s3.amazonaws.com/?" + "s" * 900)


def outcome(a_job: Job, contents: dict[str, bytes], *, reply: str = "auto") -> Outcome:
    return Outcome(
        job=a_job,
        error=None,
        has_run=True,
        is_recorded=True,
        reply=reply,  # type: ignore[arg-type]
        made={name: made("x", content) for name, content in contents.items()},
    )


def outputs_of(sizes: list[int], *, in_s3: bool = True, kind: str = "image") -> tuple[Any, dict[str, bytes]]:
    outputs = tuple(
        output(
            id=f"o{n}",
            index=n,
            size_bytes=size,
            sha256=hashlib.sha256(bytes(size)).hexdigest(),
            type=kind,
            s3_uri=f"s3://{OUT}/j/9/{n}.png" if in_s3 else None,
        )
        for n, size in enumerate(sizes)
    )
    return outputs, {f"o{n}": bytes(size) for n, size in enumerate(sizes)}


def replies(s3: S3Client, limit_bytes: int = REPLY_LIMIT_BYTES) -> Replies:
    return Replies(s3, Settings(), limit_bytes=limit_bytes)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10_000)), st.integers(-100, 30_000))
def test_the_smallest_files_go_inline_as_many_as_fit(sizes: dict[str, int], budget: int) -> None:
    chosen = choose_inline(sizes, budget_bytes=budget)
    spent = sum(inline_bytes(sizes[name]) for name in chosen)
    assert spent <= max(budget, 0)
    left = sorted(size for name, size in sizes.items() if name not in chosen)
    if left:
        assert spent + inline_bytes(left[0]) > budget
        assert all(sizes[name] <= left[0] for name in chosen)


def test_small_images_are_inline_and_everything_has_a_link(s3: S3Client) -> None:
    outputs, contents = outputs_of([10, 5_000_000])
    document = replies(s3).write(outcome(job(outputs=outputs), contents))
    small, large = document["outputs"]
    assert base64.b64decode(small["data_base64"]) == bytes(10)
    assert "data_base64" not in large
    assert small["url"].startswith("https://")
    assert large["url_expires_at"] > document["created_at"]


def test_a_link_names_type_and_file_and_expires(s3: S3Client) -> None:
    outputs, contents = outputs_of([10])
    a_job = job(outputs=(outputs[0].model_copy(update={"name": 'Größe "1".png'}),))
    url = replies(s3).write(outcome(a_job, contents, reply="links"))["outputs"][0]["url"]
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert query["response-content-type"] == ["image/png"]
    assert query["response-content-disposition"] == ["inline; filename*=UTF-8''Gr%C3%B6%C3%9Fe%20%221%22.png"]
    assert query["X-Amz-Expires"] == ["3600"]


def test_links_means_no_file_inline(s3: S3Client) -> None:
    outputs, contents = outputs_of([10])
    document = replies(s3).write(outcome(job(outputs=outputs), contents, reply="links"))
    assert "data_base64" not in document["outputs"][0]


def test_auto_leaves_videos_to_their_links_and_inline_does_not(s3: S3Client) -> None:
    outputs, contents = outputs_of([10], kind="video")
    assert "data_base64" not in replies(s3).write(outcome(job(outputs=outputs), contents))["outputs"][0]
    assert "data_base64" in replies(s3).write(outcome(job(outputs=outputs), contents, reply="inline"))["outputs"][0]


def test_inline_says_what_did_not_fit(s3: S3Client) -> None:
    outputs, contents = outputs_of([10, 5_000_000])
    document = replies(s3).write(outcome(job(outputs=outputs), contents, reply="inline"))
    assert document["status"] == "succeeded"
    assert "1 of 2 outputs do not fit" in document["warnings"][0]
    assert document["outputs"][1]["url"]


def test_a_job_answered_from_its_result_gets_its_files_from_s3(s3: S3Client) -> None:
    s3.put_object(Bucket=OUT, Key="j/9/0.png", Body=bytes(3))
    outputs, _ = outputs_of([3])
    document = replies(s3).write(outcome(job(outputs=outputs), {}))
    assert base64.b64decode(document["outputs"][0]["data_base64"]) == bytes(3)


def test_bytes_that_are_not_what_the_document_says_are_not_sent(s3: S3Client) -> None:
    s3.put_object(Bucket=OUT, Key="j/9/0.png", Body=b"another worker's")
    outputs, _ = outputs_of([3, 4])
    document = replies(s3).write(outcome(job(outputs=outputs), {"o1": b"ours"}))
    assert not any("data_base64" in a_output for a_output in document["outputs"])


def test_a_file_that_is_gone_is_a_link_only(s3: S3Client) -> None:
    outputs, _ = outputs_of([3])
    document = replies(s3).write(outcome(job(outputs=outputs), {}))
    assert "data_base64" not in document["outputs"][0]


def test_without_a_bucket_what_does_not_fit_fails_the_job_and_says_what_to_set(s3: S3Client) -> None:
    outputs, contents = outputs_of([10, 5_000_000], in_s3=False, kind="video")
    document = replies(s3).write(outcome(job(outputs=outputs), contents))
    assert document["status"] == "failed"
    assert document["error"]["code"] == "delivery_failed"
    assert "OUTPUT_BUCKET" in document["error"]["message"]
    assert [a_output["id"] for a_output in document["outputs"]] == ["o0"]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 6000), max_size=12),
    limit=st.integers(6_000, 30_000),
    mode=st.sampled_from(["auto", "inline", "links"]),
    in_s3=st.booleans(),
    warning=st.text(max_size=200),
    traceback=st.integers(0, 20_000),
    in_http=st.booleans(),
)
def test_a_reply_never_exceeds_the_limit(
    sizes: list[int], limit: int, mode: str, in_s3: bool, warning: str, traceback: int, in_http: bool
) -> None:
    outputs, contents = outputs_of(sizes, in_s3=in_s3)
    error = NodeExecutionError("no", details={"traceback": "t" * traceback})
    a_job = job(
        outputs=outputs, warnings=(warning,) * 20, error=JobError.of(error), seeds={f"{n}.seed": n for n in range(50)}
    )

    def wrap(document: dict[str, Any]) -> dict[str, Any]:
        return {"statusCode": 200, "body": json.dumps(document)} if in_http else document

    with patch.object(LinkSigner, "__init__", lambda *_, **__: None), patch.object(LinkSigner, "link", FAKE_LINK):
        document = Replies(None, Settings(), limit_bytes=limit).write(  # type: ignore[arg-type]
            outcome(a_job, contents, reply=mode), wrap
        )
    assert len(json.dumps(wrap(document))) <= limit


def test_a_thousand_outputs_too_many_are_left_out_and_said_to_be(s3: S3Client) -> None:
    outputs, _ = outputs_of([5_000_000] * 400)
    a_job = job(outputs=outputs, result_uri=f"s3://{OUT}/j/result.json")
    document = replies(s3, limit_bytes=100_000).write(outcome(a_job, {}))
    assert 50 < len(document["outputs"]) < 400
    assert "result.json" in document["warnings"][0]
