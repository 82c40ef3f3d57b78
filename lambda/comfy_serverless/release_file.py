"""What an image says of itself: `/opt/release.json`, which its build writes (`comfyui/from_lock.py`).

    {"release_version": "3f2a91c07b5e", "comfyui": "0.33.0", "commit": …, "packs": {…}}

`release_version` is of the lock that the image is built from: two images with the same one have the same nodes and
libraries. An image without such a file, and a laptop, have none.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

RELEASE_FILE = Path("/opt/release.json")
#: Of hex digits where a lock is its source, and of an operator's own naming otherwise.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def release_version(text: str) -> str:
    """The text, if it can be a release's version. Raises ValueError if not: it stands in logs, items and names."""
    if not _VERSION.fullmatch(text):
        raise ValueError("must be at most 64 letters, digits, and - _ . +, such as 3f2a91c07b5e")
    return text


def version_in(path: Path) -> str:
    """The version that such a file tells; "" without a file. Raises ValueError for a file that tells none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error
    try:
        told = json.loads(content)
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from error
    version = told.get("release_version") if isinstance(told, dict) else None
    if not isinstance(version, str):
        raise ValueError('it has no "release_version", as the build of an image writes it')  # noqa: TRY004 (see above)
    return release_version(version)
