"""The alarm on packs that did not import watches the metric that workers write."""

from __future__ import annotations

import json

import pytest

from comfy_serverless.worker.metrics import Meter
from tests.unit.template.test_template_deployed import ALARMS, environment_of


def test_the_alarm_rings_for_the_metric_of_a_worker_that_lacks_a_pack(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment_of("GenerateFunction").items():
        if name.startswith("POWERTOOLS_"):
            monkeypatch.setenv(name, value)
    Meter(lambda: 1, lambda: 1).count([])
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    (declared,) = line["_aws"]["CloudWatchMetrics"]
    alarm = ALARMS["NodesNotLoadedAlarm"]
    assert alarm["MetricName"] in {metric["Name"] for metric in declared["Metrics"]}
    assert alarm["Namespace"] == declared["Namespace"]
    assert [{name: line[name] for name in names} for names in declared["Dimensions"]] == [
        {entry["Name"]: entry["Value"] for entry in alarm["Dimensions"]}
    ]
    assert line["NodesNotLoaded"][0] >= alarm["Threshold"]
    assert alarm["Statistic"] == "Maximum", "a number of packs, not of invocations"
