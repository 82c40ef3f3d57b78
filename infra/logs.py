"""Logs, kept for a set time, and a saved query that finds what they say of one job."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.justify import LOG, justify

_KEPT = {
    1: logs.RetentionDays.ONE_DAY,
    3: logs.RetentionDays.THREE_DAYS,
    5: logs.RetentionDays.FIVE_DAYS,
    7: logs.RetentionDays.ONE_WEEK,
    14: logs.RetentionDays.TWO_WEEKS,
    30: logs.RetentionDays.ONE_MONTH,
    60: logs.RetentionDays.TWO_MONTHS,
    90: logs.RetentionDays.THREE_MONTHS,
    180: logs.RetentionDays.SIX_MONTHS,
    365: logs.RetentionDays.ONE_YEAR,
}
#: The days that CloudWatch can keep a log for, up to a year.
RETENTION_DAYS = tuple(_KEPT)


def log_group(scope: Construct, construct_id: str, *, days: int, name: str | None = None) -> logs.LogGroup:
    """A log that is deleted with its stack."""
    group = logs.LogGroup(
        scope, construct_id, log_group_name=name, retention=_KEPT[days], removal_policy=RemovalPolicy.DESTROY
    )
    justify(group, LOG)
    return group


def save_query(scope: Construct, groups: Sequence[logs.ILogGroup]) -> None:
    """Save the query for the log of a job, as in the SAM stack. `comfy-serverless logs` reads all stacks at once."""
    logs.QueryDefinition(
        scope,
        "JobLogQuery",
        query_definition_name=f"{Stack.of(scope).stack_name}/the log of a job",
        log_groups=list(groups),
        query_string=logs.QueryString(
            fields=["@timestamp", "service", "level", "message", "code", "reason"],
            filter_statements=['job_id = "JOB_ID"'],
            sort="@timestamp",
            limit=1000,
        ),
    )
