"""What a batch has made, to look at: a page for the browser, and one picture of all pictures, beside the files.

gallery.html            the page
gallery/HASH.jpg        small pictures for it
contact-sheet.png       a hundred pictures; more are in contact-sheet-2.png, …
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath

from PIL import Image, PngImagePlugin

from comfy_serverless.cli.batches.download import Fetched
from comfy_serverless.cli.batches.gallery import GENERATOR, Failure, Item, page
from comfy_serverless.cli.contact_sheet import PICTURE_HEIGHT, PICTURE_MAX_WIDTH, Tile, open_picture, tile_sheet
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.files import OutputKind

#: Pictures of one contact sheet.
TILES = 100
PAGE, THUMBS, SHEET = PurePosixPath("gallery.html"), PurePosixPath("gallery"), "contact-sheet"
#: Names that downloaded files leave free.
RESERVED = (PAGE, THUMBS, PurePosixPath(f"{SHEET}.png"))
_THUMB_PIXELS = (480, 480)
_QUALITY = 84
_SOFTWARE = "comfy-serverless batch sheet"
_EXCERPT_BYTES = 2000


def draw(
    folder: Path,
    files: Sequence[Fetched],
    failures: Sequence[Failure],
    *,
    title: str,
    subtitle: str,
    progress: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Draw the page and the contact sheets; returns them. What was drawn before is replaced, and nothing else.

    Args:
        progress: is called after each file, from several threads.

    Raises InvalidRequest if something else has their names.
    """
    _check_place(folder)
    (folder / THUMBS).mkdir(parents=True, exist_ok=True)

    def item(fetched: Fetched) -> Item:
        made = _item(folder, fetched)
        progress()
        return made

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="thumb") as pool:
        items = list(pool.map(item, files))
    sheets = [
        _save_sheet(folder, number, sheet)
        for number, sheet in enumerate(_sheets(folder, items, title=title, subtitle=subtitle), start=1)
    ]
    _replace(folder / PAGE, page(items, failures, title=title, subtitle=subtitle).encode("utf-8", "replace"))
    return [folder / PAGE, *sheets]


def _item(folder: Path, fetched: Fetched) -> Item:
    output, path = fetched.output, folder / fetched.path
    size = f"{output.width} × {output.height}" if output.width and output.height else output.content_type
    excerpt = ""
    if output.type == OutputKind.TEXT:
        with path.open("rb") as file:
            excerpt = file.read(_EXCERPT_BYTES).decode("utf-8", "replace")
    return Item(
        path=fetched.path,
        kind=output.type,
        detail=f"line {fetched.row.line}  ·  {size}",
        labels=fetched.row.metadata,
        thumb=_thumb(folder, path, output.sha256) if output.type == OutputKind.IMAGE else None,
        excerpt=excerpt,
    )


def _thumb(folder: Path, picture: Path, digest: str) -> tuple[PurePosixPath, int, int] | None:
    """A small picture of a picture, drawn once; None for one that Pillow does not read."""
    name = THUMBS / f"{digest[:32]}.jpg"
    target = folder / name
    try:
        if not target.is_file():
            with Image.open(picture) as opened:
                opened.draft("RGB", _THUMB_PIXELS)
                small = _opaque(opened)
            small.thumbnail(_THUMB_PIXELS)
            part = target.with_suffix(f".{threading.get_ident()}")  # another file may have the same content
            small.save(part, "JPEG", quality=_QUALITY)
            part.replace(target)
        with Image.open(target) as small:
            return name, *small.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture on white, where it is transparent."""
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    above = picture.convert("RGBA")
    below = Image.new("RGBA", above.size, "white")
    return Image.alpha_composite(below, above).convert("RGB")


def _sheets(folder: Path, items: Sequence[Item], *, title: str, subtitle: str) -> Iterator[Image.Image]:
    shown = [(item, item.thumb[0]) for item in items if item.thumb is not None]
    pages = -(-len(shown) // TILES)
    rest = iter(shown)
    for number in range(1, pages + 1):
        tiles = [_tile(folder, *one) for one in islice(rest, TILES)]
        counted = f"  ·  {number} of {pages}" if pages > 1 else ""
        yield tile_sheet(tiles, title=title, subtitle=f"{subtitle}{counted}")


def _tile(folder: Path, item: Item, thumb: PurePosixPath) -> Tile:
    picture = open_picture(folder / thumb)
    picture.thumbnail((PICTURE_MAX_WIDTH, PICTURE_HEIGHT))
    return Tile(picture, str(item.path), "  ".join(item.labels.values()) or item.detail)


def _save_sheet(folder: Path, number: int, sheet: Image.Image) -> Path:
    target = folder / (f"{SHEET}.png" if number == 1 else f"{SHEET}-{number}.png")
    if os.path.lexists(target) and not _is_our_sheet(target):
        raise _occupied(target)
    ours = PngImagePlugin.PngInfo()
    ours.add_text("Software", _SOFTWARE)
    part = target.with_suffix(".part")
    sheet.save(part, "PNG", pnginfo=ours)
    part.replace(target)
    return target


def _check_place(folder: Path) -> None:
    """Raise InvalidRequest if something else has our names."""
    target = folder / PAGE
    if os.path.lexists(target) and not (target.is_file() and GENERATOR in target.read_text("utf-8", "replace")[:1000]):
        raise _occupied(target)
    sheet = folder / f"{SHEET}.png"
    if os.path.lexists(sheet) and not _is_our_sheet(sheet):
        raise _occupied(sheet)
    if os.path.lexists(folder / THUMBS) and not (folder / THUMBS).is_dir():
        raise _occupied(folder / THUMBS)


def _is_our_sheet(file: Path) -> bool:
    try:
        with Image.open(file) as sheet:
            return sheet.info.get("Software") == _SOFTWARE
    except OSError:
        return False


def _occupied(file: Path) -> InvalidRequest:
    return InvalidRequest(f"{file} is there, and was not drawn by `batch sheet`: move it, or give another --out.")


def _replace(target: Path, content: bytes) -> None:
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)
