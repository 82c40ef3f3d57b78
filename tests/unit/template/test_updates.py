"""A second `sam deploy` with other parameters replaces nothing that holds data: computed for every parameter.

CloudFormation replaces a resource when a property changes that can only be set at its creation. Which those are stands
in its schemas. What is replaced is made anew, empty; where it is retained, its data is beside the stack from then on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.template.processed import ROOT, defaults, parse, processed, resources_for, schema_of

#: Types whose resources hold what cannot be made again.
HOLD_DATA = ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::SQS::Queue", "AWS::Logs::LogGroup")
TEMPLATE = processed()
#: These can only be chosen with the first deployment; each of their descriptions says so.
FOREVER = {"BucketPrefix": {"InputBucket", "OutputBucket", "AssetsBucket"}}


def others(name: str) -> Iterator[Any]:
    """Other values of a parameter: all that are allowed, or some that are unlike the default."""
    parameter = parse()["Parameters"][name]
    if allowed := parameter.get("AllowedValues"):
        yield from (value for value in allowed if str(value) != str(parameter["Default"]))
    elif parameter["Type"] == "Number":
        yield from {int(parameter["Default"]) + 1, int(parameter["Default"]) + 2, int(parameter.get("MinValue", 0))} - {
            int(parameter["Default"])
        }
    else:
        yield "another1"


def at(properties: Any, path: list[str]) -> Any:
    """What is at a path of a schema (`*` is every entry of a list); None where there is nothing."""
    if not path:
        return properties
    head, *rest = path
    if head == "*":
        return [at(entry, rest) for entry in properties] if isinstance(properties, list) else None
    return at(properties.get(head), rest) if isinstance(properties, dict) else None


def fixed(resource: dict[str, Any]) -> dict[str, Any]:
    """What of a resource cannot be changed in place, by the paths of its schema."""
    schema = schema_of(resource["Type"])
    paths = [*schema["createOnlyProperties"], *schema.get("conditionalCreateOnlyProperties", [])]
    found = {path: at(resource.get("Properties", {}), path.removeprefix("/properties/").split("/")) for path in paths}
    return {path: value for path, value in found.items() if value is not None}


def holding_data(parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The resources that hold data, each with what cannot be changed in place."""
    made = resources_for(TEMPLATE, {**defaults(), **parameters})
    return {name: fixed(entry) for name, entry in made.items() if entry["Type"] in HOLD_DATA}


BEFORE = holding_data({})


@pytest.mark.parametrize("parameter", sorted(defaults()))
def test_another_value_of_a_parameter_replaces_nothing_that_holds_data(parameter: str) -> None:
    for value in others(parameter):
        after = holding_data({parameter: value})
        replaced = {name for name in BEFORE if after.get(name) != BEFORE[name]}
        assert replaced == FOREVER.get(parameter, set()), f"{parameter}={value}"


def test_what_there_is_does_not_depend_on_parameters() -> None:
    """SAM puts some into what it makes; the tests above put them into what it has made of the defaults."""
    other = processed({name: next(others(name)) for name in defaults() if name not in FOREVER})
    assert {name for name in BEFORE if other["Resources"][name] != TEMPLATE["Resources"][name]} == set()


def test_there_is_something_to_compare() -> None:
    assert len(BEFORE) > 15
    assert {path for entry in BEFORE.values() for path in entry} >= {
        "/properties/BucketName",
        "/properties/LogGroupName",
        "/properties/KeySchema",
    }


@pytest.mark.parametrize("parameter", FOREVER)
def test_a_parameter_that_is_for_ever_says_so(parameter: str) -> None:
    assert "never change it" in parse()["Parameters"][parameter]["Description"]


def test_buckets_and_table_outlive_the_stack_and_a_replacement() -> None:
    for name, entry in TEMPLATE["Resources"].items():
        if entry["Type"] in ("AWS::S3::Bucket", "AWS::DynamoDB::Table"):
            assert (entry["DeletionPolicy"], entry["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain"), name


def test_a_release_replaces_nothing_of_the_one_before() -> None:
    """What the stacks have that exist: a change of it would begin them anew, without their data."""
    kept = json.loads((ROOT / "tests/fixtures/template/holding_data.json").read_text(encoding="utf-8"))
    # Others may have come since.
    assert {name: BEFORE.get(name) for name in kept} == kept


def test_a_change_of_what_is_fixed_is_seen() -> None:
    table = copy.deepcopy(TEMPLATE["Resources"]["JobsTable"])
    table["Properties"]["KeySchema"][0]["AttributeName"] = "id"
    assert fixed(table) != BEFORE["JobsTable"]
