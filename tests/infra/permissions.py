"""The permissions of roles in a form that can be compared: each action, its resource, and its condition."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tests.infra.stacks import as_list, of_type

#: The end of the names that CDK generates.
_CDK_HASH = re.compile(r"[0-9A-F]{8}$")
_BUCKET = re.compile(r"\$\{BucketPrefix\}-(input|output|assets)-\$\{AWS::AccountId\}-\$\{AWS::Region\}")
_HERE = ("arn:<AWS::Partition>:", "<AWS::Region>:<AWS::AccountId>:")


class Permission(NamedTuple):
    """One action on one resource."""

    action: str
    resource: str
    condition: str


def may(
    actions: str | tuple[str, ...], *resources: str, where: Mapping[str, Mapping[str, Any]] | None = None
) -> set[Permission]:
    """The permissions for all combinations of these."""
    return {Permission(action, resource, _text(where)) for action in _tuple(actions) for resource in resources}


def of_role(template: Mapping[str, Any], role: str) -> set[Permission]:
    """All that a role may do. Policies that deny something, or allow all but something, are not expected."""
    return of_statements(
        statement
        for policy in of_type(template, "AWS::IAM::Policy").values()
        if any(plain(attached["Ref"]) == role for attached in policy["Roles"])
        for statement in policy["PolicyDocument"]["Statement"]
    )


def of_statements(statements: Iterable[Mapping[str, Any]]) -> set[Permission]:
    """The permissions that these statements give."""
    found = set()
    for statement in statements:
        assert set(statement) - {"Sid", "Condition"} == {"Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        found |= {
            Permission(action, spoken(resource), _text(statement.get("Condition")))
            for action in as_list(statement["Action"])
            for resource in as_list(statement["Resource"])
        }
    return found


def spoken(value: Any) -> str:
    """A resource in short: its name in the template, without account and region."""
    match value:
        case {"Fn::GetAtt": [name, "Arn"]} | {"Ref": name}:
            return plain(str(name))
        case {"Fn::Join": ["", parts]}:
            text = "".join(part if isinstance(part, str) else _part(part) for part in parts)
        case {"Fn::Sub": str(template)}:
            named = _BUCKET.sub(lambda match: f"<{match[1].title()}Bucket>", template)
            text = re.sub(r"\$\{([^}]+)\}", r"<\1>", named)
        case _:
            text = str(value)
    for here in _HERE:
        text = text.replace(here, "")
    return text


def plain(name: str) -> str:
    """A logical id without CDK's hash; a parameter with an ARN has the name of its resource."""
    return _CDK_HASH.sub("", name).removesuffix("Arn")


def _part(value: Mapping[str, Any]) -> str:
    if "Ref" in value:
        return f"<{value['Ref']}>"
    return spoken(value)


def _text(condition: Mapping[str, Any] | None) -> str:
    return json.dumps(condition, sort_keys=True) if condition else ""


def _tuple(actions: str | tuple[str, ...]) -> tuple[str, ...]:
    return (actions,) if isinstance(actions, str) else actions
