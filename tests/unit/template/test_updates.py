"""A second `sam deploy` with other parameters replaces nothing that holds data: computed for every parameter."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.template.processed import ROOT, defaults, parse, processed, resources_for
from tests.updates import HOLD_DATA, fixed, holding_data, unknown_types

TEMPLATE = processed()
HOLDERS = {
    **TEMPLATE,
    "Resources": {name: one for name, one in TEMPLATE["Resources"].items() if one["Type"] in HOLD_DATA},
}
#: These can only be chosen with the first deployment; each of their descriptions says so.
FOREVER = {"BucketPrefix": {"InputBucket", "OutputBucket", "AssetsBucket"}}
#: What goes with a function that is switched off: its log.
GOES = {"LiveEvents": {"EventsLogGroup"}}


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


def made(parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What of the stack holds data for these parameters, and defaults otherwise."""
    return holding_data(resources_for(HOLDERS, {**defaults(), **parameters}))


BEFORE = made({})
#: With all that a condition can add.
EVERYTHING = {
    "LiveEvents": "true",
    "SnapStart": "all",
    "CorsOrigins": "https://app.example",
    "InputBuckets": "my-photos",
    "OutputBuckets": "my-results",
    "HuggingFaceTokenParameter": "/comfy/hf-token",
    "CivitaiTokenParameter": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:civitai-AbCdEf",
    "InputRetentionDays": 7,
    "OutputRetentionDays": 7,
    "MaximumApiConcurrency": 50,
    "AlarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:alarms",
}


@pytest.mark.parametrize("before", [{}, EVERYTHING], ids=["as it is", "with everything"])
@pytest.mark.parametrize("parameter", sorted(defaults()))
def test_another_value_of_a_parameter_replaces_nothing_that_holds_data(parameter: str, before: dict[str, Any]) -> None:
    held = made(before)
    # The default, too, which switches off what there is.
    for value in (*others(parameter), defaults()[parameter]):
        after = made({**before, parameter: value})
        replaced = {name for name in held if name in after and after[name] != held[name]}
        gone = held.keys() - after.keys()
        is_another = str(value) != str({**defaults(), **before}[parameter])
        assert replaced == (FOREVER.get(parameter, set()) if is_another else set()), f"{parameter}={value}"
        assert gone <= GOES.get(parameter, set()), f"{parameter}={value}"


@pytest.mark.parametrize("name", ["template.yaml", "repositories.yaml", "budget.yaml"])
def test_of_every_type_somebody_has_said_whether_it_holds_data(name: str) -> None:
    template = TEMPLATE if name == "template.yaml" else parse(name)
    assert unknown_types(template) == set()
    assert unknown_types({"Resources": {"Files": {"Type": "AWS::EFS::FileSystem"}}}) == {"AWS::EFS::FileSystem"}


def test_repositories_keep_their_images_whatever_is_deployed() -> None:
    """Their names are all that is fixed, and the only parameter names the stack itself."""
    repositories = holding_data(parse("repositories.yaml")["Resources"])
    assert {path for entry in repositories.values() for path in entry} <= {
        "/properties/RepositoryName",
        "/properties/EncryptionConfiguration",
        "/properties/EncryptionConfiguration/EncryptionType",
    }
    assert parse("repositories.yaml")["Parameters"].keys() == {"Name"}


def test_what_there_is_does_not_depend_on_parameters() -> None:
    """SAM puts some into what it makes; the tests above put them into what it has made of the defaults."""
    other = processed({name: next(others(name)) for name in defaults() if name not in FOREVER})
    assert {name for name in BEFORE if other["Resources"][name] != TEMPLATE["Resources"][name]} == set()


def test_there_is_something_to_compare() -> None:
    assert len(BEFORE) > 15
    assert {TEMPLATE["Resources"][name]["Type"] for name in BEFORE} == HOLD_DATA - {"AWS::ECR::Repository"}
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


# DynamoDB makes or deletes one index of a table in an update, and changes none in place.


def index_steps(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> int:
    """How many indexes must be made or deleted to get from one table to the other; one that is changed is both."""
    return sum(index not in after for index in before) + sum(index not in before for index in after)


def test_a_release_makes_or_deletes_one_index_at_most() -> None:
    """More, and CloudFormation gives up: "Cannot perform more than one GSI creation or deletion in a single update"."""
    last = json.loads((ROOT / "tests/fixtures/template/indexes.json").read_text(encoding="utf-8"))
    now = TEMPLATE["Resources"]["JobsTable"]["Properties"]["GlobalSecondaryIndexes"]
    assert index_steps(last, now) <= 1, "make it in a release of its own"


def test_two_steps_of_indexes_are_seen() -> None:
    now = TEMPLATE["Resources"]["JobsTable"]["Properties"]["GlobalSecondaryIndexes"]
    assert index_steps(now, now[1:]) == index_steps(now[1:], now) == 1
    wider = copy.deepcopy(now)
    wider[0]["Projection"]["NonKeyAttributes"].append("more")
    assert index_steps(now, wider) == index_steps(now, now[2:]) == 2
