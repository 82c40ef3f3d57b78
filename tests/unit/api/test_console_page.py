"""The console as it is served: small, kept, within a policy that names its scripts; no text is read as markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from comfy_serverless.api import console
from comfy_serverless.api.auth import is_public
from comfy_serverless.api.console import SHELL, console_files, lean, page
from tests.unit.api_world import ASSETS, RESULTS, ApiWorld, api_world

ROOT = Path(__file__).parents[3]
#: All of it, compressed as it is sent: the page with its style, and each module.
MOST_BYTES = 80_000
SOURCES = {
    entry.name: entry.read_text(encoding="utf-8")
    for entry in files("comfy_serverless.api").joinpath("console").iterdir()
    if entry.name.endswith((".js", ".css", ".html"))
}
MODULES = sorted(name for name in SOURCES if name.endswith(".js"))
#: What makes markup or code of a text, and what keeps a key longer than the tab.
FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|setHTMLUnsafe"
    r"|\beval\b|new Function|localStorage|document\.cookie|<script|javascript:"
)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, allowed_output_buckets=("more-results", "old.results")) as world:
        yield world


def rules(policy: str) -> dict[str, list[str]]:
    """The sources of each rule of a policy."""
    return {name: sources for name, *sources in (rule.split() for rule in policy.split("; "))}


def digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def test_everybody_gets_the_page_and_nobody_needs_a_key(api: ApiWorld) -> None:
    answer = api.request("GET", "/", owner="")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert api.request("GET", "/", owner="", headers={"if-none-match": answer.headers["etag"]}).status == 304
    for name in MODULES:
        assert f'"./console/{name}"' in answer.text, "the import map names every module"


def test_what_runs_is_known_by_its_hash_and_nothing_else_does(api: ApiWorld) -> None:
    answer = api.request("GET", "/", owner="")
    policy = rules(answer.headers["content-security-policy"])
    inline = re.findall(r"<script[^>]*>(.*?)</script>", answer.text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert len(inline) == 2
    assert policy["default-src"] == ["'none'"]
    assert policy["style-src"] == [f"'{digest(style)}'"]
    shell = [f"'{console_files()[name].integrity}'" for name in SHELL]
    assert policy["script-src"] == ["'strict-dynamic'", *(f"'{digest(text)}'" for text in inline), *shell]
    assert policy["require-trusted-types-for"] == ["'script'"]
    assert policy["trusted-types"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert policy["frame-ancestors"] == ["'none'"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(
        r"<[^>]*\s(on\w+|style)=", re.sub(r"<(style|script).*?</\1>", "", answer.text, flags=re.DOTALL)
    )


def test_pictures_and_uploads_go_to_the_buckets_of_this_deployment_only(api: ApiWorld) -> None:
    policy = rules(api.request("GET", "/", owner="").headers["content-security-policy"])
    buckets = {source for source in policy["img-src"] if source.startswith("http")}
    s3 = "s3.eu-central-1.amazonaws.com"
    assert buckets == {
        *(f"https://{name}.{s3}/" for name in (ASSETS, RESULTS, "more-results")),
        f"https://{s3}/old.results/",  # a name with dots has no certificate of its own: it is in the path
    }
    assert set(policy["connect-src"]) == {"'self'", *buckets}
    assert set(policy["media-src"]) == {"'self'", "blob:", *buckets}


def test_the_page_may_hear_live_events_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with api_world(monkeypatch, events_url="https://events.example/live") as world:
        policy = rules(world.request("GET", "/", owner="").headers["content-security-policy"])
    assert "https://events.example" in policy["connect-src"]


def test_a_module_is_kept_under_the_address_of_its_content(api: ApiWorld) -> None:
    import_map = json.loads(re.findall(r'<script type="importmap">(.*?)</script>', page().text)[0])
    assert len(import_map["imports"]) == len(MODULES)
    for name, address in import_map["imports"].items():
        answer = api.request("GET", address.removeprefix("."), owner="")
        assert answer.status == 200, name
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert import_map["integrity"][address] == digest(answer.text)
    for query in ("", "?0123", f"?x={page().style}"):
        assert api.request("GET", f"/console/main.js{query}", owner="").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/console/none.js", "/console/index.html", "/console/..%2Fauth.py", "/console/a/b"])
def test_there_is_nothing_else(api: ApiWorld, path: str) -> None:
    assert api.request("GET", path, owner="").status in {403, 404}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", True),
        ("GET", "/console/main.js", True),
        ("GET", "/console", False),
        ("GET", "/consoles/x", False),
        ("POST", "/", False),
        ("HEAD", "/console/main.js", False),
        ("GET", "/api/v2/jobs", False),
        ("GET", "//api/v2/jobs", False),
        ("OPTIONS", "/api/v2/jobs", True),
    ],
)
def test_no_other_route_is_open(method: str, path: str, expected: bool) -> None:
    assert is_public(method, path) is expected


def test_all_of_it_is_small() -> None:
    sent = [page().text, *(console_files()[name].text for name in MODULES)]
    sizes = [len(gzip.compress(text.encode(), 9)) for text in sent]
    assert sum(sizes) <= MOST_BYTES, sum(sizes)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_text_is_ever_read_as_markup_or_code(name: str) -> None:
    source = SOURCES[name]
    if name == "index.html":
        source = re.sub(r'<script type="\w+">|<link rel="icon"[^\n]*', "", source)
    found = [match.group() for match in FORBIDDEN.finditer(re.sub(r"(?m)^\s*(//|\*|/\*).*$", "", source))]
    assert not found, found


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_imports_is_there(name: str) -> None:
    for names, other in re.findall(r'import (.*?) from "\./(.*?)";', SOURCES[name]):
        assert other in SOURCES, f"{name} imports {other}"
        for one in re.findall(r"[\w$]+", re.sub(r"\w+ as |\* as \w+", "", names.strip("{} "))):
            assert re.search(
                rf"export (default )?(async )?(const|function\*?|class|let) {re.escape(one)}\b", SOURCES[other]
            ), f"{name}: {other} exports no {one}"


@pytest.mark.parametrize("name", [name for name in sorted(SOURCES) if not name.endswith(".html")])
def test_what_is_left_out_of_a_source_means_nothing(name: str) -> None:
    """`lean` drops comment lines and indentation: no text of a source may go over the end of a line."""
    for number, line in enumerate(SOURCES[name].split("\n"), 1):
        bare = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|/(?:[^/\\\s[]|\\.|\[(?:[^\]\\]|\\.)*\])+/', "", line)
        assert bare.count("`") % 2 == 0 or line.lstrip().startswith(("//", "*", "/*")), f"{name}:{number}"
    assert len(lean(SOURCES[name]).split("\n")) == len(SOURCES[name].split("\n")), "errors name the lines of the source"


def test_a_file_that_is_edited_while_it_is_served_has_another_hash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: ApiWorld
) -> None:
    """`make dev` goes on: the next page that is loaded runs what is there now."""
    shutil.copytree(ROOT / "lambda" / "comfy_serverless" / "api" / "console", folder := tmp_path / "console")
    monkeypatch.setattr(console, "_FOLDER", folder)
    before = api.request("GET", "/", owner="").text
    (folder / "jobs.js").write_text(SOURCES["jobs.js"] + "export const fresh = 1;\n", encoding="utf-8")
    os.utime(folder / "jobs.js", ns=(0, 2**62))
    answer = api.request("GET", "/", owner="")
    assert answer.text != before
    import_map = json.loads(re.findall(r'<script type="importmap">(.*?)</script>', answer.text)[0])
    address = import_map["imports"]["./console/jobs.js"]
    served = api.request("GET", address.removeprefix("."), owner="").text
    assert served.endswith("export const fresh=1;\n")
    assert import_map["integrity"][address] == digest(served)


def test_the_docs_show_every_page_and_nothing_that_no_page_shows() -> None:
    """`python -m tests.console.showcase` takes them."""
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in ("docs/console.md", "README.md"))
    named = set(re.findall(r"images/(console-[\w-]+\.webp)", text))
    kept = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").glob("console-*.webp")}
    assert named == set(kept)
    pages = {"jobs", "gallery", "job", "run", "batch", "workflow", "usage"}
    assert pages <= {name.removeprefix("console-").removesuffix(".webp") for name in named}
    assert max(kept.values()) < 100_000
