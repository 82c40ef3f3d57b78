"""Which workflow, version and weights somebody means on the command line. No IO."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from comfy_serverless.cli.habits import version_number
from comfy_serverless.errors import InvalidRequest, NotFound
from comfy_serverless.workflows.reference import LIVE, Reference, check_alias

#: Before the name of one that the operator shares, as in requests (`workflows.meant`).
SHARED = "shared/"


def alias_of(reference: Reference) -> str | None:
    """The alias that has to be said: none for `live`."""
    return None if reference.alias == LIVE else reference.alias


def nothing_live(told: Mapping[str, Any]) -> NotFound:
    """The error for a workflow, as the API tells it, whose `live` leads nowhere."""
    name, latest = told["name"], told.get("latest", "N")
    others = ", ".join(f"{name}@{alias}" for alias in sorted(told.get("aliases") or {}))
    hint = f"; there is {others}" if others else ""
    return NotFound(
        f"no version of {name!r} is live{hint}: `comfy-serverless workflows promote {name} {latest}` makes one live, "
        f"and {name}@{latest} means that version."
    )


def query_of(reference: Reference, *, is_shared: bool) -> str:
    """What an address says of a reference behind the name."""
    asked = {"alias": alias_of(reference), "version": reference.version, "source": "operator" if is_shared else None}
    said = {name: value for name, value in asked.items() if value is not None}
    return f"?{urlencode(said)}" if said else ""


def meant_by(text: str) -> tuple[Reference, bool]:
    """A reference, and whether it is `shared/NAME`: the operator's. Raises InvalidRequest for what is none."""
    plain = text.removeprefix(SHARED)
    if "/" in plain:
        raise InvalidRequest(
            f"{text[:200]!r} is a file in a folder of the image: it is run as `workflow` of a request, and is shown, "
            "moved and pushed nowhere."
        )
    return Reference.parse(plain), plain != text


def weight(text: str) -> tuple[str, int]:
    """`2=90`, as the `type` of an argument."""
    number, _, weight = text.partition("=")
    if not (weight.isascii() and weight.isdigit() and len(weight) <= 6):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form VERSION=WEIGHT, e.g. 2=90")
    return str(version_number(number)), int(weight)


def weights(text: str) -> dict[str, int]:
    """`2`, `1=90,2=10`, or `0` for nothing, as the weights of an alias."""
    if text == "0":
        return {}
    return dict(weight(part if "=" in part else f"{part}=1") for part in text.split(","))


class pair:  # noqa: N801 - it is what argparse calls, and its name is in no message
    """Makes of an option's text a name and what it stands for."""

    def __init__(self, form: str) -> None:
        self._form = form

    def __call__(self, text: str) -> tuple[str, str]:
        name, _, value = text.partition("=")
        if not name or not value:
            raise argparse.ArgumentTypeError(f"{text[:200]!r} is not of the form {self._form}")
        return name, value


def is_alias(text: str) -> bool:
    """Whether an alias may be called so: a version's number is none."""
    try:
        check_alias(text)
    except InvalidRequest:
        return False
    return True


def file_meant_by(text: str) -> Reference:
    """A reference to a file in a folder of this machine: `portraits/old` is one in a folder of it."""
    name, at, rest = text.partition("@")
    if "/" not in name:
        return Reference.parse(text)
    if not at:
        return Reference(name)
    return Reference(name, None, 0) if rest == "0" else Reference(name, check_alias(rest))
