"""Reads comfy-build.lock for the build, and checks each value that a command is given. Standard library only.

`comfy_serverless/environments/lock_file.py` reads the same, by the same forms: tests/unit/image/test_lock_readings.py
holds them together. The stages of the build do not take that file: they would be made anew with all that it imports.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

SCHEMA: Final = "comfy-serverless-lock/1"
LOCK_ANEW: Final = "Make it anew: comfy-serverless env lock"
NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
PACK: Final = re.compile(r"[^\s/\\:*?\"<>|\x00-\x1f][^/\\:*?\"<>|\x00-\x1f]*")
APT: Final = re.compile(r"[a-z0-9][a-z0-9+.:=~-]+")
URL: Final = re.compile(r"(?:git\+)?(?:https?|file|ssh)://[^\s'\"]+")


class NotBuilt(Exception):
    """The image cannot be built from this lock; the message says why, and what to do."""


def read_lock(path: Path) -> dict[str, Any]:
    """The lock's document.

    Raises:
        NotBuilt: it is missing, damaged, or of another version of this project.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotBuilt(
            "comfyui/comfy-build.lock is missing, and the image is built from nothing else. Make it from "
            "comfyui/comfy-build.yaml: comfy-serverless env lock. (Without that file: comfy-serverless env init first.)"
        ) from None
    except UnicodeDecodeError as error:
        raise NotBuilt(f"comfyui/comfy-build.lock is no text: {error}. {LOCK_ANEW}") from error
    try:
        lock = json.loads(text)
    except (ValueError, RecursionError) as error:
        marks = " It has marks of a merge: take either side first." if "<<<<<<<" in text else ""
        raise NotBuilt(f"comfyui/comfy-build.lock is no JSON: {error}.{marks} {LOCK_ANEW}") from error
    if not isinstance(lock, dict) or lock.get("schema") != SCHEMA:
        found = lock.get("schema") if isinstance(lock, dict) else None
        raise NotBuilt(
            f"comfyui/comfy-build.lock has the schema {found!r}, and this build reads {SCHEMA!r}. {LOCK_ANEW}"
        )
    return lock


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def checked(form: re.Pattern[str], value: object, what: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise NotBuilt(f"comfyui/comfy-build.lock: {value!r} is no {what.removeprefix('a ')}. {LOCK_ANEW}")
    return value


def without_secrets(url: str) -> str:
    """An address without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
