"""From no instance to many and back: two policies, because neither is enough.

Target tracking follows the waiting jobs for each instance, and says nothing while there is no instance: a job alone
would wait for others. The second looks at exactly that case, and starts the first instance. Where both speak, the
larger number wins. Source: "Autoscale an asynchronous endpoint" in SageMaker's developer guide.
"""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.alarms import MINUTE
from infra.settings import GpuSettings

NAMESPACE = "AWS/SageMaker"
VARIANT = "worker"
#: Minutes with a job and no instance before one is started.
MINUTES_WITHOUT_CAPACITY = 1
#: An instance that has just been started has not taken jobs yet: no further ones for so long, in seconds. The first one
#: starts with nothing warm, and a second would start beside it after a shorter time (docs/scaling.md).
SCALE_OUT_COOLDOWN_S = 60
FIRST_INSTANCE_COOLDOWN_S = 600


def endpoint_metric(
    name: str, metric: str, *, statistic: str, of_variant: bool = False, period: Duration = MINUTE
) -> cloudwatch.Metric:
    """One of the figures SageMaker gives for an asynchronous endpoint, each minute."""
    dimensions = {"EndpointName": name, **({"VariantName": VARIANT} if of_variant else {})}
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=metric,
        dimensions_map=dimensions,
        statistic=statistic,
        period=period,
    )


def scale_from_zero(scope: Construct, endpoint: sagemaker.CfnEndpoint, settings: GpuSettings) -> None:
    """Have the endpoint scale by what waits in it."""
    name = settings.endpoint_name
    target = scaling.CfnScalableTarget(
        scope,
        "Instances",
        service_namespace="sagemaker",
        scalable_dimension="sagemaker:variant:DesiredInstanceCount",
        resource_id=f"endpoint/{name}/variant/{VARIANT}",
        min_capacity=0,
        max_capacity=settings.max_instances,
    )
    target.add_resource_dependency(endpoint)
    scaling.CfnScalingPolicy(
        scope,
        "ByBacklog",
        policy_name=f"{name}-by-backlog",
        policy_type="TargetTrackingScaling",
        scaling_target_id=target.ref,
        target_tracking_scaling_policy_configuration=scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=settings.backlog_per_instance,
            scale_in_cooldown=settings.scale_in_cooldown_s,
            scale_out_cooldown=SCALE_OUT_COOLDOWN_S,
            customized_metric_specification=scaling.CfnScalingPolicy.CustomizedMetricSpecificationProperty(
                namespace=NAMESPACE,
                metric_name="ApproximateBacklogSizePerInstance",
                statistic="Average",
                dimensions=[scaling.CfnScalingPolicy.MetricDimensionProperty(name="EndpointName", value=name)],
            ),
        ),
    )
    first = scaling.CfnScalingPolicy(
        scope,
        "FirstInstance",
        policy_name=f"{name}-first-instance",
        policy_type="StepScaling",
        scaling_target_id=target.ref,
        step_scaling_policy_configuration=scaling.CfnScalingPolicy.StepScalingPolicyConfigurationProperty(
            adjustment_type="ChangeInCapacity",
            metric_aggregation_type="Average",
            cooldown=FIRST_INSTANCE_COOLDOWN_S,
            step_adjustments=[
                scaling.CfnScalingPolicy.StepAdjustmentProperty(metric_interval_lower_bound=0, scaling_adjustment=1)
            ],
        ),
    )
    alarm = cloudwatch.CfnAlarm(
        scope,
        "HasBacklogWithoutCapacity",
        alarm_description="A job waits, and there is no instance: this starts the first one",
        namespace=NAMESPACE,
        metric_name="HasBacklogWithoutCapacity",
        dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name="EndpointName", value=name)],
        statistic="Average",
        period=60,
        evaluation_periods=MINUTES_WITHOUT_CAPACITY,
        threshold=1,
        comparison_operator="GreaterThanOrEqualToThreshold",
        treat_missing_data="missing",
        alarm_actions=[first.ref],
    )
    alarm.add_resource_dependency(first)
