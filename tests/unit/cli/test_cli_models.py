"""`comfy-serverless models`: brings models to a stack's bucket, whole, checked, once, and lists them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.cli import model_sources, model_store, stack
from comfy_serverless.cli.main import main
from comfy_serverless.cli.model_store import part_size
from comfy_serverless.cli.stack import Stack
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.request import parse_manifest
from tests.unit.fakes import IN
from tests.unit.model_hosts import CIVITAI, HF, HF_TOKEN, THIEF, Internet
from tests.unit.worker.test_model_store import safetensors, sha256

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Parts as S3 takes them at the least: it refuses smaller ones.
PART = 5 << 20
FOX = safetensors(2 * PART + 1000, b"f")
KEY = "models/loras/fox.safetensors"
ENTRY = {"url": f"s3://{IN}/{KEY}", "folder": "loras", "sha256": sha256(FOX)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with Internet(tmp_path_factory.mktemp("tls")) as internet:
        yield internet


@pytest.fixture
def internet(running: Internet, monkeypatch: pytest.MonkeyPatch) -> Internet:
    running.answers.clear()
    running.seen.clear()
    monkeypatch.setattr(Network, "of", lambda _settings, **_: running.network)
    monkeypatch.setattr(model_sources, "tokens_of", lambda _settings: running.tokens)
    return running


@pytest.fixture(autouse=True)
def _stack(s3: S3Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack `mine`, whose input bucket is IN."""
    monkeypatch.setattr(Stack, "of", lambda name: Stack(None, s3, IN, None) if name == "mine" else None)  # type: ignore[arg-type]
    monkeypatch.setenv("COMFY_STACK", "mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(model_store, "PART_BYTES", PART)
    monkeypatch.chdir(tmp_path)


def files(content: bytes = FOX, name: str = "fox.safetensors") -> str:
    Path(name).write_bytes(content)
    return name


def add(source: str, *more: str, folder: str = "loras") -> int:
    return main(["models", "add", source, "--folder", folder, *more])


def there(s3: S3Client, key: str = KEY) -> bytes:
    return s3.get_object(Bucket=IN, Key=key)["Body"].read()


def uploads(s3: S3Client) -> list[Any]:
    return list(s3.list_multipart_uploads(Bucket=IN).get("Uploads", []))


def test_a_file_is_brought_and_its_entry_printed(s3: S3Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(files()) == 0
    assert there(s3) == FOX
    printed = capsys.readouterr()
    assert json.loads(printed.out) == ENTRY
    assert "brought loras/fox.safetensors" in printed.err
    head = s3.head_object(Bucket=IN, Key=KEY)
    assert (head["Metadata"], uploads(s3)) == ({"sha256": sha256(FOX)}, [])
    [model] = parse_manifest([ENTRY], source="what was printed")
    assert model.path == "loras/fox.safetensors"


def test_what_is_there_is_not_sent_again(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(files()) == 0
    monkeypatch.setattr(s3, "create_multipart_upload", lambda **_: pytest.fail("it is sent"))
    assert add("fox.safetensors", "--json") == 0
    printed = capsys.readouterr()
    assert '"was_sent": false' in printed.out
    assert "the store has it already" in printed.err


def test_another_content_is_replaced_only_if_that_is_said(s3: S3Client, capsys: pytest.CaptureFixture[str]) -> None:
    other = safetensors(10)
    s3.put_object(Bucket=IN, Key=KEY, Body=other)
    assert add(files()) == 1
    assert "--replace" in capsys.readouterr().err
    assert there(s3) == other
    assert add("fox.safetensors", "--replace") == 0
    assert there(s3) == FOX


def test_nothing_is_overwritten_that_comes_meanwhile(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = s3.upload_part
    asked: list[dict[str, Any]] = []
    complete = s3.complete_multipart_upload

    def completed(**arguments: Any) -> Any:
        asked.append(arguments)
        return complete(**arguments)

    monkeypatch.setattr(s3, "upload_part", sent)
    monkeypatch.setattr(s3, "complete_multipart_upload", completed)
    assert add(files()) == 0
    assert asked[0]["IfNoneMatch"] == "*"
    capsys.readouterr()


def test_a_transfer_that_broke_off_goes_on(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[int] = []
    upload_part = s3.upload_part

    def part(**arguments: Any) -> Any:
        if arguments["PartNumber"] == 2 and 2 not in sent:
            sent.append(2)
            raise KeyboardInterrupt
        sent.append(arguments["PartNumber"])
        return upload_part(**arguments)

    monkeypatch.setattr(s3, "upload_part", part)
    assert add(files()) == 130
    [begun] = uploads(s3)
    listed = s3.list_parts(Bucket=IN, Key=KEY, UploadId=begun["UploadId"])["Parts"]
    done = {one["PartNumber"] for one in listed}
    assert done
    sent.clear()
    sent.append(2)
    assert add("fox.safetensors") == 0
    assert there(s3) == FOX
    assert not done & set(sent[1:]), "what S3 had is not sent again"
    assert uploads(s3) == []
    capsys.readouterr()


def test_another_file_does_not_go_on_where_one_broke_off(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(s3, "complete_multipart_upload", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert add(files()) == 130
    other = safetensors(2 * PART + 1000, b"g")
    assert add(files(other)) == 0
    assert there(s3) == other
    assert s3.head_object(Bucket=IN, Key=KEY)["Metadata"] == {"sha256": sha256(other)}
    capsys.readouterr()


def test_an_upload_that_s3_has_forgotten_is_begun_anew(s3: S3Client, capsys: pytest.CaptureFixture[str]) -> None:
    begun = model_store._Begun(IN, KEY, sha256(FOX))
    begun.write("an-upload-that-is-gone")
    assert add(files()) == 0
    assert there(s3) == FOX
    assert begun.read() is None
    capsys.readouterr()


def test_a_file_that_changes_meanwhile_is_not_stored(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create = s3.create_multipart_upload

    def changed(**arguments: Any) -> Any:
        Path("fox.safetensors").write_bytes(safetensors(2 * PART + 1000, b"x"))
        return create(**arguments)

    monkeypatch.setattr(s3, "create_multipart_upload", changed)
    assert add(files()) == 1
    assert "Nothing was stored" in capsys.readouterr().err
    assert s3.list_objects_v2(Bucket=IN).get("KeyCount") == 0
    assert uploads(s3) == []


@pytest.mark.parametrize(
    ("source", "more", "told"),
    [
        ("nowhere.safetensors", (), "nowhere.safetensors cannot be read"),
        (".", (), "name"),
        ("empty.safetensors", (), "is empty"),
        ("fox.safetensors", ("--folder", "loras/../vae"), "--folder"),
        ("fox.safetensors", ("--folder", "checkpoint"), "did you mean 'checkpoints'"),
        ("fox.safetensors", ("--name", "../fox"), "name"),
        ("fox.safetensors", ("--sha256", "ab" * 32), f"not {'ab' * 32}"),
        ("fox.safetensors", ("--sha256", "ab"), "--sha256"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    s3: S3Client, capsys: pytest.CaptureFixture[str], source: str, more: tuple[str, ...], told: str
) -> None:
    files(safetensors())
    files(b"", "empty.safetensors")
    assert add(source, *more) == 1
    assert told in capsys.readouterr().err
    assert s3.list_objects_v2(Bucket=IN)["KeyCount"] == 0


# Manifests


def test_an_entry_goes_into_a_manifest_once(capsys: pytest.CaptureFixture[str]) -> None:
    fox = files(safetensors())
    entry = {**ENTRY, "sha256": sha256(safetensors())}
    for _ in range(2):
        assert add(fox, "--manifest", "models.json") == 0
    assert json.loads(Path("models.json").read_text()) == [entry]
    assert add(fox, "--manifest", "models.json", folder="vae") == 0
    assert len(parse_manifest(json.loads(Path("models.json").read_text()), source="x")) == 2
    capsys.readouterr()


def test_a_manifest_with_another_entry_of_that_name_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    other = [{"url": "https://example.com/fox.safetensors", "folder": "loras", "sha256": "ab" * 32}]
    Path("models.json").write_text(json.dumps(other))
    fox = files(safetensors())
    assert add(fox, "--manifest", "models.json") == 1
    assert "--replace" in capsys.readouterr().err
    assert json.loads(Path("models.json").read_text()) == other
    assert add(fox, "--manifest", "models.json", "--replace") == 0
    assert [one["url"] for one in json.loads(Path("models.json").read_text())] == [ENTRY["url"]]


@pytest.mark.parametrize("content", ["{}", "[3]", "[", '[{"url": "x"}]'])
def test_what_is_no_manifest_is_refused_before_anything_is_sent(
    s3: S3Client, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Path("models.json").write_text(content)
    assert add(files(safetensors()), "--manifest", "models.json") == 1
    assert Path("models.json").read_text() == content
    assert s3.list_objects_v2(Bucket=IN)["KeyCount"] == 0
    capsys.readouterr()


# Addresses


def test_an_address_is_streamed_if_its_host_says_what_it_is(
    s3: S3Client, internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.hub_file("/org/model/resolve/main/fox.safetensors", FOX, sha256(FOX))
    assert add(url.replace("/resolve/", "/blob/")) == 0
    assert there(s3) == FOX
    printed = capsys.readouterr()
    assert json.loads(printed.out) == ENTRY
    assert HF_TOKEN not in printed.out + printed.err
    assert {seen.host for seen in internet.seen if seen.token} == {HF}


def test_an_address_of_which_nobody_says_anything_is_read_first(
    s3: S3Client, internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.serve(THIEF, "/fox.safetensors", FOX)
    assert add(f"{url}?token=s3cret") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == ENTRY
    assert "s3cret" not in printed.out + printed.err
    assert s3.head_object(Bucket=IN, Key=KEY)["Metadata"] == {"sha256": sha256(FOX)}


def test_an_address_that_lies_is_not_stored(
    s3: S3Client, internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.hub_file("/org/model/resolve/main/fox.safetensors", FOX, "ab" * 32)
    assert add(url) == 1
    assert "Nothing was stored" in capsys.readouterr().err
    assert (s3.list_objects_v2(Bucket=IN)["KeyCount"], uploads(s3)) == (0, [])


def test_an_address_with_nothing_at_it_is_not_stored(
    s3: S3Client, internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.hub_file("/org/model/resolve/main/fox.safetensors", b"", sha256(b""))
    assert add(url) == 1
    assert "Nothing was stored" in capsys.readouterr().err
    assert uploads(s3) == []


def test_a_gated_address_says_what_to_do(internet: Internet, capsys: pytest.CaptureFixture[str]) -> None:
    url = internet.serve(HF, "/org/model/resolve/main/fox.safetensors", status=403)
    assert add(url) == 1
    assert "licence at https://huggingface.co/org/model" in capsys.readouterr().err


def test_a_download_of_civitai_needs_a_name(internet: Internet, capsys: pytest.CaptureFixture[str]) -> None:
    small = safetensors()
    url = internet.serve(CIVITAI, "/api/download/models/7", small)
    internet.civitai_version(7, {"name": "fox.safetensors", "hashes": {"SHA256": sha256(small)}, "primary": True})
    assert add(url, "--name", "fox.safetensors") == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == sha256(small)


# ls


def test_the_models_of_the_store_are_listed(
    s3: S3Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # a wide terminal: nothing is folded
    small = safetensors()
    assert add(files(small), folder="loras/styles") == 0
    s3.put_object(Bucket=IN, Key="models/vae/old.safetensors", Body=b"1234")
    s3.put_object(Bucket=IN, Key="models/vae/", Body=b"")
    s3.put_object(Bucket=IN, Key="jobs/x.json", Body=b"{}")
    capsys.readouterr()
    assert main(["models", "ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == [
        {
            "name": "fox.safetensors",
            "folder": "loras/styles",
            "size_bytes": len(small),
            "sha256": sha256(small),
            "url": f"s3://{IN}/models/loras/styles/fox.safetensors",
        },
        {
            "name": "old.safetensors",
            "folder": "vae",
            "size_bytes": 4,
            "sha256": None,
            "url": f"s3://{IN}/models/vae/old.safetensors",
        },
    ]
    assert main(["models", "ls"]) == 0
    listed = capsys.readouterr().out
    assert sha256(small) in listed
    assert "old.safetensors" in listed


def test_an_empty_store_says_how_to_fill_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "ls"]) == 0
    assert "models add" in capsys.readouterr().err


@pytest.mark.parametrize("size_bytes", [1, 10 << 30, 160 << 30, 5 << 40])
def test_parts_are_as_many_as_s3_takes(size_bytes: int) -> None:
    assert size_bytes / part_size(size_bytes) <= 10_000


def test_a_stack_is_needed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COMFY_STACK")
    with pytest.raises(SystemExit):
        main(["models", "ls"])
    assert stack.STACK_VARIABLE in capsys.readouterr().err
    assert os.environ.get("COMFY_STACK") is None
