"""What a check of a named workflow says: findings, and what they mean for whoever pushes it. No IO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from comfy_serverless.errors import InvalidWorkflow

#: The findings that a message names; `details` has all of them.
_NAMED: Final = 10


class Severity(StrEnum):
    """What a finding means for a run."""

    BREAKS = "breaks"
    WARNS = "warns"


class Kind(StrEnum):
    """What is wrong."""

    GRAPH = "no_graph"
    CLASS = "class_missing"
    INPUT_MISSING = "input_missing"
    INPUT_UNKNOWN = "input_unknown"
    LINK = "wrong_link"
    CYCLE = "cycle"
    MODEL = "model_missing"
    CHOICE = "value_not_offered"
    RANGE = "value_out_of_range"
    VALUE = "wrong_value"
    FILE = "file_not_brought"
    OUTPUT = "output_gone"
    TARGET = "target_gone"
    CHOICES = "choices_changed"
    LIMITS = "limits_changed"
    TYPE = "type_changed"
    NOT_CHECKED = "not_checked"
    MORE = "more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with a version on these workers.

    Attributes:
        message: a sentence without a full stop: what, where, and what to do.
        input_name: of the node.
        name: of the named input or output that it is about.
    """

    kind: Kind
    severity: Severity
    message: str
    node_id: str = ""
    class_type: str = ""
    input_name: str = ""
    name: str = ""

    @property
    def breaks(self) -> bool:
        """Whether a run fails by it, or lacks what the version has promised."""
        return self.severity is Severity.BREAKS

    def to_json(self) -> dict[str, str]:
        """The finding as JSON, without what says nothing."""
        told = {
            "kind": self.kind.value,
            "severity": self.severity.value,
            "message": self.message,
            "node_id": self.node_id,
            "class_type": self.class_type,
            "input_name": self.input_name,
            "name": self.name,
        }
        return {name: text for name, text in told.items() if text}


def refuse_broken(name: str, findings: Sequence[Finding]) -> None:
    """Raise InvalidWorkflow if a run of what is pushed would fail. Not for those who push it all the same (`force`)."""
    breaking = [one for one in findings if one.breaks]
    if breaking:
        raise InvalidWorkflow(
            f"{name} would not run on the workers that are deployed, so it was not pushed: {in_one(breaking)}. Mend "
            "it, or push it all the same: `force` (--force).",
            details={"findings": [one.to_json() for one in findings]},
        )


def in_one(findings: Sequence[Finding]) -> str:
    """Findings in one sentence, without a full stop."""
    more = f"; and {len(findings) - _NAMED} more" if len(findings) > _NAMED else ""
    return "; ".join(one.message for one in findings[:_NAMED]) + more
