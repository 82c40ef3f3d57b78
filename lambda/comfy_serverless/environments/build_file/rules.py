"""What the texts of a build file may be: each rule returns what is wrong and what to do, or "" if nothing is. No IO."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from comfy_serverless.connector.model_folders import MODEL_FOLDERS
from comfy_serverless.redaction import has_token, redact_addresses

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}", re.ASCII)
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@#=-]{0,249}", re.ASCII)
_SCP_LIKE = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s:][^\s]*", re.ASCII)
#: Names that Windows keeps for devices, with any ending.
_DEVICES: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))}
)
_NOT_MODELS: Final = ("configs", "custom_nodes")
_FOLDERS: Final = {folder.lower(): folder for folder in MODEL_FOLDERS}
_LIBRARY_SCHEMES: Final = frozenset({"http", "https", "git+http", "git+https", "git+ssh", "git+file"})
_LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_LONGEST_NAME, _LONGEST_ADDRESS = 255, 4000


def model_folder(text: str) -> str:
    """Of a folder below `models/`, which may be nested."""
    segments = text.split("/")
    wrong = next((segment for segment in segments if not _SEGMENT.fullmatch(segment)), None)
    if wrong is not None:
        return (
            f"{text!r} is no folder below models/: write folders of letters, digits, `.`, `_` and `-`, parted by `/`, "
            "e.g. loras or text_encoders/gemma"
        )
    if segments[0].lower() in _NOT_MODELS:
        return f"{text!r} holds no models ({' and '.join(_NOT_MODELS)} do not): name the folder that the model is in"
    if any(_is_device(segment) for segment in segments):
        return f"{text!r} has a name that Windows keeps for a device: name another folder"
    known = _FOLDERS.get(segments[0].lower(), segments[0])
    if known != segments[0]:
        return f"ComfyUI's folder is {known!r}, and on Linux capital letters count: write {known}"
    return ""


def file_name(text: str) -> str:
    """Of one file or folder, without folders around it."""
    if "/" in text or "\\" in text:
        return f"{text!r} has folders in it: write the name alone"
    if text in (".", "..") or not text.strip():
        return f"{text!r} is no name of a file"
    if not text.isprintable():
        return f"{text!r} has characters that cannot be shown: rename it"
    if len(text.encode()) > _LONGEST_NAME:
        return f"the name has more than {_LONGEST_NAME} bytes: rename it"
    if _is_device(text):
        return f"{text!r} is a name that Windows keeps for a device: rename it"
    return ""


def pack_name(text: str) -> str:
    """Of the folder (or `.py` file) of a pack below `custom_nodes/`."""
    if wrong := file_name(text):
        return wrong
    return f"{text!r} is no pack: ComfyUI passes over it" if text.startswith(".") or text == "__pycache__" else ""


def path_below(text: str) -> str:
    """Of a path below a folder."""
    if "\\" in text:
        return f"{text!r} has backslashes: write / between folders"
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        return f"{text!r} is no path below the folder: write it without what comes before"
    wrong = next((reason for segment in text.split("/") if (reason := file_name(segment))), "")
    return f"{text!r} does not stay below the folder, or names no file: {wrong}" if wrong else ""


def sha256(text: str) -> str:
    """Of a SHA-256."""
    if _SHA256.fullmatch(text):
        return ""
    if _SHA256.fullmatch(text.lower()):
        return f"a SHA-256 is written in small letters: write {text.lower()}"
    return f"a SHA-256 has 64 digits of 0-9 and a-f, and this has {len(text)}: copy it again, or delete the line"


def registry_id(text: str) -> str:
    """Of what the registry calls a pack."""
    return "" if _ID.fullmatch(text) else f"{text!r} is no id of the Comfy Registry: letters, digits, `.`, `_` and `-`"


def registry_version(text: str) -> str:
    """Of a version of the registry."""
    return "" if _VERSION.fullmatch(text) else f"{text!r} is no version of the Comfy Registry: write one like 1.2.3"


def git_ref(text: str) -> str:
    """Of a branch, tag or commit. What git would take for an option, or a range, is none."""
    if not _REF.fullmatch(text) or ".." in text or "@{" in text or text.endswith(("/", ".", ".lock")):
        return f"{text!r} is no branch, tag or commit"
    return ""


def repository(text: str) -> str:
    """Of the address of a git repository."""
    if _SCP_LIKE.fullmatch(text):
        return ""
    return _address(text, ("https", "ssh", "file"), "write https://…, ssh://… or git@host:owner/name")


def model_address(text: str) -> str:
    """Of where a model is fetched from."""
    if "/blob/" in text and urlsplit_host(text) in ("huggingface.co", "www.huggingface.co"):
        return f"this is Hugging Face's page of the file, not the file: write {text.replace('/blob/', '/resolve/', 1)}"
    return _address(text, ("https", "s3"), "write https://… or s3://bucket/key")


def library_address(text: str) -> str:
    """Of where a library comes from, in place of the index: the end of a sentence."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        return "has no address that can be read"
    is_web = parts.scheme.removeprefix("git+") in {"http", "https"}
    if parts.password is not None or (parts.username is not None and is_web) or has_token(parts.query):
        return "has a password or token in its address, which would stand in the lock: take it out"
    if parts.scheme == "file":
        return "is a file of somebody's machine, as `pip freeze` writes it: name the library and its version"
    if parts.scheme not in _LIBRARY_SCHEMES or host.startswith("-"):
        return "has an address that is not taken: write https://, git+https:// or git+ssh://"
    return ""


def urlsplit_host(text: str) -> str:
    """The host of an address; "" if it has none."""
    try:
        return urlsplit(text).hostname or ""
    except ValueError:
        return ""


def _address(text: str, schemes: tuple[str, ...], advice: str) -> str:
    shown = repr(redact_addresses(text)[:200])
    if len(text) > _LONGEST_ADDRESS or not text.isprintable() or " " in text:
        return f"{shown} is no address: {advice}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return f"{shown} is no address: {advice}"
    if parts.password or (parts.username and parts.scheme != "ssh"):
        return "the address has a name or a password in it: delete it; this file is read by others"
    if has_token(parts.query):
        return "the address has a token in it: delete it; tokens come from settings (HF_TOKEN, CIVITAI_TOKEN)"
    is_local = parts.scheme == "http" and host in _LOCAL_HOSTS
    if (
        (parts.scheme not in schemes and not is_local)
        or not (host or parts.scheme == "file")
        or host.startswith("-")
        or parts.path in ("", "/")
        or ".." in parts.path.split("/")
    ):
        return f"{shown} is no address that is taken: {advice}"
    return ""


def _is_device(name: str) -> bool:
    return name.partition(".")[0].rstrip().lower() in _DEVICES
