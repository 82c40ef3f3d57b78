"""What CloudFormation replaces when a stack is deployed again: the same for the SAM stack and for the GPU stacks.

It replaces a resource when a property changes that can only be set at its creation. Which those are stands in its
schemas. What is replaced is made anew, empty; where it is retained, its data is beside the stack from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

#: Types whose resources hold what cannot be made again, or are known outside by an address or a name that would change.
HOLD_DATA: Final = frozenset(
    {
        "AWS::S3::Bucket",
        "AWS::DynamoDB::Table",
        "AWS::SQS::Queue",
        "AWS::Logs::LogGroup",
        "AWS::ECR::Repository",
        "AWS::ApiGatewayV2::Api",  # clients know its address
        "AWS::SSM::Parameter",  # other stacks and the command line know its name
    }
)
#: Types whose resources hold nothing, and are found by reference: one in the place of another is as good.
MADE_ANEW: Final = frozenset(
    {
        "AWS::ApiGateway::Deployment",
        "AWS::ApiGateway::RestApi",  # the API makes each link to it
        "AWS::ApiGateway::Stage",
        "AWS::ApiGatewayV2::Stage",
        "AWS::ApplicationAutoScaling::ScalableTarget",
        "AWS::ApplicationAutoScaling::ScalingPolicy",
        "AWS::Budgets::Budget",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
        "AWS::CodeDeploy::Application",
        "AWS::CodeDeploy::DeploymentGroup",
        "AWS::EC2::EIP",
        "AWS::EC2::FlowLog",
        "AWS::EC2::InternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::Route",
        "AWS::EC2::RouteTable",
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::Subnet",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::VPC",
        "AWS::EC2::VPCEndpoint",
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::Events::Rule",
        "AWS::IAM::Policy",
        "AWS::IAM::Role",
        "AWS::KMS::Key",  # of notifications, which are read at once
        "AWS::Lambda::Alias",
        "AWS::Lambda::CapacityProvider",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::EventSourceMapping",
        "AWS::Lambda::Function",
        "AWS::Lambda::Permission",
        "AWS::Lambda::Version",
        "AWS::Logs::QueryDefinition",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::Subscription",
        "AWS::SNS::Topic",
        "AWS::SNS::TopicPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::SageMaker::Endpoint",  # jobs wait in the queues before it, and those in it are sent again
        "AWS::SageMaker::EndpointConfig",
        "AWS::SageMaker::Model",
        "AWS::StepFunctions::StateMachine",  # the caretaker has ranges that nobody reads read again
    }
)


def unknown_types(template: Mapping[str, Any]) -> set[str]:
    """The types of resources of which nobody has said whether they hold data."""
    return {entry["Type"] for entry in template["Resources"].values()} - HOLD_DATA - MADE_ANEW


def schema_of(kind: str) -> dict[str, Any]:
    """CloudFormation's own schema of a resource type, as the linter brings it."""
    schema: dict[str, Any] = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema
    return schema


def fixed(resource: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resource cannot be changed in place, by the paths of its schema."""
    schema = schema_of(resource["Type"])
    paths = [*schema.get("createOnlyProperties", []), *schema.get("conditionalCreateOnlyProperties", [])]
    found = {path: _at(resource.get("Properties", {}), path.removeprefix("/properties/").split("/")) for path in paths}
    return {path: value for path, value in found.items() if value is not None}


def holding_data(resources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The resources that hold data, each with what cannot be changed in place."""
    return {name: fixed(entry) for name, entry in resources.items() if entry["Type"] in HOLD_DATA}


def _at(properties: Any, path: list[str]) -> Any:
    """What is at a path of a schema (`*` is every entry of a list); None where there is nothing."""
    if not path:
        return properties
    head, *rest = path
    if head == "*":
        return [_at(entry, rest) for entry in properties] if isinstance(properties, list) else None
    return _at(properties.get(head), rest) if isinstance(properties, dict) else None
