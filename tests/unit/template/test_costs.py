"""Nothing is paid for that nobody uses, and bills can be split and watched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cfnlint.helpers import REGIONS
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from tests.unit.template.processed import is_true, of_type, parse, processed, resources_for
from tests.unwanted import paid_extras
from tests.updates import schema_of
from tools.deploy import images_of

TEMPLATE = processed()
BUDGET = parse("budget.yaml")
REPOSITORIES = of_type(parse("repositories.yaml"), "AWS::ECR::Repository")
#: Types that AWS gives no tags to. They cost nothing, but for the dashboard ($3 a month beyond an account's third).
WITHOUT_TAGS = {
    "AWS::ApiGateway::Deployment",
    "AWS::CloudWatch::Dashboard",
    "AWS::IAM::Policy",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::Logs::QueryDefinition",
}


def test_api_gateway_counts_nothing_by_route() -> None:
    """A metric of a route is paid for, and neither alarm nor dashboard asks for one."""
    (stage,) = of_type(TEMPLATE, "AWS::ApiGatewayV2::Stage").values()
    settings = [stage["DefaultRouteSettings"], *stage.get("RouteSettings", {}).values()]
    assert not any(one.get("DetailedMetricsEnabled") for one in settings)
    read = json.dumps([of_type(TEMPLATE, "AWS::CloudWatch::Alarm"), of_type(TEMPLATE, "AWS::CloudWatch::Dashboard")])
    assert '"Route"' not in read


def test_nothing_makes_figures_or_copies_that_nobody_reads() -> None:
    assert list(paid_extras(TEMPLATE["Resources"])) == []


@pytest.mark.parametrize(
    ("properties", "is_paid"),
    [
        ({"MethodSettings": [{"MetricsEnabled": True}]}, True),
        ({"MethodSettings": [{"MetricsEnabled": False}]}, False),
        ({"MetricsConfigurations": [{"Id": "all"}]}, True),
        ({"TracingConfig": {"Mode": "Active"}}, True),
        ({"TracingConfig": {"Mode": "PassThrough"}}, False),
    ],
)
def test_a_figure_that_is_paid_is_seen_wherever_it_is(properties: dict[str, Any], *, is_paid: bool) -> None:
    assert bool(list(paid_extras({"X": {"Properties": properties}}))) is is_paid


def rules_of(name: str) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = json.loads(REPOSITORIES[name]["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
    return rules


@pytest.mark.parametrize("name", REPOSITORIES)
def test_a_repository_scans_what_comes_and_keeps_the_newest_few(name: str) -> None:
    assert REPOSITORIES[name]["ImageScanningConfiguration"] == {"ScanOnPush": True}
    selections = [rule["selection"] for rule in rules_of(name)]
    counted = [one for one in selections if one["countType"] == "imageCountMoreThan"]
    assert counted
    assert all(2 <= one["countNumber"] <= 10 for one in counted)
    assert [rule["rulePriority"] for rule in rules_of(name)] == sorted(
        {rule["rulePriority"] for rule in rules_of(name)}
    )


@pytest.mark.parametrize("name", REPOSITORIES)
def test_no_image_that_may_be_in_use_is_deleted_for_its_age(name: str) -> None:
    """The one in use may be the last one for years, and Lambda fails some time after its image has gone."""
    by_age = [rule["selection"] for rule in rules_of(name) if rule["selection"]["countType"] == "sinceImagePushed"]
    assert {one["tagStatus"] for one in by_age} == {"untagged"}


def test_images_of_two_kinds_never_push_each_other_out() -> None:
    """One of them is built more often than the other: each is counted by itself."""
    patterns = {name: [rule["selection"].get("tagPatternList") for rule in rules_of(name)] for name in REPOSITORIES}
    assert patterns["Gpu"] == [["worker-*"], ["api-*"], None]
    uris = {f"{name}Uri": name for name in REPOSITORIES}
    images: dict[str, set[str]] = {}
    for function, repository in images_of(parse(), uris).items():
        images.setdefault(repository, set()).add(str(parse()["Resources"][function]["Metadata"]["DockerBuildTarget"]))
    assert images == {"Api": {"api"}, "Mcp": {"mcp"}, "Worker": {"{'Ref': 'ImageTarget'}"}}, "each is for one image"


def test_all_that_costs_can_have_the_tags_of_the_stack() -> None:
    """CloudFormation puts them on each resource whose schema can have tags; `make deploy` gives them to the stack."""
    without = {
        entry["Type"]
        for template in (TEMPLATE, parse("repositories.yaml"))
        for entry in template["Resources"].values()
        if not can_have_tags(entry["Type"])
    }
    assert without <= WITHOUT_TAGS


def can_have_tags(kind: str) -> bool:
    schema = schema_of(kind)
    tagging = schema.get("tagging")
    if tagging is None:
        return bool(schema.get("taggable")) or "Tags" in schema["properties"]
    return bool(tagging["taggable"])


@pytest.mark.parametrize(
    ("named", "kind", "address"),
    [
        ({"BudgetEmail": "ana@example.com", "AlarmTopicArn": "arn:topic"}, "EMAIL", "ana@example.com"),
        ({"AlarmTopicArn": "arn:topic"}, "SNS", "arn:topic"),
    ],
)
def test_a_budget_watches_what_has_the_tag_and_tells_somebody(named: dict[str, str], kind: str, address: str) -> None:
    parameters = {"Stack": "comfy", "BudgetEmail": "", "AlarmTopicArn": "", **named, "MonthlyBudget": 100}
    budget = resources_for(BUDGET, parameters)["Budget"]["Properties"]
    assert budget["Budget"]["BudgetLimit"] == {"Amount": "100", "Unit": "USD"}
    assert budget["Budget"]["CostFilters"] == {"TagKeyValue": [{"Fn::Sub": "user:stack$comfy"}]}
    told = budget["NotificationsWithSubscribers"]
    assert [one["Notification"]["NotificationType"] for one in told] == ["ACTUAL", "FORECASTED"]
    assert all(one["Subscribers"] == [{"SubscriptionType": kind, "Address": address}] for one in told)


def test_a_budget_without_a_listener_is_refused() -> None:
    (assertion,) = BUDGET["Rules"]["SomebodyHearsOfIt"]["Assertions"]
    for email, topic, is_told in (("", "", False), ("ana@example.com", "", True), ("", "arn:topic", True)):
        parameters = {"BudgetEmail": email, "AlarmTopicArn": topic}
        assert is_true(BUDGET, assertion["Assert"], parameters) is is_told


@pytest.mark.parametrize("name", ["template.yaml", "repositories.yaml"])
def test_every_region_that_has_lambda_has_every_type_of_resource(name: str) -> None:
    """CloudFormation refuses the whole template for one type that it does not know, also under a condition."""
    template = TEMPLATE if name == "template.yaml" else parse(name)
    kinds = {entry["Type"] for entry in template["Resources"].values()}
    known = {region: set(PROVIDER_SCHEMA_MANAGER.get_resource_types(region)) for region in REGIONS}
    missing = {
        region: kinds - types for region, types in known.items() if "AWS::Lambda::Function" in types and kinds - types
    }
    assert len(known) > 30
    assert missing == {}
