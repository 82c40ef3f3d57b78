"""A new version of the API takes over bit by bit, and the last one is back if an alarm rings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.template.processed import IMAGE, defaults, of_type, parse, processed

TEMPLATE = processed()
ALIAS: dict[str, Any] = {"Ref": "ApiFunctionAliaslive"}


def version_of(template: dict[str, Any]) -> str:
    """The logical id of the API's version: another one is a version that is published."""
    (name,) = (name for name in of_type(template, "AWS::Lambda::Version") if name.startswith("ApiFunction"))
    return name


def test_every_route_of_the_api_calls_the_alias() -> None:
    (api,) = of_type(TEMPLATE, "AWS::ApiGatewayV2::Api").values()
    called = [
        operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
        for path, operations in api["Body"]["paths"].items()
        for operation in operations.values()
        if "x-amazon-apigateway-integration" in operation and path != "/mcp"
    ]
    assert len(called) == len(parse()["Resources"]["ApiFunction"]["Properties"]["Events"])
    assert {uri.rpartition("/functions/")[2] for uri in called} == {"${ApiFunctionAliaslive}/invocations"}


def test_api_gateway_may_call_the_alias_for_every_route() -> None:
    permissions = of_type(TEMPLATE, "AWS::Lambda::Permission")
    of_the_api = [entry for name, entry in permissions.items() if name.startswith("ApiFunction")]
    assert len(of_the_api) == len(parse()["Resources"]["ApiFunction"]["Properties"]["Events"])
    assert all(entry["FunctionName"] == ALIAS for entry in of_the_api)
    assert {entry["Principal"] for entry in of_the_api} == {"apigateway.amazonaws.com"}


def test_the_alias_moves_by_a_deployment_that_an_alarm_turns_back() -> None:
    (group,) = of_type(TEMPLATE, "AWS::CodeDeploy::DeploymentGroup").values()
    assert group["AlarmConfiguration"] == {"Enabled": True, "Alarms": [{"Name": {"Ref": "ApiErrorsAlarm"}}]}
    assert group["AutoRollbackConfiguration"]["Enabled"] is True
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    moved = TEMPLATE["Resources"]["ApiFunctionAliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert moved["DeploymentGroupName"] == {"Ref": "ApiFunctionDeploymentGroup"}


def test_the_alarm_has_time_to_ring_before_the_old_version_is_gone() -> None:
    """It counts whole periods; a canary that is over before the first one ends is none."""
    alarm = TEMPLATE["Resources"]["ApiErrorsAlarm"]["Properties"]
    assert defaults()["ApiDeployment"] == "Canary10Percent10Minutes"
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= 10 * 60 / 2
    assert alarm["Namespace"] == "AWS/ApiGateway", "the API answers its own errors, so that its function has none"


@pytest.mark.parametrize("way", parse()["Parameters"]["ApiDeployment"]["AllowedValues"])
def test_a_way_to_take_over_is_one_that_codedeploy_has(way: str) -> None:
    (group,) = of_type(processed({"ApiDeployment": way}), "AWS::CodeDeploy::DeploymentGroup").values()
    text, names = group["DeploymentConfigName"]["Fn::Sub"]
    made = text.replace("${ConfigName}", names["ConfigName"])
    known = ("Canary10Percent10Minutes", "Linear10PercentEvery1Minute", "AllAtOnce")
    assert made in {f"CodeDeployDefault.Lambda{one}" for one in known}


def test_another_image_is_a_new_version_and_the_same_one_is_none() -> None:
    assert version_of(processed()) == version_of(TEMPLATE)
    assert version_of(processed(image=IMAGE.replace(":tag", ":other"))) != version_of(TEMPLATE)


def test_another_parameter_is_a_new_version_only_by_the_name_of_the_release() -> None:
    """SAM compares what is written, where a parameter is a reference. Without `ApiRelease` it would have no effect."""
    other = {"CorsOrigins": "https://app.example"}
    assert version_of(processed(other)) == version_of(TEMPLATE)  # once it differs, ApiRelease can go
    assert version_of(processed({**other, "ApiRelease": "0123456789abcdef"})) != version_of(TEMPLATE)


def test_nothing_else_is_deployed_in_stages() -> None:
    moved = [name for name in of_type(TEMPLATE, "AWS::Lambda::Alias") if "UpdatePolicy" in TEMPLATE["Resources"][name]]
    assert moved == ["ApiFunctionAliaslive"]
