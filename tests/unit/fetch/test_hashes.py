"""The SHA-256 of a model without a download, from answers of its host: right ones, strange ones, hostile ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from comfy_serverless.fetch.hashes import MOST_BYTES, Pin, hash_of
from comfy_serverless.fetch.sources import Unusable
from comfy_serverless.fetch.tokens import NO_TOKENS, Tokens
from tests.unit.model_hosts import CDN, CIVITAI, CIVITAI_TOKEN, HF, HF_TOKEN, THIEF, Internet

SHA256 = "ab" * 32
FILE = "/org/model/resolve/main/sub/model.safetensors"
DOWNLOAD = "/api/download/models/77"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with Internet(tmp_path_factory.mktemp("tls")) as internet:
        yield internet


@pytest.fixture
def internet(running: Internet) -> Internet:
    running.answers.clear()
    running.seen.clear()
    return running


def asked(internet: Internet, url: str, tokens: Tokens | None = None) -> Pin | None:
    return hash_of(url, get=internet.get, tokens=internet.tokens if tokens is None else tokens)


def file(name: str, sha256: str = SHA256, **facts: Any) -> dict[str, Any]:
    return {"name": name, "hashes": {"SHA256": sha256.upper(), "AutoV2": sha256[:10]}, "sizeKB": 2.5, **facts}


# Hugging Face


def test_hugging_face_tells_the_hash_of_a_large_file_and_nothing_is_downloaded(internet: Internet) -> None:
    url = internet.hub_file(FILE, b"x" * 100, SHA256)
    assert asked(internet, url) == Pin(SHA256, 100, "Hugging Face", url)
    assert [(seen.method, seen.host) for seen in internet.seen] == [("HEAD", HF)]


def test_a_page_of_a_file_is_asked_where_the_file_is(internet: Internet) -> None:
    url = internet.hub_file(FILE, b"x", SHA256)
    pin = asked(internet, internet.url(HF, FILE.replace("/resolve/", "/blob/")))
    assert pin is not None
    assert (pin.sha256, pin.url) == (SHA256, url)


def test_a_repository_that_was_renamed_is_followed_within_the_host(internet: Internet) -> None:
    internet.redirect(HF, "/old/model/resolve/main/m.safetensors", FILE, status=307)
    internet.hub_file(FILE, b"x", SHA256)
    pin = asked(internet, internet.url(HF, "/old/model/resolve/main/m.safetensors"))
    assert pin is not None
    assert (pin.sha256, pin.moved_to) == (SHA256, internet.url(HF, FILE))
    assert [seen.token for seen in internet.seen] == [f"Bearer {HF_TOKEN}"] * 2


@pytest.mark.parametrize("etag", ['"' + "a" * 40 + '"', "", '""', "x" * 64, '"' + "a" * 65 + '"', "é" * 10])
def test_what_is_no_sha256_is_none(internet: Internet, etag: str) -> None:
    url = internet.serve(HF, FILE, b"small", X_Linked_ETag=etag, ETag='"' + "c" * 64 + '"')
    assert asked(internet, url) is None


@pytest.mark.parametrize("size", ["", "-1", "many", "9" * 30, "1e3"])
def test_a_size_that_is_none_is_left_out(internet: Internet, size: str) -> None:
    url = internet.serve(HF, FILE, X_Linked_ETag=f'W/"{SHA256}"', X_Linked_Size=size)
    assert asked(internet, url) == Pin(SHA256, None, "Hugging Face", url)


@pytest.mark.parametrize(
    "to", [f"https://{CDN}/x", f"https://{HF}.{THIEF}/x", f"http://{HF}/x", f"//{THIEF}/x", f"https://cdn.{HF}/x"]
)
def test_another_host_is_not_asked_for_a_hash(internet: Internet, to: str) -> None:
    for host in (CDN, THIEF, f"{HF}.{THIEF}", f"cdn.{HF}"):
        internet.serve(host, "/x", X_Linked_ETag=f'"{SHA256}"')
    url = internet.redirect(HF, FILE, to)
    assert asked(internet, url) is None
    assert [seen.host for seen in internet.seen] == [HF]


def test_a_circle_of_redirects_ends(internet: Internet) -> None:
    url = internet.redirect(HF, FILE, FILE, status=307)
    with pytest.raises(Unusable, match="more than 5 times"):
        asked(internet, url)
    assert len(internet.seen) == 6


@pytest.mark.parametrize(
    ("status", "transient", "told"), [(404, False, "not there"), (429, True, "429"), (503, True, "503")]
)
def test_a_failure_of_the_host_is_told(internet: Internet, status: int, transient: bool, told: str) -> None:
    url = internet.serve(HF, FILE, status=status)
    with pytest.raises(Unusable, match=told) as caught:
        asked(internet, url)
    assert caught.value.transient is transient


def test_huge_headers_are_a_failed_connection(internet: Internet) -> None:
    url = internet.serve(HF, FILE, X_Linked_ETag="a" * 70_000)
    with pytest.raises(Unusable, match="the connection failed"):
        asked(internet, url)
    many: dict[str, Any] = {f"X_{number}": "a" for number in range(500)}
    url = internet.serve(HF, FILE, **many)
    with pytest.raises(Unusable, match="the connection failed"):
        asked(internet, url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/m.safetensors",
        f"http://{HF}{FILE}",
        f"https://{HF}.example{FILE}",
        f"https://x{HF}{FILE}",
        f"https://{HF}.{FILE}",
        f"https://{CIVITAI}/models/77",
        "s3://bucket/m.safetensors",
        "https://[::1",
    ],
)
def test_who_is_neither_of_the_hosts_is_not_asked(internet: Internet, url: str) -> None:
    assert asked(internet, url) is None
    assert internet.seen == []


# CivitAI


@pytest.mark.parametrize("query", ["", "?type=Model&format=SafeTensor", "?format=safetensor&fp=fp16&token=s3cret"])
def test_civitai_tells_the_hash_of_the_file_that_the_address_downloads(internet: Internet, query: str) -> None:
    link = internet.url(CIVITAI, DOWNLOAD)
    internet.civitai_version(
        77,
        file("m.ckpt", "11" * 32, type="Model", metadata={"format": "PickleTensor", "fp": "fp16"}),
        file(
            "m.safetensors",
            type="Model",
            primary=True,
            downloadUrl=link,
            metadata={"format": "SafeTensor", "fp": "fp16"},
        ),
        file("v.safetensors", "22" * 32, type="VAE", downloadUrl=f"{link}?type=VAE", metadata={"format": "SafeTensor"}),
    )
    pin = asked(internet, f"{link}{query}")
    assert pin == Pin(SHA256, 2560, "CivitAI", f"{link}{query}", "m.safetensors")
    [seen] = internet.seen
    assert (seen.path, seen.token) == ("/api/v1/model-versions/77", f"Bearer {CIVITAI_TOKEN}")
    assert "token" not in seen.path


def test_the_address_with_these_choices_is_the_file(internet: Internet) -> None:
    link = internet.url(CIVITAI, DOWNLOAD)
    vae = file("v.safetensors", "22" * 32, type="VAE", downloadUrl=f"{link}?type=VAE&format=SafeTensor")
    internet.civitai_version(77, file("m.safetensors", primary=True, downloadUrl=link), vae)
    pin = asked(internet, f"{link}?format=SafeTensor&type=VAE")
    assert pin is not None
    assert pin.sha256 == "22" * 32


def test_where_it_cannot_be_told_which_file_is_meant_nothing_is_said(internet: Internet) -> None:
    internet.civitai_version(77, file("a", "11" * 32, type="Model"), file("b", "22" * 32, type="Model"))
    assert asked(internet, internet.url(CIVITAI, f"{DOWNLOAD}?type=Model")) is None
    assert asked(internet, internet.url(CIVITAI, f"{DOWNLOAD}?type=Config")) is None


@pytest.mark.parametrize(
    "document",
    [
        *([], 3, "x", None, {}, {"files": {}}, {"files": [3, None, []]}, {"files": [{}]}),
        *(
            {"files": [{"hashes": []}]},
            {"files": [{"hashes": {"SHA256": 3}}]},
            {"files": [{"hashes": {"SHA256": "ab"}}]},
        ),
    ],
)
def test_a_strange_answer_is_none(internet: Internet, document: object) -> None:
    internet.serve(CIVITAI, "/api/v1/model-versions/77", json.dumps(document).encode())
    assert asked(internet, internet.url(CIVITAI, DOWNLOAD)) is None


@pytest.mark.parametrize("size", [float("nan"), float("inf"), -1, "1", 1e300, [], True])
def test_a_strange_size_says_nothing(internet: Internet, size: object) -> None:
    internet.civitai_version(77, file("m", sizeKB=size))
    pin = asked(internet, internet.url(CIVITAI, DOWNLOAD))
    assert pin is not None
    assert pin.size_bytes in {None, 1024}


@pytest.mark.parametrize("body", [b"<html>", b"", b"{" * 100_000, b"\xff" * 10, b"[" * 3_000_000])
def test_an_answer_that_is_no_json_is_told(internet: Internet, body: bytes) -> None:
    internet.serve(CIVITAI, "/api/v1/model-versions/77", body)
    with pytest.raises(Unusable, match="CivitAI"):
        asked(internet, internet.url(CIVITAI, DOWNLOAD))


def test_an_endless_answer_is_not_read_to_its_end(internet: Internet) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not internet.stopping.is_set():
            sent += request.wfile.write(b"x" * 65536)

    internet.answers[CIVITAI, "/api/v1/model-versions/77"] = endless
    with pytest.raises(Unusable, match=f"more than {MOST_BYTES:,} bytes"):
        asked(internet, internet.url(CIVITAI, DOWNLOAD))
    assert sent < 10 * MOST_BYTES


def test_a_packed_answer_is_refused(internet: Internet) -> None:
    internet.serve(CIVITAI, "/api/v1/model-versions/77", b"\x1f\x8b", Content_Encoding="gzip")
    with pytest.raises(Unusable, match="compressed"):
        asked(internet, internet.url(CIVITAI, DOWNLOAD))


def test_civitai_is_never_followed_elsewhere(internet: Internet) -> None:
    internet.redirect(CIVITAI, "/api/v1/model-versions/77", internet.url(THIEF, "/x"))
    with pytest.raises(Unusable, match="HTTP 302"):
        asked(internet, internet.url(CIVITAI, DOWNLOAD))
    assert [seen.host for seen in internet.seen] == [CIVITAI]


# Who may have it


@pytest.mark.parametrize(
    ("status", "code", "tokens", "told"),
    [
        (
            401,
            "GatedRepo",
            False,
            ("https://huggingface.co/org/model", "licence", "HF_TOKEN", "HuggingFaceTokenParameter"),
        ),
        (401, "RepoNotFound", False, ("if it exists at all", "HF_TOKEN")),
        (401, "", True, ("does not take the token", "HF_TOKEN", "HuggingFaceTokenParameter")),
        (403, "GatedRepo", True, ("https://huggingface.co/org/model", "Accept its licence", "HF_TOKEN")),
    ],
)
def test_a_gated_file_says_which_page_and_which_setting(
    internet: Internet, status: int, code: str, tokens: bool, told: tuple[str, ...]
) -> None:
    url = internet.serve(HF, FILE, status=status, X_Error_Code=code, X_Error_Message=HF_TOKEN)
    with pytest.raises(Unusable) as caught:
        asked(internet, url, internet.tokens if tokens else NO_TOKENS)
    assert all(part in str(caught.value) for part in told), caught.value
    assert HF_TOKEN not in str(caught.value)


def test_civitais_refusal_says_which_page_and_which_setting(internet: Internet) -> None:
    internet.serve(CIVITAI, "/api/v1/model-versions/77", status=401)
    with pytest.raises(Unusable, match=r"CivitaiTokenParameter") as caught:
        asked(internet, internet.url(CIVITAI, DOWNLOAD), NO_TOKENS)
    assert "CIVITAI_TOKEN" in str(caught.value)


def test_tokens_are_not_shown(internet: Internet) -> None:
    assert HF_TOKEN not in repr(internet.tokens) + str(internet.tokens)
