"""The network of managed instances: the stack's own VPC, or an existing one."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk import aws_ec2 as ec2
from constructs import Construct, IDependable

from infra.logs import log_group
from infra.roles import role_for
from infra.settings import GpuSettings

#: Without `availability_zones`. CDK knows no more zones if it does not know the account.
ZONES = 2


@dataclass(frozen=True, slots=True)
class Network:
    """A VPC and its subnets for instances.

    Attributes:
        ready: what must exist before an instance can reach the internet.
    """

    vpc: ec2.IVpc
    subnets: list[ec2.ISubnet]
    ready: tuple[IDependable, ...] = ()


def network(scope: Construct, settings: GpuSettings) -> Network:
    """The VPC that the settings name, or a new one."""
    return _named(scope, settings) if settings.vpc_id else _own(scope, settings)


def _named(scope: Construct, settings: GpuSettings) -> Network:
    # The zones are not used, but there must be as many as subnets.
    region = Stack.of(scope).region
    zones = [f"{region}{letter}" for letter in "abcdefghijklmnop"[: len(settings.subnet_ids)]]
    vpc = ec2.Vpc.from_vpc_attributes(
        scope,
        "Network",
        vpc_id=settings.vpc_id,
        availability_zones=zones,
        private_subnet_ids=list(settings.subnet_ids),
    )
    return Network(vpc, list(vpc.private_subnets))


def _own(scope: Construct, settings: GpuSettings) -> Network:
    zones = list(settings.availability_zones)
    vpc = ec2.Vpc(
        scope,
        "Network",
        availability_zones=zones or None,
        max_azs=None if zones else ZONES,
        nat_gateways=1,
        subnet_configuration=[
            ec2.SubnetConfiguration(name="Public", subnet_type=ec2.SubnetType.PUBLIC, map_public_ip_on_launch=False),
            ec2.SubnetConfiguration(name="Workers", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS),
        ],
    )
    # Large transfers must not go through the NAT gateway, which is paid by the gigabyte.
    vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
    vpc.add_gateway_endpoint("DynamoDb", service=ec2.GatewayVpcEndpointAwsService.DYNAMODB)
    log = log_group(scope, "FlowLog", days=settings.log_retention_days)
    role = role_for(scope, "FlowRole", "vpc-flow-logs.amazonaws.com")
    vpc.add_flow_log(
        "Flow",
        destination=ec2.FlowLogDestination.to_cloud_watch_logs(log, role),
        traffic_type=ec2.FlowLogTrafficType.REJECT,
    )
    subnets = list(vpc.private_subnets)
    return Network(
        vpc,
        subnets,
        (vpc.internet_connectivity_established, *(subnet.internet_connectivity_established for subnet in subnets)),
    )
