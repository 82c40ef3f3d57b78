"""Logs, kept for a set time."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
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
