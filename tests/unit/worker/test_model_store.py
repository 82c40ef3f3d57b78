"""Models that jobs name: fetched once, checked, bounded, and never taken away from who uses them."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from comfy_serverless.errors import AssetUnavailable, ComfyError, DeadlineExceeded, InvalidRequest, MissingAsset
from comfy_serverless.fetch.web import Network
from comfy_serverless.jobs.request import JobRequest, ModelRequest
from comfy_serverless.settings import Settings
from comfy_serverless.worker.model_store import ModelStore
from comfy_serverless.worker.model_store import transfer as transfer_module
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


@pytest.fixture
def forgotten() -> list[float]:
    return []


@pytest.fixture
def store(s3: S3Client, tmp_path: Path, forgotten: list[float]) -> Stores:
    def make(network: Network | None = None, **settings: Any) -> ModelStore:
        wanted = Settings(**{"model_store_dir": tmp_path / "store", "model_store_bytes": 1_000_000, **settings})
        return ModelStore(wanted, s3, network, forget=forgotten.append)

    return make


@pytest.fixture
def put(s3: S3Client) -> Callable[..., ModelRequest]:
    def in_s3(name: str = "a.safetensors", content: bytes | None = None, **fields: Any) -> ModelRequest:
        content = safetensors() if content is None else content
        s3.put_object(Bucket=IN, Key=name, Body=content)
        return ModelRequest(
            **{"url": f"s3://{IN}/{name}", "folder": "checkpoints", "sha256": sha256(content), **fields}
        )

    return in_s3


Put = Callable[..., ModelRequest]


def soon(seconds: float = PATIENCE_S) -> float:
    return time.monotonic() + seconds


def seen(tmp_path: Path) -> dict[str, bytes]:
    """What ComfyUI would find."""
    models = tmp_path / "store" / "models"
    return {
        path.relative_to(models).as_posix(): path.read_bytes() for path in sorted(models.rglob("*")) if path.is_file()
    }


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
    here.hold([model], job_id="j", deadline=soon()).close()
    s3.delete_object(Bucket=IN, Key="a.safetensors")
    here.hold([model], job_id="j", deadline=soon()).close()
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors()}
    assert partial_files(tmp_path) == []


def test_a_large_model_comes_in_parts_and_is_whole(
    store: Stores, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_module, "PART_BYTES", 1000)
    content = safetensors(20_500)
    store().hold([put(content=content)], job_id="j", deadline=soon()).close()
    assert seen(tmp_path) == {"checkpoints/a.safetensors": content}


def test_another_process_finds_what_was_fetched(store: Stores, put: Put, s3: S3Client, tmp_path: Path) -> None:
    model = put()
    store().hold([model], job_id="j", deadline=soon()).close()
    s3.delete_object(Bucket=IN, Key="a.safetensors")
    store().hold([model], job_id="j", deadline=soon()).close()
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors"]


def test_other_bytes_than_promised_are_refused_and_not_kept(store: Stores, put: Put, tmp_path: Path) -> None:
    with pytest.raises(MissingAsset, match=f"{sha256(safetensors())}, not {'0' * 64}"):
        store().hold([put(sha256="0" * 64)], job_id="j", deadline=soon())
    assert seen(tmp_path) == {}
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
    assert seen(tmp_path) == {}
    assert partial_files(tmp_path) == []


def test_pickles_are_fetched_only_where_they_are_allowed(store: Stores, put: Put, tmp_path: Path) -> None:
    model = put("a.ckpt", b"\x80\x04pickle")
    with pytest.raises(MissingAsset, match="ALLOW_PICKLED_MODELS"):
        store().hold([model], job_id="j", deadline=soon())
    store(allow_pickled_models=True).hold([model], job_id="j", deadline=soon()).close()
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
        one.close()
    assert asked == ["a.safetensors"]


# Room


def test_the_least_recently_used_leaves_first(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store(model_store_bytes=3 * len(safetensors(1000)))
    models = [put(f"{name}.safetensors", safetensors(1000, name.encode())) for name in "abc"]
    for model in models:
        here.hold([model], job_id="j", deadline=soon()).close()
        time.sleep(0.02)
    here.hold([models[0]], job_id="j", deadline=soon()).close()
    here.hold([put("d.safetensors", safetensors(1000, b"d"))], job_id="j", deadline=soon()).close()
    assert sorted(seen(tmp_path)) == [f"checkpoints/{name}.safetensors" for name in "acd"]


def test_what_a_job_uses_is_never_evicted(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store(model_store_bytes=2 * len(safetensors(1000)))
    held = [
        here.hold([put(f"{name}.safetensors", safetensors(1000, name.encode()))], job_id=name, deadline=soon())
        for name in "ab"
    ]
    third = put("c.safetensors", safetensors(1000, b"c"))
    with pytest.raises(AssetUnavailable, match="in use"):
        here.hold([third], job_id="c", deadline=soon())
    assert sorted(seen(tmp_path)) == [f"checkpoints/{name}.safetensors" for name in "ab"]
    held[0].close()
    here.hold([third], job_id="c", deadline=soon()).close()
    assert sorted(seen(tmp_path)) == [f"checkpoints/{name}.safetensors" for name in "bc"]
    held[0].close()
    held[1].close()


def test_what_can_never_fit_is_said_before_it_is_fetched(store: Stores, put: Put) -> None:
    with pytest.raises(MissingAsset, match="MODEL_STORE_BYTES"):
        store(model_store_bytes=100).hold([put(content=safetensors(1000))], job_id="j", deadline=soon())


# Names


def test_a_name_that_begins_to_mean_another_content_is_forgotten_by_comfyui(
    store: Stores, put: Put, tmp_path: Path, forgotten: list[float]
) -> None:
    here = store()
    here.hold([put(content=safetensors(10, b"1"))], job_id="j", deadline=soon()).close()
    assert forgotten == []
    here.hold([put(content=safetensors(10, b"2"))], job_id="j", deadline=soon()).close()
    assert len(forgotten) == 1
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(10, b"2")}


def test_two_jobs_never_use_one_name_for_two_contents_at_once(store: Stores, put: Put, tmp_path: Path) -> None:
    here = store()
    first = put("1/a.safetensors", safetensors(10, b"1"))
    second = put("2/a.safetensors", safetensors(10, b"2"))
    held = here.hold([first], job_id="1", deadline=soon())
    with pytest.raises(DeadlineExceeded, match="different names"):
        here.hold([second], job_id="2", deadline=soon(0.3))
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(10, b"1")}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(here.hold, [second], job_id="2", deadline=soon())
        time.sleep(0.1)
        held.close()
        waiting.result(PATIENCE_S).close()
    assert seen(tmp_path) == {"checkpoints/a.safetensors": safetensors(10, b"2")}


def test_one_content_can_have_two_names(store: Stores, put: Put, tmp_path: Path) -> None:
    store().hold([put(), put(name="b.safetensors", folder="loras")], job_id="j", deadline=soon()).close()
    assert list(seen(tmp_path)) == ["checkpoints/a.safetensors", "loras/b.safetensors"]
    assert len(list((tmp_path / "store" / "blobs").iterdir())) == 1


def test_what_a_dead_process_had_begun_is_removed(store: Stores, put: Put, tmp_path: Path) -> None:
    store().hold([put()], job_id="j", deadline=soon()).close()
    (tmp_path / "store" / "partial" / ("f" * 64)).write_bytes(b"half")
    store().hold([put()], job_id="j", deadline=soon()).close()
    assert partial_files(tmp_path) == []


# The manifest


def test_the_models_of_the_manifest_are_fetched_before_the_first_job_and_kept(
    store: Stores, put: Put, tmp_path: Path
) -> None:
    model = put()
    manifest = tmp_path / "models.json"
    manifest.write_text(json.dumps([model.model_dump()]))
    here = store(models_manifest=str(manifest), model_store_bytes=2 * len(safetensors(1000)))
    here.hold([], job_id="j", deadline=soon()).close()
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
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
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
    store(Network(allow_private=True, allow_own_host=True)).hold([model], job_id="j", deadline=soon()).close()
    assert seen(tmp_path) == {"loras/web.safetensors": web.content}
    assert len(web.requests) == (6 if ranges else 1) + cut


def test_private_addresses_are_not_fetched_and_no_secret_is_told(store: Stores, web: Web) -> None:
    model = ModelRequest(url=web.url, folder="loras", sha256=sha256(web.content))
    with pytest.raises(MissingAsset) as raised:
        store().hold([model], job_id="j", deadline=soon())
    assert web.requests == []
    assert "secret" not in str(raised.value) + str(raised.value.details)
