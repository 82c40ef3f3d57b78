"""A page of all that a batch has made: one file of HTML that works from its folder, without a server. No IO but reading
its template.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import PurePosixPath
from string import Template
from urllib.parse import quote

from comfy_serverless.cli.habits import counted
from comfy_serverless.files import OutputKind

#: How many failed lines the page lists; the report has all.
MAX_FAILURES = 500
#: What marks a page as ours.
GENERATOR = 'content="comfy-serverless batch sheet"'
_EXCERPT_CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class Item:
    """One file of the batch.

    Attributes:
        path: where it is, as the page sees it.
        kind: one of `OutputKind`.
        detail: what is known of it besides: line, size.
        labels: of its line.
        thumb: a smaller picture of it, and how large that is; None if there is none.
        excerpt: the beginning of a text.
    """

    path: PurePosixPath
    kind: str
    detail: str
    labels: Mapping[str, str] = field(default_factory=dict)
    thumb: tuple[PurePosixPath, int, int] | None = None
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A line without results, and why."""

    line: int
    status: str
    code: str
    message: str


def page(items: Iterable[Item], failures: Sequence[Failure], *, title: str, subtitle: str) -> str:
    """The page. Whatever names, labels and messages say, it is shown and not run."""
    folder = files("comfy_serverless.cli.batches")
    script = folder.joinpath("gallery.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(folder.joinpath("gallery.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        items="\n".join(map(_figure, items)),
        failures=_failures(failures),
        script=script,
        script_hash=f"sha256-{digest}",
    )


def _figure(item: Item) -> str:
    name = escape(str(item.path))
    labels = "".join(
        f'<button type="button" data-value="{escape(value)}">{escape(key)}: {escape(value)}</button>'
        for key, value in item.labels.items()
    )
    labels = f'<div class="labels">{labels}</div>' if labels else ""
    return (
        f"<figure>{_content(item)}<figcaption>{name}<small>{escape(item.detail)}</small>{labels}</figcaption></figure>"
    )


def _content(item: Item) -> str:
    address, name = _address(item.path), escape(str(item.path))
    match item.kind:
        case OutputKind.IMAGE if item.thumb is not None:
            thumb, width, height = item.thumb
            image = f'<img src="{_address(thumb)}" width="{width}" height="{height}" loading="lazy" alt="{name}">'
            return f'<a class="picture" href="{address}" title="{name}">{image}</a>'
        case OutputKind.VIDEO:
            return f'<video src="{address}" preload="none" controls></video>'
        case OutputKind.AUDIO:
            return f'<audio src="{address}" preload="none" controls></audio>'
        case OutputKind.TEXT:
            return f'<a href="{address}"><pre>{escape(item.excerpt[:_EXCERPT_CHARACTERS])}</pre></a>'
    return f'<a href="{address}">{escape(item.path.suffix or item.path.name)}</a>'


def _failures(failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    rows = "\n".join(
        f'<tr><td>{one.line}</td><td>{escape(one.status)}</td><td class="code">{escape(one.code)}</td>'
        f"<td>{escape(one.message)}</td></tr>"
        for one in failures[:MAX_FAILURES]
    )
    left = len(failures) - MAX_FAILURES
    more = f"<p>and {left:,} more: the report has all.</p>" if left > 0 else ""
    head = "<tr><th>line</th><th>status</th><th>code</th><th>reason</th></tr>"
    title = f"{counted(len(failures), 'line')} without a result"
    return f"<section><h2>{title}</h2><table>{head}\n{rows}</table>{more}</section>"


def _address(path: PurePosixPath) -> str:
    """The path as an address relative to the page; a colon in its first part would be taken for a scheme."""
    return "./" + quote(str(path))
