"""What an image declares is told by whoever deploys it: of that very build, for good, and a worker's word wins."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.errors import ComfyError, InvalidWorkflow
from comfy_serverless.jobs import declarations, engine_documents
from comfy_serverless.jobs.declarations import DeclarationsReader
from comfy_serverless.jobs.engine_documents import DECLARATIONS, Build, told
from comfy_serverless.jobs.image_declarations import publish, read_declarations
from comfy_serverless.jobs.node_list import NodeListReader, NodeListWriter
from tests.patience import PATIENCE_S
from tests.unit.fakes import IN

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUILD = Build("worker", "3f2a91c07b5e")
OTHER = Build("worker", "0000aaaa1111")
INFO: dict[str, Any] = {"KSampler": {"input": {"required": {"a": ["INT", {}]}}}, "SaveImage": {}}
GRAPH = {"1": {"class_type": "KSampler", "inputs": {}}}
OF_A_NEW_PACK = {"1": {"class_type": "Newest", "inputs": {}}}


def keys(s3: S3Client) -> set[str]:
    return {item["Key"] for item in s3.list_objects_v2(Bucket=IN, Prefix="engine/").get("Contents", [])}


def reader(s3: S3Client, build: Build = BUILD) -> DeclarationsReader:
    return DeclarationsReader(s3, IN, lambda: build.image, lambda: build.release)


def classes(s3: S3Client, build: Build = BUILD) -> NodeListReader:
    return NodeListReader(s3, IN, lambda: build.image, lambda: build.release)


def work(s3: S3Client, build: Build, info: dict[str, Any], *lost: NotImported) -> None:
    """A worker of a build runs a job, and tells what it has."""
    writer = NodeListWriter(s3, IN, build.image, lambda: info, lambda: lost, build.release)
    writer.write_if_due()
    writer.wait(PATIENCE_S)


def let_days_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been written is old, and looked at anew."""
    monkeypatch.setattr(engine_documents, "TRUSTED_S", timedelta(days=-3).total_seconds())
    monkeypatch.setattr(declarations, "_KNOWN_S", 0.0)


def test_it_is_known_before_a_worker_has_run_and_stays_known(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert publish(s3, IN, BUILD, INFO)
    let_days_pass(monkeypatch)
    one = reader(s3)
    assert one.fresh() == one.newest() == INFO
    assert one.are_told_with_lists()
    assert one.told_at() is not None
    lists = classes(s3)
    lists.check(GRAPH)
    with pytest.raises(InvalidWorkflow, match="Newest"):
        lists.check(OF_A_NEW_PACK)
    assert lists.not_imported() == ()


def test_what_is_of_another_build_never_counts(s3: S3Client) -> None:
    publish(s3, IN, OTHER, INFO)
    for build in (BUILD, Build("worker"), Build("another", OTHER.release), Build("")):
        assert reader(s3, build).newest() is None
        assert reader(s3, build).told_at() is None
        assert not classes(s3, build).is_known()


def test_a_worker_of_the_build_before_does_not_speak_for_the_next(s3: S3Client) -> None:
    """It has told its nodes a moment ago, under the same name of an image."""
    work(s3, OTHER, {"Oldest": {}})
    assert classes(s3).is_known(), "without the image's own word there is no better one"
    publish(s3, IN, BUILD, {**INFO, "Newest": {}})
    assert reader(s3).fresh() == {**INFO, "Newest": {}}
    classes(s3).check(OF_A_NEW_PACK)
    assert reader(s3, OTHER).fresh() == {"Oldest": {}}, "which is right while a part of the API is of that build"


def test_a_worker_of_the_build_knows_better_for_good(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(s3, IN, BUILD, INFO)
    more = {**INFO, "OnlyWithAGpu": {}}
    lost = NotImported("toys", "no module named toy", classes=frozenset({"Toy"}))
    work(s3, BUILD, more, lost)
    work(s3, OTHER, {"Oldest": {}})
    let_days_pass(monkeypatch)
    assert reader(s3).fresh() == more
    classes(s3).check({"1": {"class_type": "OnlyWithAGpu", "inputs": {}}})
    assert [pack.pack for pack in classes(s3).not_imported()] == ["toys"]


def test_the_same_build_is_deployed_again_and_takes_nothing_back(s3: S3Client) -> None:
    publish(s3, IN, BUILD, INFO)
    more = {**INFO, "OnlyWithAGpu": {}}
    work(s3, BUILD, more)
    assert not publish(s3, IN, BUILD, dict(INFO))
    assert reader(s3).fresh() == more
    assert publish(s3, IN, BUILD, {"KSampler": {}}), "the same lock, and another image"
    assert reader(s3).fresh() == {"KSampler": {}}


def test_an_api_that_does_not_know_the_build_goes_by_what_workers_tell(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(s3, BUILD, INFO)
    nobody = Build("worker")
    assert reader(s3, nobody).fresh() == INFO
    classes(s3, nobody).check(GRAPH)
    let_days_pass(monkeypatch)
    assert reader(s3, nobody).fresh() is None
    assert reader(s3, nobody).newest() == INFO
    assert not classes(s3, nobody).is_known()


def test_names_of_files_are_not_published(s3: S3Client) -> None:
    publish(s3, IN, BUILD, {"LoadImage": {"input": {"required": {"image": [["fox.png"], {"image_upload": True}]}}}})
    read = reader(s3).fresh()
    assert read is not None
    assert "fox.png" not in json.dumps(read)


def test_a_build_that_nobody_can_name_is_not_published(s3: S3Client) -> None:
    for build in (Build("worker"), Build("", "3f2a91c07b5e")):
        with pytest.raises(ValueError, match="release_version"):
            publish(s3, IN, build, INFO)
    assert keys(s3) == set()


def test_what_the_api_would_not_read_is_not_published(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declarations, "MAX_DECLARATIONS_BYTES", 10)
    with pytest.raises(ComfyError, match="at most"):
        publish(s3, IN, BUILD, INFO)
    assert keys(s3) == set()


def test_a_publication_that_broke_off_is_done_again(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    put, done = s3.put_object, list[str]()

    def breaking(**given: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(given["Key"])
        return put(**given)

    with monkeypatch.context() as patch:
        patch.setattr(s3, "put_object", breaking)
        with pytest.raises(KeyboardInterrupt):
            publish(s3, IN, BUILD, INFO)
    assert publish(s3, IN, BUILD, INFO)
    classes(s3).check(GRAPH)


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"{", b'{"sha256": 5}', b"null"])
def test_what_stands_there_and_is_no_document_is_as_good_as_nothing(s3: S3Client, body: bytes) -> None:
    publish(s3, IN, BUILD, INFO)
    for key in keys(s3):
        s3.put_object(Bucket=IN, Key=key, Body=body)
    assert reader(s3).fresh() is None
    classes(s3).not_imported()
    assert publish(s3, IN, BUILD, INFO)
    assert reader(s3).fresh() == INFO


def test_more_than_anybody_would_write_is_not_read(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(s3, IN, BUILD, INFO)
    monkeypatch.setattr(engine_documents, "MAX_DOCUMENT_BYTES", 10)
    assert told(s3, IN, BUILD, DECLARATIONS) is None
    assert not classes(s3).is_known()
    assert reader(s3).fresh() is None


def file_with(folder: Path, content: bytes) -> Path:
    path = folder / "object_info.json.gz"
    path.write_bytes(content)
    return path


def test_what_a_build_has_left_is_read(tmp_path: Path) -> None:
    assert read_declarations(file_with(tmp_path, gzip.compress(json.dumps(INFO).encode()))) == INFO


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        gzip.compress(b"{}"),
        gzip.compress(b"[1]"),
        gzip.compress(b'{"A": {}')[:-4],
        gzip.compress(b'{"A": NaN'),
        gzip.compress(b"{" + b" " * 33_000_000 + b"}"),
    ],
    ids=["empty", "not packed", "no class", "a list", "broken off", "no JSON", "a bomb"],
)
def test_a_file_that_is_no_such_thing_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ComfyError, match=r"object_info\.json\.gz .*Build the image anew"):
        read_declarations(file_with(tmp_path, content))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ComfyError, match="No such file"):
        read_declarations(tmp_path / "object_info.json.gz")
