"""Collects the texts of a file that may be a workflow, within bounds, and remembers what else was there."""

from __future__ import annotations

import re
import zlib

from comfy_serverless.sandbox.refused import Refused

#: What ComfyUI calls them, everywhere.
PROMPT, WORKFLOW = "prompt", "workflow"
#: Bytes of texts that are looked at, in all: values of tags may overlap, and be packed.
MOST_TEXT_BYTES = 64_000_000
#: The longest text that is kept: it has to become JSON, and then objects. The largest workflows have a megabyte.
MOST_KEPT_CHARACTERS = 15_000_000
#: Texts of each name that are kept: some files have two, of which one is broken.
_MOST_KEPT, _MOST_OTHERS = 4, 16
_MOST_TEXTS = 10_000
#: Lists and objects in a text of JSON: a workflow of a megabyte has some 50,000, the largest header of a model 750,000.
_MOST_CONTAINERS = 1_000_000
_PREFIXED = re.compile(r"\s*(prompt|workflow)\s*[:=]\s*(?=[\[{\"])", re.IGNORECASE)
_AROUND = "\0 \t\r\n\ufeff"
_BEGINS = ("{", "[", '"')
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
#: The charset that a comment of EXIF names before its text.
_CHARSETS = (b"ASCII\0\0\0", b"UNICODE\0", b"JIS\0\0\0\0\0", b"\0" * 8)
_LOOKED_AT = 4000
_A1111 = "generation parameters as A1111 and Civitai write them"
#: What other programs leave, by its name, or by what is in it; there is no workflow in it.
_FOREIGN = (
    (("parameters",), re.compile(r"Steps: \d+, .{0,200}Sampler", re.DOTALL), _A1111),
    (("invokeai_metadata", "sd-metadata", "dream"), None, "metadata of InvokeAI"),
    (("fooocus_scheme",), None, "parameters of Fooocus"),
    (("sui_image_params",), re.compile(r'\{\s*"sui_image_params"'), "parameters of SwarmUI"),
)


class Finds:
    """The texts that were found, by their names in lower case."""

    def __init__(self) -> None:
        self.named: dict[str, list[str]] = {PROMPT: [], WORKFLOW: []}
        #: Texts under other names that look like JSON: the comment of a video, of a photo.
        self.others: list[tuple[str, str]] = []
        #: What programs that keep no workflow have left.
        self.foreign: dict[str, None] = {}
        self._bytes = self._texts = 0

    def spend(self, size: int) -> None:
        """Count bytes that are looked at. Raises Refused if they are too many."""
        self._bytes += size
        self._texts += 1
        if self._bytes > MOST_TEXT_BYTES or self._texts > _MOST_TEXTS:
            raise Refused(
                f"has more texts than are looked through for a workflow: {MOST_TEXT_BYTES:,} bytes, {_MOST_TEXTS:,} "
                "texts"
            )

    def add(self, name: str, content: bytes | str) -> None:
        """Look at a text, and keep it if it may be a workflow."""
        self.spend(len(content))
        text = (decoded(content) if isinstance(content, bytes) else content).strip(_AROUND)
        name = name.strip(_AROUND).lower().rpartition("/")[2]
        if match := _PREFIXED.match(text):
            name, text = match[1].lower(), text[match.end() :]
        self._note_foreign(name, text)
        if name not in self.named and not text.startswith(_BEGINS):
            return
        if len(text) > MOST_KEPT_CHARACTERS:
            raise Refused(
                f"has a text {name[:60]!r} of {len(text):,} characters; a workflow may have {MOST_KEPT_CHARACTERS:,}"
            )
        if name not in self.named:
            if len(self.others) < _MOST_OTHERS:
                self.others.append((name[:60], text))
        elif len(self.named[name]) < _MOST_KEPT:
            self.named[name].append(text)

    def add_pair(self, content: bytes) -> None:
        """Look at `NAME=value`, as comments of Vorbis are."""
        name, is_pair, value = content.partition(b"=")
        self.spend(0)
        if is_pair and len(name) <= 100:
            self.add(decoded(name), value)

    def unpacked(self, content: bytes) -> bytes:
        """What zlib has packed, as far as it is whole. Raises Refused for more than is looked at."""
        left = MOST_TEXT_BYTES - self._bytes
        try:
            result = zlib.decompressobj().decompress(content, max(1, min(left, 4 * MOST_KEPT_CHARACTERS)))
        except zlib.error:
            return b""
        self.spend(len(result))
        return result

    def _note_foreign(self, name: str, text: str) -> None:
        beginning = text[:_LOOKED_AT]
        for names, within, words in _FOREIGN:
            if name in names or (within is not None and within.search(beginning)):
                self.foreign[words] = None


def check_containers(text: str) -> str:
    """A text of JSON. Raises Refused if it makes more objects than any real one."""
    if (count := text.count("[") + text.count("{")) > _MOST_CONTAINERS:
        raise Refused(f"has a text of {count:,} lists and objects; a workflow may have {_MOST_CONTAINERS:,}")
    return text


def decoded(content: bytes) -> str:
    """The text in bytes that say little of their encoding: UTF-8 or UTF-16, else Latin-1, which takes everything."""
    for charset in _CHARSETS:
        if content.startswith(charset) and len(content) > len(charset):
            return _without_mark(content[len(charset) :], is_wide=charset == b"UNICODE\0")
    return _without_mark(content, is_wide=False)


def _without_mark(content: bytes, *, is_wide: bool) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    beginning = content[:64]
    for first, encoding in ((0, "utf-16-be"), (1, "utf-16-le")):
        zeros = beginning[first::2].count(0)
        if len(beginning) >= 4 and zeros > len(beginning) // 4 and not beginning[1 - first :: 2].count(0):
            return content.decode(encoding, "replace")
    if is_wide:
        return content.decode("utf-16-le" if len(content) % 2 == 0 and 0 in content else "utf-8", "replace")
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")
