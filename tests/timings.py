"""What of a test would judge how fast the machine is: `test_patience` refuses it in all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

#: Of the wall. What a processor has computed (`time.process_time`), and `QuietClock`, tell something of the code.
_CLOCKS = ("monotonic", "perf_counter")
_WALL = frozenset(
    f"{module}{name}{unit}"
    for module, names in (("time.", (*_CLOCKS, "time")), ("", _CLOCKS))
    for name in names
    for unit in ("", "_ns")
)
#: Nothing that has to happen may get less, in seconds and in a browser's milliseconds.
LEAST_S, LEAST_MS = 30, 30_000
#: Methods that take a time out as an argument without a name, and which one it is. Those that are also other things'
#: (`wait`: a pause, mostly) count where somebody asserts what they answer.
_POSITIONS = {"join": 0, "result": 0, "exception": 0, "acquire": 1, "communicate": 1, "get": 1, "put": 2}
_ASSERTED = {"wait": 0, "wait_for": 1}
#: What expects that time runs out.
_EXPECTED = ("pytest.raises", "suppress", "contextlib.suppress")
_CAUGHT = re.compile(r"Timeout|RequestException|OSError|\bException\b")
_OF_A_PAGE = re.compile(r"performance\.(now|mark|measure)\b|\b(startTime|responseEnd|responseStart|timeStamp)\b")


def found_in(source: str, *, is_of_pages: bool = False) -> Iterator[str]:
    """Each place of a test that judges time, as "line: why".

    Args:
        source: the text of a module.
        is_of_pages: whether it drives a browser: it has timeouts in milliseconds, and JavaScript that may measure.
    """
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _Timings(function).judged()
    yield from _short_timeouts(tree, least=LEAST_MS if is_of_pages else LEAST_S)
    if is_of_pages:
        yield from found_in_script(source)


def found_in_script(source: str) -> Iterator[str]:
    """The same of JavaScript, or of a module that has some in its texts."""
    for number, line in enumerate(source.splitlines(), start=1):
        if match := _OF_A_PAGE.search(line):
            yield f"{number}: a page's clock: {match[0]}"


class _Timings:
    """The names in a function that hold moments of the wall, and times between two of them."""

    def __init__(self, function: ast.AST) -> None:
        self._nodes = list(ast.walk(function))
        self._moments: set[str] = set()
        self._durations: set[str] = set()
        self._near: set[str] = set()
        known = -1
        while known != (known := len(self._moments) + len(self._durations) + len(self._near)):
            for node in self._nodes:
                for name, value in _assigned(node):
                    self._learn(name, value)

    def _learn(self, name: str, value: ast.expr) -> None:
        if self._is_duration(value):
            self._durations.add(name)
        elif self._is_moment(value):
            self._moments.add(name)
            if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add) and _is_below(value.right, LEAST_S):
                self._near.add(name)

    def _is_moment(self, value: ast.AST) -> bool:
        return any(_is_wall(node) or _is_name(node, self._moments) for node in ast.walk(value))

    def _is_duration(self, value: ast.AST) -> bool:
        return any(
            _is_name(node, self._durations)
            or (isinstance(node, ast.Attribute) and node.attr == "elapsed")
            or (
                isinstance(node, ast.BinOp)
                and isinstance(node.op, ast.Sub)
                and self._is_moment(node.left)
                and self._is_moment(node.right)
            )
            for node in ast.walk(value)
        )

    def judged(self) -> Iterator[str]:
        asserted = [node for claim in self._nodes if isinstance(claim, ast.Assert) for node in ast.walk(claim.test)]
        for less, more, line in _compared(asserted):
            if self._is_duration(less):
                yield f"{line}: a time of the wall has a bound: {ast.unparse(less)}"
            elif self._is_moment(less) and any(_is_name(node, self._near) for node in ast.walk(more)):
                yield f"{line}: it is waited for less than {LEAST_S} s: tests.patience.wait_until has the patience"


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What names are given: by `=`, `:=`, and `.append`."""
    match node:
        case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
            yield from (
                (name.id, value) for name, value in zip(names, values, strict=True) if isinstance(name, ast.Name)
            )
        case ast.Assign(targets=targets, value=value):
            yield from ((name.id, value) for name in targets if isinstance(name, ast.Name))
        case (
            ast.NamedExpr(target=ast.Name(id=name), value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            yield name, value
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[value]):
            yield name, value


def _compared(nodes: list[ast.AST]) -> Iterator[tuple[ast.expr, ast.expr, int]]:
    """Each pair of which the first shall be less than the second, and its line."""
    for node in nodes:
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
                if isinstance(operator, ast.Lt | ast.LtE):
                    yield left, right, node.lineno
                elif isinstance(operator, ast.Gt | ast.GtE):
                    yield right, left, node.lineno


def _short_timeouts(tree: ast.AST, *, least: float, is_expected: bool = False) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and not is_expected:
            words = [word.value for word in node.keywords if word.arg == "timeout"]
            for value in (*words, *_at(node, _POSITIONS)):
                if _is_below(value, least):
                    yield _too_little(node, value, least)
        elif isinstance(node, ast.Assert):
            asserted = node.test.values if isinstance(node.test, ast.BoolOp) else [node.test]
            for call in (one for one in asserted if isinstance(one, ast.Call)):
                yield from (
                    _too_little(call, value, least) for value in _at(call, _ASSERTED) if _is_below(value, least)
                )
        yield from _short_timeouts(node, least=least, is_expected=is_expected or _expects_it(node))


def _at(call: ast.Call, positions: Mapping[str, int]) -> list[ast.expr]:
    """The argument without a name that is a time out, if there is one."""
    if not isinstance(call.func, ast.Attribute):
        return []
    position = positions.get(call.func.attr)
    if position is None or len(call.args) <= position:
        return []
    first = call.args[0]
    is_of_queue = call.func.attr != "get" or (isinstance(first, ast.Constant) and first.value is True)
    return [call.args[position]] if is_of_queue else []  # of a mapping it is the default


def _too_little(node: ast.Call, value: ast.expr, least: float) -> str:
    return (
        f"{node.lineno}: timeout={ast.unparse(value)} is little for what has to happen: at least "
        f"{least} {'ms' if least == LEAST_MS else 's'} costs no more (of what shall not happen say `not` or "
        "`pytest.raises`)"
    )


def _expects_it(node: ast.AST) -> bool:
    """Whether what is inside may run out of time: that is wanted, or answered."""
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        return any(ast.unparse(call.func) in _EXPECTED for call in calls)
    if isinstance(node, ast.Try):
        return any(one.type is not None and _CAUGHT.search(ast.unparse(one.type)) for one in node.handlers)
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _is_below(value: ast.expr, least: float) -> bool:
    """Whether it is a number above 0, and below this one."""
    return isinstance(value, ast.Constant) and isinstance(value.value, int | float) and 0 < value.value < least


def _is_wall(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in _WALL


def _is_name(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Name) and node.id in names
