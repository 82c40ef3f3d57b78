"""Finds texts in XML without reading XML: no entity is ever expanded, and each character is looked at once.

SaveSVGNode writes JSON of both into `<metadata><![CDATA[…]]>`; XMP has texts in elements or in attributes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import chain

from comfy_serverless.sandbox.embedded.finds import Finds, decoded
from comfy_serverless.sandbox.embedded.window import MOST_AT_ONCE, Window

_CDATA, _CDATA_END = "<![CDATA[", "]]>"
_COMMENT, _COMMENT_END = "<!--", "-->"
_TAG_NAME = re.compile(r"/?(?:[\w.-]{1,60}:)?([\w.-]{1,60})")
_ATTRIBUTE = re.compile(r"""(?<![\w:.-])(?:[\w.-]{1,60}:)?([\w.-]{1,60})\s{0,8}=\s{0,8}(?:"([^"]*)"|'([^']*)')""")
_SVG = re.compile(rb"<(?:\w{1,20}:)?svg[\s>]")


def is_svg(head: bytes) -> bool:
    """Whether a file that begins so is an SVG."""
    begins = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return begins.startswith(b"<") and _SVG.search(begins) is not None


def find_in_svg(window: Window, finds: Finds) -> None:
    """Look at the texts of an SVG, as far as one may be long."""
    find_in_xmp(window.read(0, min(window.size, MOST_AT_ONCE)), finds)


def find_in_xmp(content: bytes, finds: Finds) -> None:
    """Look at the texts of elements and attributes that may be a workflow."""
    pieces: list[str] = []
    last = ""
    for name, text in chain(_texts(decoded(content)), [("", "")]):
        if name != last or not text:
            _look(last, "".join(pieces), finds)
            pieces = []
        last = name
        pieces.append(text)


def _look(name: str, text: str, finds: Finds) -> None:
    if "{" in text or (text.strip() and name.lower() in finds.named):  # a drawing has thousands of others
        finds.add(name, text)


def _texts(text: str) -> Iterator[tuple[str, str]]:
    """Each text with the name of its element or attribute; "" where an element begins or ends."""
    name, at = "", 0
    while at < len(text):
        begin = text.find("<", at)
        if begin < 0:
            begin = len(text)
        if begin > at:
            yield name, html.unescape(text[at:begin])
        if text.startswith(_CDATA, begin):
            end = text.find(_CDATA_END, begin)
            yield name, text[begin + len(_CDATA) : len(text) if end < 0 else end]
            at = len(text) if end < 0 else end + len(_CDATA_END)
        elif text.startswith(_COMMENT, begin):
            end = text.find(_COMMENT_END, begin)
            at = len(text) if end < 0 else end + len(_COMMENT_END)
        else:
            end = text.find(">", begin)
            end = len(text) if end < 0 else end
            tag = text[begin + 1 : end]
            for found in _ATTRIBUTE.finditer(tag):
                yield found[1], html.unescape(found[2] if found[2] is not None else found[3])
            match = _TAG_NAME.match(tag)
            name = match[1] if match and not tag.startswith("/") else name
            yield name, ""
            at = end + 1
