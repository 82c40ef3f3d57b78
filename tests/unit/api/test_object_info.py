"""What nodes the workers have, over the API: packed, kept by who has it, and one class by any name."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from comfy_serverless.api import object_info
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.jobs.image_declarations import publish
from tests.unit.api_world import ASSETS, ApiWorld, api_world
from tests.unit.editor_samples import OBJECT_INFO

BUILD = Build("worker", "3f2a91c07b5e")
ODD = ("Text/Concat", "KSampler (Efficient)", "SDXL \N{THUMBS UP SIGN}", "100%", "a.b", "Größe", "x%2Fy")
PATH = "/api/v2/object_info"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, worker_image=BUILD.image, release_version=BUILD.release) as world:
        yield world


@pytest.fixture
def told(api: ApiWorld) -> ApiWorld:
    odd = dict.fromkeys(ODD, OBJECT_INFO["EmptyImage"])
    publish(api.s3, ASSETS, BUILD, {**OBJECT_INFO, **odd})
    return api


def test_all_of_it_comes_plain_or_packed_and_is_the_same(told: ApiWorld) -> None:
    plain = told.request("GET", PATH)
    assert plain.status == 200
    assert set(plain.json) == {*OBJECT_INFO, *ODD}
    packed = told.request("GET", PATH, headers={"accept-encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(base64.b64decode(packed.text))) == plain.json
    assert packed.headers["etag"] == plain.headers["etag"]
    assert plain.headers["cache-control"] == "private, no-cache"
    assert "authorization" in plain.headers["vary"]


def test_who_has_it_already_gets_nothing(told: ApiWorld) -> None:
    for path in (PATH, f"{PATH}/EmptyImage"):
        tag = told.request("GET", path).headers["etag"]
        again = told.request("GET", path, headers={"if-none-match": tag})
        assert (again.status, again.text, again.headers["etag"]) == (304, "", tag)
        assert told.request("GET", path, headers={"if-none-match": '"other"'}).status == 200


@pytest.mark.parametrize("name", ODD)
def test_a_class_of_any_name_is_found_however_the_path_comes(told: ApiWorld, name: str) -> None:
    for path in (name, quote(name, safe="")):
        answer = told.request("GET", f"{PATH}/{path}")
        assert answer.status == 200, answer.text
        assert answer.json == {name: OBJECT_INFO["EmptyImage"]}


def test_a_class_that_no_worker_has_is_not_found_with_a_guess(told: ApiWorld) -> None:
    answer = told.request("GET", f"{PATH}/EmptyImag")
    assert (answer.status, answer.code) == (404, "not_found")
    assert "did you mean 'EmptyImage'" in answer.json["error"]["message"]
    assert told.request("GET", f"{PATH}/{'x' * 3000}").status == 404
    assert told.request("GET", f"{PATH}/../jobs").status == 404


def test_as_long_as_nobody_has_told_it_is_503_as_conversion_is(api: ApiWorld) -> None:
    for path in (PATH, f"{PATH}/EmptyImage"):
        answer = api.request("GET", path)
        assert (answer.status, answer.code) == (503, "engine_unavailable")
        assert "no worker has told yet" in answer.json["error"]["message"]


def test_more_than_an_answer_may_have_is_refused_with_another_way(
    told: ApiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_info, "REPLY_LIMIT_BYTES", 2000)
    assert len(told.request("GET", PATH, headers={"accept-encoding": "gzip"}).text) < 2000
    plain = told.request("GET", PATH)
    assert plain.status == 413
    assert "Accept-Encoding: gzip" in plain.json["error"]["message"]
    monkeypatch.setattr(object_info, "REPLY_LIMIT_BYTES", 100)
    packed = told.request("GET", PATH, headers={"accept-encoding": "gzip"})
    assert (packed.status, "one class" in packed.json["error"]["message"]) == (413, True)


def test_a_parameter_is_refused(told: ApiWorld) -> None:
    for path in (PATH, f"{PATH}/EmptyImage", f"{PATH}/Text/Concat"):
        assert told.request("GET", f"{path}?class=1").status == 422
