"""All aliases of everybody are checked again, by themselves, once what the workers declare has changed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.dynamodb import Update
from comfy_serverless.errors import AssetUnavailable
from comfy_serverless.jobs.declarations import DeclarationsReader, DeclarationsWriter
from comfy_serverless.workflows import image_files, recheck
from comfy_serverless.workflows.deployed import Deployed
from comfy_serverless.workflows.doctor import examined
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.image_files import ImageFiles
from comfy_serverless.workflows.reader import WorkflowReader
from comfy_serverless.workflows.recheck import Found, Recheck, Round, due
from tests.unit.api_world import ASSETS, ApiWorld, api_world
from tests.unit.editor_samples import OBJECT_INFO
from tests.unit.named_world import GRAPH, push

DOCTOR = "/api/v2/workflows/doctor"
RELEASE = "0123456789ab"
FOREVER = float("inf")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch, release_version=RELEASE) as world:
        yield world


@pytest.fixture
def checks(api: ApiWorld) -> Recheck:
    for owner in ("team", "other"):
        api.services.keys.create(owner, owner=owner)
    behind = api.services
    declarations = DeclarationsReader(api.s3, ASSETS, lambda: "nodes", lambda: RELEASE)
    reader = WorkflowReader(behind.table, api.s3, ASSETS)
    return Recheck(
        table=behind.table,
        keys=behind.keys,
        reader=reader,
        named=Finder(None, None, declarations.newest),
        declarations=declarations,
        lost=lambda: (),
    )


def tell(api: ApiWorld, checks: Recheck, object_info: dict[str, Any]) -> None:
    """What the workers declare from now on."""
    DeclarationsWriter(api.s3, ASSETS, "nodes", RELEASE).write(object_info)
    checks.declarations._read_at = float("-inf")


def without(name: str) -> dict[str, Any]:
    return {class_type: said for class_type, said in OBJECT_INFO.items() if class_type != name}


def state_of(checks: Recheck) -> Round:
    item = checks.table.get("care", "workflows")
    assert item is not None
    return Round.from_item(item)


def one_at_a_time(checks: Recheck) -> int | None:
    """A step that has time for one name."""
    return checks.go_on(until=0.0, now=lambda: 1.0)


def test_a_round_is_due_once_something_else_is_declared_and_after_a_while() -> None:
    over = Round(stamp="a", begun=1000, step=7, is_over=True, last_breaks=0)
    broken = Round(stamp="a", begun=1000, step=7, is_over=True, last_breaks=2)
    half = Round(stamp="a", begun=1000, owner="team", name="poster", step=7)
    day, hour = 86_400, 3_600
    assert due(None, "", now=0) is None
    assert due(half, "", now=0) is None, "nobody has told anything: there is nothing to hold them against"
    assert due(None, "a", now=5) == Round(stamp="a", begun=5)
    assert due(half, "a", now=10 * day) == half
    assert due(half, "b", now=2000) == Round(stamp="b", begun=2000, step=7)
    assert due(over, "a", now=999 + day) is None
    assert due(over, "a", now=1000 + day) == Round(stamp="a", begun=1000 + day, step=7, last_breaks=0)
    assert due(over, "b", now=1001) == Round(stamp="b", begun=1001, step=7, last_breaks=0)
    assert due(broken, "a", now=999 + hour) is None
    assert due(broken, "a", now=1000 + hour) == Round(stamp="a", begun=1000 + hour, step=7, last_breaks=2)


def test_what_a_release_breaks_is_told_to_its_owner_alone(api: ApiWorld, checks: Recheck) -> None:
    for owner in ("team", "other"):
        assert push(api, owner=owner).status == 201
    assert push(api, "fine", workflow={"1": GRAPH["1"], "2": GRAPH["2"]}, owner="other").status == 201
    assert checks.go_on(until=FOREVER) is None, "nobody has told what workers have"
    tell(api, checks, OBJECT_INFO)
    assert checks.go_on(until=FOREVER) == 0
    assert api.request("GET", DOCTOR).json["last_check"]["broken"] == []
    tell(api, checks, without("EmptyImage"))
    assert checks.go_on(until=FOREVER) == 3
    last = api.request("GET", DOCTOR, owner="team").json["last_check"]
    assert (last["versions"], last["breaks"], last["is_over"], last["release_version"]) == (1, 1, True, RELEASE)
    [broken] = last["broken"]
    assert (broken["name"], broken["version"], broken["aliases"]) == ("poster", 1, ["live"])
    assert "EmptyImage" in broken["message"]
    assert api.request("GET", DOCTOR, owner="other").json["last_check"]["breaks"] == 2
    assert "last_check" not in api.request("GET", DOCTOR, owner="stranger").json
    tell(api, checks, OBJECT_INFO)
    assert checks.go_on(until=FOREVER) == 0
    assert api.request("GET", DOCTOR, owner="team").json["last_check"]["breaks"] == 0


def test_a_round_goes_on_where_it_was_and_finds_the_same_in_small_steps(api: ApiWorld, checks: Recheck) -> None:
    names = [f"poster-{number}" for number in range(4)]
    for owner, name in itertools.product(("team", "other"), names):
        assert push(api, name, owner=owner).status == 201
    tell(api, checks, without("EmptyImage"))
    seen: list[tuple[str, str]] = []
    while not seen or not state_of(checks).is_over:
        assert one_at_a_time(checks) in (None, 8)
        seen.append((state_of(checks).owner, state_of(checks).name))
        assert len(seen) < 20
    assert seen[:8] == [(owner, name) for owner in ("other", "team") for name in names], "each once, in order"
    assert state_of(checks).last_breaks == 8
    for owner in ("team", "other"):
        found = Found.of(checks.table, owner)
        assert found is not None
        assert ([one["name"] for one in found.broken], found.versions, found.is_over) == (names, 4, True)
    before = state_of(checks)
    assert one_at_a_time(checks) == 8
    assert state_of(checks) == before, "nothing is due"


def test_a_newer_declaration_begins_a_round_anew(api: ApiWorld, checks: Recheck) -> None:
    for name in ("a", "b"):
        assert push(api, name).status == 201
    tell(api, checks, without("EmptyImage"))
    one_at_a_time(checks)
    assert (state_of(checks).name, state_of(checks).breaks) == ("a", 1)
    tell(api, checks, OBJECT_INFO)
    assert checks.go_on(until=FOREVER) == 0
    found = Found.of(checks.table, "team")
    assert found is not None
    assert (found.versions, found.breaks) == (2, 0)


def test_a_check_that_never_ends_is_passed_over_and_the_others_are_done(
    api: ApiWorld, checks: Recheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "bomb", "c"):
        assert push(api, name).status == 201
    tell(api, checks, without("EmptyImage"))

    def unless_bomb(heads: Any, *more: Any) -> Any:
        if heads[0].name == "bomb":
            raise MemoryError  # as if the function had died: nothing is written behind it
        return examined(heads, *more)

    monkeypatch.setattr(recheck, "examined", unless_bomb)
    deaths = 0
    while True:
        try:
            one_at_a_time(checks)
        except MemoryError:
            deaths += 1
        if state_of(checks).is_over:
            break
        assert deaths < 10
    assert deaths == 3
    found = Found.of(checks.table, "team")
    assert found is not None
    assert [one["name"] for one in found.broken] == ["a", "c"]


def test_two_functions_at_once_do_not_do_the_same(
    api: ApiWorld, checks: Recheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push(api).status == 201
    tell(api, checks, OBJECT_INFO)
    before, steps = type(checks.table).try_update, list[str]()

    def slow(table: Any, change: Update) -> bool:
        if not steps:
            steps.append("first")
            assert checks.go_on(until=FOREVER) == 0, "the other one"
        return before(table, change)

    monkeypatch.setattr(type(checks.table), "try_update", slow)
    assert checks.go_on(until=FOREVER) is None
    assert state_of(checks).versions == 1


def test_what_s3_does_not_answer_is_asked_for_again(
    api: ApiWorld, checks: Recheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert push(api).status == 201
    tell(api, checks, OBJECT_INFO)
    read: Callable[..., Any] = WorkflowReader.read

    def unavailable(*_: Any) -> Any:
        raise AssetUnavailable("S3 does not answer")

    monkeypatch.setattr(WorkflowReader, "read", unavailable)
    with pytest.raises(AssetUnavailable):
        checks.go_on(until=FOREVER)
    monkeypatch.setattr(WorkflowReader, "read", read)
    assert checks.go_on(until=FOREVER) == 0
    assert state_of(checks).versions == 1


def with_file(checks: Recheck, folder: Path, graph: dict[str, Any] = GRAPH) -> Recheck:
    """The same, in an image that has a workflow of its own."""
    (folder / "portrait.json").write_text(json.dumps(graph))
    return replace(checks, named=Finder(None, folder, checks.declarations.newest))


def test_the_files_of_the_image_are_kept_for_whoever_promotes_a_release(
    api: ApiWorld, checks: Recheck, tmp_path: Path
) -> None:
    (tmp_path / "portrait.yaml").write_text("description: A portrait\n")
    of_image = with_file(checks, tmp_path)
    assert of_image.go_on(until=FOREVER) is None
    assert ImageFiles.kept(checks.table) is None, "nobody has told what there is to hold them against"
    tell(api, checks, OBJECT_INFO)
    of_image.go_on(until=FOREVER)
    kept = ImageFiles.kept(checks.table)
    assert kept is not None
    assert kept.texts == {"portrait": (json.dumps(GRAPH).encode(), b"description: A portrait\n")}
    deployed = Deployed(object_info=without("EmptyImage"))
    assert [(one.name, one.number, one.breaks) for one in kept.examined(deployed)] == [("portrait", 0, True)]
    assert [one.breaks for one in kept.examined(Deployed(object_info=OBJECT_INFO))] == [False]


def test_another_file_in_the_image_begins_a_round_and_is_kept_in_place_of_the_old_one(
    api: ApiWorld, checks: Recheck, tmp_path: Path
) -> None:
    tell(api, checks, OBJECT_INFO)
    of_image = with_file(checks, tmp_path)
    assert of_image.go_on(until=FOREVER) == 0
    gone = {"1": {**GRAPH["1"], "class_type": "Gone"}, "2": GRAPH["2"]}
    assert with_file(checks, tmp_path, gone).go_on(until=FOREVER) == 1, "though the workers declare the same"
    (tmp_path / "portrait.json").unlink()
    assert of_image.go_on(until=FOREVER) == 0
    kept = ImageFiles.kept(checks.table)
    assert kept is not None
    assert kept.texts == {}


def test_a_file_that_no_item_holds_is_named(
    api: ApiWorld, checks: Recheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "_MOST_BYTES", 10)
    tell(api, checks, OBJECT_INFO)
    with_file(checks, tmp_path).go_on(until=FOREVER)
    kept = ImageFiles.kept(checks.table)
    assert kept is not None
    assert (kept.texts, kept.too_large) == ({}, ("portrait",))
