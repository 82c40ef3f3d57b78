"""Models that jobs name: fetched once, checked, bounded, and never taken away from who uses them."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.connector.model_paths import own_directory, write_paths_config
from comfy_serverless.errors import (
    AssetUnavailable,
    ComfyError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    MissingAsset,
)
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.request import JobRequest, ModelRequest
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.settings import Settings
from comfy_serverless.worker.model_store import ModelStore, operator_models
from comfy_serverless.worker.model_store import store as store_module
from comfy_serverless.worker.model_store import transfer as transfer_module
from comfy_serverless.worker.model_store.held import HeldModels
from comfy_serverless.worker.model_store.operator_models import Places
from comfy_serverless.worker.model_store.safetensors import check_safetensors
from comfy_serverless.worker.model_store.transfer import sha256_of
from tests.patience import PATIENCE_S
from tests.unit.fakes import IN, WORKFLOW

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Stores = Callable[..., ModelStore]


def safetensors(size_bytes: int = 64, fill: bytes = b"m") -> bytes:
    header = json.dumps(
        {"weight": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}, "__metadata__": {"a": "b"}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + fill * size_bytes


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


#: The environment of another process of ours.
LAMBDA = {**os.environ, "PYTHONPATH": str(Path(own_directory.__code__.co_filename).parents[2])}
#: A ComfyUI that has no models of its own.
PLACES: Places = {}


@pytest.fixture
def forgotten() -> list[float]:
    return []


@pytest.fixture
def store(s3: S3Client, tmp_path: Path, forgotten: list[float]) -> Stores:
    def make(network: Network | None = None, **settings: Any) -> ModelStore:
        wanted = Settings(**{"model_store_dir": tmp_path / "store", "model_store_bytes": 1_000_000, **settings})
        return ModelStore(wanted, s3, network, forget=forgotten.append, places=lambda _deadline: PLACES)

    return make


@pytest.fixture
def put(s3: S3Client) -> Callable[..., ModelRequest]:
    def in_s3(key: str = "a.safetensors", /, content: bytes | None = None, **fields: Any) -> ModelRequest:
        content = safetensors() if content is None else content
        s3.put_object(Bucket=IN, Key=key, Body=content)
        return ModelRequest(**{"url": f"s3://{IN}/{key}", "folder": "checkpoints", "sha256": sha256(content), **fields})

    return in_s3


Put = Callable[..., ModelRequest]


def shown(store: ModelStore, *models: ModelRequest, job_id: str = "j", seconds: float = PATIENCE_S) -> HeldModels:
    """The models of a job whose turn it is."""
    held = store.hold(models, job_id=job_id, deadline=soon(seconds))
    try:
        held.show(soon(seconds))
    except BaseException:
        held.release()
        raise
    return held


def soon(seconds: float = PATIENCE_S) -> float:
    return time.monotonic() + seconds


def seen(tmp_path: Path) -> dict[str, bytes]:
    """What ComfyUI would find."""
    return {
        path.relative_to(models).as_posix(): path.read_bytes()
        for models in (tmp_path / "store" / "seen").glob("*/models")
        for path in sorted(models.rglob("*"))
        if path.is_file()
    }


def kept(tmp_path: Path) -> list[bytes]:
    """The contents in the store."""
    return sorted(path.read_bytes() for path in (tmp_path / "store" / "blobs").iterdir())


def partial_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "store" / "partial").iterdir())


# The request


def test_a_request_names_models() -> None:
    entry = {"url": "https://example.com/m/fox.safetensors?x=1", "folder": "loras/styles", "sha256": "A" * 64}
    [model] = JobRequest.parse({"workflow": WORKFLOW, "models": [entry]}).models
    assert (model.path, model.sha256) == ("loras/styles/fox.safetensors", "a" * 64)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sha256": "abc"}, "sha256"),
        ({"url": "file:///etc/passwd"}, "s3://"),
        ({"folder": "checkpoint"}, "did you mean 'checkpoints'"),
        ({"folder": "custom_nodes"}, "not a model folder"),
        ({"folder": "loras/../../x"}, "plain subfolder"),
        ({"folder": "loras/fox.safetensors"}, "'fox.safetensors' is the name of a file"),
        ({"folder": "loras/a/Fox.CKPT/b"}, "'Fox.CKPT' is the name of a file"),
        ({"name": "../a.safetensors"}, "no plain file name"),
        ({"name": ".hidden"}, "no plain file name"),
        ({"nmae": "x"}, "nmae"),
    ],
)
def test_a_model_that_is_not_well_named_is_refused(wrong: dict[str, str], told: str) -> None:
    entry = {"url": "s3://b/a.safetensors", "folder": "loras", "sha256": "a" * 64, **wrong}
    with pytest.raises(InvalidRequest, match=told):
        JobRequest.parse({"workflow": WORKFLOW, "models": [entry]})


# Fetching


def test_a_model_is_there_under_its_name_and_fetched_once(
    store: Stores, put: Put, s3: S3Client, tmp_path: Path
) -> None:
    here, model = store(), put()
    shown(here, model).release()
    s3.delete_object(Bucket=IN, Key="a.safetensors")
    shown(here, model)
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors()}
    assert partial_files(tmp_path) == []


def test_a_large_model_comes_in_parts_and_is_whole(
    store: Stores, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "PART_BYTES", 1000)
    content = safetensors(20_500)
    store().hold([put(content=content)], job_id="j", deadline=soon()).release()
    assert kept(tmp_path) == [content]


def test_another_process_finds_what_was_fetched(store: Stores, put: Put, s3: S3Client, tmp_path: Path) -> None:
    model = put()
    store().hold([model], job_id="j", deadline=soon()).release()
    s3.delete_object(Bucket=IN, Key="a.safetensors")
    shown(store(), model)
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors"]


def test_other_bytes_than_promised_are_refused_and_not_kept(store: Stores, put: Put, tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match=f"{sha256(safetensors())}, not {'0' * 64}"):
        store().hold([put(sha256="0" * 64)], job_id="j", deadline=soon())
    assert kept(tmp_path) == []
    assert partial_files(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x80\x04pickle" * 50, "header"),
        (safetensors()[:-10], "damaged"),
        (safetensors() + b"more", "damaged"),
        (b"", "is empty"),
        ((2).to_bytes(8, "little") + b"[]", "no JSON object"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "does not fit"),
    ],
)
def test_what_only_calls_itself_safetensors_is_refused(
    store: Stores, put: Put, tmp_path: Path, content: bytes, told: str
) -> None:
    with pytest.raises(ComfyError, match=told):
        store().hold([put(content=content)], job_id="j", deadline=soon())
    assert kept(tmp_path) == []
    assert partial_files(tmp_path) == []


def test_pickles_are_fetched_only_where_they_are_allowed(store: Stores, put: Put, tmp_path: Path) -> None:
    model = put("a.ckpt", b"\x80\x04pickle")
    with pytest.raises(MissingAsset, match="ALLOW_PICKLED_MODELS"):
        store().hold([model], job_id="j", deadline=soon())
    shown(store(allow_pickled_models=True), model)
    assert seen(tmp_path) == {"checkpoints/a.ckpt": b"\x80\x04pickle"}


def test_what_is_not_there_is_named(store: Stores, put: Put, s3: S3Client) -> None:
    model = put()
    s3.delete_object(Bucket=IN, Key="a.safetensors")
    with pytest.raises(MissingAsset, match=r"checkpoints/a\.safetensors.*does not exist"):
        store().hold([model], job_id="j", deadline=soon())


def test_a_bucket_that_is_not_allowed_is_refused(store: Stores, put: Put) -> None:
    with pytest.raises(MissingAsset, match="ALLOWED_INPUT_BUCKETS"):
        store(allowed_input_buckets=("other",)).hold([put()], job_id="j", deadline=soon())


def test_an_engine_elsewhere_gets_no_models(store: Stores, put: Put) -> None:
    with pytest.raises(InvalidRequest, match="COMFYUI_URL"):
        store(comfyui_url="http://127.0.0.1:1").hold([put()], job_id="j", deadline=soon())


def test_two_jobs_that_need_the_same_model_fetch_it_once(store: Stores, put: Put, s3: S3Client) -> None:
    asked: list[str] = []
    s3.meta.events.register("provide-client-params.s3.GetObject", lambda params, **_: asked.append(params["Key"]))
    here, model = store(), put(content=safetensors(50_000))
    with ThreadPoolExecutor(6) as pool:
        held = list(pool.map(lambda n: here.hold([model], job_id=f"j{n}", deadline=soon()), range(6)))
    for one in held:
        one.release()
    assert asked == ["a.safetensors"]


# Room


def test_the_least_recently_used_leaves_first(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store(model_store_bytes=3 * len(safetensors(1000)))
    models = [put(f"{name}.safetensors", safetensors(1000, name.encode())) for name in "abc"]
    for model in models:
        here.hold([model], job_id="j", deadline=soon()).release()
        time.sleep(0.02)
    here.hold([models[0]], job_id="j", deadline=soon()).release()
    here.hold([put("d.safetensors", safetensors(1000, b"d"))], job_id="j", deadline=soon()).release()
    assert kept(tmp_path) == [safetensors(1000, name.encode()) for name in "acd"]


def test_what_a_job_uses_is_never_evicted(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store(model_store_bytes=2 * len(safetensors(1000)))
    held = [
        here.hold([put(f"{name}.safetensors", safetensors(1000, name.encode()))], job_id=name, deadline=soon())
        for name in "ab"
    ]
    third = put("c.safetensors", safetensors(1000, b"c"))
    with pytest.raises(AssetUnavailable, match="in use"):
        here.hold([third], job_id="c", deadline=soon())
    assert kept(tmp_path) == [safetensors(1000, name.encode()) for name in "ab"]
    held[0].release()
    here.hold([third], job_id="c", deadline=soon()).release()
    assert kept(tmp_path) == [safetensors(1000, name.encode()) for name in "bc"]
    held[0].release()
    held[1].release()


def test_what_can_never_fit_is_said_before_it_is_fetched(store: Stores, put: Put) -> None:
    with pytest.raises(MissingAsset, match="MODEL_STORE_BYTES"):
        store(model_store_bytes=100).hold([put(content=safetensors(1000))], job_id="j", deadline=soon())


# Names


def test_a_name_is_there_from_show_to_release(store: Stores, put: Put, tmp_path: Path) -> None:
    held = store().hold([put(folder="loras/styles")], job_id="j", deadline=soon())
    assert seen(tmp_path) == {}
    held.show(soon())
    assert seen(tmp_path) == {"loras/styles/a.safetensors": safetensors()}
    held.release()
    assert seen(tmp_path) == {}
    assert kept(tmp_path) == [safetensors()]
    held.release()


def test_no_folder_stays_that_a_name_has_made_but_those_that_comfyui_misses(
    store: Stores, put: Put, tmp_path: Path
) -> None:
    shown(store(), put(folder="loras/styles/more")).release()
    [models] = (tmp_path / "store" / "seen").glob("*/models")
    assert [path.relative_to(models).as_posix() for path in models.rglob("*")] == ["loras"]


def test_a_name_that_two_jobs_have_stays_until_the_last_is_released(store: Stores, put: Put, tmp_path: Path) -> None:
    here, model = store(), put()
    first, second = shown(here, model), shown(here, model)
    first.release()
    first.release()
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors"]
    second.release()
    assert seen(tmp_path) == {}


def test_each_change_of_a_folder_is_seen_by_its_time(store: Stores, put: Put, tmp_path: Path) -> None:
    """ComfyUI lists a folder anew only if its time has changed."""
    here, model = store(), put(folder="loras/styles")
    times = []
    for _ in range(10):
        held = shown(here, model)
        [folder] = (tmp_path / "store" / "seen").glob("*/models/loras")
        times.append(folder.stat().st_mtime)
        held.release()
        times.append(folder.stat().st_mtime)
    assert len(set(times)) == len(times)


def test_a_name_that_begins_to_mean_another_content_is_forgotten_by_comfyui(
    store: Stores, put: Put, tmp_path: Path, forgotten: list[float]
) -> None:
    here = store()
    shown(here, put(content=safetensors(10, b"1"))).release()
    assert forgotten == []
    shown(here, put(content=safetensors(10, b"2")))
    assert len(forgotten) == 1
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(10, b"2")}


def test_a_name_that_comes_back_with_the_same_content_is_not_forgotten(
    store: Stores, put: Put, forgotten: list[float]
) -> None:
    here = store(model_store_bytes=2 * len(safetensors(1000)))
    model = put(content=safetensors(1000, b"a"))
    for _ in range(3):
        shown(here, model).release()
    for other in "bcd":  # which also evicts it
        shown(here, put(f"{other}.safetensors", safetensors(1000, other.encode()))).release()
    shown(here, model).release()
    assert forgotten == []


def test_a_name_that_was_evicted_and_comes_back_with_another_content_is_forgotten(
    store: Stores, put: Put, forgotten: list[float]
) -> None:
    here = store(model_store_bytes=len(safetensors(1000)))
    for content in (b"1", b"2"):
        shown(here, put(content=safetensors(1000, content))).release()
    assert len(forgotten) == 1


def test_many_names_that_change_at_once_are_forgotten_once(store: Stores, put: Put, forgotten: list[float]) -> None:
    here = store()
    for content in (b"1", b"2"):
        shown(here, *(put(f"{name}.safetensors", safetensors(9, content)) for name in "abc")).release()
    assert len(forgotten) == 1


def test_an_embedding_that_was_not_there_before_is_forgotten_as_absent(
    store: Stores, put: Put, forgotten: list[float]
) -> None:
    """A prompt's text may have named it before: then ComfyUI remembers the text without it."""
    here, model = store(), put(folder="embeddings")
    for _ in range(3):
        shown(here, model).release()
    assert len(forgotten) == 1


def test_a_change_that_comfyui_could_not_be_told_is_told_before_the_next_job(
    s3: S3Client, put: Put, tmp_path: Path
) -> None:
    told: list[float] = []

    def forget(deadline: float) -> None:
        told.append(deadline)
        if len(told) == 1:
            raise EngineUnavailable("it does not answer")

    settings = Settings(model_store_dir=tmp_path / "store", model_store_bytes=1_000_000)
    here = ModelStore(settings, s3, forget=forget, places=lambda _deadline: PLACES)
    shown(here, put(content=safetensors(10, b"1"))).release()
    changed = put(content=safetensors(10, b"2"))
    with pytest.raises(EngineUnavailable):
        shown(here, changed)
    assert seen(tmp_path) == {}
    shown(here, changed)
    assert len(told) == 2
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(10, b"2")}


def test_two_jobs_never_use_one_name_for_two_contents_at_once(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store()
    first = put("1/a.safetensors", safetensors(10, b"1"))
    second = put("2/a.safetensors", safetensors(10, b"2"))
    held = shown(here, first)
    with pytest.raises(DeadlineExceeded, match="different names"):
        shown(here, second, seconds=0.3)
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(10, b"1")}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shown, here, second)
        time.sleep(0.1)
        assert not waiting.done()
        held.release()
        waiting.result(PATIENCE_S)
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(10, b"2")}


def test_a_name_that_cannot_be_made_is_free_at_once(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store()
    shown(here, put()).release()
    [models] = (tmp_path / "store" / "seen").glob("*/models")
    (models / "loras").write_bytes(b"in the way")
    one, other = put(folder="loras"), put("b.safetensors", safetensors(9, b"9"), folder="loras", name="a.safetensors")
    with pytest.raises(AssetUnavailable, match="names"):
        shown(here, put(), one)
    assert seen(tmp_path) == {"loras": b"in the way"}
    (models / "loras").unlink()
    shown(here, other)
    assert seen(tmp_path) == {"loras/a.safetensors": safetensors(9, b"9")}


@pytest.mark.parametrize("in_the_way", ["loras/a.safetensors/x", "loras/a.safetensors", "loras"])
def test_what_stands_in_the_way_of_a_name_stays_and_keeps_no_other_name(
    store: Stores, put: Put, tmp_path: Path, in_the_way: str
) -> None:
    """A node of a pack may write there: a folder, a file of the name, a file instead of its folder."""
    here = store()
    other = put("b.safetensors")
    shown(here, other).release()
    [models] = (tmp_path / "store" / "seen").glob("*/models")
    (models / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (models / in_the_way).write_bytes(b"in the way")
    with pytest.raises(AssetUnavailable, match="names"):
        shown(here, put(folder="loras"))
    shown(here, other)
    assert seen(tmp_path) == {in_the_way: b"in the way", "checkpoints/b.safetensors": safetensors()}


def test_a_name_that_cannot_be_removed_is_tried_again_before_anything_is_shown(
    store: Stores, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = store()
    held = shown(here, put())

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "unlink", fail)
        held.release()
        with pytest.raises(AssetUnavailable, match="Input/output error"):
            shown(here, put("b.safetensors"))
    shown(here, put("b.safetensors"))
    assert list(seen(tmp_path)) == ["checkpoints/b.safetensors"]


def test_a_folder_that_another_job_has_for_a_file_is_waited_for(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store(allow_pickled_models=True)
    file, inside = put(folder="loras", name="styles"), put(folder="loras/styles")
    for model in (file, inside):
        shown(here, model).release()  # fetched and checked: what follows is a matter of names
    held = shown(here, file)
    with pytest.raises(DeadlineExceeded, match="different names"):
        shown(here, inside, seconds=0.1)
    held.release()
    held = shown(here, inside)
    with pytest.raises(DeadlineExceeded, match="different names"):
        shown(here, file, seconds=0.1)
    held.release()
    shown(here, file)
    assert list(seen(tmp_path)) == ["loras/styles"]


def test_many_jobs_at_once_leave_nothing(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store()
    models = [put(f"{n}.safetensors", safetensors(9, bytes([n % 3]))) for n in range(6)]
    shared = [put(name=f"{n}.safetensors", folder="loras/a/b") for n in range(2)]

    def job(number: int) -> set[str]:
        held = shown(here, models[number % 6], *shared)
        wanted = {models[number % 6].path, *(model.path for model in shared)}
        (models_folder,) = (tmp_path / "store" / "seen").glob("*/models")  # in which names of other jobs come and go
        missing = {path for path in wanted if not (models_folder / path).is_file()}
        held.release()
        return missing

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(job, range(60))) == [set()] * 60
    assert seen(tmp_path) == {}


def test_one_content_can_have_two_names(store: Stores, put: Put, tmp_path: Path) -> None:
    shown(store(), put(), put(name="b.safetensors", folder="loras"))
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors", "loras/b.safetensors"]
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize(("old", "new"), [("unet", "diffusion_models"), ("clip", "text_encoders")])
def test_a_folder_that_comfyui_has_renamed_is_one_folder(
    store: Stores, put: Put, tmp_path: Path, old: str, new: str
) -> None:
    shown(store(), put(folder=old), put(folder=new))
    assert list(seen(tmp_path)) == [f"{new}/a.safetensors"]
    other = {"url": "s3://b/a.safetensors", "sha256": "b" * 64, "folder": new}
    with pytest.raises(InvalidRequest, match="two different sha256"):
        JobRequest.parse({"workflow": WORKFLOW, "models": [{**other, "folder": old, "sha256": "a" * 64}, other]})


def test_each_process_sees_its_own_names_and_shares_the_contents(store: Stores, put: Put, tmp_path: Path) -> None:
    shown(store(), put())
    config = f"Settings(model_store_dir=Path({str(tmp_path / 'store')!r}))"
    code = (
        "from pathlib import Path; from comfy_serverless.settings import Settings;"
        "from comfy_serverless.connector.model_paths import write_paths_config;"
        f"path = write_paths_config({config}); print(path); print([*(path.parent / 'models').rglob('*.safetensors')])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=LAMBDA)
    other, found = answer.stdout.splitlines()
    mine = write_paths_config(Settings(model_store_dir=tmp_path / "store"))
    assert (found, Path(other).parent.parent) == ("[]", mine.parent.parent)
    assert Path(other) != mine


def test_the_names_of_a_process_that_is_gone_are_removed_by_the_next(store: Stores, put: Put, tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from comfy_serverless.settings import Settings;"
        "from comfy_serverless.connector.model_paths import own_directory;"
        f"own = own_directory(Settings(model_store_dir=Path({str(tmp_path / 'store')!r})));"
        "(own / 'models' / 'loras').mkdir(parents=True); (own / 'models' / 'loras' / 'left').write_text('');"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=LAMBDA)
    assert list(seen(tmp_path)) == ["loras/left"]
    shown(store(), put())
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors"]


def test_many_processes_that_begin_at_once_keep_their_own_folders(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from comfy_serverless.settings import Settings;"
        "from comfy_serverless.connector.model_paths import own_directory;"
        f"own = own_directory(Settings(model_store_dir=Path({str(tmp_path / 'store')!r})));"
        "print(own, flush=True); sys.stdin.read(); print(own.is_dir())"
    )
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=LAMBDA)
        for _ in range(4)
    ]
    begun = [process.stdout.readline() for process in processes if process.stdout]
    ended = [process.communicate()[0] for process in processes]
    assert len(set(begun)) == 4
    assert ended == ["True\n"] * 4


# The operator's models


@pytest.fixture
def operator(s3: S3Client, tmp_path: Path, forgotten: list[float]) -> Operator:
    return Operator(s3, tmp_path, forgotten)


class Operator:
    """A ComfyUI with models of its own, and a store beside it."""

    def __init__(self, s3: S3Client, tmp_path: Path, forgotten: list[float]) -> None:
        self.s3, self.tmp_path, self.forgotten = s3, tmp_path, forgotten
        self.store_dir = tmp_path / "store"
        own = own_directory(Settings(model_store_dir=self.store_dir)) / "models"
        self.places: dict[str, list[Path]] = {
            folder: [tmp_path / "image" / folder, tmp_path / "data" / folder, own / folder]
            for folder in ("checkpoints", "loras", "embeddings", "diffusion_models")
        }
        self.answers = True

    def has(self, path: str, content: bytes = safetensors(fill=b"o"), *, place: str = "image") -> bytes:
        (self.tmp_path / place / path).parent.mkdir(parents=True, exist_ok=True)
        (self.tmp_path / place / path).write_bytes(content)
        return content

    def asked(self, deadline: float) -> Places | None:
        return self.places if self.answers or deadline > time.monotonic() else None

    def store(self, **settings: Any) -> ModelStore:
        wanted = Settings(**{"model_store_dir": self.store_dir, "model_store_bytes": 1_000_000, **settings})
        return ModelStore(wanted, self.s3, forget=self.forgotten.append, places=self.asked)


@pytest.mark.parametrize(("place", "answers"), [("image", True), ("data", True), ("image", False)])
@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("checkpoints/a.safetensors", "checkpoints"),
        ("loras/styles/a.safetensors", "loras/styles"),
        ("diffusion_models/a.safetensors", "unet"),
        ("embeddings/a.safetensors", "embeddings"),
        ("embeddings/a.pt", "embeddings"),
        ("embeddings/a", "embeddings"),
    ],
)
def test_a_name_of_the_operators_is_not_taken(
    operator: Operator, put: Put, tmp_path: Path, path: str, folder: str, place: str, answers: bool
) -> None:
    operator.has(path, place=place)
    operator.answers = answers
    with pytest.raises(InvalidRequest, match="another `name`"):
        shown(operator.store(), put(folder=folder))
    assert seen(tmp_path) == {}


def test_a_refused_name_of_the_operators_fetches_nothing(operator: Operator, put: Put, tmp_path: Path) -> None:
    operator.has("checkpoints/a.safetensors")
    with pytest.raises(InvalidRequest, match="another `name`"):
        operator.store().hold([put()], job_id="j", deadline=soon())
    assert kept(tmp_path) == []


def test_the_same_content_under_the_operators_name_is_used_and_not_fetched(
    operator: Operator, put: Put, s3: S3Client, tmp_path: Path
) -> None:
    operator.has("checkpoints/a.safetensors", safetensors())
    model = put()
    s3.delete_object(Bucket=IN, Key="a.safetensors")
    shown(operator.store(), model)
    assert (seen(tmp_path), kept(tmp_path), operator.forgotten) == ({}, [], [])


def test_the_same_content_is_used_though_comfyui_did_not_answer_before_it_was_fetched(
    operator: Operator, put: Put, tmp_path: Path
) -> None:
    operator.has("checkpoints/a.safetensors", safetensors())
    operator.answers = False
    shown(operator.store(), put())
    assert seen(tmp_path) == {}


def test_a_name_that_the_operator_gives_away_while_a_job_prepares_is_not_taken(
    operator: Operator, put: Put, tmp_path: Path
) -> None:
    held = operator.store().hold([put()], job_id="j", deadline=soon())
    operator.has("checkpoints/a.safetensors")
    with pytest.raises(InvalidRequest, match="another `name`"):
        held.show(soon())
    held.release()
    assert seen(tmp_path) == {}


def test_a_model_of_the_operators_that_goes_while_a_job_prepares_is_missed(operator: Operator, put: Put) -> None:
    operator.has("checkpoints/a.safetensors", safetensors())
    held = operator.store().hold([put()], job_id="j", deadline=soon())
    (operator.tmp_path / "image" / "checkpoints" / "a.safetensors").unlink()
    with pytest.raises(AssetUnavailable, match="was removed"):
        held.show(soon())


def test_a_file_of_the_operators_is_read_once_and_again_when_it_has_changed(
    operator: Operator, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def noted(file: int, *, deadline: float) -> str:
        read.append(file)
        return sha256_of(file, deadline=deadline)

    monkeypatch.setattr(operator_models, "sha256_of", noted)
    operator.has("checkpoints/a.safetensors", safetensors())
    here, model = operator.store(), put()
    for _ in range(3):
        shown(here, model).release()
    assert len(read) == 1
    operator.has("checkpoints/a.safetensors", safetensors(fill=b"x"))
    with pytest.raises(InvalidRequest, match="another `name`"):
        shown(here, model)
    assert len(read) == 2


def test_the_place_that_comfyui_searches_first_decides(operator: Operator, put: Put, tmp_path: Path) -> None:
    operator.has("checkpoints/a.safetensors", safetensors())
    operator.has("checkpoints/a.safetensors", place="data")
    shown(operator.store(), put())
    assert seen(tmp_path) == {}


def test_a_folder_of_a_custom_node_that_searches_ours_too_keeps_its_names(operator: Operator, put: Put) -> None:
    operator.places["unet_gguf"] = [operator.tmp_path / "gguf", operator.places["diffusion_models"][-1]]
    operator.has("gguf/a.safetensors", place=".")
    with pytest.raises(InvalidRequest, match="another `name`"):
        shown(operator.store(), put(folder="diffusion_models"))


def test_two_jobs_that_bring_the_same_embedding_are_not_in_each_others_way(
    operator: Operator, put: Put, tmp_path: Path
) -> None:
    here, model = operator.store(), put(folder="embeddings")
    shown(here, model)
    shown(here, model)
    assert list(seen(tmp_path)) == ["embeddings/a.safetensors"]


@pytest.mark.parametrize(
    ("folder", "name", "taken"),
    [("unet", "a.safetensors", "unet"), ("embeddings", "a.safetensors", "embeddings"), ("embeddings", "a.sft", "")],
)
def test_a_name_of_the_manifest_is_not_taken(
    operator: Operator, put: Put, folder: str, name: str, taken: str, tmp_path: Path
) -> None:
    standing = put(name="a.safetensors", folder="diffusion_models" if taken == "unet" else "embeddings")
    (tmp_path / "models.json").write_text(json.dumps([standing.model_dump()]))
    here = operator.store(models_manifest=str(tmp_path / "models.json"))
    held = shown(here, standing)
    with pytest.raises(InvalidRequest, match=r"MODELS_MANIFEST.*another `name`"):
        here.hold([put("b.safetensors", safetensors(9), folder=folder, name=name)], job_id="j", deadline=soon())
    held.release()
    assert list(seen(tmp_path)) == [standing.path]


def test_a_manifest_that_contradicts_the_image_fails_jobs_and_says_why(
    operator: Operator, put: Put, tmp_path: Path
) -> None:
    operator.has("checkpoints/a.safetensors")
    (tmp_path / "models.json").write_text(json.dumps([put().model_dump()]))
    with pytest.raises(InvalidRequest, match="another `name`"):
        operator.store(models_manifest=str(tmp_path / "models.json")).hold([], job_id="j", deadline=soon())


@pytest.mark.parametrize(
    "gone",
    [
        "",
        "blobs",
        "partial",
        "checked",
        "seen",
        "seen/*",
        "seen/*/models",
        "seen/*/models/checkpoints",
        "seen/*/*.yaml",
    ],
)
def test_what_has_been_cleaned_up_between_two_jobs_is_made_again(
    store: Stores, put: Put, tmp_path: Path, gone: str
) -> None:
    here, first, second = store(), put(), put("b.safetensors", safetensors(9))
    shown(here, first).release()
    for place in [tmp_path / "store"] if not gone else list((tmp_path / "store").glob(gone)):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    held = shown(here, first, second, seconds=PATIENCE_S)
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(), "checkpoints/b.safetensors": safetensors(9)}
    [own] = (tmp_path / "store" / "seen").iterdir()
    config = write_paths_config(Settings(model_store_dir=tmp_path / "store"))
    assert config.parent == own, "ComfyUI looks there"
    held.release()
    assert seen(tmp_path) == {}


def test_a_name_of_the_manifest_that_has_been_cleaned_up_is_there_for_the_next_job(
    operator: Operator, put: Put, tmp_path: Path
) -> None:
    standing = put()
    (tmp_path / "models.json").write_text(json.dumps([standing.model_dump()]))
    here = operator.store(models_manifest=str(tmp_path / "models.json"))
    shown(here).release()
    for place in (tmp_path / "store" / "seen").glob("*/models/*"):
        shutil.rmtree(place)
    shown(here)
    assert list(seen(tmp_path)) == [standing.path]


def test_a_store_in_use_is_locked_for_who_cleans_up(store: Stores, put: Put, tmp_path: Path) -> None:
    shown(store(), put())
    descriptor = os.open(tmp_path / "store", os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_the_store_comes_after_the_operators_places(tmp_path: Path) -> None:
    config = json.loads(
        write_paths_config(Settings(model_store_dir=tmp_path / "store", model_data_dir=tmp_path)).read_text()
    )
    assert list(config) == ["sagemaker", "comfy_serverless"]
    assert not any("is_default" in section for section in config.values())


# Once checked


def test_a_content_is_checked_once_for_all_jobs_and_processes(
    store: Stores, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []

    def noted(sandbox: Sandbox, file: int, **limits: Any) -> None:
        checked.append(file)
        check_safetensors(sandbox, file, **limits)

    monkeypatch.setattr(store_module, "check_safetensors", noted)
    for _ in range(2):
        here = store()
        for name in ("a.safetensors", "b.safetensors"):
            shown(here, put(name=name)).release()
    assert len(checked) == 1


def test_a_content_that_came_under_another_name_is_checked_when_it_calls_itself_safetensors(
    store: Stores, put: Put, tmp_path: Path
) -> None:
    here = store(allow_pickled_models=True)
    pickle = b"\x80\x04pickle" * 9
    shown(here, put("a.ckpt", pickle)).release()
    for _ in range(2):
        with pytest.raises(MissingAsset, match="is not a safetensors file"):
            shown(here, put("a.ckpt", pickle, name="a.safetensors"))
    assert seen(tmp_path) == {}


def test_what_a_dead_process_had_begun_is_removed(store: Stores, put: Put, tmp_path: Path) -> None:
    store().hold([put()], job_id="j", deadline=soon()).release()
    (tmp_path / "store" / "partial" / ("f" * 64)).write_bytes(b"half")
    store().hold([put()], job_id="j", deadline=soon()).release()
    assert partial_files(tmp_path) == []


# The manifest


def test_the_models_of_the_manifest_are_fetched_before_the_first_job_and_kept(
    store: Stores, put: Put, tmp_path: Path
) -> None:
    model = put()
    manifest = tmp_path / "models.json"
    manifest.write_text(json.dumps([model.model_dump()]))
    here = store(models_manifest=str(manifest), model_store_bytes=2 * len(safetensors(1000)))
    shown(here).release()
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors"]
    big = put("b.safetensors", safetensors(2 * 1000))
    with pytest.raises(ComfyError, match="MODEL_STORE_BYTES"):
        here.hold([big], job_id="j", deadline=soon())
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors"]


def test_a_manifest_that_cannot_be_read_fails_the_job_and_says_why(store: Stores, tmp_path: Path) -> None:
    manifest = tmp_path / "models.json"
    manifest.write_text('[{"url": "s3://b/k"}]')
    with pytest.raises(InvalidRequest, match="MODELS_MANIFEST"):
        store(models_manifest=str(manifest)).hold([], job_id="j", deadline=soon())


# From the web


class Web:
    """A server of one file, with the manners that a test asks for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges = True
        self.cut_once = False
        self.requests: list[str | None] = []
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/m/web.safetensors?token=secret"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.requests.append(asked)
        body, status = self.content, 200
        if asked and self.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last), len(self.content) - 1)
            body, status = self.content[int(first) : end + 1], 206
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("ETag", '"v1"')
        if status == 206:
            request.send_header("Content-Range", f"bytes {first}-{end}/{len(self.content)}")
        request.end_headers()
        if self.cut_once:
            self.cut_once = False
            body = body[: len(body) // 2]
        request.wfile.write(body)


@pytest.fixture
def web() -> Iterator[Web]:
    served = Web(safetensors(5000))
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cut", [True, False])
def test_a_model_comes_from_the_web_in_parts_or_whole(
    store: Stores, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool, cut: bool
) -> None:
    monkeypatch.setattr(transfer_module, "PART_BYTES", 1000)
    web.ranges, web.cut_once = ranges, cut
    model = ModelRequest(url=web.url, folder="loras", sha256=sha256(web.content))
    shown(store(Network(allow_private=True, allow_own_host=True)), model)
    assert seen(tmp_path) == {"loras/web.safetensors": web.content}
    assert len(web.requests) == (6 if ranges else 1) + cut


def test_private_addresses_are_not_fetched_and_no_secret_is_told(store: Stores, web: Web) -> None:
    model = ModelRequest(url=web.url, folder="loras", sha256=sha256(web.content))
    with pytest.raises(MissingAsset) as raised:
        store().hold([model], job_id="j", deadline=soon())
    assert web.requests == []
    assert "secret" not in str(raised.value) + str(raised.value.details)


def test_a_folder_that_cannot_be_made_again_is_made_by_the_next_job(tmp_path: Path) -> None:
    settings = Settings(model_store_dir=tmp_path / "store")
    own = own_directory(settings)
    shutil.rmtree(own.parent)
    own.parent.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        own_directory(settings)
    own.parent.unlink()
    assert own_directory(settings) == own
    assert own.is_dir()
