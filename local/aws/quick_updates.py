"""Moto's updates of items with short ways through the tree of an expression. They end as they do without.

As it comes, ten visitors walk through the tree, one after the other, and ask each node of each, by its class's
abstract bases, whether they change it; before that the tree is copied as if it could be anything; and what must
hold for the whole is checked below each of its nodes, too. The end of a job, which changes three items, took 5 ms so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node, UpdateExpression  # type: ignore[attr-defined]
from moto.dynamodb.parsing.validators import ActionCountValidator, OverlappingPathsValidator

#: By visitor and class: whether it is one of a node, and the first class of the visitor's that it is one of.
_asked: Final[dict[tuple[type, type], tuple[bool, type | None]]] = {}
_hears_of_nothing: Final[Callable[..., Any]] = DepthFirstTraverser.pre_processing_of_child


def _of(visitor: Any, kind: type) -> tuple[bool, type | None]:  # noqa: ANN401
    """Whether nodes are of this class, and which of a visitor's processors takes them."""
    known = _asked.get((type(visitor), kind))
    if known is None:
        changed = next((one for one in visitor._processing_map() if issubclass(kind, one)), None)
        known = _asked[type(visitor), kind] = issubclass(kind, Node), changed
    return known


def _traverse(visitor: Any, node: Any, child_id: int = -1) -> Any:  # noqa: ANN401
    """As moto does."""
    is_node, changed = _of(visitor, type(node))
    if not is_node:
        return node
    parent = node.parent
    if node.children is not None:
        hears = type(visitor).pre_processing_of_child is not _hears_of_nothing
        for index, child in enumerate(node.children):
            if hears:
                visitor.pre_processing_of_child(node, index)
            _traverse(visitor, child, index)
    if changed is not None:
        node = visitor._processing_map()[changed](node)
        node.parent = parent
        if parent:
            parent.children[child_id] = node
    return node


def _copy_node(node: Any, memo: dict[int, Any]) -> Any:  # noqa: ANN401
    """A copy of a node with all that is below it, in the copy of what it is in."""
    copied = memo[id(node)] = object.__new__(type(node))
    vars(copied).update(vars(node))
    copied.parent = copy.deepcopy(node.parent, memo)
    copied.children = copy.deepcopy(node.children, memo)
    return copied


_check_everywhere: Final[Callable[..., Any]] = DepthFirstTraverser.traverse


def _check_once(check: str) -> Callable[[Any, Any], Any]:
    """As moto does, which checks each part of an expression as the whole: what the whole keeps, its parts keep."""

    def traverse(visitor: Any, node: Any) -> Any:  # noqa: ANN401
        if not isinstance(node, UpdateExpression):
            return _check_everywhere(visitor, node)
        try:
            return getattr(visitor, check)(node)
        except Exception:  # noqa: BLE001  (moto raises it again, and names what it finds first)
            return _check_everywhere(visitor, node)

    return traverse


#: What stands in for what: the owner, the name, the replacement.
REPLACEMENTS: Final[tuple[tuple[Any, str, Any], ...]] = (
    (DepthFirstTraverser, "traverse_node_recursively", _traverse),
    (Node, "__deepcopy__", _copy_node),
    (OverlappingPathsValidator, "traverse", _check_once("check_for_overlapping_paths")),
    (ActionCountValidator, "traverse", _check_once("verify_action_counts")),
)
