"""Scaling from no instance to many and back: two policies, because neither is enough.

Target tracking follows the number of waiting jobs per instance, in the endpoint and in the queues before it: the gate
lets only a few of them into the endpoint. While there is no instance, a single job would wait for others: the second
policy covers exactly that case and starts the first instance. If both apply, the larger number wins. Sources:
"Autoscale an asynchronous endpoint" in SageMaker's developer guide, "Create a target tracking scaling policy using
metric math" in that of Application Auto Scaling.
"""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.alarms import MINUTE, described
from infra.settings import GpuSettings

NAMESPACE = "AWS/SageMaker"
VARIANT = "worker"
#: Minutes with a job but no instance before the first one is started.
MINUTES_WITHOUT_CAPACITY = 1
#: Pauses after starting instances, in seconds, because a new one has not taken jobs yet. The first starts with nothing
#: warm: after a shorter pause a second would start beside it (docs/scaling.md).
SCALE_OUT_COOLDOWN_S = 60
FIRST_INSTANCE_COOLDOWN_S = 600


#: All jobs that wait or are with a container, and how many of them there are for each instance. The endpoint's own two
#: metrics say how many instances there are; without any, all jobs are those of one.
BACKLOG = {
    "backlog": "size + FILL(jobs, 0) + FILL(batches, 0)",
    "each": "IF(size > 0 AND FILL(per, 0) > 0, backlog * per / size, backlog)",
}


def endpoint_metric(
    name: str, metric: str, *, statistic: str, of_variant: bool = False, period: Duration = MINUTE
) -> cloudwatch.Metric:
    """A metric that SageMaker publishes for an asynchronous endpoint every minute."""
    dimensions = {"EndpointName": name, **({"VariantName": VARIANT} if of_variant else {})}
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=metric,
        dimensions_map=dimensions,
        statistic=statistic,
        period=period,
    )


def scale_from_zero(
    scope: Construct,
    endpoint: sagemaker.CfnEndpoint,
    settings: GpuSettings,
    *,
    jobs: sqs.Queue,
    batches: sqs.Queue,
) -> None:
    """Scale the endpoint by the jobs that wait in it and before it."""
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
                metrics=[
                    _measured("size", NAMESPACE, "ApproximateBacklogSize", ("EndpointName", name)),
                    _measured("per", NAMESPACE, "ApproximateBacklogSizePerInstance", ("EndpointName", name)),
                    _measured("jobs", "AWS/SQS", "ApproximateNumberOfMessagesVisible", ("QueueName", jobs.queue_name)),
                    _measured(
                        "batches", "AWS/SQS", "ApproximateNumberOfMessagesVisible", ("QueueName", batches.queue_name)
                    ),
                    *(
                        scaling.CfnScalingPolicy.TargetTrackingMetricDataQueryProperty(
                            id=known_as, expression=expression, return_data=known_as == "each"
                        )
                        for known_as, expression in BACKLOG.items()
                    ),
                ]
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
        alarm_description=described(
            "HasBacklogWithoutCapacity", "A job waits but there is no instance: this alarm starts the first one."
        ),
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


def _measured(
    known_as: str, namespace: str, metric: str, dimension: tuple[str, str]
) -> scaling.CfnScalingPolicy.TargetTrackingMetricDataQueryProperty:
    """A metric of AWS's, for the expressions."""
    name, value = dimension
    return scaling.CfnScalingPolicy.TargetTrackingMetricDataQueryProperty(
        id=known_as,
        metric_stat=scaling.CfnScalingPolicy.TargetTrackingMetricStatProperty(
            metric=scaling.CfnScalingPolicy.TargetTrackingMetricProperty(
                namespace=namespace,
                metric_name=metric,
                dimensions=[scaling.CfnScalingPolicy.TargetTrackingMetricDimensionProperty(name=name, value=value)],
            ),
            stat="Average",
        ),
        return_data=False,
    )
