"""The console: the page at `/`, and its modules below `/console/`. Nobody needs a key to read them, only to use them.

    index.html ◄── style.css (inline, known by its hash)
       └──► main.js ──► dom.js  api.js  live.js  parts.js ──► one module a page, when it is shown

They are files of this package, with no step that builds them. The page carries an import map, which gives each module
an address of its content (kept for a year) and a hash (another content is refused), so a page of one release never runs
modules of another. Its Content-Security-Policy trusts two inline scripts by their hashes, and what those load; a script
that somebody smuggles into the page is none of it, and no text is ever read as markup (`require-trusted-types-for`).
Pictures and uploads go straight to S3: the policy names the buckets of this deployment, and no other address.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response

from comfy_serverless.api.services import Services
from comfy_serverless.aws.presign import bucket_address
from comfy_serverless.errors import NotFound

_FOLDER: Final = Path(__file__).with_name("console")
_TYPES: Final = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_HTML: Final = "text/html; charset=utf-8"
#: The page is asked for each time, and mostly answered with 304; what it names by its content never changes.
_ASKED, _KEPT = "no-cache", "public, max-age=31536000, immutable"
#: What every page needs: a browser begins to load it before it has run anything.
SHELL: Final = ("main.js", "dom.js", "api.js", "exact.js", "live.js", "parts.js")
_STYLES: Final = ("style.css", "forms.css")
#: Of a style, those that mean nothing: behind its signs, and before braces.
_BLANKS: Final = re.compile(r"(?<=[{};:,]) +| +(?=[{}])")
#: A text, which stays as it is; or signs, and the blanks beside them.
_SIGNS: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)| *([{}()\[\],;:=<>?&|+*!-]+) *""")
_NESTED: Final = re.compile(r"`[^`]*\$\{[^}`]*`")
_STYLE, _MODULES, _PRELOADS = "/*style*/", "/*modules*/", "<!--preloads-->"
_AROUND_SIGNS: Final = re.compile(r"\s*([{};,])\s*")  # of a style; no text in ours has these signs
_START = 'import("./console/main.js")'


@dataclass(frozen=True, slots=True)
class File:
    """A file of the console."""

    text: str
    content_type: str

    @property
    def version(self) -> str:
        """Another one for another content."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:8]

    @property
    def integrity(self) -> str:
        """Its hash, as browsers compare it."""
        return _digest(self.text)


@dataclass(frozen=True, slots=True)
class Page:
    """The page, and the hashes of what in it may run."""

    text: str
    scripts: tuple[str, ...]
    style: str


def console_files() -> dict[str, File]:
    """What is served below `/console/`, by name: as it is now, so that one may edit a file while `make dev` runs."""
    return _files_of(_changed_at())


def _changed_at() -> int:
    """When a file was changed last, or one came or went, in nanoseconds. Some thirty looks at a folder: 0.1 ms."""
    return max(_FOLDER.stat().st_mtime_ns, *(entry.stat().st_mtime_ns for entry in os.scandir(_FOLDER)))


@lru_cache(maxsize=1)
def _files_of(_at: int) -> dict[str, File]:
    found = {}
    for entry in sorted(_FOLDER.iterdir()):
        content_type = _TYPES.get(entry.name.rpartition(".")[2])
        if content_type is not None:
            lines = lean(entry.read_text(encoding="utf-8")).split("\n")
            lean_more = tight if entry.name.endswith(".js") else partial(_BLANKS.sub, "")
            found[entry.name] = File("\n".join(map(lean_more, lines)), content_type)
    return found


def lean(source: str) -> str:
    """A module or a style without its comment lines and indentation, a seventh of it; what is left keeps its line.

    A test holds the sources to what makes this safe: no text of theirs goes over the end of a line.
    """
    lines, is_comment = [], False
    for line in map(str.strip, source.split("\n")):
        is_comment = is_comment or line.startswith("/*")
        lines.append("" if is_comment or line.startswith("//") else line)
        is_comment = is_comment and "*/" not in line
    return "\n".join(lines)


def page() -> Page:
    """The page at `/`, with its style, and the addresses and hashes of its modules."""
    return _page_of(_changed_at())


def tight(line: str) -> str:
    """A line of a module without blanks beside signs; as it is, if it has a slash, or a template in another.

    A slash may begin a regular expression. A test compares what each module means with what its source does.
    """
    return line if "/" in line or _NESTED.search(line) else _SIGNS.sub(lambda found: found[1] or found[2], line)


@lru_cache(maxsize=1)
def _page_of(changed_at: int) -> Page:
    known = _files_of(changed_at)
    modules = {name: file for name, file in known.items() if name.endswith(".js")}
    address = {name: f"./console/{name}?{file.version}" for name, file in modules.items()}
    import_map = json.dumps(
        {
            "imports": {f"./console/{name}": address[name] for name in modules},
            "integrity": {address[name]: file.integrity for name, file in modules.items()},
        },
        separators=(",", ":"),
    )
    preloads = "".join(
        f'<link rel="modulepreload" href="{address[name]}" integrity="{modules[name].integrity}">\n' for name in SHELL
    )
    shell = (_FOLDER / "index.html").read_text(encoding="utf-8")
    style = _AROUND_SIGNS.sub(r"\1", "".join(known[name].text for name in _STYLES))
    text = shell.replace(_STYLE, style).replace(_MODULES, import_map).replace(_PRELOADS, preloads)
    inline = (_digest(import_map), _digest(_START))
    return Page(text, (*inline, *(modules[name].integrity for name in SHELL)), _digest(style))


def policy(sources: tuple[str, ...], streams: tuple[str, ...] = ()) -> str:
    """The Content-Security-Policy of the page.

    Args:
        sources: addresses of buckets: pictures, videos and sounds come from there, and files go there.
        streams: addresses of live events.
    """
    buckets = " ".join(sources)
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(["'strict-dynamic'", *(f"'{one}'" for one in page().scripts)]),
        "style-src": f"'{page().style}'",
        "img-src": f"'self' data: blob: {buckets}",
        "media-src": f"'self' blob: {buckets}",
        "connect-src": " ".join(["'self'", buckets, *streams]),
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value.strip()}" for name, value in rules.items())


def buckets_of(services: Services) -> tuple[str, ...]:
    """The addresses that links of this deployment have, one a bucket. No request is made."""
    settings = services.settings
    names = dict.fromkeys([services.output_bucket, services.assets_bucket, *settings.allowed_output_buckets])
    return tuple(bucket_address(services.s3, name) for name in names)


def attach(app: APIGatewayHttpResolver) -> None:
    """Add the page and its files."""

    @app.get("/", include_in_schema=False)
    def console() -> Response[str]:
        services: Services = app.context["services"]
        streams = services.settings.events_url
        allowed = policy(buckets_of(services), () if streams is None else (origin_of(streams),))
        return _sent(app, page().text, _HTML, _ASKED, {"content-security-policy": allowed})

    @app.get("/console/<name>", include_in_schema=False)
    def console_file(name: str) -> Response[str]:
        file = console_files().get(name)
        if file is None:
            raise NotFound(f"the console has no file {name[:100]!r}: open / in a browser.")
        is_named_by_content = file.version in (app.current_event.query_string_parameters or {})
        return _sent(app, file.text, file.content_type, _KEPT if is_named_by_content else _ASKED, {})


def _sent(
    app: APIGatewayHttpResolver, text: str, content_type: str, keeping: str, further: dict[str, str]
) -> Response[str]:
    """A file, compressed; or that the one which a browser has is still good."""
    etag = f'"{_digest(text)[7:39]}"'
    headers = {"cache-control": keeping, "etag": etag, "vary": "accept-encoding", **further}
    if etag in (app.current_event.headers.get("if-none-match") or ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, body="", headers=headers)
    return Response(status_code=HTTPStatus.OK, content_type=content_type, body=text, headers=headers, compress=True)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def origin_of(url: str) -> str:
    """Scheme and host of an address, as a policy names them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
