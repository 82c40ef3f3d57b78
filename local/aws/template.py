"""template.yaml, and what its names are on this machine.

The one place that says so: the resources of the local AWS are made by these names, and the policies of roles are
resolved to them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from samcli.yamlhelper import intrinsics_multi_constructor

from local.aws.server import ACCOUNT, REGION

ROOT: Final = Path(__file__).parents[2]
#: The name of the stack, which is in the names of SSM parameters.
STACK: Final = "local"
PREFIX: Final = "comfy-local"
TABLE: Final = f"{PREFIX}-jobs"

#: Buckets of one's own, as the parameters of these names list them.
OWN_BUCKETS: Final = {"InputBuckets": (f"{PREFIX}-my-photos",), "OutputBuckets": (f"{PREFIX}-my-results",)}

#: Where tokens are kept, as the parameters of the template name them: by name, and by ARN.
TOKEN_NAMES: Final = {"HuggingFaceTokenParameter": "/tokens/hf", "CivitaiTokenParameter": "/tokens/civitai"}
TOKEN_SECRETS: Final = {
    parameter: f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name.removeprefix('/')}-AbCdEf"
    for parameter, name in TOKEN_NAMES.items()
}

_PSEUDO_PARAMETERS: Final = {
    "AWS::Partition": "aws",
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::StackName": STACK,
    "AWS::URLSuffix": "amazonaws.com",
    "BucketPrefix": PREFIX,
}
#: ARNs by the type of a resource; what is in braces is its name here.
_ARNS: Final = {
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{}}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{}}",
    "AWS::S3::Bucket": "arn:aws:s3:::{}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{}}:*",
    "AWS::Serverless::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{}}",
}
_PLACEHOLDER = re.compile(r"\$\{([^}]+)\}")


class NotResolved(ValueError):
    """Something in the template that has no value on this machine."""


class _Loader(yaml.CSafeLoader):
    """Makes of a template what SAM's own reader makes of it, in a quarter of the time: with YAML's parser in C."""


_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)
_Loader.add_multi_constructor("!", intrinsics_multi_constructor)


@cache
def template(name: str = "template.yaml") -> dict[str, Any]:
    """A template of the repository."""
    parsed: dict[str, Any] = yaml.load((ROOT / name).read_text(encoding="utf-8"), _Loader)
    return parsed


def properties_of(name: str) -> dict[str, Any]:
    """What the template says of a resource."""
    properties: dict[str, Any] = template()["Resources"][name]["Properties"]
    return properties


def types() -> set[str]:
    """The types of all resources."""
    return {entry["Type"] for entry in template()["Resources"].values()}


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by their names in the template."""
    return {name: entry["Properties"] for name, entry in template()["Resources"].items() if entry["Type"] == kind}


def name_of(resource: str) -> str:
    """What a resource of the template is called here."""
    kind = template()["Resources"][resource]["Type"]
    match kind:
        case "AWS::DynamoDB::Table":
            return TABLE
        case "AWS::SQS::Queue":
            return f"{PREFIX}-{resource}"
        case "AWS::S3::Bucket":
            return str(resolve(properties_of(resource)["BucketName"]))
        case "AWS::Logs::LogGroup":
            return str(resolve(properties_of(resource)["LogGroupName"]))
        case "AWS::Serverless::Function" | "AWS::Serverless::HttpApi":
            return resource
    raise NotResolved(f"{resource}: there is no {kind} on this machine")


def arn_of(resource: str) -> str:
    """The ARN of a resource of the template."""
    name, kind = name_of(resource), template()["Resources"][resource]["Type"]
    if kind not in _ARNS:
        raise NotResolved(f"{resource}: a {kind} has no ARN on this machine")
    return _ARNS[kind].format(name)


def resolve(value: Any, **parameters: list[str]) -> Any:  # noqa: ANN401
    """The same value with every intrinsic function of it replaced by what it stands for here.

    Args:
        parameters: lists that have no value here otherwise, by their names in the template.

    Raises:
        NotResolved: it has no value here. Guessing would make a policy that is not the template's.
    """
    match value:
        case list():
            return [resolve(entry, **parameters) for entry in value]
        case {"Ref": name} if name in parameters:
            return parameters[name]
        case {"Ref": name}:
            return _referred(name)
        case {"Fn::GetAtt": [str(resource), "Arn"]}:
            return arn_of(resource)
        case {"Fn::Join": [str(delimiter), parts]}:
            return delimiter.join(resolve(parts, **parameters))
        case {"Fn::Split": [str(delimiter), text]}:
            return str(resolve(text, **parameters)).split(delimiter)
        case {"Fn::Sub": str(text)}:
            return _PLACEHOLDER.sub(lambda found: _substitute(found[1]), text)
        case dict():
            if unknown := [name for name in value if name.startswith("Fn::")]:
                raise NotResolved(f"{unknown[0]} is not known here: {value[unknown[0]]}")
            return {name: resolve(entry, **parameters) for name, entry in value.items()}
    return value


def _substitute(name: str) -> str:
    resource, _, attribute = name.partition(".")
    if attribute and attribute != "Arn":
        raise NotResolved(f"${{{name}}} is not known here")
    if name in TOKEN_NAMES:  # in the ARN of a parameter
        return TOKEN_NAMES[name]
    return arn_of(resource) if attribute else _referred(name)


def _referred(name: str) -> Any:  # noqa: ANN401  (a list, if the parameter is one)
    if name in _PSEUDO_PARAMETERS:
        return _PSEUDO_PARAMETERS[name]
    if name in OWN_BUCKETS:
        return list(OWN_BUCKETS[name])
    if name in TOKEN_SECRETS:
        return TOKEN_SECRETS[name]
    resources: Mapping[str, Any] = template()["Resources"]
    # The reference to a queue is its address, which only its server knows.
    if name in resources and resources[name]["Type"] != "AWS::SQS::Queue":
        return name_of(name)
    raise NotResolved(f"!Ref {name} is not known here")
