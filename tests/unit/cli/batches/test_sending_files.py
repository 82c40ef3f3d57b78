"""Local files of a manifest: sent once each by content, and named in the lines by where they are then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from comfy_serverless.cli.batches.check import LocalFiles, Workflows, check
from comfy_serverless.cli.batches.sending import UPLOADS, rewritten, send_files, upload_key
from comfy_serverless.errors import MissingAsset
from comfy_serverless.jobs.lines import lines_of
from comfy_serverless.jobs.request import JobRequest
from tests.unit.jobs_table import REGION, aws

BUCKET = "drops-bucket"
GRAPH = {"1": {"class_type": "LoadImage", "inputs": {"image": "x"}}}

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Counted:
    """An S3 that counts what is sent to it."""

    def __init__(self, s3: Any) -> None:
        self._s3 = s3
        self.uploads: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    @property
    def client(self) -> S3Client:
        """It, as what it stands for."""
        return cast("S3Client", self)

    def upload_file(self, path: str, bucket: str, key: str, **options: Any) -> None:
        self.uploads.append(key)
        self._s3.upload_file(path, bucket, key, **options)


@pytest.fixture
def s3() -> Iterator[Counted]:
    with aws() as session:
        client = session.client("s3")
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield Counted(client)


def written(folder: Path, **contents: bytes) -> list[Path]:
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return [folder / f"{name}.jpg" for name in contents]


def read(s3: Counted, address: str) -> bytes:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return body


def test_each_content_is_sent_once_and_each_name_is_there(s3: Counted, tmp_path: Path) -> None:
    one, same, other = files = written(tmp_path, one=b"fox", same=b"fox", other=b"owl")
    sizes: list[int] = []
    sent = send_files(s3.client, BUCKET, files, progress=sizes.append)
    assert (sent.sent, sent.sent_bytes, len(s3.uploads), sizes) == (2, 6, 2, [3, 3])
    assert {path.stem: read(s3, sent.addresses[path]) for path in files} == {
        "one": b"fox",
        "same": b"fox",
        "other": b"owl",
    }
    assert sent.addresses[same].endswith("/same.jpg")
    digest = hashlib.sha256(b"fox").hexdigest()
    assert sent.addresses[one] == f"s3://{BUCKET}/{UPLOADS}{digest}/one.jpg"
    assert other in sent.addresses


def test_what_is_there_is_not_sent_again(s3: Counted, tmp_path: Path) -> None:
    files = written(tmp_path, one=b"fox", other=b"owl")
    first = send_files(s3.client, BUCKET, files)
    (tmp_path / "one.jpg").write_bytes(b"cat")
    again = send_files(s3.client, BUCKET, files)
    assert (again.sent, len(s3.uploads)) == (1, 3)
    assert again.addresses[files[1]] == first.addresses[files[1]]
    assert again.addresses[files[0]] != first.addresses[files[0]]


def test_what_may_be_deleted_soon_is_sent_again(s3: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    files = written(tmp_path, one=b"fox")
    send_files(s3.client, BUCKET, files)
    monkeypatch.setattr("comfy_serverless.cli.batches.sending.FRESH_FOR", timedelta(hours=-1))
    assert send_files(s3.client, BUCKET, files).sent == 1


def test_a_file_that_has_gone_is_named(s3: Counted, tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match=r"gone\.jpg cannot be read"):
        send_files(s3.client, BUCKET, [tmp_path / "gone.jpg"])


@pytest.mark.parametrize("name", ["a.json", "../../e.jpg", "..", "a/b"])
def test_no_upload_leaves_its_folder(name: str) -> None:
    folder, _, last = upload_key("0" * 64, name).rpartition("/")
    assert folder == f"{UPLOADS}{'0' * 64}"
    assert last not in {"", ".", ".."}


def test_no_event_tells_of_uploads_and_they_are_deleted_as_drops_are() -> None:
    template = (Path(__file__).parents[4] / "template.yaml").read_text()
    bucket = template[template.index("  InputBucket:\n") : template.index("  InputBucketPolicy:\n")]
    lifecycle, notifications = bucket.split("NotificationConfiguration:")
    assert f"Prefix: {UPLOADS}" in lifecycle
    assert UPLOADS not in notifications


def test_lines_name_files_by_their_addresses_and_else_stay_as_they_are(tmp_path: Path) -> None:
    photo, flow = tmp_path / "photo.jpg", tmp_path / "flow.json"
    photo.write_bytes(b"fox")
    flow.write_text(json.dumps(GRAPH))
    lines = [
        json.dumps({"workflow": "flow.json", "inputs": {"1.image": "photo.jpg"}, "metadata": {"n": "1"}}),
        "",
        json.dumps({"workflow": GRAPH, "inputs": {"1.image": ["photo.jpg", "s3://b/2.jpg"]}}),
        '{"workflow":   "thumbnail", "inputs": {"1.image": "s3://b/2.jpg"}}',
        "nonsense",
        json.dumps(GRAPH),
    ]
    addresses = {photo: "s3://drops/photo.jpg", flow: "s3://drops/flow.json_"}
    workflows = Workflows(LocalFiles(tmp_path), None)
    made = b"".join(rewritten(lines_of(["\n".join(lines).encode()]), workflows=workflows, addresses=addresses))
    first, blank, batch, *rest = made.decode().splitlines()
    assert json.loads(first) == {
        "workflow": "s3://drops/flow.json_",
        "inputs": {"1.image": "s3://drops/photo.jpg"},
        "metadata": {"n": "1"},
    }
    assert blank == ""
    assert json.loads(batch)["inputs"] == {"1.image": ["s3://drops/photo.jpg", "s3://b/2.jpg"]}
    assert rest == lines[3:]


@pytest.mark.parametrize(
    "line",
    [
        {"input": {"workflow": "flow.json", "inputs": {"1.image": "photo.jpg"}}},
        {"prompt": GRAPH, "inputs": {"1.image": "photo.jpg"}},
        {"input": {"workflow": GRAPH, "images": [{"name": "x", "image": "photo.jpg"}]}},
        [{"workflow": "flow.json", "inputs": {"1.image": "photo.jpg"}}],
        json.dumps({"workflow": "flow.json", "inputs": {"1.image": "photo.jpg"}}),
        {"body": {"prompt": GRAPH}, "inputs": {"1.image": ["photo.jpg", "s3://photos/2.jpg"]}},
        {"prompt": {"1": {**GRAPH["1"], "scale": float("nan")}}, "inputs": {"1.image": "photo.jpg"}},
    ],
)
def test_every_file_that_the_check_finds_is_named_by_its_address_in_whatever_a_request_is_wrapped(
    tmp_path: Path, line: Any
) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"fox")
    (tmp_path / "flow.json").write_text(json.dumps(GRAPH))
    content = json.dumps(line).encode()
    workflows = Workflows(LocalFiles(tmp_path), None)
    found = check(lines_of([content]), workflows=workflows, input_bucket="", uploads=True)
    assert found.problems == []
    assert tmp_path / "photo.jpg" in found.files
    addresses = {path: f"s3://drops/{path.name}" for path in found.files}
    made = b"".join(rewritten(lines_of([content]), workflows=workflows, addresses=addresses))
    assert b"NaN" not in made
    request = JobRequest.parse(json.loads(made))
    named = {request.workflow} if isinstance(request.workflow, str) else set()
    for given in request.inputs.values():
        named |= {given} if isinstance(given, str) else set(given)
    assert set(addresses.values()) <= named
