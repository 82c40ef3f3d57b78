"""Each stack of workers, a release's too, has a dashboard of its queues and of whatever its alarms watch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.stacks import STACKS, every_stack, of_type, one
from tests.watched import NAMED_BY, Watched, is_published, of_alarm, of_dashboard

pytestmark = pytest.mark.timeout(900)
#: What alarms watch and no graph needs to show: what a person looks up in a log.
ONLY_ALARMS = {"RecursiveInvocationsDropped"}


@pytest.fixture(scope="module")
def templates() -> dict[str, dict[str, Any]]:
    """By the names of the stacks: without a name, and as the release `next`."""
    return every_stack()


def text_of(value: Any) -> str:
    """A text with the logical ids of what it names."""
    match value:
        case {"Fn::Join": [_, parts]}:
            return "".join(map(text_of, parts))
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), *_]}:
            return name
    return str(value)


def shown(template: dict[str, Any]) -> list[Watched]:
    return of_dashboard(text_of(one(template, "AWS::CloudWatch::Dashboard")["DashboardBody"]))


@pytest.mark.parametrize("stack", STACKS)
def test_it_has_a_name_of_its_own_in_each_region(stack: str, templates: dict[str, dict[str, Any]]) -> None:
    name = text_of(one(templates[stack], "AWS::CloudWatch::Dashboard")["DashboardName"])
    assert name == f"comfy-serverless-{stack}-AWS::Region"


@pytest.mark.parametrize("stack", STACKS)
def test_it_shows_every_queue_of_its_stack(stack: str, templates: dict[str, dict[str, Any]]) -> None:
    queues = set(of_type(templates[stack], "AWS::SQS::Queue"))
    assert len(queues) >= 4
    waiting = {value for one in shown(templates[stack]) if "Visible" in one.metric for _, value in one.dimensions}
    assert waiting == queues


@pytest.mark.parametrize("stack", STACKS)
def test_it_shows_what_the_alarms_watch_and_only_what_there_is(
    stack: str, templates: dict[str, dict[str, Any]]
) -> None:
    graphs = shown(templates[stack])
    for graph in graphs:
        assert is_published(graph), graph
        for name, value in graph.dimensions:
            kinds = NAMED_BY.get(name)
            assert kinds is None or templates[stack]["Resources"][value]["Type"] in kinds, graph
    alarms = of_type(templates[stack], "AWS::CloudWatch::Alarm").values()
    watched = [one for alarm in alarms for one in of_alarm(alarm) if one.metric not in ONLY_ALARMS]
    assert watched
    for one_watched in watched:
        assert any(graph.fits(one_watched) for graph in graphs), one_watched
