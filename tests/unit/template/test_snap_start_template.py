"""SnapStart: what is kept as a snapshot is a published version, and what is called is its alias."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.template.processed import defaults, of_type, parse, processed
from tools.deploy import SNAPPED, WORKER_RELEASE, release_of

#: Which conditions hold for each value of the parameter.
HOLDS = {
    "none": {"SnapsApi": False, "SnapsWorker": False},
    "api": {"SnapsApi": True, "SnapsWorker": False},
    "all": {"SnapsApi": True, "SnapsWorker": True},
}
TEMPLATE = processed()
#: The largest /tmp that Lambda keeps, in MB.
SNAPSHOT_TMP_MB = 512


def holds(name: str, value: str) -> bool:
    """Whether a condition of the template holds."""
    match parse()["Conditions"][name]:
        case {"Fn::Equals": [{"Ref": "SnapStart"}, wanted]}:
            return bool(wanted == value)
        case {"Fn::Not": [{"Fn::Equals": [{"Ref": "SnapStart"}, wanted]}]}:
            return bool(wanted != value)
    raise AssertionError(name)


def chosen(entry: Any, value: str) -> Any:
    """What an `!If` comes to."""
    match entry:
        case {"Fn::If": [str(condition), yes, no]}:
            return yes if holds(condition, value) else no
    return entry


def snapped(value: str) -> set[str]:
    """The functions whose versions are kept."""
    return {
        name
        for name, function in of_type(TEMPLATE, "AWS::Lambda::Function").items()
        if chosen(function.get("SnapStart", {}).get("ApplyOn"), value) == "PublishedVersions"
    }


@pytest.mark.parametrize("value", HOLDS)
def test_a_value_means_what_it_says(value: str) -> None:
    assert {name: holds(name, value) for name in HOLDS[value]} == HOLDS[value]
    assert value in parse()["Parameters"]["SnapStart"]["AllowedValues"]
    wanted = {"none": set(), "api": {"ApiFunction"}, "all": {"ApiFunction", "GenerateFunction"}}[value]
    assert snapped(value) == wanted
    assert snapped(defaults()["SnapStart"]) == set()


@pytest.mark.parametrize("value", HOLDS)
def test_a_function_that_is_kept_has_no_more_than_a_snapshot_may_have(value: str) -> None:
    functions = of_type(TEMPLATE, "AWS::Lambda::Function")
    for name in snapped(value):
        function = functions[name]
        size = chosen(function.get("EphemeralStorage", {}).get("Size", SNAPSHOT_TMP_MB), value)
        assert size <= SNAPSHOT_TMP_MB
        assert "FileSystemConfigs" not in function
        inputs = chosen(function["Environment"]["Variables"].get("INPUT_CACHE_BYTES", "0"), value)
        assert int(inputs) < SNAPSHOT_TMP_MB * 1_000_000 / 2


@pytest.mark.parametrize("value", HOLDS)
def test_each_queue_calls_the_worker_once_and_an_alias_where_it_is_kept(value: str) -> None:
    called: dict[str, list[str]] = {}
    for name, mapping in of_type(TEMPLATE, "AWS::Lambda::EventSourceMapping").items():
        condition = TEMPLATE["Resources"][name].get("Condition")
        is_there = condition is None or holds(condition, value)
        if is_there and chosen(mapping.get("Enabled", True), value):
            queue = mapping["EventSourceArn"]["Fn::GetAtt"][0]
            called.setdefault(queue, []).append(mapping["FunctionName"]["Ref"])
    for queue in ("JobQueue", "BatchQueue"):
        assert called[queue] == ["GenerateAlias" if value == "all" else "GenerateFunction"]


@pytest.mark.parametrize("queue", ["Jobs", "BatchJobs"])
def test_the_alias_is_called_as_the_function_is(queue: str) -> None:
    mappings = of_type(TEMPLATE, "AWS::Lambda::EventSourceMapping")
    of_function, of_alias = (dict(mappings[f"{who}{queue}"]) for who in ("GenerateFunction", "GenerateAlias"))
    of_function.pop("Enabled")
    assert {**of_function, "FunctionName": {"Ref": "GenerateAlias"}} == of_alias


def test_another_image_or_setting_of_the_worker_is_another_version_of_it() -> None:
    known = {name: str(value) for name, value in defaults().items()}

    def release(image: str = "1.ecr/comfy/worker:1", **changed: str) -> str:
        packaged = parse()
        packaged["Resources"][SNAPPED]["Properties"]["ImageUri"] = image
        return release_of(packaged, {**known, **changed}, SNAPPED)

    assert release() == release()
    assert release() == release(CorsOrigins="https://app.example")
    others = {release("1.ecr/comfy/worker:2"), release(MemorySize="512"), release(ModelsManifest="s3://a/b")}
    assert len({release(), *others}) == 4
    assert of_type(TEMPLATE, "AWS::Lambda::Version")["GenerateVersion"]["Description"] == {"Ref": WORKER_RELEASE}
