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
    if not growing:
        return {}
    by_name: dict[str, list[Socket]] = {name: [] for name in growing}
    for socket in saved:
        name = next((name for name in growing if socket.name.startswith(f"{name}.")), None)
        if name is not None:
            by_name[name].append(socket)
    for name, found in by_name.items():
        if "." in name:
            by_name[name] = _reached(growing[name], found)
    return {name: _grown(growing[name], found) for name, found in by_name.items()}


def _reached(growing: Declared, saved: list[Socket]) -> list[Socket]:
    """Of the inputs of one within an option those that are there: each that is linked makes room for one more."""
    order = _order(growing)
    free = _whole(_template(growing).get("min"), 0) + 1
    found = []
    for socket in sorted(saved, key=lambda socket: order(socket.name)):
        if order(socket.name) < free:
            found.append(socket)
            if socket.link is not None:
                free = max(free, order(socket.name) + 2)
    return found


def _grown(growing: Declared, saved: list[Socket]) -> list[Declared]:
    """The inputs of one that grows: those of the file, the first ones, and a free one after the last that is linked."""
    order = _order(growing)
    linked = [order(socket.name) for socket in saved if socket.link is not None]
    names = dict.fromkeys(_names_up_to(growing, max(linked, default=-1) + 1), "*")
    names |= {socket.name: socket.type for socket in saved}
    return [_like(growing, name, names[name]) for name in sorted(names, key=order)]


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


def _names_up_to(growing: Declared, number: int) -> Iterator[str]:
    """The names that are there in any case, and those up to a number."""
    template = _template(growing)
    listed, prefix = template.get("names"), template.get("prefix")
    least, most = (_whole(template.get(limit), otherwise) for limit, otherwise in (("min", 0), ("max", _MOST_AT_FIRST)))
    count = min(max(least, number + 1 if number else 0), most, _MOST_AT_FIRST)
    if isinstance(listed, list):
        yield from (f"{growing.name}.{name}" for name in listed[:count])
    elif len([*each_declared(template.get("input"))]) == 1:
        yield from (f"{growing.name}.{prefix}{at}" for at in range(count))


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= _MOST_AT_FIRST else otherwise


def _order(growing: Declared) -> Callable[[str], int]:
    listed = _template(growing).get("names")
    numbers = {f"{growing.name}.{name}": at for at, name in enumerate(listed)} if isinstance(listed, list) else {}

    def order(name: str) -> int:
        if name in numbers:
            return numbers[name]
        found = _NUMBER.search(name)
        return len(numbers) + (int(found[1]) if found else 0)

    return order
