"""What one named input takes: the one place that decides it, for the schema and for the check. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_serverless.graph.inputs import Role
from comfy_serverless.graph.nodes import IMAGE_LOADERS
from comfy_serverless.workflows.renewal import renewed
from comfy_serverless.workflows.targets import place_of
from comfy_serverless.workflows.version import NamedInput, Version

#: The longest text, the longest address of a file (`data:` has the file in it), and the most files of one input.
MOST_LETTERS: Final = 200_000
MOST_FILE_LETTERS: Final = 12_000_000
MOST_FILES: Final = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """What an input takes.

    Attributes:
        minimum: of numbers; a seed may always be -1, which means a random one.
        choices: those that are plain values.
        may_be_many: whether several files are taken, which become one batch.
    """

    of: NamedInput
    minimum: float | None = None
    choices: tuple[str | int | float | bool, ...] = ()
    may_be_many: bool = False


def rules_of(version: Version, object_info: Mapping[str, Any] | None) -> tuple[Rule, ...]:
    """The rules of a version's inputs, with the choices that there are now."""
    return tuple(rule_of(one, version.graph) for one in renewed(version, object_info))


def rule_of(one: NamedInput, graph: Mapping[str, Any]) -> Rule:
    """The rule of one input, as it is."""
    minimum = one.minimum
    if minimum is not None and one.role is Role.SEED:
        minimum = min(minimum, -1)
    places = [place for target in one.targets if (place := place_of(graph, target)) is not None]
    loaders = [str(graph[node_id].get("class_type")) for node_id, _ in places]
    return Rule(
        one,
        minimum=minimum,
        choices=tuple(choice for choice in one.choices if isinstance(choice, str | int | float)),
        may_be_many=bool(loaders) and IMAGE_LOADERS.issuperset(loaders),
    )
