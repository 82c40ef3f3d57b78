"""Models whose request has no SHA-256: what their host says is held to, else what came first, for this owner."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from comfy_serverless.errors import AssetUnavailable, ComfyError, DeadlineExceeded, InvalidRequest, MissingAsset
from comfy_serverless.fetch.tokens import NO_TOKENS, Tokens
from comfy_serverless.jobs.request import ModelRequest
from comfy_serverless.sandbox.sandbox import Sandbox
from comfy_serverless.settings import Settings
from comfy_serverless.worker.model_store import ModelStore
from comfy_serverless.worker.model_store.held import HeldModels
from comfy_serverless.worker.model_store.pins import FilePins, Pinned, S3Pins, pin_key
from tests.patience import PATIENCE_S
from tests.unit.fakes import IN, OUT
from tests.unit.model_hosts import CDN, CIVITAI, CIVITAI_TOKEN, HF, HF_TOKEN, THIEF, Internet
from tests.unit.worker.test_model_store import kept, partial_files, safetensors, seen, sha256, soon

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FILE = "/org/model/resolve/main/fox.safetensors"
FOX, BEAR = safetensors(5000, b"f"), safetensors(5000, b"b")
#: As Hugging Face names a small file: no SHA-256.
GIT = {"X_Linked_ETag": f'"{"a" * 40}"'}

Stores = Callable[..., ModelStore]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with Internet(tmp_path_factory.mktemp("tls")) as internet:
        yield internet


@pytest.fixture
def internet(running: Internet) -> Internet:
    running.answers.clear()
    running.seen.clear()
    return running


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    one = Sandbox()
    yield one
    one.close()


@pytest.fixture
def store(s3: S3Client, tmp_path: Path, internet: Internet, sandbox: Sandbox) -> Stores:
    def make(*, tokens: Tokens = NO_TOKENS, folder: str = "store", **settings: Any) -> ModelStore:
        wanted = Settings(model_store_dir=tmp_path / folder, model_store_bytes=10_000_000, **settings)
        return ModelStore(
            wanted,
            s3,
            internet.network,
            forget=lambda _until: None,
            places=lambda _until: {},
            sandbox=sandbox,
            tokens=tokens,
        )

    return make


def entry(url: str, **fields: Any) -> ModelRequest:
    return ModelRequest(**{"url": url, "folder": "loras", "name": "fox.safetensors", **fields})


def shown(store: ModelStore, *models: ModelRequest, owner: str = "ana", job_id: str = "j") -> HeldModels:
    held = store.hold(models, job_id=job_id, deadline=soon(), owner=owner)
    held.show(soon())
    return held


def gets(internet: Internet, host: str) -> int:
    return sum(seen.host == host and seen.method == "GET" for seen in internet.seen)


# What the host says


def test_what_hugging_face_says_is_taken_checked_and_told(store: Stores, internet: Internet, tmp_path: Path) -> None:
    url = internet.hub_file(FILE, FOX, sha256(FOX))
    held = shown(store(), entry(url))
    assert seen(tmp_path) == {"loras/fox.safetensors": FOX}
    [warning] = held.warnings
    assert f'"sha256": "{sha256(FOX)}"' in warning
    assert "as Hugging Face says" in warning
    held.release()


def test_what_civitai_says_is_taken_and_checked(store: Stores, internet: Internet, tmp_path: Path) -> None:
    url = internet.serve(CIVITAI, "/api/download/models/7", FOX)
    internet.civitai_version(7, {"hashes": {"SHA256": sha256(FOX).upper()}, "primary": True, "sizeKB": 1})
    held = shown(store(), entry(url))
    assert seen(tmp_path) == {"loras/fox.safetensors": FOX}
    assert "as CivitAI says" in held.warnings[0]


def test_another_content_than_the_host_says_is_refused(store: Stores, internet: Internet, tmp_path: Path) -> None:
    url = internet.hub_file(FILE, BEAR, sha256(FOX))
    with pytest.raises(MissingAsset, match=f"{sha256(BEAR)}, not {sha256(FOX)} as Hugging Face says"):
        store(allow_unpinned_models=True).hold([entry(url)], job_id="j", deadline=soon())
    assert kept(tmp_path) == []
    assert partial_files(tmp_path) == []


def test_a_hash_in_the_request_asks_no_host_and_warns_of_nothing(store: Stores, internet: Internet) -> None:
    url = internet.hub_file(FILE, FOX, "00" * 32)
    assert shown(store(), entry(url, sha256=sha256(FOX))).warnings == ()
    assert [seen.method for seen in internet.seen if seen.host == HF] == ["GET"]


def test_a_host_is_believed_for_a_while(store: Stores, internet: Internet) -> None:
    url, here = internet.hub_file(FILE, FOX, sha256(FOX)), store()
    for _ in range(3):
        shown(here, entry(url)).release()
    assert [seen.method for seen in internet.seen if seen.host == HF] == ["HEAD", "GET"]


def test_an_object_says_what_it_is_in_its_metadata_or_its_checksum(store: Stores, s3: S3Client, tmp_path: Path) -> None:
    s3.put_object(Bucket=IN, Key="models/a.safetensors", Body=FOX, Metadata={"sha256": sha256(FOX)})
    s3.put_object(Bucket=IN, Key="models/b.safetensors", Body=BEAR, ChecksumAlgorithm="SHA256")
    models = [ModelRequest(url=f"s3://{IN}/models/{name}.safetensors", folder="vae") for name in "ab"]
    held = shown(store(), *models)
    assert seen(tmp_path) == {"vae/a.safetensors": FOX, "vae/b.safetensors": BEAR}
    assert all("as S3 says" in warning for warning in held.warnings)


def test_metadata_that_lies_is_found_out(store: Stores, s3: S3Client) -> None:
    s3.put_object(Bucket=IN, Key="m.safetensors", Body=FOX, Metadata={"sha256": sha256(BEAR)})
    with pytest.raises(MissingAsset, match="as S3 says"):
        store().hold([entry(f"s3://{IN}/m.safetensors")], job_id="j", deadline=soon())


def test_a_bucket_that_is_not_allowed_is_not_asked(store: Stores, s3: S3Client) -> None:
    s3.put_object(Bucket=OUT, Key="m.safetensors", Body=FOX)
    with pytest.raises(MissingAsset, match="ALLOWED_INPUT_BUCKETS"):
        store(allowed_input_buckets=(IN,)).hold([entry(f"s3://{OUT}/m.safetensors")], job_id="j", deadline=soon())


def test_the_operators_own_entry_needs_no_question(store: Stores, internet: Internet, tmp_path: Path) -> None:
    url = internet.hub_file(FILE, FOX, sha256(FOX))
    (tmp_path / "models.json").write_text(f'[{{"url": "{url}", "folder": "loras", "name": "fox.safetensors"}}]')
    here = store(models_manifest=str(tmp_path / "models.json"))
    held = shown(here, entry(url))
    assert sha256(FOX) in held.warnings[0]
    assert [seen.method for seen in internet.seen if seen.host == HF] == ["HEAD", "GET"], "of the manifest alone"


def test_a_job_cannot_replace_the_operators_model_by_saying_no_hash(
    store: Stores, internet: Internet, tmp_path: Path
) -> None:
    url = internet.hub_file(FILE, FOX, sha256(FOX))
    other = internet.hub_file("/thief/model/resolve/main/fox.safetensors", BEAR, sha256(BEAR))
    (tmp_path / "models.json").write_text(f'[{{"url": "{url}", "folder": "loras", "name": "fox.safetensors"}}]')
    here = store(models_manifest=str(tmp_path / "models.json"))
    with pytest.raises(InvalidRequest, match="MODELS_MANIFEST"):
        here.hold([entry(other)], job_id="j", deadline=soon(), owner="ben")
    assert seen(tmp_path) == {"loras/fox.safetensors": FOX}


# What nobody says


def test_a_model_of_which_nobody_says_what_it_is_is_not_fetched(store: Stores, internet: Internet) -> None:
    url = internet.serve(THIEF, "/fox.safetensors?secret=s3cret", FOX)
    with pytest.raises(MissingAsset) as caught:
        store().hold([entry(url)], job_id="j", deadline=soon())
    assert all(part in caught.value.message for part in ("sha256", "models add", "ALLOW_UNPINNED_MODELS"))
    assert "s3cret" not in caught.value.message
    assert internet.seen == []


@pytest.mark.parametrize("etag", ['"v1"', 'W/"weak"', ""])
def test_where_it_is_allowed_what_comes_first_is_pinned_and_told(
    store: Stores, internet: Internet, tmp_path: Path, etag: str
) -> None:
    url = internet.serve(THIEF, "/fox.safetensors", FOX, ETag=etag)
    here = store(allow_unpinned_models=True)
    held = shown(here, entry(url))
    assert seen(tmp_path) == {"loras/fox.safetensors": FOX}
    assert f'"sha256": "{sha256(FOX)}"' in held.warnings[0]
    assert "when it was first fetched" in held.warnings[0]
    held.release()
    loaded = gets(internet, THIEF)
    shown(here, entry(url)).release()
    assert gets(internet, THIEF) == loaded + 1, "asked whether it is the same, and not loaded again"


@pytest.mark.parametrize("etag", ['"v1"', '"v2"', ""])
@pytest.mark.parametrize("warm", [True, False])
def test_another_content_at_the_address_is_refused(
    store: Stores, internet: Internet, tmp_path: Path, etag: str, warm: bool
) -> None:
    url = internet.serve(THIEF, "/fox.safetensors", FOX, ETag='"v1"')
    folder = {"assets_bucket": OUT, "allow_unpinned_models": True}
    here = store(**folder)
    shown(here, entry(url)).release()
    internet.serve(THIEF, "/fox.safetensors", BEAR, ETag=etag)
    then = here if warm else store(folder="another-worker", **folder)
    if warm and etag == '"v1"':
        held = shown(then, entry(url))
        assert seen(tmp_path) == {"loras/fox.safetensors": FOX}, "the version is the same, and its content is here"
        held.release()
        return
    with pytest.raises(MissingAsset, match=r"first fetched"):
        then.hold([entry(url)], job_id="j", deadline=soon(), owner="ana")
    assert BEAR not in kept(tmp_path)


def test_another_size_is_refused_before_it_is_loaded(store: Stores, internet: Internet) -> None:
    url, here = internet.serve(THIEF, "/fox.safetensors", FOX), store(allow_unpinned_models=True)
    shown(here, entry(url)).release()
    internet.serve(THIEF, "/fox.safetensors", FOX + b"more")
    with pytest.raises(MissingAsset, match="another content now"):
        here.hold([entry(url)], job_id="j", deadline=soon(), owner="ana")


def test_the_same_content_under_another_version_is_compared_once(store: Stores, internet: Internet) -> None:
    url, here = internet.serve(THIEF, "/fox.safetensors", FOX, ETag='"v1"'), store(allow_unpinned_models=True)
    shown(here, entry(url)).release()
    internet.serve(THIEF, "/fox.safetensors", FOX, ETag='"v2"')
    before = gets(internet, THIEF)
    for _ in range(3):
        shown(here, entry(url)).release()
    assert gets(internet, THIEF) == before + 4, "three questions, and one load"


def test_an_owners_pin_binds_nobody_else(store: Stores, internet: Internet, tmp_path: Path) -> None:
    url, here = internet.serve(THIEF, "/fox.safetensors", FOX), store(allow_unpinned_models=True, assets_bucket=OUT)
    shown(here, entry(url), owner="ana").release()
    internet.serve(THIEF, "/fox.safetensors", BEAR)
    held = shown(here, entry(url), owner="ben")
    assert seen(tmp_path) == {"loras/fox.safetensors": BEAR}
    assert sha256(FOX) not in held.warnings[0]
    held.release()


def test_two_jobs_at_once_load_it_once(store: Stores, internet: Internet) -> None:
    url, here = internet.serve(THIEF, "/fox.safetensors", FOX), store(allow_unpinned_models=True)
    with ThreadPoolExecutor(4) as pool:
        for held in list(pool.map(lambda n: here.hold([entry(url)], job_id=f"j{n}", deadline=soon()), range(4))):
            held.release()
    assert gets(internet, THIEF) == 4, "one load, and three questions"


def test_what_is_no_model_is_not_pinned(store: Stores, internet: Internet, tmp_path: Path) -> None:
    url, here = internet.serve(THIEF, "/fox.safetensors", b"<html>"), store(allow_unpinned_models=True)
    with pytest.raises(MissingAsset, match="cannot be used"):
        here.hold([entry(url)], job_id="j", deadline=soon(), owner="ana")
    assert partial_files(tmp_path) == []
    internet.serve(THIEF, "/fox.safetensors", FOX)
    shown(here, entry(url)).release()


def test_an_endless_body_ends_at_the_room_for_models(store: Stores, internet: Internet, tmp_path: Path) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000000\r\n\r\n")
        while not internet.stopping.is_set():
            request.wfile.write(b"x" * 65536)

    internet.answers[THIEF, "/fox.safetensors"] = endless
    here = store(allow_unpinned_models=True)
    with pytest.raises(MissingAsset, match="MODEL_STORE_BYTES"):
        here.hold([entry(internet.url(THIEF, "/fox.safetensors"))], job_id="j", deadline=soon())

    def without_length(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\nxxxx")

    internet.answers[THIEF, "/fox.safetensors"] = without_length
    with pytest.raises(MissingAsset, match="Content-Length"):
        here.hold([entry(internet.url(THIEF, "/fox.safetensors"))], job_id="j", deadline=soon())
    assert partial_files(tmp_path) == []


def test_a_pickle_is_refused_before_anybody_is_asked(store: Stores, internet: Internet) -> None:
    url = internet.hub_file("/org/model/resolve/main/fox.ckpt", FOX, sha256(FOX))
    with pytest.raises(MissingAsset, match="ALLOW_PICKLED_MODELS"):
        store(allow_unpinned_models=True).hold([entry(url, name="fox.ckpt")], job_id="j", deadline=soon())
    assert internet.seen == []


@pytest.mark.parametrize("pins", ["file", "s3"])
def test_the_first_pin_stands(pins: str, s3: S3Client, tmp_path: Path) -> None:
    one: Any = FilePins(tmp_path / "pins") if pins == "file" else S3Pins(s3, OUT)
    key, first, second = pin_key("ana", "https://x/a#b"), Pinned("ab" * 32, 1, '"v"'), Pinned("cd" * 32, 2)
    assert one.read(key) is None
    assert (one.write(key, first), one.write(key, second), one.read(key)) == (first, first, first)
    assert key == pin_key("ana", "https://x/a") != pin_key("ben", "https://x/a")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sha256": "../x", "size_bytes": 1}', b"\xff"])
def test_a_damaged_pin_is_no_content(s3: S3Client, content: bytes) -> None:
    s3.put_object(Bucket=OUT, Key="pins/k.json", Body=content)
    with pytest.raises(AssetUnavailable, match="damaged"):
        S3Pins(s3, OUT).read("k")


@pytest.mark.parametrize(("code", "status", "is_final"), [("AccessDenied", 403, True), ("SlowDown", 503, False)])
@pytest.mark.parametrize("operation", ["GetObject", "PutObject"])
def test_a_pin_that_s3_refuses_is_asked_for_again_only_if_that_may_help(
    s3: S3Client, operation: str, code: str, status: int, *, is_final: bool
) -> None:
    def refuse(model: Any, **_: object) -> None:
        if model.name == operation:
            response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(response, operation)

    s3.meta.events.register("before-call.s3", refuse)
    pins = S3Pins(s3, OUT)
    with pytest.raises(MissingAsset) as caught:
        pins.read("k") if operation == "GetObject" else pins.write("k", Pinned("ab" * 32, 1))
    assert caught.value.retryable is not is_final
    assert f"s3://{OUT}/pins/k.json" in caught.value.message


# Tokens


def test_a_token_goes_to_its_own_host_and_not_along_to_the_cdn(store: Stores, internet: Internet) -> None:
    url = internet.hub_file(FILE, FOX, sha256(FOX))
    shown(store(tokens=internet.tokens), entry(url)).release()
    sent = {(seen.host, seen.token) for seen in internet.seen}
    assert sent == {(HF, f"Bearer {HF_TOKEN}"), (CDN, None)}


@pytest.mark.parametrize(
    "thief", [THIEF, f"{HF}.{THIEF}", f"cdn.{HF}"], ids=["another name", "the name in front", "a name below"]
)
def test_no_redirect_takes_a_token_along_and_none_brings_it_back(
    store: Stores, internet: Internet, caplog: pytest.LogCaptureFixture, thief: str
) -> None:
    caplog.set_level(logging.DEBUG)
    url = internet.redirect(HF, FILE, internet.url(thief, "/steal?token=sent"), status=307, **GIT)
    internet.redirect(thief, "/steal", internet.url(HF, "/org/other/resolve/main/fox.safetensors"))
    internet.serve(HF, "/org/other/resolve/main/fox.safetensors", status=401)
    with pytest.raises(ComfyError) as caught:
        store(tokens=internet.tokens, allow_unpinned_models=True).hold([entry(url)], job_id="j", deadline=soon())
    tokens = [(seen.host, seen.path.partition("?")[0], seen.token) for seen in internet.seen]
    assert (thief, "/steal", None) in tokens
    assert (HF, "/org/other/resolve/main/fox.safetensors", None) in tokens
    assert all(token is None for host, _, token in tokens if host == thief)
    told = f"{caught.value.message} {caught.value.details} {caught.value!r} {caplog.text}"
    assert HF_TOKEN not in told
    assert CIVITAI_TOKEN not in told


def test_a_token_is_not_sent_without_tls_nor_to_another_port(internet: Internet) -> None:
    from urllib.parse import urlsplit

    tokens = Tokens({HF: lambda: HF_TOKEN})
    assert tokens.headers_for(urlsplit(f"https://{HF}:443/x")) == {"Authorization": f"Bearer {HF_TOKEN}"}
    for url in (f"http://{HF}:443/x", f"https://{HF}:444/x", f"https://{HF}.:443/x", f"https://x{HF}:443/x"):
        assert tokens.headers_for(urlsplit(url)) == {}, url


def test_a_gated_model_says_what_to_accept(store: Stores, internet: Internet) -> None:
    url = internet.serve(HF, FILE, status=401, X_Error_Code="GatedRepo")
    with pytest.raises(MissingAsset, match=r"licence at https://huggingface.co/org/model") as caught:
        store().hold([entry(url, sha256=sha256(FOX))], job_id="j", deadline=soon())
    assert "HuggingFaceTokenParameter" in caught.value.message


def test_civitais_login_page_is_no_model(store: Stores, internet: Internet) -> None:
    url = internet.redirect(CIVITAI, "/api/download/models/7", "/login?returnUrl=x", status=307)
    internet.serve(CIVITAI, "/login", b"<html>")
    with pytest.raises(MissingAsset, match="CIVITAI_TOKEN"):
        store().hold([entry(url, sha256=sha256(FOX))], job_id="j", deadline=soon())


def test_a_token_that_cannot_be_had_ends_the_job_in_words(store: Stores, internet: Internet) -> None:
    def lost() -> str:
        raise MissingAsset("the token cannot be read")

    url = internet.hub_file(FILE, FOX, sha256(FOX))
    tokens = Tokens({f"{HF}:{internet.port}": lost})
    for model in (entry(url), entry(url, sha256=sha256(FOX))):
        with pytest.raises(MissingAsset, match="the token cannot be read"):
            store(tokens=tokens).hold([model], job_id="j", deadline=soon())
    assert internet.seen == []


@pytest.mark.parametrize(
    "to", ["https://169.254.169.254/latest", "https://[fd00:ec2::254]/", "ftp://x/", "file:///etc"]
)
def test_a_redirect_into_the_own_network_is_not_followed(store: Stores, internet: Internet, to: str) -> None:
    url = internet.redirect(HF, FILE, to)
    with pytest.raises(MissingAsset, match=r"not allowed|only https"):
        store(tokens=internet.tokens).hold([entry(url, sha256=sha256(FOX))], job_id="j", deadline=soon())


def test_a_circle_of_redirects_ends(store: Stores, internet: Internet) -> None:
    circle = internet.redirect(HF, FILE, FILE)
    for model in (entry(circle), entry(circle, sha256=sha256(FOX))):
        with pytest.raises(MissingAsset, match="redirected more than"):
            store().hold([model], job_id="j", deadline=soon())


def test_a_host_that_is_silent_does_not_hold_the_job_beyond_its_deadline(store: Stores, internet: Internet) -> None:
    waiting = threading.Event()

    def silent(_request: BaseHTTPRequestHandler) -> None:
        waiting.wait(PATIENCE_S)

    internet.answers[HF, FILE] = silent
    try:
        with pytest.raises(DeadlineExceeded):
            store().hold([entry(internet.url(HF, FILE))], job_id="j", deadline=time.monotonic() + 0.3)
    finally:
        waiting.set()
