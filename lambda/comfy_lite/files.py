"""/upload/image, /upload/mask and /view: files in the input, output and temp folders only."""

from __future__ import annotations

import hashlib
import io
import json
import mimetypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from multidict import MultiDictProxy

from comfy_lite.node import Directories

if TYPE_CHECKING:
    from PIL import Image as PillowImage

_PREVIEW_FORMATS = ("webp", "jpeg")
_PREVIEW_QUALITY = 90
#: Media types that a browser would execute.
_ACTIVE_TYPES = {
    "text/html",
    "text/html-sandboxed",
    "application/xhtml+xml",
    "text/javascript",
    "text/css",
}
#: Those that newer releases guard, too.
_LATER_ACTIVE_TYPES = {"application/javascript", "image/svg+xml", "text/xml", "application/xml"}
#: The media types this machine knows, in an object of our own: the additions must not affect the rest of the process.
_TYPES = mimetypes.MimeTypes([file for file in mimetypes.knownfiles if Path(file).is_file()])
_TYPES.add_type("application/javascript; charset=utf-8", ".js")
_TYPES.add_type("image/webp", ".webp")


class FileRoutes:
    """The handlers of the file routes. They run on the event loop, as ComfyUI's do."""

    def __init__(self, directories: Directories, *, guards_downloads: bool) -> None:
        self._directories = directories
        self._guards_downloads = guards_downloads

    def add_to(self, app: web.Application, prefix: str) -> None:
        app.router.add_post(f"{prefix}/upload/image", self.upload_image)
        app.router.add_post(f"{prefix}/upload/mask", self.upload_mask)
        app.router.add_get(f"{prefix}/view", self.view)

    async def upload_image(self, request: web.Request) -> web.Response:
        """Store a file under its name, or under ``name (1).png`` if another file has that name."""
        form = await request.post()
        return self._store(form, _write)

    async def upload_mask(self, request: web.Request) -> web.Response:
        """Store the original that the form names, with the alpha channel of the uploaded picture.

        If the original is missing or not allowed, nothing is written and the answer is still 200, as in ComfyUI.
        """
        form: MultiDictProxy[Any] = await request.post()

        def save(path: Path, content: io.BufferedReader) -> None:
            reference = json.loads(form["original_ref"])
            type_, subfolder = reference.get("type", "output"), reference.get("subfolder", "")
            original = self._find(reference["filename"], type_, subfolder)
            if isinstance(original, Path):
                _save_masked(path, original=original, mask=content)

        return self._store(form, save)

    def _store(self, form: MultiDictProxy[Any], save: Callable[[Path, io.BufferedReader], None]) -> web.Response:
        image, replace = form.get("image"), form.get("overwrite") in ("true", "1")
        folder_type, subfolder = form.get("type", "input"), form.get("subfolder", "")
        root = self._folder(folder_type)
        if root is None:
            raise ValueError(f"unknown folder type {folder_type!r}")
        if not image:
            return web.Response(status=400)
        name, content = image.filename, image.file
        folder = root / os.path.normpath(subfolder)
        if not _is_inside(folder / name, root):
            return web.Response(status=400)
        folder.mkdir(parents=True, exist_ok=True)
        if not replace:
            name = _free_name(folder, name, content)
        if replace or not (folder / name).exists():
            save(folder / name, content)
        return web.json_response({"name": name, "subfolder": subfolder, "type": folder_type})

    async def view(self, request: web.Request) -> web.StreamResponse:
        """Send a file, a re-encoded preview of it, or one channel of a picture."""
        query = request.rel_url.query
        if "filename" not in query:
            return web.Response(status=404)
        found = self._find(query["filename"], query.get("type", "output"), query.get("subfolder", ""), base_name=True)
        if isinstance(found, int):
            return web.Response(status=found)
        if "preview" in query:
            body, content_type = _preview(found, query["preview"], query.get("channel", ""))
        elif query.get("channel") in ("rgb", "a"):
            body, content_type = _channel(found, query["channel"]), "image/png"
        else:
            return web.FileResponse(found, headers=self._headers_of(found))
        headers = {"Content-Disposition": self._disposition(found)}
        return web.Response(body=body, content_type=content_type, headers=headers)

    def _headers_of(self, path: Path) -> dict[str, str]:
        guessed = _TYPES.guess_type(path.name)[0] or "application/octet-stream"
        kind, _, _ = guessed.partition(";")
        if kind not in (_ACTIVE_TYPES | _LATER_ACTIVE_TYPES if self._guards_downloads else _ACTIVE_TYPES):
            return {"Content-Disposition": self._disposition(path), "Content-Type": guessed}
        disposition, guards = self._disposition(path), {}
        if self._guards_downloads:
            disposition = f"attachment; {disposition}"
            guards = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return {"Content-Disposition": disposition, "Content-Type": "application/octet-stream", **guards}

    def _disposition(self, path: Path) -> str:
        name = path.name
        if self._guards_downloads:
            name = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'filename="{name}"'

    def _find(self, annotated: str, folder_type: str, subfolder: str, *, base_name: bool = False) -> Path | int:
        """The file a client names, or the status that refuses it. ``name [input]`` overrides the type.

        With `base_name`, a folder in the name is ignored.
        """
        name, root = self._split(annotated)
        if not name or name.startswith("/") or ".." in name:
            return 400
        root = root or self._folder(folder_type)
        if root is None:
            return 400
        if not _is_inside(root / subfolder, root):
            return 403
        if base_name:
            name = os.path.basename(name)  # noqa: PTH119 - "a/" has an empty last part, which Path would drop
        path = root / subfolder / name
        try:
            # On Windows a name may begin with a drive.
            return path if _is_inside(path, root) and path.is_file() else 404
        except ValueError:
            return 404

    def _split(self, annotated: str) -> tuple[str, Path | None]:
        for folder_type in ("output", "input", "temp"):
            suffix = f"[{folder_type}]"
            if annotated.endswith(suffix):
                return annotated[: -len(suffix) - 1], self._folder(folder_type)
        return annotated, None

    def _folder(self, folder_type: str) -> Path | None:
        return getattr(self._directories, folder_type) if folder_type in ("input", "output", "temp") else None


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path stays below a folder. ``..`` is resolved, links are not."""
    return Path(os.path.abspath(path)).is_relative_to(root)  # noqa: PTH100 - resolve() would follow them


def _write(path: Path, content: io.BufferedReader) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _free_name(folder: Path, name: str, content: io.BufferedReader) -> str:
    """The name itself, or with a number added if a file of that name has other bytes."""
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - the name may hold a folder
    number = 1
    while (folder / name).exists() and not _same(folder / name, content):
        name = f"{stem} ({number}){extension}"
        number += 1
    return name


def _same(path: Path, content: io.BufferedReader) -> bool:
    with path.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").digest() == hashlib.file_digest(content, "sha256").digest()
    content.seek(0)
    return same


def _save_masked(path: Path, *, original: Path, mask: io.BufferedReader) -> None:
    from PIL import Image, PngImagePlugin

    with Image.open(original) as picture, Image.open(mask) as alpha_source:
        info = PngImagePlugin.PngInfo()
        for key, value in getattr(picture, "text", {}).items():
            info.add_text(key, value)
        masked = picture.convert("RGBA")
        masked.putalpha(alpha_source.convert("RGBA").getchannel("A"))
    masked.save(path, compress_level=4, pnginfo=info)


def _preview(path: Path, wanted: str, channel: str) -> tuple[bytes, str]:
    from PIL import Image

    parts = wanted.split(";")
    image_format = parts[0] if parts[0] in _PREVIEW_FORMATS and "a" not in channel else "webp"
    quality = int(parts[-1]) if parts[-1].isdigit() else _PREVIEW_QUALITY
    with Image.open(path) as picture:
        shown = picture.convert("RGB") if image_format == "jpeg" or channel == "rgb" else picture
        buffer = io.BytesIO()
        shown.save(buffer, format=image_format, quality=quality)
    return buffer.getvalue(), f"image/{image_format}"


def _channel(path: Path, channel: str) -> bytes:
    from PIL import Image

    with Image.open(path) as picture:
        if channel == "rgb":
            shown: PillowImage.Image = picture.convert("RGB")
        else:
            has_alpha = picture.mode == "RGBA"
            alpha = picture.getchannel("A") if has_alpha else Image.new("L", picture.size, 255)
            shown = Image.new("RGBA", picture.size)
            shown.putalpha(alpha)
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return buffer.getvalue()
