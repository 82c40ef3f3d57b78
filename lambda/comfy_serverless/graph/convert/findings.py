"""Collects what a conversion has to say: why it is impossible, and what was guessed or left out. No IO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from comfy_serverless.errors import UiFormatWorkflow
from comfy_serverless.graph.convert.virtual import group_name

#: The most reasons and the most warnings that are told.
MOST_TOLD = 100
_MOST_KEPT = 10 * MOST_TOLD
#: How many reasons the message has; `details` has up to `MOST_TOLD`.
_MOST_IN_MESSAGE = 3
#: What helps where a class is missing.
INSTALL_IT = (
    "Install the pack of a node class that is missing, or take a newer ComfyUI; a node that is not needed can be muted "
    "or bypassed in the editor."
)
_ID_OF_SUBGRAPH = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_MEND_IT = "Put that right in the editor and save the file again."
#: What helps, for reasons that nothing in the editor cures; "" where the reason says it itself.
_WHAT_TO_DO: Mapping[str, str] = {
    "missing_node_type": INSTALL_IT,
    "needs_browser": "",
    "use_everywhere": "Or export it in ComfyUI for the API (Workflow > Export (API)): that file has all links.",
}
#: The longest piece of a file that a message repeats, in characters.
_LONGEST_SHOWN = 80
#: The most names that a message lists.
_MOST_NAMED = 8


class Findings:
    """The reasons and the warnings of one conversion."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[object, ...], dict[str, Any]] = {}
        self._warnings: dict[str, None] = {}

    def refuse(self, reason: str, message: str, **facts: object) -> None:
        """Note why the workflow cannot be converted.

        Args:
            reason: a stable code for programs.
            message: what is wrong and where, for people.
            facts: what else a program may use: `node_id`, `class_type`, `cnr_id` and the like; None is left out.
        """
        given = {name: shown(fact) for name, fact in facts.items() if fact is not None}
        key = (reason, message, given.get("node_id"))
        if len(self._reasons) < _MOST_KEPT:
            self._reasons.setdefault(key, {"reason": reason, **given, "message": message})

    def warn(self, message: str) -> None:
        """Note what was guessed, left out or rolled; the message names the node."""
        if len(self._warnings) <= MOST_TOLD:
            self._warnings[message] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was noted, each once; of very many the first ones, and that there are more."""
        told = list(self._warnings)
        return (*told[:MOST_TOLD], *(["there is more that is not listed"] if len(told) > MOST_TOLD else []))

    def raise_if_refused(self) -> None:
        """Raise UiFormatWorkflow with all reasons, if there is any."""
        if self._reasons:
            raise refusal(list(self._reasons.values()))


def refusal(reasons: list[dict[str, Any]]) -> UiFormatWorkflow:
    """The error for a workflow that cannot be converted, with `details["reasons"]`."""
    told = "; ".join(str(reason["message"]) for reason in reasons[:_MOST_IN_MESSAGE])
    more = f"; and {len(reasons) - _MOST_IN_MESSAGE} more" if len(reasons) > _MOST_IN_MESSAGE else ""
    what_to_do = " ".join(dict.fromkeys(map(_what_to_do, reasons)))
    return UiFormatWorkflow(
        f"This workflow of the editor cannot be converted: {told}{more}. {what_to_do}".rstrip(),
        details={"reasons": reasons[:MOST_TOLD]},
    )


def names_subgraph(class_type: str) -> bool:
    """Whether a node's type is the id of a subgraph, which the editor writes in the place of a class."""
    return _ID_OF_SUBGRAPH.fullmatch(class_type) is not None


def _what_to_do(reason: Mapping[str, Any]) -> str:
    class_type = str(reason.get("class_type"))
    if names_subgraph(class_type) or group_name(class_type) is not None:
        return _MEND_IT
    return _WHAT_TO_DO.get(str(reason["reason"]), _MEND_IT)


def shown(value: object) -> object:
    """A piece of a file as a message may repeat it: long texts are cut."""
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        return value[: _LONGEST_SHOWN - 1] + "…"
    return value


def named(node_id: str, class_type: str, title: str | None = None) -> str:
    """A node as messages call it."""
    called = f"{class_type!r}" if title is None or title == class_type else f"{class_type!r}, {title!r}"
    return f"node {shown(node_id)} ({shown(called)})"


def listed(names: list[str]) -> str:
    """Names as a message lists them: the first ones, and how many more there are."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(str(shown(name)) for name in names[:_MOST_NAMED]) + more


def in_words(value: object) -> str:
    """The kind of a JSON value in words, for messages about a wrong one."""
    kinds: Mapping[type, str] = {
        bool: "true or false",
        dict: "an object",
        float: "a number",
        int: "a number",
        list: "a list",
        str: "a text",
        type(None): "null",
    }
    return kinds.get(type(value), "no JSON value")
