"""template.yaml as CloudFormation gets it from SAM's transform, and what it amounts to for given parameters."""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from local.aws.template import template as template_of

ROOT: Final = Path(__file__).parents[3]
REGION: Final = "eu-central-1"
IMAGE: Final = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/image:tag"
#: CloudFormation's `!Ref AWS::NoValue`: the property is not there.
NO_VALUE: Final = {"Ref": "AWS::NoValue"}
_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


def parse(name: str = "template.yaml") -> dict[str, Any]:
    """A template of the repository, as it is written; the caller's own copy."""
    return copy.deepcopy(template_of(name))


def defaults() -> dict[str, Any]:
    """Every parameter of template.yaml with its default."""
    return {name: entry["Default"] for name, entry in parse()["Parameters"].items()}


def processed(parameters: Mapping[str, Any] | None = None, *, image: str = IMAGE) -> dict[str, Any]:
    """The processed template, as SAM's transform makes it when these parameters are given, and defaults otherwise.

    The caller's own copy.
    """
    values = {**defaults(), **(parameters or {})}
    return copy.deepcopy(_processed(tuple((name, str(value)) for name, value in values.items()), image))


@functools.cache
def _processed(parameters: tuple[tuple[str, str], ...], image: str) -> dict[str, Any]:
    template = parse()
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":  # `sam build` and `sam deploy` say where the image is
            resource["Properties"]["ImageUri"] = image
    logging.getLogger("samtranslator").setLevel(logging.ERROR)
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    translated: dict[str, Any] = translator.translate(template, dict(parameters))
    return translated


def of_type(template: Mapping[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by their logical ids."""
    return {name: entry.get("Properties", {}) for name, entry in template["Resources"].items() if entry["Type"] == kind}


def evaluate(template: Mapping[str, Any], value: Any, parameters: Mapping[str, Any]) -> Any:
    """The same value with its parameters and conditions put in; what only AWS knows stays as it is."""
    match value:
        case list():
            entries = [evaluate(template, entry, parameters) for entry in value]
            return [entry for entry in entries if entry != NO_VALUE]
        case {"Ref": str(name)} if name in parameters:
            return str(parameters[name])
        case {"Fn::Sub": str(text)}:
            return {"Fn::Sub": _PLACEHOLDER.sub(lambda found: str(parameters.get(found[1], found[0])), text)}
        case {"Fn::If": [str(condition), yes, no]}:
            holds = is_true(template, template["Conditions"][condition], parameters)
            return evaluate(template, yes if holds else no, parameters)
        case dict():
            found = {name: evaluate(template, entry, parameters) for name, entry in value.items()}
            return {name: entry for name, entry in found.items() if entry != NO_VALUE}
    return value


def is_true(template: Mapping[str, Any], condition: Any, parameters: Mapping[str, Any]) -> bool:
    """Whether a condition holds for these parameters."""
    match condition:
        case {"Fn::Not": [negated]}:
            return not is_true(template, negated, parameters)
        case {"Fn::And": conditions}:
            return all(is_true(template, one, parameters) for one in conditions)
        case {"Fn::Or": conditions}:
            return any(is_true(template, one, parameters) for one in conditions)
        case {"Fn::Equals": [left, right]}:
            sides = [calculated(evaluate(template, side, parameters)) for side in (left, right)]
            return str(sides[0]) == str(sides[1])
        case {"Condition": str(name)}:
            return is_true(template, template["Conditions"][name], parameters)
    raise ValueError(f"not a condition: {condition}")


def calculated(value: Any) -> Any:
    """A side of a comparison, whose functions of texts are called; a list of a parameter is one text here."""
    match value:
        case list():
            return [calculated(entry) for entry in value]
        case {"Fn::Join": [str(delimiter), parts]}:
            parts = calculated(parts)
            return parts.replace(",", delimiter) if isinstance(parts, str) else delimiter.join(parts)
        case {"Fn::Split": [str(delimiter), text]}:
            return calculated(text).split(delimiter)
        case {"Fn::Select": [index, entries]}:
            return calculated(entries)[int(index)]
        case dict():
            raise ValueError(f"cannot be compared: {value}")
    return value


def resources_for(template: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The resources that there are for these parameters, with the values that they then have."""
    return {
        name: evaluate(template, copy.deepcopy(entry), parameters)
        for name, entry in template["Resources"].items()
        if "Condition" not in entry or is_true(template, {"Condition": entry["Condition"]}, parameters)
    }
