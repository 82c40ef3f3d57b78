"""Changes a YAML text at one place: every byte that the change does not concern stays, comments and quotes too. No IO.

A change is made of edits that do not overlap. They are made at the end, so that all places are those of the text as it
was; whoever changes more than one key reads the text again in between.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from comfy_serverless.environments.build_file import rendering
from comfy_serverless.environments.build_file.nodes import Fields, Items, Node, Scalar
from comfy_serverless.environments.build_file.rendering import STEP, Value

_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
#: Key of an item's place among its kin.
Order = Callable[[str], tuple[int, str]]


class Splice:
    """A text, and the edits that it will get."""

    def __init__(self, text: str) -> None:
        self._text = text
        found = _LINE_END.search(text)
        self._newline = "\r\n" if found is not None and found[0] == "\r\n" else "\n"
        self._edits: list[tuple[int, int, str]] = []

    def text(self) -> str:
        """The text with all edits."""
        pieces, at = [], 0
        for start, end, new in sorted(self._edits, key=lambda edit: edit[:2]):
            pieces += [self._text[at:start], new]
            at = end
        return "".join([*pieces, self._text[at:]])

    def put(self, fields: Fields, name: str, value: Value, order: Order) -> None:
        """Give a key another value; a key that is not there is put at its place in the order."""
        old = fields.get(name)
        if old is None:
            self._add_key(fields, name, value, order)
        elif fields.flow or (not isinstance(old, Scalar) and old.flow and isinstance(value, str | int | None)):
            self._edit(old.start, old.end, rendering.flow(value))
        elif isinstance(value, str) and rendering.is_block_text(value) and self._takes_block(old, value):
            self._set_block_text(fields, old, value)
        elif isinstance(value, Mapping | Sequence) and not isinstance(value, str):
            self._set_collection(fields, name, old, value)
        else:
            self._set_scalar(old, value)

    def drop(self, fields: Fields, name: str) -> None:
        """Take a key out, with its value."""
        number = next(place for place, (key, _) in enumerate(fields.items) if key.value == name)
        key, value = fields.items[number]
        following = fields.items[number + 1][0] if number + 1 < len(fields.items) else None
        if fields.flow:
            self._remove_in_brackets([(one.start, kept.end) for one, kept in fields.items], {number})
            return
        end = self._line_end(value.end)
        if not self._text[self._line_start(key.start) : key.start].strip(" "):
            self._edit(self._line_start(key.start), end, "")
        elif following is not None and not self._text[end : following.start].strip(" "):
            self._edit(key.start, following.start, "")
        else:  # it shares its line with a dash, and a comment follows
            self._edit(key.start, self._end_of_words(value.end), "")

    def change_items(
        self,
        fields: Fields,
        name: str,
        items: Items,
        *,
        changed: Mapping[int, str],
        removed: set[int],
        added: Sequence[tuple[int, Mapping[str, Value]]],
    ) -> None:
        """Change entries of a list that is not empty, take some out, and put others in.

        Args:
            changed: what stands in the place of `span` of an entry, by its number.
            removed: the numbers of those that go.
            added: each with the number of the entry that it stands behind, -1 for none.
        """
        for number, text in changed.items():
            self._edit(*self.span(items, number), text)
        if len(removed) == len(items.values) and not added and not items.flow:
            self.empty(fields, name)
        elif items.flow:
            self._change_in_brackets(items, removed, added)
        else:
            for number in removed:
                self._edit(*self.span(items, number), "")
            indent = items.start - self._line_start(items.start)
            for behind, entry in added:
                at = self._line_start(items.start) if behind < 0 else self._line_end(items.values[behind].end)
                self._insert_lines(at, rendering.item(entry, indent))

    def span(self, items: Items, number: int) -> tuple[int, int]:
        """Where an entry stands: outside of brackets whole lines, with its dash."""
        entry = items.values[number]
        if items.flow:
            return entry.start, entry.end
        return self._line_start(self._dash(items, number)), self._line_end(entry.end)

    def _set_scalar(self, old: Node, value: Value) -> None:
        new = (
            rendering.scalar(value, style=_quote(old)) if isinstance(value, str | int | None) else rendering.flow(value)
        )
        if self._is_block_scalar(old):
            self._edit(old.start, old.end, new + self._newline)
        else:
            self._edit(old.start, old.end, self._blank_before(old.start) + new)

    def _set_block_text(self, fields: Fields, old: Node, value: str) -> None:
        head, indent = rendering.header(value), self._column(fields) + STEP
        if not self._is_block_scalar(old):
            # A comment that is indented as far as a text is a part of it.
            indent = max(indent, self._deepest_remark(self._line_end(old.end)) + 1)
            self._edit(old.start, old.end, self._blank_before(old.start) + head)
            self._insert_lines(self._line_end(old.end), rendering.text_lines(value, indent))
            return
        # What stands behind the header stays, and how far the lines are indented.
        first, *body = _LINE_END.split(self._text[old.start : old.end])
        said = re.match(r"[|>]([-+0-9]*)", first)
        if head == "|" and said is not None and said[1] == "+":
            head = "|+"  # which says the same of a text that ends with one line end
        if not any(letter.isdigit() for letter in head + (said[1] if said else "")):
            indent = next((len(line) - len(line.lstrip(" ")) for line in body if line.strip()), indent)
        head += first[said.end() :] if said else ""
        lines = rendering.text_lines(value, indent)
        self._edit(old.start, old.end, self._newline.join([head, *lines]) + self._newline)

    def _takes_block(self, old: Node, value: str) -> bool:
        """Whether a text may be written as a block: what stands below must not become a part of it."""
        if self._is_block_scalar(old):
            return True
        remark = self._deepest_remark(self._line_end(old.end))
        return not value.endswith("\n\n") and (remark < 0 or rendering.header(value) in ("|", "|-"))

    def _remark_at(self, at: int) -> int | None:
        """How far the comment in a line is indented; a large number for a blank line; None for another line."""
        line = self._text[at : self._end_of_words(at)]
        if not line.strip():
            return None if at >= len(self._text) else len(self._text)
        return len(line) - len(line.lstrip(" ")) if line.lstrip(" ").startswith("#") else None

    def _deepest_remark(self, at: int) -> int:
        """How far the comments below a line are indented at most; -1 if there are none."""
        deepest = -1
        while (indent := self._remark_at(at)) is not None:
            deepest = max(deepest, -1 if indent == len(self._text) else indent)
            at = self._line_end(at + 1)
        return deepest

    def _set_collection(self, fields: Fields, name: str, old: Node, value: Value) -> None:
        """A list or mapping in the place of an empty one, of null, or of what stands in brackets."""
        lines = rendering.keyed(name, value, self._column(fields))
        if len(lines) == 1:
            self._edit(old.start, old.end, self._blank_before(old.start) + rendering.flow(value))
            return
        start = old.start
        while start > 0 and self._text[start - 1] == " ":
            start -= 1
        self._edit(start, old.end, "")
        self._insert_lines(self._line_end(old.end), lines[1:])

    def _add_key(self, fields: Fields, name: str, value: Value, order: Order) -> None:
        before = [place for place, (key, _) in enumerate(fields.items) if order(key.value) < order(name)]
        if fields.flow:
            new = f"{rendering.flow(name)}: {rendering.flow(value)}"
            if not fields.items:
                self._edit(fields.start + 1, fields.start + 1, new)
            else:
                self._insert_after(fields.items[before[-1] if before else 0][1].end, f", {new}")
            return
        at = self._line_end(fields.items[before[-1] if before else 0][1].end)
        column = self._column(fields)
        if isinstance(value, str) and rendering.is_block_text(value):
            while self._remark_at(at) is not None and (self._remark_at(at) or 0) > column:
                at = self._line_end(at + 1)  # a comment that is indented further would become a part of the text
            if value.endswith("\n\n"):  # so would blank lines
                self._insert_lines(at, [f"{' ' * column}{name}: {rendering.scalar(value)}"])
                return
        self._insert_lines(at, rendering.keyed(name, value, column))

    def empty(self, fields: Fields, name: str) -> None:
        """Take everything out of a list or a mapping; what stands between its lines stays."""
        node = fields.get(name)
        brackets = "[]" if isinstance(node, Items) else "{}"
        if isinstance(node, Scalar) or node is None or node.flow:
            raise TypeError(f"{name} has no lines of its own")
        key = fields.key(name)
        colon = self._text.index(":", key.end if key is not None else 0)
        self._edit(colon + 1, colon + 1, f" {brackets}")
        if isinstance(node, Items):
            for number in range(len(node.values)):
                self._edit(*self.span(node, number), "")
        else:
            for inner, value in node.items:
                self._edit(self._line_start(inner.start), self._line_end(value.end), "")

    def _change_in_brackets(
        self, items: Items, removed: set[int], added: Sequence[tuple[int, Mapping[str, Value]]]
    ) -> None:
        if len(removed) == len(items.values):
            self._edit(items.start, items.end, rendering.flow([entry for _, entry in added]))
            return
        self._remove_in_brackets([(one.start, one.end) for one in items.values], removed)
        for place, entry in added:
            behind = max((number for number in range(place + 1) if number not in removed), default=-1)
            if behind < 0:
                self._insert_after(items.start + 1, f"{rendering.flow(entry)}, ")
            else:
                self._insert_after(items.values[behind].end, f", {rendering.flow(entry)}")

    def _remove_in_brackets(self, spans: Sequence[tuple[int, int]], removed: set[int]) -> None:
        """Take values out of brackets, and a comma with each. One at least is kept."""
        first = min(set(range(len(spans))) - removed)
        for number in removed:
            if number < first:
                self._edit(spans[number][0], spans[number + 1][0], "")
            else:
                self._edit(spans[number - 1][1], spans[number][1], "")

    def _dash(self, items: Items, number: int) -> int:
        """Where the dash of an entry stands: all are in one column."""
        if number == 0:
            return items.start
        column = items.start - self._line_start(items.start)
        at = self._line_end(items.values[number - 1].end)
        while at < items.values[number].start and self._text[at : at + column + 1] != " " * column + "-":
            at = self._line_end(at + 1)
        return at + column

    def _edit(self, start: int, end: int, new: str) -> None:
        self._edits.append((start, end, new))

    def _insert_after(self, at: int, new: str) -> None:
        self._edits.append((at, at, new))

    def _insert_lines(self, at: int, lines: Sequence[str]) -> None:
        begin = "" if at == 0 or _LINE_END.fullmatch(self._text[at - 1]) else self._newline
        end = self._newline if not begin else ""
        self._edit(at, at, begin + self._newline.join(lines) + end)

    def _column(self, fields: Fields) -> int:
        return fields.start - self._line_start(fields.start)

    def _line_start(self, at: int) -> int:
        while at > 0 and not _LINE_END.fullmatch(self._text[at - 1]):
            at -= 1
        return 1 if at == 0 and self._text.startswith("\ufeff") else at

    def _line_end(self, at: int) -> int:
        """Where the line after a value begins. The value may be a block, which ends there already."""
        if at > 0 and _LINE_END.fullmatch(self._text[at - 1]):
            return at
        found = _LINE_END.search(self._text, at)
        return len(self._text) if found is None else found.end()

    def _end_of_words(self, at: int) -> int:
        found = _LINE_END.search(self._text, at)
        return len(self._text) if found is None else found.start()

    def _blank_before(self, at: int) -> str:
        return " " if self._text[at - 1] == ":" else ""

    def _is_block_scalar(self, node: Node) -> bool:
        return isinstance(node, Scalar) and node.style in ("|", ">")


def _quote(node: Node) -> str:
    return node.style if isinstance(node, Scalar) and node.style in ("'", '"') else ""
