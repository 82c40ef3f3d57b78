"""`release promote` and `workflows doctor --everybody`: everybody's named workflows beside what a release has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Update
from comfy_serverless.cli.main import main
from comfy_serverless.cli.named import of_releases
from comfy_serverless.jobs.declarations import DeclarationsWriter
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.table.live import DEFAULT
from comfy_serverless.workflows.image_files import ImageFiles, Texts
from comfy_serverless.workflows.recheck import Found
from comfy_serverless.workflows.store import WorkflowStore
from comfy_serverless.workflows.version import Version
from tests.unit.cli.test_cli_release import STACK, World
from tests.unit.editor_samples import OBJECT_INFO
from tests.unit.jobs_table import REGION, aws
from tests.unit.named_world import GRAPH

VERSION = "3f2a91c07b5e"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.setenv(name, REGION)
    monkeypatch.setenv("COMFY_STACK", STACK)
    monkeypatch.setattr("comfy_serverless.aws.sqs.DEPTH_KNOWN_S", 0.0)
    monkeypatch.setattr(of_releases, "_TOLD_WITHIN_S", 0.0)
    with aws() as session:
        world = World(session)
        world.announce("old", "111111111111")
        world.announce("next", VERSION)
        yield world


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert main([*arguments]) == code, capsys.readouterr().err
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def push(world: World, name: str, *, owner: str = "team", colour: int = 1, alias: str | None = None) -> None:
    """A version with another picture; the owner has a key."""
    keys = ApiKeyStore(world.table)
    if owner and owner not in {key.owner for key in keys.list()}:
        keys.create(f"of-{owner}", owner=owner)
    graph = json.loads(json.dumps(GRAPH))
    graph["1"]["inputs"]["color"] = colour
    WorkflowStore(world.table, world.s3, "assets").push(
        Version(name=name, number=0, owner=owner, graph=graph), alias=alias
    )


def keep_file(world: World, name: str = "portrait") -> None:
    """A workflow in the image of the stack, as its caretaker keeps it."""
    ImageFiles({name: Texts(json.dumps(GRAPH).encode())}).keep(world.table)


def tell(world: World, version: str, *, lacks: str = "") -> None:
    """What workers of a release have."""
    object_info: dict[str, Any] = {name: said for name, said in OBJECT_INFO.items() if name != lacks}
    DeclarationsWriter(world.s3, "assets", "i", version).write(object_info)


def test_a_release_that_breaks_named_workflows_is_not_promoted_without_force(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    push(world, "poster")
    push(world, "banner", owner="")
    tell(world, VERSION, lacks="EmptyImage")
    said = told("release", "promote", "next", "--no-check", code=1)[1]
    assert world.live().now.name == DEFAULT
    for part in ("poster@live (version 1) of team", "banner@live (version 1) of the operator", "EmptyImage", "--force"):
        assert part in said
    said = told("release", "promote", "next", "--no-check", "--force")[1]
    assert world.live().now.name == "next"
    assert "will fail on next" in said
    assert "next is live, and on it fail: banner@live" in said, "it is checked again by what is live now"


def test_a_release_that_breaks_a_file_in_the_image_is_not_promoted_without_force(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    keep_file(world)
    tell(world, VERSION, lacks="EmptyImage")
    said = told("release", "promote", "next", "--no-check", code=1)[1]
    assert world.live().now.name == DEFAULT
    for part in ("portrait@live (version 0) of the operator", "EmptyImage", "--force"):
        assert part in said
    found = told("workflows", "doctor", "--everybody", "--release", "next", code=1)
    assert "1 of 1 version would fail on next" in found[1]
    tell(world, VERSION)
    assert "1 named workflow would run on next" in told("release", "promote", "next", "--no-check")[1]
    assert world.live().now.name == "next"


def test_a_workflow_of_the_operator_hides_the_file_of_its_name(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    ImageFiles({"poster": Texts(b'{"1": {"class_type": "Gone", "inputs": {}}}')}).keep(world.table)
    push(world, "poster", owner="")
    tell(world, VERSION)
    assert "1 named workflow would run on next" in told("release", "promote", "next", "--no-check")[1]


def test_it_is_said_which_files_in_the_image_could_not_be_held_against_a_release(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    tell(world, VERSION)
    assert "the workflows in the image" in told("release", "promote", "next", "--no-check")[1], "nobody has told them"
    ImageFiles({}, ("large",)).keep(world.table)
    world.table.update(
        Update(pk="checkup#", sk="files", assign={"told": json.dumps({"names": ["lost"], "too_large": ["large"]})})
    )
    said = told("release", "promote", "old", "--no-check")[1]
    assert "too large to be held against old from here: large, lost" in said


def test_what_runs_on_a_release_does_not_hold_it_up(world: World, told: Callable[..., tuple[str, str]]) -> None:
    push(world, "poster")
    tell(world, VERSION)
    assert "1 named workflow would run on next" in told("release", "promote", "next", "--no-check")[1]
    assert world.live().now.name == "next"


def test_what_fails_already_holds_nothing_up(world: World, told: Callable[..., tuple[str, str]]) -> None:
    push(world, "poster")
    tell(world, "111111111111", lacks="EmptyImage")
    tell(world, VERSION, lacks="EmptyImage")
    told("release", "promote", "old", "--no-check", "--force")
    said = told("release", "promote", "next", "--no-check")[1]
    assert "fail on old already, and would on next: poster@live" in said
    assert world.live().now.name == "next"


def test_a_release_of_which_nobody_has_told_is_promoted_with_a_warning(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    push(world, "poster")
    said = told("release", "promote", "next", "--no-check")[1]
    assert "1 named workflow could not be held against next" in said
    assert world.live().now.name == "next"


def test_only_versions_that_aliases_lead_to_count(world: World, told: Callable[..., tuple[str, str]]) -> None:
    push(world, "poster")
    push(world, "poster", colour=2)
    tell(world, VERSION, lacks="EmptyImage")
    said = told("release", "promote", "next", "--no-check", code=1)[1]
    assert "1 version of named workflows would fail" in said


def test_a_rollback_says_what_fails_where_it_leads(world: World, told: Callable[..., tuple[str, str]]) -> None:
    push(world, "poster")
    tell(world, "111111111111", lacks="EmptyImage")
    tell(world, VERSION)
    told("release", "promote", "old", "--no-check", "--force")
    told("release", "promote", "next", "--no-check")
    said = told("release", "rollback")[1]
    assert "old is live, and on it fail: poster@live" in said
    assert world.live().now.name == "old"


def test_doctor_of_everybody_examines_a_release_and_fails_if_something_would(
    world: World, told: Callable[..., tuple[str, str]]
) -> None:
    push(world, "poster")
    push(world, "poster", owner="others", colour=7)
    tell(world, VERSION, lacks="EmptyImage")
    printed, said = told("workflows", "doctor", "--everybody", "--release", "next", code=1)
    assert "2 of 2 versions would fail on next" in said
    assert "poster of others" in printed
    found = json.loads(told("workflows", "doctor", "--everybody", "--release", "next", "--json", code=1)[0])
    assert (found["breaks"], found["release_version"]) == (2, VERSION)
    assert {one["owner"] for one in found["versions"]} == {"team", "others"}
    tell(world, VERSION)
    assert "none would fail on next" in told("workflows", "doctor", "--everybody", "--release", "next")[1]
    assert "nobody has told yet" in told("workflows", "doctor", "--everybody")[1]
    broken = [{"name": "portrait", "version": 0, "aliases": ["live"], "message": "its model is gone"}]
    Found(begun=1, versions=4, breaks=1, is_over=True, broken=broken).write(world.table, "")
    printed, said = told("workflows", "doctor", "--everybody")
    assert "1 version would fail: portrait (0)" in said, "a file in the image"
    assert "by itself" not in told("workflows", "doctor", "--everybody", "--release", "next")[1]
    assert "There is no release 'none'" in told("workflows", "doctor", "--everybody", "--release", "none", code=1)[1]
