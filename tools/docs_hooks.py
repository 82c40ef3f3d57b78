"""Hooks of mkdocs: three files of the root are pages too, and links that lead out of docs/ work on a forge and here.

On a forge `[the tour](../examples/sdk_tour.py)` leads to the file. The site has no such file, so it shows the words.
A link to a file that is nowhere stays as it is, and the strict build names it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
#: What a forge looks for in the root, and the page that shows it.
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
_SOURCES = {page: source for source, page in ROOT_PAGES.items()}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that stand in the root."""
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  (mkdocs passes them by name)
    """Turn links as a forge follows them into links of the site."""
    source = _SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return _LINK.sub(lambda found: _link(found, source=source, page=page.file.src_uri), markdown)


def _link(found: re.Match[str], *, source: str, page: str) -> str:
    label, target, anchor = found[1], found[2], found[3] or ""
    if "://" in target:
        return found[0]
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if file in ROOT_PAGES:
        target = ROOT_PAGES[file]
    elif file.startswith("docs/"):
        target = file.removeprefix("docs/")
    else:
        return label if (ROOT / file).exists() else found[0]
    return f"[{label}]({posixpath.relpath(target, posixpath.dirname(page) or '.')}{anchor})"
