"""Exceptions to the rules of cdk-nag and checkov, with reasons: stated at the resource, kept in the template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from aws_cdk import Acknowledgment, CfnResource, Validations
from constructs import Construct, IConstruct

#: For every queue here.
QUEUE = {
    "CKV_AWS_27": "Encrypted at rest, with the key of SQS (SqsManagedSseEnabled). A message of the API may carry a "
    "caller's key for partner nodes: a KMS key would have to be open to the same roles that may read the queue"
}
#: For every log here.
LOG = {"CKV_AWS_158": "CloudWatch encrypts with its own key; the log holds no secrets and no content"}
#: For every function here; a function's other exceptions are stated where it is made.
FUNCTION = {"CKV_AWS_173": "No secret is in the environment; Lambda encrypts it with its own key"}


def justify(construct: Construct, reasons: Mapping[str, str]) -> None:
    """State why this resource does not follow these rules.

    Args:
        construct: a resource, or a construct with one as its default child.
        reasons: by rule: `CKV_...` for checkov, `AwsSolutions-...` for cdk-nag, with the finding in brackets.
    """
    resource = cast("CfnResource", construct if isinstance(construct, CfnResource) else construct.node.default_child)
    scanner = [{"id": rule, "comment": reason} for rule, reason in reasons.items() if rule.startswith("CKV")]
    if scanner:
        known = (resource.get_metadata("checkov") or {}).get("skip", [])
        resource.add_metadata("checkov", {"skip": [*known, *scanner]})
    acknowledged = [
        Acknowledgment(id=rule, reason=reason) for rule, reason in reasons.items() if not rule.startswith("CKV")
    ]
    if acknowledged:
        Validations.of(cast("IConstruct", resource)).acknowledge(*acknowledged)
