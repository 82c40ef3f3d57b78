"""Inputs that grow (COMFY_AUTOGROW_V3): how many a node has is in the file. No IO.

Observed of the official editor 1.49.6: such an input `NAME` stands for `NAME.` and each of its template's `names`, or
its `prefix` and a number. The names of the file are used as they are: gaps stay, also more than `max`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from comfy_serverless.graph.convert.declared import AUTOGROW, Declared, NodeClass, each_declared
from comfy_serverless.graph.convert.model import Socket

_NUMBER = re.compile(r"(\d{1,9})$")
#: The most inputs that are there without the file.
_MOST_AT_FIRST = 100


def grown_inputs(saved: Iterable[Socket], node_class: NodeClass) -> Mapping[str, list[Declared]]:
    """For each input of a class that grows, by its name, the inputs that a node has of it, in their order."""
    growing = node_class.growing
    grown: dict[str, dict[str, Declared]] = {
        name: {first: _like(entry, first, "*") for first in _first_names(entry)} for name, entry in growing.items()
    }
    for socket in saved if growing else ():
        name = next((name for name in growing if socket.name.startswith(f"{name}.")), None)
        if name is not None and socket.name not in grown[name]:
            grown[name][socket.name] = _like(growing[name], socket.name, socket.type)
    return {name: sorted(entries.values(), key=_order(growing[name])) for name, entries in grown.items()}


def sockets(entries: Iterable[Declared], grown: Mapping[str, list[Declared]]) -> Iterator[Declared]:
    """The sockets among inputs, those that grow as often as a node has them."""
    for declared in entries:
        for entry in grown.get(declared.name, [] if declared.type == AUTOGROW else [declared]):
            if entry.kind is None:
                yield entry


def _template(growing: Declared) -> Mapping[str, object]:
    template = growing.options.get("template")
    return template if isinstance(template, Mapping) else {}


def _like(growing: Declared, name: str, kind: str) -> Declared:
    """An input that has grown: as the template says, else of a type that the file has."""
    inner = next(each_declared(_template(growing).get("input")), None)
    if inner is None:
        return Declared(name, kind, {}, [], None, is_forced=False)
    return Declared(name, inner.type, inner.options, inner.choices, inner.kind, inner.is_forced)


def _first_names(growing: Declared) -> Iterator[str]:
    """The names that are there in any case."""
    template = _template(growing)
    least, listed, prefix = template.get("min"), template.get("names"), template.get("prefix")
    if not isinstance(least, int) or not 0 < least <= _MOST_AT_FIRST:
        return
    if isinstance(listed, list):
        yield from (f"{growing.name}.{name}" for name in listed[:least])
    elif len([*each_declared(template.get("input"))]) == 1:
        yield from (f"{growing.name}.{prefix}{number}" for number in range(least))


def _order(growing: Declared) -> Callable[[Declared], int]:
    listed = _template(growing).get("names")
    numbers = {f"{growing.name}.{name}": at for at, name in enumerate(listed)} if isinstance(listed, list) else {}

    def order(entry: Declared) -> int:
        if entry.name in numbers:
            return numbers[entry.name]
        found = _NUMBER.search(entry.name)
        return len(numbers) + (int(found[1]) if found else 0)

    return order
