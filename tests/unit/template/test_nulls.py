"""For whatever parameters: no null, and nothing that names a resource which is not there then.

CloudFormation refuses a template with a null anywhere, also deep inside a definition, and one that names a resource
whose condition does not hold. No linter says either.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.template.processed import defaults, evaluate, is_true, parse, processed, resources_for
from tests.unwanted import nulls

#: Values that switch something on, for each parameter that a condition asks for; the default is off.
SWITCHES: dict[str, tuple[Any, ...]] = {
    "AlarmTopicArn": ("arn:aws:sns:eu-central-1:123456789012:alarms",),
    "MaximumApiConcurrency": (50,),
    "InputRetentionDays": (7,),
    "OutputRetentionDays": (7,),
    "LiveEvents": ("true",),
    "MaximumWatchers": (0,),
    "SnapStart": ("api", "all"),
    "InputBuckets": ("my-photos", "my-photos,others"),
    "OutputBuckets": ("my-results", "my-results,others"),
    "CorsOrigins": ("https://app.example",),
    "HuggingFaceTokenParameter": (
        "/comfy/hf-token",
        "arn:aws:secretsmanager:eu-central-1:123456789012:secret:hf-AbCdEf",
    ),
    "CivitaiTokenParameter": ("/comfy/civitai", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:c-AbCdEf"),
}
TEMPLATE, DEFAULTS = processed(), defaults()
_NAMED = re.compile(r"\$\{([A-Za-z]\w*)(?:\.[\w.]+)?\}")


def combinations() -> Iterator[dict[str, Any]]:
    """Nothing, everything, each switch alone, all but each, and a good many mixtures."""
    yield {}
    for value in (0, -1):
        yield {name: values[value] for name, values in SWITCHES.items()}
    for name, values in SWITCHES.items():
        for value in values:
            yield {name: value}
        yield {other: others[0] for other, others in SWITCHES.items() if other != name}
    draw = random.Random(14)
    for _ in range(60):
        yield {name: draw.choice(values) for name, values in SWITCHES.items() if draw.random() < 0.5}


def references(value: Any) -> Iterator[str]:
    """The names of resources and parameters that are named in a value."""
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
            yield name
        case {"Fn::GetAtt": str(text)}:
            yield text.partition(".")[0]
        case {"Fn::Sub": str(text)}:
            yield from _NAMED.findall(text)
        case {"Fn::Sub": [str(text), dict(own)]}:
            yield from (name for name in _NAMED.findall(text) if name not in own)
            yield from references(own)
        case dict():
            for name, entry in value.items():
                if name == "DependsOn":
                    yield from [entry] if isinstance(entry, str) else entry
                else:
                    yield from references(entry)
        case list():
            for entry in value:
                yield from references(entry)


def test_every_parameter_that_a_condition_asks_for_is_switched() -> None:
    asked = {name for one in TEMPLATE["Conditions"].values() for name in re.findall(r"'Ref': '(\w+)'", str(one))}
    assert asked == SWITCHES.keys()
    for condition in TEMPLATE["Conditions"]:
        seen = {is_true(TEMPLATE, {"Condition": condition}, {**DEFAULTS, **one}) for one in combinations()}
        assert seen == {True, False}, condition


def test_whatever_is_switched_on_nothing_names_what_is_not_there() -> None:
    for parameters in combinations():
        values = {**DEFAULTS, **parameters}
        resources = resources_for(TEMPLATE, values)
        outputs = {
            name: evaluate(TEMPLATE, entry, values)
            for name, entry in TEMPLATE["Outputs"].items()
            if "Condition" not in entry or is_true(TEMPLATE, {"Condition": entry["Condition"]}, values)
        }
        known = resources.keys() | values.keys()
        missing = {name for name in references([resources, outputs]) if name not in known and "AWS::" not in name}
        assert missing == set(), parameters
        assert list(nulls([resources, outputs])) == [], parameters


@pytest.mark.parametrize(
    "parameters",
    [{}, *({name: values[at] for name, values in SWITCHES.items()} for at in (0, -1)), {"ImageTarget": "worker"}],
    ids=["as it is", "with everything", "with everything, otherwise", "with ComfyUI"],
)
def test_what_sam_makes_of_the_template_has_no_null(parameters: dict[str, Any]) -> None:
    assert parameters.keys() <= DEFAULTS.keys()
    assert list(nulls(processed(parameters))) == []


@pytest.mark.parametrize("name", ["template.yaml", "repositories.yaml", "budget.yaml"])
def test_a_template_has_no_null_as_it_is_written(name: str) -> None:
    assert list(nulls(parse(name))) == []


def test_a_null_is_found_wherever_it_is() -> None:
    assert list(nulls({"a": [{"b": None}, 0, ""], "c": {}, "d": None})) == ["/a/0/b", "/d"]


def test_what_names_a_resource_that_is_not_there_is_found() -> None:
    named = [{"Ref": "A"}, {"Fn::Sub": ["${B.Arn} ${own} ${AWS::Region}", {"own": {"Fn::GetAtt": ["C", "Arn"]}}]}]
    assert set(references([*named, {"DependsOn": ["D"]}, {"DependsOn": "E"}])) == set("ABCDE")
