"""From the text of an environment variable to a value. What cannot be used raises a ValueError that says why."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from comfy_serverless.redaction import UNREADABLE, redact_url

#: The longest time a presigned link can be valid.
_LONGEST_LINK_S = 604_800
#: Links to live events are signed with a key that is kept for some days.
_LONGEST_EVENTS_LINK_S = 12 * 3600
#: The largest object that S3 takes in one PUT, and copies in one request.
_LARGEST_PUT_BYTES = 5_000_000_000
#: Above every price of a second or of a request: who gives more has another unit in mind.
_HIGHEST_PRICE_USD = 1000.0
_LONGEST_SHOWN = 200
_QUOTES = "\"'"
_LONGEST_SECRET_PLACE = 2048
UNSEEN = "has characters that cannot be seen, such as the end of a line from a file made on Windows"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]|arn:[\w:/.-]+")
_AWS_NAME = re.compile(r"/?[A-Za-z0-9_.][A-Za-z0-9_./-]*|arn:[\w:/.-]+")
_ARN = re.compile(r"arn:[\w-]+:[\w-]+:[\w-]*:\d*:[\w:/.-]+")
#: A parameter of Systems Manager by its name, or a secret of Secrets Manager by its ARN: as template.yaml takes them.
_SECRET_PLACE = re.compile(
    r"/[A-Za-z0-9_./-]+|arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What the connection itself says with each request.
_OWN_HEADERS = re.compile(
    r"host|connection|upgrade|origin|te|trailer|expect|(transfer|accept)-encoding|content-(length|type)"
    r"|sec-websocket-.*|proxy-.*",
    re.IGNORECASE,
)


def visible(text: str) -> str:
    """A text without line ends and the like."""
    if not text.isprintable():
        raise ValueError(UNSEEN)
    return text


def seconds(text: str) -> float:
    """A time in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError("must be a positive number")
    return value


def seconds_or_none(text: str) -> float:
    """A time in seconds, which may be none."""
    return 0.0 if text in {"0", "0.0"} else seconds(text)


def price(text: str) -> float:
    """A price in US dollars, which may be none."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _HIGHEST_PRICE_USD:
        raise ValueError(f"must be a number of US dollars from 0 to {_HIGHEST_PRICE_USD:g}")
    return value


def count(text: str) -> int:
    """A number of things, at least one."""
    value = int(text) if text.isdecimal() and len(text) < 100 else 0
    if value <= 0:
        raise ValueError("must be a positive whole number")
    return value


def port(text: str) -> int:
    """A port."""
    value = int(text) if text.isdecimal() and len(text) < 100 else 0
    if not 1 <= value <= 65535:
        raise ValueError("must be a port between 1 and 65535")
    return value


def link_expiry(text: str) -> int:
    """How long a link is valid, in seconds."""
    value = count(text)
    if value > _LONGEST_LINK_S:
        raise ValueError(f"S3 signs links for at most {_LONGEST_LINK_S} seconds (a week)")
    return value


def events_link(text: str) -> int:
    """How long a link to live events may be opened, in seconds."""
    value = count(text)
    if value > _LONGEST_EVENTS_LINK_S:
        raise ValueError(f"must be at most {_LONGEST_EVENTS_LINK_S} seconds (twelve hours)")
    return value


def upload_size(text: str) -> int:
    """The size of a file that S3 takes at once, in bytes."""
    value = count(text)
    if value > _LARGEST_PUT_BYTES:
        raise ValueError(f"S3 takes and copies at most {_LARGEST_PUT_BYTES} bytes in one request")
    return value


def boolean(text: str) -> bool:
    """Yes or no."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise ValueError("must be true or false")
    return values[text.lower()]


class KeepLogs(StrEnum):
    """Of which jobs the log is kept."""

    FAILED = "failed"
    ALL = "all"
    NONE = "none"


def keep_logs(text: str) -> KeepLogs:
    """Of which jobs."""
    try:
        return KeepLogs(text.lower())
    except ValueError:
        raise ValueError("must be failed, all or none") from None


def words(text: str) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


# Files and programs.


_T = TypeVar("_T")


def _looks(convert: Callable[[str], _T]) -> Callable[[str], _T]:
    """For what looks at the disk: a name that no file can have, or may not be looked at, is a bad value, too."""

    @functools.wraps(convert)
    def converted(text: str) -> _T:
        try:
            return convert(text)
        except OSError as error:
            raise ValueError(f"cannot be looked at: {error.strerror}") from error

    return converted


def path(text: str) -> Path:
    """A place on this machine; `~` is the home of a user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from error


@_looks
def file(text: str) -> Path:
    """A file that is there."""
    found = path(text)
    if not found.is_file():
        raise ValueError("there is no such file")
    return found


@_looks
def folder(text: str) -> Path:
    """A folder that is there."""
    found = path(text)
    if not found.is_dir():
        raise ValueError("there is no such folder")
    return found


@_looks
def new_folder(text: str) -> Path:
    """A folder that is there, or may be made."""
    found = path(text)
    if found.exists() and not found.is_dir():
        raise ValueError("is no folder")
    return found


@_looks
def checkout(text: str) -> Path:
    """A folder with ComfyUI's own code in it."""
    found = path(text)
    if (found / "main.py").is_file():
        return found
    if not found.is_dir():
        raise ValueError("there is no such folder, so there is no main.py in it")
    inside = next((each for each in ("ComfyUI", "resources/ComfyUI") if (found / each / "main.py").is_file()), None)
    if inside is not None:
        raise ValueError(f"there is no main.py in it, but in its folder {inside}: name that one")
    if any((found / name).is_dir() for name in ("models", "custom_nodes", "user")):
        raise ValueError(
            "there is no main.py in it. It looks like the data folder of ComfyUI Desktop, whose code is elsewhere: "
            "start ComfyUI Desktop and set COMFYUI_URL to its address (http://127.0.0.1:8000), or name a checkout"
        )
    raise ValueError("there is no main.py in it")


@_looks
def python(text: str) -> str:
    """A Python: a name to be found in PATH, or a path."""
    if "/" not in text and "~" not in text:
        if shutil.which(text) is None:
            hint = ". For a command like `conda run …` set API_COMMAND_LINE" if " " in text else ""
            raise ValueError(f"there is no such program in PATH{hint}")
        return text
    found = path(text)
    if found.is_dir() and (found / "bin" / "python").is_file():
        raise ValueError(f"is a folder; its Python is {found / 'bin' / 'python'}")
    if not found.is_absolute() and not found.exists():
        return text  # it may be meant from the checkout: `connector.launch` looks there
    if not found.is_file() or not os.access(found, os.X_OK):
        raise ValueError("there is no such program")
    return str(found.absolute())


def arguments(text: str) -> str:
    """Words as a shell would split them."""
    split(text)
    return text


def command(text: str) -> str:
    """A program of this machine and its arguments."""
    parts = split(text)
    if not parts or shutil.which(parts[0]) is None:
        raise ValueError(f"there is no program {parts[0]!r}" if parts else "there is no program in it")
    return text


def split(text: str) -> list[str]:
    """The words of a command line; `~` at the beginning of the first is a home."""
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"a quote in it is not closed, or it ends with a backslash ({error})") from error
    return [str(path(parts[0])) if parts[0].startswith("~") else parts[0], *parts[1:]] if parts else []


def variables(text: str) -> tuple[str, ...]:
    """Names of environment variables; `*` at the end stands for any ending."""
    names = words(text)
    if wrong := [name for name in names if not _VARIABLE.fullmatch(name)]:
        raise ValueError(
            f"{wrong[0]!r} is no name; there must be names of variables, with `*` at most at the end, and commas "
            "between them"
        )
    return names


# Addresses.


def host(text: str) -> str:
    """A host alone."""
    if not text or any(character in text for character in "/@?# ") or text.count(":") == 1:
        raise ValueError("must be a host name or address alone, without http:// and port (see COMFYUI_URL)")
    return text


def web_address(text: str) -> str:
    """An address of the web."""
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or " " in text:
        raise ValueError("must be an address like https://host/path")
    return text


def base_address(text: str) -> str:
    """An address of the web that paths are appended to."""
    parts = urlsplit(web_address(text))
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be an address like https://host/path, without user, ? and #")
    return text.rstrip("/")


def queue(text: str) -> str:
    """The address of a queue; or a bare name, which `sam local` puts in for a queue that is not there."""
    return text if re.fullmatch(r"[A-Za-z0-9]+", text) else web_address(text)


def origins(text: str) -> tuple[str, ...]:
    """Web pages as browsers name them: `https://host[:port]`, or `*`."""
    found = words(text)
    for origin in found:
        if origin != "*":
            web_address(origin)
    return found


def engine_address(text: str) -> str:
    """The address of a ComfyUI, perhaps with a user name and a password."""
    text = text.strip(" ")
    if not text.isprintable():
        raise ValueError(f"{UNSEEN}; it must be http://host:port")
    if not text.lower().startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    is_address = redact_url(text) != UNREADABLE and " " not in text
    parts = urlsplit(text) if is_address else None
    if parts is None or not parts.hostname or parts.port == 0 or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError("must be http://host:port; in a user name or password write %40 for @, %2F for /, %23 for #")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError("has a host name that cannot exist") from None
    if parts.query or parts.fragment:
        raise ValueError(
            "has something behind ? or #, which ComfyUI would never get. A token belongs in COMFYUI_TOKEN, and a "
            "header in COMFYUI_HEADERS"
        )
    if ":" in unquote(parts.username or ""):
        raise ValueError("has a colon in the user name, which HTTP cannot send")
    return f"{parts.scheme}{text[len(parts.scheme) :]}"


def token(text: str) -> str:
    """A token alone."""
    if not text.isascii() or not text.isprintable() or " " in text or text.strip(_QUOTES) != text:
        raise ValueError("must be the token alone, without `Bearer`, spaces and quotes")
    return text


def headers(text: str) -> tuple[tuple[str, str], ...]:
    """Headers of HTTP: `Name: value`, one a line, or a JSON object."""
    given = _json_headers(text) if text.lstrip().startswith("{") else _header_lines(text)
    for name, value in given:
        if not value or not _HEADER_NAME.fullmatch(name):
            raise ValueError('must have lines like `X-Api-Key: value`, or be a JSON object like {"X-Api-Key": "value"}')
        if _OWN_HEADERS.fullmatch(name):
            raise ValueError(f"{name} is said by the connection itself")
        if not value.isprintable() or not value.isascii():
            raise ValueError(f"the value of {name} has characters that no header has")
    if len({name.lower() for name, _ in given}) < len(given):
        raise ValueError("names a header twice")
    return given


def _json_headers(text: str) -> tuple[tuple[str, str], ...]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("begins with { and is no JSON object") from None
    if not all(isinstance(value, str) for value in given.values()):
        raise ValueError("must have texts as the values of its JSON object")
    return tuple((name.strip(), value.strip()) for name, value in given.items())


def _header_lines(text: str) -> tuple[tuple[str, str], ...]:
    pairs = (line.partition(":") for line in text.splitlines() if line.strip())
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


# AWS.


def bucket(text: str) -> str:
    """The name of a bucket."""
    if not _BUCKET.fullmatch(text):
        raise ValueError("must be the name of a bucket alone, without s3://")
    return text


def buckets(text: str) -> tuple[str, ...]:
    """Names of buckets, with commas between them."""
    return tuple(bucket(word) for word in words(text))


def aws_name(text: str) -> str:
    """A name, a path of names, or an ARN."""
    if not _AWS_NAME.fullmatch(text):
        raise ValueError("must be a name of letters, digits, and - _ . /")
    return text


def arn(text: str) -> str:
    """The ARN of a resource."""
    if not _ARN.fullmatch(text):
        raise ValueError("must be an ARN, like arn:aws:states:eu-central-1:123456789012:stateMachine:name")
    return text


def secret_place(text: str) -> str:
    """Where AWS keeps a secret. No token looks like one: somebody may give that instead."""
    if not _SECRET_PLACE.fullmatch(text) or len(text) > _LONGEST_SECRET_PLACE:
        raise ValueError(
            "must be the name of an SSM parameter, like /comfy/hf-token, or the ARN of a secret of Secrets Manager; "
            "never the token itself"
        )
    return text


def file_or_object(text: str) -> str:
    """A file of this machine, or an object of S3."""
    if text.startswith("s3://"):
        name, _, key = text.removeprefix("s3://").partition("/")
        if not key:
            raise ValueError("must be like s3://bucket/key, or a file")
        bucket(name)
        return text
    return str(file(text))


# For messages.


def shown(text: str) -> str:
    """A value for a message: an address without what lets somebody in, even if it is no good one."""
    address = redact_url(text.strip(_QUOTES)) if "://" in text else text
    address = f"…@{address.rpartition('@')[2]}" if "@" in address else address
    return address if len(address) <= _LONGEST_SHOWN else f"{address[:_LONGEST_SHOWN]}…"
