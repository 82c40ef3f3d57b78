"""What a role may do: the statements of an IAM policy, as IAM evaluates them. No IO, no names of ours.

Everything is denied that no statement allows, and whatever a statement denies. What is not understood here raises:
a condition that were ignored would allow, or deny, what AWS does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

#: Of these our statements are made; `NotAction`, `NotResource` and `Principal` would mean something else.
_PARTS: Final = frozenset({"Sid", "Effect", "Action", "Resource", "Condition"})
_QUANTIFIERS: Final = frozenset({"", "ForAllValues", "ForAnyValue"})
_COMPARISONS: Final = frozenset({"StringEquals", "StringLike"})
#: What the requests are known to be about (local/aws/needs.py); a condition on anything else could never be met.
LEADING_KEYS: Final = "dynamodb:LeadingKeys"
RESOURCE_TAG: Final = "aws:ResourceTag/"
NAMESPACE: Final = "cloudwatch:namespace"


class NotUnderstood(ValueError):
    """A statement that this evaluator cannot judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One thing that a request needs to be allowed.

    Attributes:
        action: "s3:GetObject".
        resource: the ARN it is done to; "*" for actions that have none.
        context: the values of condition keys; a key without a value is not there.
    """

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of a statement's `Condition`.

    Attributes:
        quantifier: "ForAllValues", "ForAnyValue", or nothing where the key has one value.
        comparison: "StringEquals" or "StringLike".
    """

    quantifier: str
    comparison: str
    key: str
    values: tuple[str, ...]

    def holds(self, context: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether a request with these values meets it. Where the key is missing, only "for all" is met."""
        met = [any(self._compare(wanted, value) for wanted in self.values) for value in context.get(self.key, ())]
        return all(met) if self.quantifier == "ForAllValues" else any(met)

    def _compare(self, wanted: str, value: str) -> bool:
        return _matches(wanted, value) if self.comparison == "StringLike" else wanted == value


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a policy, its names resolved."""

    sid: str
    denies: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()

    def applies_to(self, access: Access) -> bool:
        """Whether it says anything of this access."""
        action = access.action.lower()
        return (
            any(_matches(pattern.lower(), action) for pattern in self.actions)
            and any(_matches(pattern, access.resource) for pattern in self.resources)
            and all(condition.holds(access.context) for condition in self.conditions)
        )


@dataclass(frozen=True, slots=True)
class Role:
    """A role and its statements."""

    name: str
    statements: tuple[Statement, ...]

    def allows(self, access: Access) -> bool:
        """Whether the role may do this."""
        return self.denial(access) is None

    def denial(self, access: Access) -> str | None:
        """None if the role may do this; else what IAM says."""
        applying = [statement for statement in self.statements if statement.applies_to(access)]
        denying = next((statement for statement in applying if statement.denies), None)
        if denying is not None:
            reason = f"with an explicit deny in an identity-based policy ({denying.sid})"
        elif not applying:
            reason = f"because no identity-based policy allows the {access.action} action"
        else:
            return None
        keys = access.context.get(LEADING_KEYS)
        about = f" (leading keys: {', '.join(keys)})" if keys else ""
        return (
            f"User: {self.name} is not authorized to perform: {access.action} on resource: {access.resource}{about} "
            f"{reason}"
        )


def statements_of(documents: Iterable[Mapping[str, Any]]) -> tuple[Statement, ...]:
    """The statements of policy documents.

    Raises:
        NotUnderstood: something in them is not known here.
    """
    return tuple(_statement(entry) for document in documents for entry in _as_list(document["Statement"]))


def _statement(entry: Mapping[str, Any]) -> Statement:
    sid = str(entry.get("Sid", "a statement"))
    if unknown := entry.keys() - _PARTS:
        raise NotUnderstood(f"{sid}: {', '.join(sorted(unknown))} is not understood")
    if entry["Effect"] not in {"Allow", "Deny"}:
        raise NotUnderstood(f"{sid}: the effect {entry['Effect']} is not understood")
    return Statement(
        sid=sid,
        denies=entry["Effect"] == "Deny",
        actions=_texts(sid, entry["Action"]),
        resources=_texts(sid, entry["Resource"]),
        conditions=tuple(
            _condition(sid, operator, key, values)
            for operator, wanted in entry.get("Condition", {}).items()
            for key, values in wanted.items()
        ),
    )


def _condition(sid: str, operator: str, key: str, values: object) -> Condition:
    quantifier, comparison = operator.split(":", 1) if ":" in operator else ("", operator)
    if quantifier not in _QUANTIFIERS or comparison not in _COMPARISONS:
        raise NotUnderstood(f"{sid}: the operator {operator} is not understood")
    if key not in {LEADING_KEYS, NAMESPACE} and not key.startswith(RESOURCE_TAG):
        raise NotUnderstood(f"{sid}: the condition key {key} is not understood")
    if key == LEADING_KEYS and not quantifier:
        raise NotUnderstood(f"{sid}: {key} has many values, and {operator} is for one")
    return Condition(quantifier=quantifier, comparison=comparison, key=key, values=_texts(sid, values))


def _texts(sid: str, value: object) -> tuple[str, ...]:
    texts = _as_list(value)
    for text in texts:
        if not isinstance(text, str) or "${" in text:
            raise NotUnderstood(f"{sid}: {text!r} is not a text, or has a variable in it")
    return tuple(texts)


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else [value]


def _matches(pattern: str, text: str) -> bool:
    """Whether a text is like a pattern of IAM: `*` for anything, `?` for one character."""
    return _expression(pattern).fullmatch(text) is not None


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(letter) or re.escape(letter) for letter in pattern), re.DOTALL)
