"""`comfy-serverless env models`: from a build file to the standing manifest, the stack's bucket, or the image."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from comfy_serverless.cli import model_sources, model_store
from comfy_serverless.cli import stack as stack_module
from comfy_serverless.cli.environments.models import MANIFEST_KEY
from comfy_serverless.cli.main import main
from comfy_serverless.cli.stack import Stack
from comfy_serverless.fetch import tokens
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.request import parse_manifest
from tests.unit.fakes import IN
from tests.unit.model_hosts import CDN, CIVITAI, HF, HF_TOKEN, Internet
from tests.unit.worker.test_model_store import safetensors, sha256

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOX, SD = safetensors(1000, b"f"), safetensors(2000, b"s")
SD_PATH = "/org/sd/resolve/main/sd.safetensors"
ADDRESS = f"s3://{IN}/{MANIFEST_KEY}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with Internet(tmp_path_factory.mktemp("tls")) as internet:
        yield internet


@pytest.fixture
def internet(running: Internet, monkeypatch: pytest.MonkeyPatch) -> Internet:
    running.answers.clear()
    running.seen.clear()
    monkeypatch.setattr(Network, "of", lambda _settings, **_: running.network)
    for module in (tokens, model_sources):
        monkeypatch.setattr(module, "tokens_of", lambda _settings: running.tokens)
    return running


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COMFY_STACK", "COMFYUI_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bucket(s3: S3Client, monkeypatch: pytest.MonkeyPatch) -> S3Client:
    """The stack `mine`, whose input bucket is IN."""
    monkeypatch.setattr(Stack, "of", lambda name: Stack(None, s3, IN, None) if name == "mine" else None)  # type: ignore[arg-type]
    monkeypatch.setattr(stack_module, "client_of_models", lambda: s3)
    monkeypatch.setenv("COMFY_STACK", "mine")
    return s3


def build(*models: Mapping[str, Any]) -> None:
    """The build file, with these models."""
    document = {
        "schema": "comfy-build/1",
        "definition": {
            "schema": "distribution-definition/0",
            "baseComfyVersion": "v0.33.0",
            "models": [dict(model) for model in models],
            "customNodes": [],
        },
    }
    Path("comfyui").mkdir(exist_ok=True)
    Path("comfyui/comfy-build.yaml").write_text(yaml.safe_dump(document))


def local(name: str = "fox.safetensors", folder: str = "loras", content: bytes | None = FOX, **more: Any) -> Any:
    """A model of an install, with its file."""
    path = f"{folder}/{name}"
    if content is not None:
        file = Path("ComfyUI/models") / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return {"filename": name, "type": folder, "source": "local", "localPath": path, **more}


def remote(url: str, name: str = "sd.safetensors", folder: str = "checkpoints", **more: Any) -> Any:
    return {"filename": name, "type": folder, "sourceUri": url, **more}


def run(*words: str, install: bool = True) -> int:
    return main(["env", "models", *words, *(["--from", "ComfyUI"] if install else [])])


def there(s3: S3Client) -> dict[str, bytes]:
    found = s3.list_objects_v2(Bucket=IN).get("Contents", [])
    return {item["Key"]: s3.get_object(Bucket=IN, Key=item["Key"])["Body"].read() for item in found}


def standing(s3: S3Client) -> list[dict[str, str]]:
    """The standing manifest in the bucket, as a worker reads it."""
    entries = json.loads(there(s3)[MANIFEST_KEY])
    parse_manifest(entries, source="the bucket")
    return list(entries)


# Looking


def test_without_a_place_they_are_looked_at(
    internet: Internet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    build(local(), remote(internet.hub_file(SD_PATH, SD, sha256(SD))))
    assert run() == 0
    printed = capsys.readouterr()
    assert [line.split()[:2] for line in printed.out.splitlines()[1:]] == [
        ["sd.safetensors", "checkpoints"],
        ["fox.safetensors", "loras"],
    ]
    assert sha256(SD) in printed.out, "its host says it, without a download"
    assert sha256(FOX) in printed.out
    assert "2 models" in printed.err
    assert {seen.method for seen in internet.seen} == {"HEAD"}
    assert run("--json") == 0
    assert {one["sha256"] for one in json.loads(capsys.readouterr().out)["models"]} == {sha256(SD), sha256(FOX)}


def test_files_of_another_machine_may_be_looked_at_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    build(local(content=None))
    assert run(install=False) == 0
    assert "--from ~/ComfyUI or COMFYUI_DIR" in capsys.readouterr().err


def test_a_file_without_models_has_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    build()
    assert run("--to", "image", install=False) == 0
    assert "names no models" in capsys.readouterr().err


# All problems at once


def test_everything_that_is_wrong_is_told_before_anything_is_sent(
    internet: Internet, bucket: S3Client, capsys: pytest.CaptureFixture[str]
) -> None:
    gated = internet.serve(HF, "/org/gated/resolve/main/g.safetensors", status=401, X_Error_Code="GatedRepo")
    other = internet.hub_file("/org/other/resolve/main/o.safetensors", b"x", "c" * 64)
    sized = internet.hub_file("/org/sized/resolve/main/z.safetensors", b"x" * 9, "d" * 64)
    version = internet.civitai_version(7, {"name": "c.safetensors", "hashes": {"SHA256": "E" * 64}, "sizeKB": 1})
    build(
        local(),
        local("hash.safetensors", sha256="a" * 64),
        local("size.safetensors", sizeBytes=5),
        local("gone.safetensors", content=None),
        local("empty.safetensors", content=b""),
        {"filename": "blob.safetensors", "type": "vae", "blobId": "b-1", "sha256": "a" * 64},
        remote(gated, "g.safetensors"),
        remote(other, "o.safetensors", sha256="b" * 64),
        remote(sized, "z.safetensors", sizeBytes=10),
        remote(internet.url(HF, "/org/none/resolve/main/n.safetensors"), "n.safetensors"),
        remote(version.replace("/api/v1/model-versions/7", "/api/download/models/7"), "c.safetensors", sha256="f" * 64),
        local("llm.safetensors", "LLM"),
    )
    assert run("--to", "bucket", "--json") == 1
    printed = capsys.readouterr()
    problems = json.loads(printed.out)["error"]["details"]["problems"]
    told = {problem.partition(": ")[0]: problem for problem in problems}
    assert "loras/fox.safetensors" not in told
    for path, words in {
        "loras/hash.safetensors": f"SHA-256 {sha256(FOX)}, and the build file says {'a' * 64}",
        "loras/size.safetensors": f"has {len(FOX):,} bytes, and the build file says 5",
        "loras/gone.safetensors": "is not there",
        "loras/empty.safetensors": "is empty",
        "vae/blob.safetensors": "blobId b-1",
        "checkpoints/g.safetensors": "HF_TOKEN",
        "checkpoints/o.safetensors": f"has the SHA-256 {'c' * 64}, and the build file says {'b' * 64}",
        "checkpoints/z.safetensors": "has 9 bytes, and the build file says 10",
        "checkpoints/n.safetensors": "is not there (HTTP 404)",
        "checkpoints/c.safetensors": f"CivitAI says that {internet.url(CIVITAI, '')}",
        "LLM/llm.safetensors": "is not a model folder of ComfyUI",
    }.items():
        assert words in told.pop(path), path
    assert told == {}
    assert there(bucket) == {}
    assert HF_TOKEN not in printed.out + printed.err


def test_a_gated_model_is_told_with_its_licence_and_the_tokens_setting(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokens, "tokens_of", lambda _settings: tokens.NO_TOKENS)
    gated = internet.serve(HF, SD_PATH, status=401, X_Error_Code="GatedRepo")
    build(remote(gated))
    assert run("--to", "image") == 1
    said = capsys.readouterr().err
    assert "https://huggingface.co/org/sd" in said
    assert "HF_TOKEN, or HuggingFaceTokenParameter of the stack" in said


def test_a_gated_model_whose_content_is_known_is_left_to_workers(
    internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have the stack's token, which whoever writes the manifest need not have."""
    gated = internet.serve(HF, SD_PATH, status=401, X_Error_Code="GatedRepo")
    build(remote(gated, sha256=sha256(SD)))
    assert run("--to", "manifest") == 0
    assert "HuggingFaceTokenParameter of the stack" in capsys.readouterr().err
    assert json.loads(Path("models.json").read_text())[0]["sha256"] == sha256(SD)
    assert run("--to", "image") == 1
    capsys.readouterr()


def test_a_host_that_does_not_answer_keeps_nobody_from_writing_what_is_known(
    internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = internet.serve(HF, SD_PATH, status=503)
    build(remote(busy, sha256=sha256(SD)))
    assert run("--to", "manifest") == 0
    assert "cannot be looked up now" in capsys.readouterr().err
    build(remote(busy))
    assert run("--to", "manifest") == 1
    capsys.readouterr()


def test_a_repository_that_was_renamed_is_told_with_its_new_address(
    internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    new = internet.hub_file(SD_PATH, SD, sha256(SD))
    old = internet.redirect(HF, "/old/sd/resolve/main/sd.safetensors", SD_PATH, status=307)
    build(remote(old))
    assert run("--to", "manifest") == 0
    assert f"another name now: write sourceUri: {new}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--upload",), "--upload is for --to manifest"),
        (("--to", "image", "--upload"), "--upload is for --to manifest"),
        (("--to", "image", "--manifest", "x"), "--manifest is for"),
        (("--to", "bucket"), "which stack?"),
        (("--to", "nowhere"), "invalid choice"),
    ],
)
def test_what_does_not_belong_together_is_wrong_usage(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build(local())
    with pytest.raises(SystemExit) as ended:
        run(*words)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--from", "nowhere"), "--from ~/ComfyUI"),
        (("--file", "nowhere.yaml"), "nowhere.yaml"),
        (("--to", "manifest"), "say where that is, with --from ~/ComfyUI or COMFYUI_DIR"),
    ],
)
def test_what_is_not_there_is_told(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    build(local())
    assert run(*words, install=False) == 1
    assert told in capsys.readouterr().err


# The standing manifest


def test_the_list_has_each_models_own_address_and_what_its_host_says(
    internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.hub_file(SD_PATH, SD, sha256(SD))
    elsewhere = internet.serve(CDN, "/x.safetensors", b"x")
    build(remote(url), remote(elsewhere, "x.ckpt", "vae", sha256="a" * 64), remote(elsewhere, "y.sft", "vae"))
    assert run("--to", "manifest", "--manifest", "list.json", install=False) == 0
    entries = json.loads(Path("list.json").read_text())
    assert len(parse_manifest(entries, source="x")) == 3
    assert entries[0] == {
        "url": url,
        "folder": "checkpoints",
        "name": "sd.safetensors",
        "sha256": sha256(SD),
    }
    said = capsys.readouterr().err
    assert "vae/x.ckpt: it is not safetensors" in said
    assert "vae/y.sft: nobody says its SHA-256" in said
    assert run("--to", "manifest", "--manifest", "-", install=False) == 0
    assert json.loads(capsys.readouterr().out) == entries


def test_files_of_this_machine_need_an_upload(capsys: pytest.CaptureFixture[str]) -> None:
    build(local())
    assert run("--to", "manifest") == 1
    assert "bring it to the stack's bucket, with --upload --stack NAME" in capsys.readouterr().err
    assert not Path("models.json").exists()


def test_with_an_upload_they_are_brought_and_the_others_stay_where_they_are(
    internet: Internet, bucket: S3Client, capsys: pytest.CaptureFixture[str]
) -> None:
    url = internet.hub_file(SD_PATH, SD, sha256(SD))
    build(local(), remote(url))
    assert run("--to", "manifest", "--upload") == 0
    assert there(bucket)["models/loras/fox.safetensors"] == FOX
    assert {entry["url"] for entry in standing(bucket)} == {url, f"s3://{IN}/models/loras/fox.safetensors"}
    assert all(entry["sha256"] for entry in standing(bucket))
    said = capsys.readouterr().err
    assert f'make deploy SET="ModelsManifest={ADDRESS}"' in said
    assert f"-c models_manifest={ADDRESS}" in said
    assert {seen.method for seen in internet.seen} == {"HEAD"}, "what has a host is not fetched"


def test_the_lock_says_what_the_build_file_does_not(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = internet.serve(CDN, "/x.safetensors", b"x")
    build(remote(elsewhere, "x.safetensors"), remote(elsewhere, "y.safetensors"))
    from comfy_serverless.environments.lock_file import ComfyUI, Lock, LockedModel

    locked = (
        LockedModel("x.safetensors", "checkpoints", "a" * 64, 1, elsewhere, None),
        LockedModel("y.safetensors", "checkpoints", "b" * 64, 1, "https://another.example/y", None),
    )
    lock = Lock("0" * 64, ComfyUI("https://example.com/x", "v0.33.0", "0" * 40, "0.33.0"), models=locked)
    Path("comfyui/comfy-build.lock").write_text(lock.to_text())
    assert run("--to", "manifest", install=False) == 0
    entries = json.loads(Path("models.json").read_text())
    assert [entry.get("sha256") for entry in entries] == ["a" * 64, None]
    capsys.readouterr()


# The bucket


def test_all_of_them_are_brought_to_the_bucket_and_once(
    internet: Internet, bucket: S3Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = internet.serve(CDN, "/x.safetensors", safetensors(10))
    build(
        local(),
        remote(internet.hub_file(SD_PATH, SD, sha256(SD))),
        remote(elsewhere, "x.safetensors", "vae"),
        remote("s3://my-models/own.safetensors", "own.safetensors", "vae", sha256="a" * 64),
    )
    assert run("--to", "bucket") == 0
    stored = there(bucket)
    assert stored["models/loras/fox.safetensors"] == FOX
    assert stored["models/checkpoints/sd.safetensors"] == SD
    assert stored["models/vae/x.safetensors"] == safetensors(10)
    first = standing(bucket)
    assert {entry["url"] for entry in first if not entry["url"].startswith(f"s3://{IN}/models/")} == {
        "s3://my-models/own.safetensors"
    }
    assert all(entry["sha256"] for entry in first), "also of a host that says nothing"
    said = capsys.readouterr().err
    assert "4 models" in said
    assert "only if the stack's InputBuckets names that" in said
    monkeypatch.setattr(bucket, "create_multipart_upload", lambda **_: pytest.fail("it is sent again"))
    assert run("--to", "bucket", "--json") == 0
    assert [one["was_sent"] for one in json.loads(capsys.readouterr().out)["models"]] == [False] * 4
    assert standing(bucket) == first


def test_an_upload_that_broke_off_goes_on(
    bucket: S3Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = 5 << 20
    monkeypatch.setattr(model_store, "PART_BYTES", part)
    build(local(content=safetensors(2 * part, b"f")))
    upload_part = bucket.upload_part
    sent: list[int] = []

    def counted(**given: Any) -> Any:
        sent.append(given["PartNumber"])
        return upload_part(**given)

    def breaking(**given: Any) -> Any:
        if len(sent) == 2:
            raise KeyboardInterrupt
        return counted(**given)

    with monkeypatch.context() as patch:
        patch.setattr(bucket, "upload_part", breaking)
        assert run("--to", "bucket") == 130
    sent.clear()
    monkeypatch.setattr(bucket, "upload_part", counted)
    assert run("--to", "bucket") == 0
    assert len(sent) == 1
    capsys.readouterr()


def test_other_contents_of_their_names_are_told_before_the_first_is_sent(
    bucket: S3Client, capsys: pytest.CaptureFixture[str]
) -> None:
    build(local(), local("wolf.safetensors"))
    bucket.put_object(Bucket=IN, Key="models/loras/wolf.safetensors", Body=b"another")
    assert run("--to", "bucket") == 1
    assert "--replace" in capsys.readouterr().err
    assert set(there(bucket)) == {"models/loras/wolf.safetensors"}
    assert run("--to", "bucket", "--replace") == 0
    assert there(bucket)["models/loras/wolf.safetensors"] == FOX
    capsys.readouterr()


def test_more_models_than_workers_take_are_told_before_the_first_is_sent(
    bucket: S3Client, capsys: pytest.CaptureFixture[str]
) -> None:
    build(*(local(f"{number}.safetensors") for number in range(51)))
    assert run("--to", "bucket") == 1
    assert "50" in capsys.readouterr().err
    assert there(bucket) == {}


# The image


def image(path: str) -> Path:
    return Path("comfyui/models") / path


def test_they_are_put_where_the_images_build_takes_them(
    internet: Internet, bucket: S3Client, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket.put_object(Bucket=IN, Key="own.safetensors", Body=safetensors(7))
    elsewhere = internet.serve(CDN, "/x.bin", b"any bytes")
    build(
        local(),
        local("llm.safetensors", "LLM"),
        remote(internet.hub_file(SD_PATH, SD, sha256(SD))),
        remote(elsewhere, "x.bin", "vae"),
        remote(f"s3://{IN}/own.safetensors", "own.safetensors", "vae"),
    )
    assert run("--to", "image", "--json") == 0
    for path, content in {
        "loras/fox.safetensors": FOX,
        "LLM/llm.safetensors": FOX,
        "checkpoints/sd.safetensors": SD,
        "vae/x.bin": b"any bytes",
        "vae/own.safetensors": safetensors(7),
    }.items():
        assert image(path).read_bytes() == content, path
    assert image("loras/fox.safetensors").samefile("ComfyUI/models/loras/fox.safetensors"), "it takes no room twice"
    assert not list(image("").rglob(".*"))
    printed = capsys.readouterr()
    assert "Lambda takes 10.0 GiB unpacked" in printed.err
    assert all(one["sha256"] and one["was_sent"] for one in json.loads(printed.out)["models"])
    internet.seen.clear()
    assert run("--to", "image", "--json") == 0
    assert not any(one["was_sent"] for one in json.loads(capsys.readouterr().out)["models"])
    assert {seen.method for seen in internet.seen} == {"HEAD"}


def test_models_that_do_not_fit_into_lambdas_image_are_told(
    internet: Internet, capsys: pytest.CaptureFixture[str]
) -> None:
    build(remote(internet.serve(CDN, "/x", b"x"), sizeBytes=9 << 30))
    run("--to", "image")
    assert "5.6 GiB too much for Lambda: send them to the stack's bucket (--to bucket)" in capsys.readouterr().err


def test_a_file_on_another_disk_is_copied(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, os.strerror(18))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    build(local())
    assert run("--to", "image") == 0
    assert image("loras/fox.safetensors").read_bytes() == FOX
    assert not image("loras/fox.safetensors").samefile("ComfyUI/models/loras/fox.safetensors")
    capsys.readouterr()


def test_what_a_host_serves_must_be_what_was_asked_for(internet: Internet, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = internet.serve(CDN, "/x.safetensors", SD)
    build(remote(elsewhere, "x.safetensors", sha256=sha256(FOX)))
    assert run("--to", "image") == 1
    assert f"has the SHA-256 {sha256(SD)}, not {sha256(FOX)}" in capsys.readouterr().err
    assert list(image("").rglob("*.*")) == []


def test_another_file_in_its_place_is_replaced_only_if_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    build(local(), local("wolf.safetensors"))
    image("loras").mkdir(parents=True)
    image("loras/fox.safetensors").write_bytes(SD)
    assert run("--to", "image") == 1
    assert "--replace" in capsys.readouterr().err
    assert not image("loras/wolf.safetensors").exists()
    assert run("--to", "image", "--replace") == 0
    assert image("loras/fox.safetensors").read_bytes() == FOX
    capsys.readouterr()


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    build(remote(internet.hub_file(SD_PATH, SD, sha256(SD))))
    assert run("--to", "image") == 1
    assert "100 bytes free" in capsys.readouterr().err
    assert {seen.method for seen in internet.seen} == {"HEAD"}


def test_a_file_that_cannot_be_fetched_leaves_nothing(internet: Internet, capsys: pytest.CaptureFixture[str]) -> None:
    build(remote(internet.url(CDN, "/nowhere.safetensors"), "x.safetensors"))
    assert run("--to", "image") == 1
    assert "404" in capsys.readouterr().err
    assert list(image("").rglob("*.*")) == []


def test_the_models_of_a_linked_folder_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    build(local())
    Path("big-disk").mkdir()
    Path("ComfyUI/models/loras/fox.safetensors").rename("big-disk/fox")
    Path("ComfyUI/models/loras/fox.safetensors").symlink_to(Path("big-disk/fox").absolute())
    assert run("--to", "image", "--from", "ComfyUI/models", install=False) == 0
    assert image("loras/fox.safetensors").read_bytes() == FOX
    assert not image("loras/fox.safetensors").is_symlink(), "a link would lead out of the image's sources"
    capsys.readouterr()
