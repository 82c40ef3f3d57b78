"""Headers for browsers on every answer, and the page at /docs: small, kept, and within its own policy."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.api_world import ApiWorld, api_world

ORIGIN = "https://app.example"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, cors_origins=(ORIGIN,)) as world:
        yield world


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v2/health", 200),
        ("GET", "/api/v2/jobs", 200),
        ("GET", "/api/v2/jobs/nothing", 404),
        ("GET", "/nothing/at/all", 404),
        ("POST", "/api/v2/jobs", 422),
        ("HEAD", "/api/v2/assets/by-hash/x", 404),
        ("OPTIONS", "/api/v2/jobs", 204),
        ("GET", "/openapi.json", 200),
        ("GET", "/docs", 200),
    ],
)
def test_every_answer_tells_a_browser_to_guess_frame_and_run_nothing(
    api: ApiWorld, method: str, path: str, status: int
) -> None:
    body: dict[str, Any] | None = {} if method == "POST" else None
    answer = api.request(method, path, body=body, headers={"x-forwarded-proto": "https", "origin": ORIGIN})
    assert answer.status == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["strict-transport-security"] == "max-age=63072000"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy


def test_a_machine_without_tls_is_not_held_to_it(api: ApiWorld) -> None:
    assert "strict-transport-security" not in api.request("GET", "/api/v2/health").headers


def test_the_page_is_small_and_says_so_itself(api: ApiWorld) -> None:
    plain = api.request("GET", "/docs", owner="")
    assert len(plain.text) < 10_000
    packed = api.request("GET", "/docs", owner="", headers={"accept-encoding": "gzip"})
    content = base64.b64decode(packed.text)
    assert gzip.decompress(content).decode() == plain.text
    assert len(content) < 4_000
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", plain.text), "it needs nothing from elsewhere"


def test_the_page_is_within_its_policy(api: ApiWorld) -> None:
    answer = api.request("GET", "/docs", owner="")
    policy = answer.headers["content-security-policy"]
    for kind in ("style", "script"):
        [content] = re.findall(rf"<{kind}>(.*?)</{kind}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    markup = re.sub(r"<(script|style)>.*?</\1>", "", answer.text, flags=re.DOTALL)
    assert not re.search(r"\s(on\w+|style)=", markup)
    assert "innerHTML" not in answer.text


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_what_is_the_same_for_everybody_is_kept_by_browsers(api: ApiWorld, path: str) -> None:
    first = api.request("GET", path, owner="")
    assert "max-age" in first.headers["cache-control"]
    again = api.request("GET", path, owner="", headers={"if-none-match": first.headers["etag"]})
    assert (again.status, again.text) == (304, "")
    assert again.headers["etag"] == first.headers["etag"]
    assert api.request("GET", path, owner="", headers={"if-none-match": '"other"'}).text == first.text
