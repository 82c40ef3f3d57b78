"""Fills in what the editor fills in when it queues a workflow: `%date:yyyy-MM-dd%` and `%KSampler.seed%` in the names
that ComfyUI's own savers begin their files with. No IO.

The browser does this, not ComfyUI, so that a graph which has not passed through it still has the words in it (told in
the docs of the editor, and by its users: Comfy-Org/docs#1355). `%year%`, `%width%` and their kin ComfyUI fills in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from comfy_serverless.graph.lookup import title_of
from comfy_serverless.graph.nodes import NAMES_OF_EDITOR, PREFIX
from comfy_serverless.graph.workflow import copy_graph

_WORD = re.compile(r"%([^%\n]{1,200})%")
_DATE = "date:"
_PART_OF_DATE = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyy?y?")
#: What no file name has; the editor puts `_` for it, too.
_UNFIT = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


def fill_prefixes(graph: dict[str, Any], *, now: datetime | None = None) -> tuple[dict[str, Any], list[str]]:
    """The graph with these words filled in, a copy if there are any, and a sentence for each that means nothing.

    Args:
        now: the local time; None for that of this moment.
    """
    found = {
        node_id: prefix
        for node_id, node in graph.items()
        if node["class_type"] in NAMES_OF_EDITOR and isinstance(prefix := node["inputs"].get(PREFIX), str)
        if "%" in prefix
    }
    if not found:
        return graph, []
    result, notes = copy_graph(graph), []
    now = now or datetime.now().astimezone()
    for node_id, prefix in found.items():
        words = {word: _filled(graph, word, now) for word in _WORD.findall(prefix)}
        result[node_id]["inputs"][PREFIX] = _WORD.sub(_put_in(words), prefix)
        notes += [
            f"node {node_id}: %{word}% in {PREFIX} is left as it is: no node of that class or title has such a value"
            for word, text in words.items()
            if text is None and word.count(".") == 1 and not word.startswith(_DATE)
        ]
    return result, notes


def date(now: datetime, form: str) -> str:
    """A time in a form like `yyyy-MM-dd_hhmmss`; other letters, and `yyy`, stay as they are."""
    parts = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def part(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] in parts:
            return str(parts[found[0]]).rjust(len(found), "0")
        year = str(now.year)
        return {"yy": year[2:], "yyyy": year}.get(found, found)

    return _PART_OF_DATE.sub(part, form)


def fit_for_a_name(value: str) -> str:
    """A value as the editor puts it into the name of a file."""
    return _UNFIT.sub("_", value)


def _put_in(words: Mapping[str, str | None]) -> Callable[[re.Match[str]], str]:
    """What `re.sub` calls: a word becomes what it stands for, if anything."""
    return lambda match: match[0] if (text := words[match[1]]) is None else text


def _filled(graph: Mapping[str, Any], word: str, now: datetime) -> str | None:
    """What a word stands for; None if it is left as it is."""
    if word.startswith(_DATE):
        form = word.removeprefix(_DATE)
        return None if ".." in form else date(now, form)
    name, dot, input_name = word.partition(".")
    if not dot or "." in input_name:
        return None
    for node in _called(graph, name):
        value = node["inputs"].get(input_name)
        if isinstance(value, str | int | float):
            return fit_for_a_name(_as_text(value))
    return None


def _called(graph: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The nodes of a name: what the editor calls a node is its class, unless somebody has changed that."""
    of_class = [node for node in graph.values() if node["class_type"] == name]
    return of_class or [node for node in graph.values() if title_of(node) == name]


def _as_text(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else json.dumps(value)
