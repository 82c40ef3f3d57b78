"""The alarms. docs/alarms.md says what to do about each, below its name; a test asks for that."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

MINUTE = Duration.minutes(1)
#: When a job of a batch is late, in hours: half of the time that its queue keeps it.
LATE_BATCH_H = 7 * 24


def described(name: str, description: str) -> str:
    """An alarm's description: what has happened, and where it says what to do."""
    return f"{description} What to do: docs/alarms.md#{name.lower()}"


class Alarms:
    """The alarms of a stack; all of them notify the same topic, if there is one."""

    def __init__(self, scope: Construct, topic_arn: str) -> None:
        self._scope = scope
        topic = sns.Topic.from_topic_arn(scope, "AlarmTopic", topic_arn) if topic_arn else None
        self._action = actions.SnsAction(topic) if topic is not None else None

    def on(
        self, name: str, description: str, metric: cloudwatch.IMetric, *, threshold: float = 1, periods: int = 1
    ) -> None:
        """Alarm when the metric has been at or above the threshold for this many periods."""
        alarm = cloudwatch.Alarm(
            self._scope,
            f"{name}Alarm",
            alarm_description=described(name, description),
            metric=metric,
            threshold=threshold,
            evaluation_periods=periods,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        self._notify(alarm)

    def on_silence(self, name: str, description: str, metric: cloudwatch.IMetric, *, periods: int) -> None:
        """Alarm when nothing has been counted for this many periods."""
        alarm = cloudwatch.Alarm(
            self._scope,
            f"{name}Alarm",
            alarm_description=described(name, description),
            metric=metric,
            threshold=1,
            evaluation_periods=periods,
            comparison_operator=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING,  # a function that is not invoked has no figures
        )
        self._notify(alarm)

    def on_dead_letters(self, name: str, queue: sqs.Queue) -> None:
        """Alarm when a message has been put aside."""
        metric = queue.metric_approximate_number_of_messages_visible(period=MINUTE, statistic="Maximum")
        self.on(name, f"A message was put aside after its last try ({name}).", metric)

    def on_age(self, name: str, queue: sqs.Queue, *, hours: int) -> None:
        """Alarm when a message is this old, whether it waits or is being processed."""
        metric = queue.metric_approximate_age_of_oldest_message(period=Duration.minutes(5), statistic="Maximum")
        self.on(name, f"A job was sent {hours} h ago and is not done ({name}).", metric, threshold=hours * 3600)

    def _notify(self, alarm: cloudwatch.Alarm) -> None:
        if self._action is not None:
            alarm.add_alarm_action(self._action)
