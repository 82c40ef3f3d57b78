"""What nodes the workers have, whole: published when it changes, read when it is wanted, with nobody's files in it."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.jobs import declarations
from comfy_serverless.jobs.declarations import DeclarationsReader, DeclarationsWriter, without_files
from comfy_serverless.jobs.node_list import NodeListReader, NodeListWriter
from tests.patience import PATIENCE_S
from tests.unit.fakes import IN

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

INFO: dict[str, Any] = {"KSampler": {"input": {"required": {"b": ["INT", {}], "a": ["INT", {"max": 1}]}}}}


def keys(s3: S3Client) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=IN, Prefix="engine/").get("Contents", [])]


def reader(s3: S3Client, image: str = "one") -> DeclarationsReader:
    return DeclarationsReader(s3, IN, lambda: image)


def test_they_are_kept_by_their_hash_and_written_when_they_change(s3: S3Client) -> None:
    writer = DeclarationsWriter(s3, IN, "one")
    writer.write(INFO)
    first = keys(s3)
    writer.write(dict(INFO))
    assert keys(s3) == first
    assert len(first) == 2
    writer.write({**INFO, "More": {}})
    assert len(keys(s3)) == 3, "who has read the pointer before finds what it points to"
    assert reader(s3).fresh() == {**INFO, "More": {}}
    assert reader(s3, "another").fresh() is None
    assert reader(s3, "").told_at() is None


def test_the_order_of_inputs_is_kept_because_it_decides_what_a_value_is_of(s3: S3Client) -> None:
    DeclarationsWriter(s3, IN, "one").write(INFO)
    read = reader(s3).fresh()
    assert read is not None
    assert list(read["KSampler"]["input"]["required"]) == ["b", "a"]


def test_they_are_read_once_as_long_as_they_stay_the_same(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    DeclarationsWriter(s3, IN, "one").write(INFO)
    one = reader(s3)
    first = one.fresh()
    asked: list[str] = []
    monkeypatch.setattr(s3, "get_object", lambda **given: asked.append(given["Key"]))
    assert one.fresh() is first
    assert asked == []


@pytest.mark.parametrize(
    "content",
    [b"", b"nothing", gzip.compress(b"{}"), gzip.compress(b"[1]"), gzip.compress(b"{" + b" " * 33_000_000)],
    ids=["empty", "not packed", "another", "no object", "a bomb"],
)
def test_what_cannot_be_read_is_left_to_workers(s3: S3Client, content: bytes) -> None:
    DeclarationsWriter(s3, IN, "one").write(INFO)
    (key,) = [key for key in keys(s3) if key.endswith(".gz")]
    s3.put_object(Bucket=IN, Key=key, Body=content)
    assert reader(s3).fresh() is None
    assert reader(s3).told_at() is not None
    for pointer in (b"", b"[]", b"{}", b'{"sha256": 5}'):
        s3.put_object(Bucket=IN, Key="engine/one/object_info.json", Body=pointer)
        assert reader(s3).fresh() is None


def test_what_is_too_large_is_told_and_not_published(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declarations, "MAX_DECLARATIONS_BYTES", 10)
    DeclarationsWriter(s3, IN, "one").write(INFO)
    assert keys(s3) == ["engine/one/object_info.json"]
    assert reader(s3).fresh() is None
    assert reader(s3).told_at() is not None, "so these are not taken for workers of an older release"


def test_numbers_that_json_does_not_have_do_not_keep_others_from_reading(s3: S3Client) -> None:
    DeclarationsWriter(s3, IN, "one").write({"A": {"input": {"required": {"a": ["FLOAT", {"max": float("inf")}]}}}})
    read = reader(s3).fresh()
    assert read is not None
    assert json.loads(json.dumps(read, allow_nan=False)) == read


def test_the_list_of_classes_stays_as_apis_of_older_releases_read_it(s3: S3Client) -> None:
    writer = NodeListWriter(s3, IN, "one", lambda: INFO, list)
    writer.write_if_due()
    writer.wait(PATIENCE_S)
    assert json.loads(s3.get_object(Bucket=IN, Key="engine/one.json")["Body"].read()) == ["KSampler"]
    lists = NodeListReader(s3, IN, lambda: "one")
    assert lists.is_known()
    assert reader(s3).fresh() == INFO


def test_a_list_of_an_older_worker_is_read_and_has_no_declarations(s3: S3Client) -> None:
    s3.put_object(Bucket=IN, Key="engine/one.json", Body=b'["KSampler"]')
    assert NodeListReader(s3, IN, lambda: "one").is_known()
    assert reader(s3).told_at() is None


FILES = {"fox.png", "way/fox.png", "a.safetensors", "audio"}
MODELS = ["m.safetensors", "n.ckpt"]


def spec(*parts: object) -> dict[str, Any]:
    return {"C": {"input": {"required": {"x": list(parts)}}}}


def of(info: dict[str, Any]) -> Any:
    return without_files(info, FILES)["C"]["input"]["required"]["x"]


@pytest.mark.parametrize("flag", ["image_upload", "video_upload", "audio_upload", "animated_image_upload", "upload"])
def test_lists_of_uploads_are_emptied(flag: str) -> None:
    assert of(spec(["anything", "else"], {flag: True})) == [[], {flag: True}]
    assert of(spec("COMBO", {"options": ["anything"], flag: True})) == ["COMBO", {"options": [], flag: True}]
    assert of(spec(["anything"], {flag: False})) == [["anything"], {flag: False}]


def test_names_of_files_that_are_there_are_in_no_list() -> None:
    assert of(spec(["none", "fox.png", "way/fox.png"])) == [["none"]]
    assert of(spec("COMBO", {"options": ["fox.png", 5, True], "default": "fox.png"})) == [
        "COMBO",
        {"options": [5, True]},
    ]
    assert of(spec("STRING", {"default": "words"})) == ["STRING", {"default": "words"}]
    assert of(spec(MODELS)) == [MODELS]


def test_lists_in_inputs_of_inputs_are_emptied_too() -> None:
    inner = {"required": {"file": [["fox.png", "other"], {"image_upload": True}], "kind": [["fox.png", "other"]]}}
    emptied = {"required": {"file": [[], {"image_upload": True}], "kind": [["other"]]}}
    dynamic = of(spec("COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "one", "inputs": inner}]}))
    assert dynamic == ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "one", "inputs": emptied}]}]
    grown = of(spec("COMFY_AUTOGROW_V3", {"template": {"input": inner, "prefix": "p"}}))
    assert grown == ["COMFY_AUTOGROW_V3", {"template": {"input": emptied, "prefix": "p"}}]


def test_classes_that_are_known_to_take_files_list_none() -> None:
    info = {
        "LoadLatent": {"input": {"required": {"latent": [["a.latent"]]}}},
        "LoadImageDataSetFromFolder": {"input": {"required": {"folder": ["COMBO", {"options": ["theirs"]}]}}},
        "LoadTrainingDataset": {"input": {"required": {"folder_name": [["theirs"]]}}},
        "Custom": {"input": {"required": {"image": [["theirs.png", "b.jpg"]], "mode": [["theirs.png"]]}}},
    }
    emptied = without_files(info, ())
    assert [list(each["input"]["required"].values()) for each in emptied.values()] == [
        [[[]]],
        [["COMBO", {"options": []}]],
        [[[]]],
        [[[]], [["theirs.png"]]],
    ]


@pytest.mark.parametrize(
    "odd", [None, 5, "x", [], {}, {"input": 5}, {"input": {"required": 5}}, {"input": {"required": {"x": 5}}}]
)
def test_declarations_of_any_form_are_passed_on(odd: Any) -> None:
    assert without_files({"C": odd}, FILES) == {"C": odd}


def test_names_of_files_stand_nowhere_else_either() -> None:
    """Some classes make what they choose from, so their outputs list it, too."""
    assert FILES
    name = next(iter(sorted(FILES)))
    declared = {
        "input": {"required": {"x": ["COMBO", {"options": [f"{name} [output]", "none"], "placeholder": name}]}},
        "output": [["none", name], "IMAGE"],
    }
    found = without_files({"C": declared}, FILES)
    assert name not in json.dumps(found)
    assert found["C"]["output"] == [["none"], "IMAGE"]
    assert found["C"]["input"]["required"]["x"] == ["COMBO", {"options": ["none"]}]
