"""What a name means, to whom, and what looking it up costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.errors import AssetUnavailable, ComfyError, InvalidRequest, NotFound
from comfy_serverless.jobs.line_ids import Question
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.reference import Reference
from tests.unit.workflows.stored_workflows import GRAPH, World, stored

FILE = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}, "2": GRAPH["7"]}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Alice has `poster` and `gone`, Bob `secret`; the operator shares `common` and `poster`, and keeps `private`."""
    with stored() as made:
        made.push("alice 1")
        made.push("alice 2")
        made.push("alice's", name="gone")
        made.store.retire("alice", "gone")
        made.push("bob's", name="secret", owner="bob")
        made.push("longer", name="poster", owner="alice2")
        for name in ("common", "poster", "private", "withdrawn", "closed"):
            made.push(f"the operator's {name}", name=name, owner="")
        made.push("the operator's second", name="common", owner="")
        for name in ("common", "poster", "withdrawn", "closed"):
            made.store.share(name)
        for name in ("withdrawn", "closed"):
            made.store.retire("", name)
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("thumbnail", "common", "withdrawn", "sub/old", "[v2] banner", "shared/frame"):
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(FILE), encoding="utf-8")
    return tmp_path


def said(finder: Finder, name: Reference | str, owner: str = "alice") -> str:
    """The text that the version has, which a name means."""
    found = finder.find(name, owner=owner, key="1")
    return str(found.graph["6"]["inputs"]["text"]) if "6" in found.graph else f"the file {found.name}@{found.number}"


def refusal(finder: Finder, name: str, owner: str = "alice") -> str:
    with pytest.raises(NotFound) as refused:
        finder.find(name, owner=owner)
    return refused.value.message


# Whose.


@pytest.mark.parametrize(
    ("name", "owner", "text"),
    [
        ("poster", "alice", "alice 1"),
        ("poster@2", "alice", "alice 2"),
        ("poster@live", "alice", "alice 1"),
        ("poster", "bob", "the operator's poster"),
        ("shared/poster", "alice", "the operator's poster"),
        ("shared/poster@1", "alice", "the operator's poster"),
        ("common", "alice", "the operator's common"),
        ("common@2", "alice", "the operator's second"),
        ("common@0", "alice", "the file common@0"),
        ("private", "", "the operator's private"),
        ("common", "", "the operator's common"),
        ("poster", "alice2", "longer"),
        ("poster", "alic", "the operator's poster"),
        ("withdrawn", "alice", "the file withdrawn@0"),
        ("thumbnail", "alice", "the file thumbnail@0"),
        ("thumbnail@0", "alice", "the file thumbnail@0"),
        ("thumbnail@live", "bob", "the file thumbnail@0"),
        ("thumbnail.json", "", "the file thumbnail@0"),
        ("common.json", "alice", "the file common@0"),
        ("sub/old", "alice", "the file sub/old@0"),
        ("sub/old@0", "alice", "the file sub/old@0"),
        ("[v2] banner", "alice", "the file [v2] banner@0"),
        ("shared/frame", "alice", "the file shared/frame@0"),
        ("shared/frame@0", "alice", "the file shared/frame@0"),
        ("shared/frame.json", "alice", "the file shared/frame@0"),
    ],
)
def test_a_name_is_the_owner_s_own_else_shared_else_a_file(
    world: World, folder: Path, name: str, owner: str, text: str
) -> None:
    assert said(world.finder(folder), name, owner) == text


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("secret", "alice"),
        ("secret@1", "alice"),
        ("private", "alice"),
        ("private@1", "bob"),
        ("shared/private", "alice"),
        ("shared/secret", "alice"),
        ("closed", "alice"),
        ("shared/closed", "alice"),
        ("nothing", "alice"),
        ("sub", "alice"),
        ("../secret", "alice"),
        ("owners/bob/secret", "alice"),
        ("secret#000001", "alice"),
        ("#count", "alice"),
        ("", ""),
        ("\x00", "alice"),
        ("pöster", "alice"),
        ("x" * 10_000, "alice"),
    ],
)
def test_what_an_owner_cannot_have_is_said_of_as_of_nothing(world: World, folder: Path, name: str, owner: str) -> None:
    message = refusal(world.finder(folder), name, owner)
    assert message.startswith("there is no workflow")
    assert len(message) < 1_000
    hidden_from = {"alice": ("secret", "private", "gone", "bob"), "bob": ("private", "alice"), "": ("secret", "alice")}
    for hidden in (*hidden_from[owner], "closed"):
        assert hidden not in message.partition(";")[2]


def test_hints_are_of_what_the_owner_may_run(world: World, folder: Path) -> None:
    finder = world.finder(folder)
    assert "did you mean 'poster'?" in refusal(finder, "postr")
    assert "did you mean 'common'?" in refusal(finder, "comon")
    assert "did you mean 'thumbnail'?" in refusal(finder, "thumbnial")
    assert "did you mean" not in refusal(finder, "secre"), "Bob's"
    assert "did you mean" not in refusal(finder, "privat"), "not shared"
    assert "did you mean 'private'?" in refusal(finder, "privat", "")
    assert "did you mean 'secret'?" in refusal(finder, "secre", "bob")
    assert [head.name for head in finder.visible("alice")] == ["poster", "common"]


def test_a_retired_name_is_refused_and_hides_the_shared_one(world: World) -> None:
    world.push("shared", name="gone", owner="")
    world.store.share("gone")
    finder = world.finder()
    assert "is retired" in refusal(finder, "gone")
    assert "is retired" in refusal(finder, "gone@1")
    assert said(finder, "gone", "bob") == "shared"
    request = JobRequest.parse({"workflow": "gone@1", "job_id": "1"})
    taken = finder.expand(request, owner="alice", key="1", was_taken=True)
    assert taken.metadata == {"workflow": "gone", "version": "1"}, "a job that was taken before runs all the same"
    for name in ("gone", "gone@1"):
        with pytest.raises(InvalidRequest, match="is retired"):
            finder.expand(JobRequest.parse({"workflow": name}), owner="alice", key="1")
        with pytest.raises(InvalidRequest, match="is retired"):
            finder.pinned(JobRequest.parse({"workflow": name}), owner="alice", key="1")


def test_what_the_operator_shares_no_more_is_his_alone_but_for_jobs_that_were_taken(world: World) -> None:
    finder = world.finder()
    asked = JobRequest.parse({"workflow": "common", "job_id": "1", "inputs": {"prompt": "x"}})
    pinned = finder.pinned(asked, owner="carol", key="1")
    assert pinned.workflow == "shared/common@1"
    world.store.share("common", False)
    for name in ("common", "common@1", "shared/common", "shared/common@1"):
        assert refusal(finder, name, "carol").startswith("there is no workflow")
        request = JobRequest.parse({"workflow": name})
        with pytest.raises(InvalidRequest, match="there is no workflow"):
            finder.expand(request, owner="carol", key="1")
        if name != "common":  # that may be a file of a worker's image
            with pytest.raises(InvalidRequest, match="there is no workflow"):
                finder.pinned(request, owner="carol", key="1")
        if name != pinned.workflow:
            with pytest.raises(InvalidRequest, match="there is no workflow"):
                finder.expand(request, owner="carol", key="1", was_taken=True)
    assert "common" not in [head.name for head in finder.visible("carol")]
    assert said(finder, "common", "") == "the operator's common"
    ran = finder.expand(pinned, owner="carol", key="1", was_taken=True)
    assert ran.metadata == {"workflow": "common", "version": "1"}
    world.store.share("common")
    assert said(finder, "common", "carol") == "the operator's common"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("poster@3", "has no version 3: it has 1 to 2"),
        ("poster@0", "has no version 0: it has 1 to 2"),
        ("poster@staging", "has no alias 'staging'; it has live"),
        ("poster@lve", "did you mean poster@live?"),
        ("thumbnail@1", "is a file in the image"),
        ("thumbnail@staging", "is a file in the image"),
    ],
)
def test_an_alias_or_version_that_is_not_there_is_named(world: World, folder: Path, name: str, words: str) -> None:
    assert words in refusal(world.finder(folder), name)


def test_a_door_hears_of_it_as_of_any_bad_request(world: World) -> None:
    with pytest.raises(InvalidRequest, match=r"there is no workflow 'postr'; did you mean 'poster'\?"):
        world.finder().expand(JobRequest.parse({"workflow": "postr"}), owner="alice", key="")


# Aliases.


def test_a_moved_alias_counts_at_once(world: World) -> None:
    finder = world.finder()
    for number in range(1, 3):
        world.push(f"text {number}", name="at-once")
    assert said(finder, "at-once") == "text 1"
    world.store.move("alice", "at-once", "live", {2: 1}, by="")
    assert said(finder, "at-once") == "text 2"
    world.store.rollback("alice", "at-once", "live")
    assert said(finder, "at-once") == "text 1"


def test_the_same_key_gets_the_same_version(world: World) -> None:
    for number in range(1, 3):
        world.push(f"text {number}", name="sticky")
    world.store.move("alice", "sticky", "live", {1: 1, 2: 1}, by="")
    finder, other = world.finder(), world.finder()

    def number_of(one: Finder, key: str) -> int:
        return one.find("sticky", owner="alice", key=key).number

    got = [number_of(finder, str(key)) for key in range(40)]
    assert set(got) == {1, 2}
    assert [number_of(other, str(key)) for key in range(40)] == got


# What it costs.


def test_a_run_costs_one_read_of_the_table_and_nothing_else(world: World, folder: Path) -> None:
    finder = world.finder(folder)
    finder.find("poster", owner="alice", key="")
    request = JobRequest.parse({"workflow": "poster", "inputs": {"prompt": "x"}, "job_id": "1"})
    with world.counted() as calls:
        finder.expand(request, owner="alice", key="1")
    assert calls == {"BatchGetItem": 1}
    for pinned in ("poster@1", "shared/poster@1"):
        finder.find(pinned, owner="alice")
        with world.counted() as calls:
            finder.find(pinned, owner="alice")
        assert calls == {"BatchGetItem": 1}
    with world.counted() as calls:
        finder.find("common", owner="alice")
    assert calls == {"BatchGetItem": 1, "GetObject": 1}, "a document is read once for a process"


def test_what_names_no_workflow_costs_nothing(world: World, folder: Path) -> None:
    finder = world.finder(folder)
    with world.counted() as calls:
        for workflow in (GRAPH, "s3://bucket/key.json", "https://a.example/w.json"):
            request = JobRequest.parse({"workflow": workflow})
            assert finder.expand(request, owner="alice", key="") is request
            assert finder.pinned(request, owner="alice", key="") is request
        for name in ("sub/old", "[v2] banner", "thumbnail.json", "thumbnail@0"):
            finder.find(name, owner="alice")
    assert calls == {}


def test_many_requests_in_a_row_look_a_name_up_once(world: World) -> None:
    finder = world.finder()
    finder.find("poster", owner="alice")
    remembering = finder.remembering()
    with world.counted() as calls:
        for key in range(20):
            remembering.expand(JobRequest.parse({"workflow": "poster"}), owner="alice", key=str(key))
            remembering.pinned(JobRequest.parse({"workflow": "poster"}), owner="bob", key=str(key))
    assert calls["BatchGetItem"] == 2
    world.push("three")
    with pytest.raises(NotFound):
        finder.find("poster@9", owner="alice")
    assert finder._remembered is None, "those before are not changed by it"


def test_what_is_not_there_is_looked_for_again(world: World) -> None:
    finder = world.finder()
    refusal(finder, "new-one")
    refusal(finder, "new-one@1")
    world.push("now", name="new-one")
    assert said(finder, "new-one") == "now"
    with pytest.raises(NotFound):
        finder.find("new-one@2", owner="alice")
    world.push("then", name="new-one")
    assert said(finder, "new-one@2") == "then"


def test_documents_are_kept_up_to_a_number_of_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 7):
        world.push(f"{number}" * 1_000, name="heavy")
    monkeypatch.setattr("comfy_serverless.workflows.kept.KEPT_BYTES", 7_000)
    finder = world.finder()

    def reads(number: int) -> int:
        with world.counted() as calls:
            finder.find(f"heavy@{number}", owner="alice")
        return calls["GetObject"]

    assert [reads(number) for number in (1, 1, 2, 2, 3, 3)] == [1, 0, 1, 0, 1, 0]
    assert [reads(number) for number in (4, 5, 6, 1)] == [1, 1, 1, 1]
    assert finder._documents._bytes <= 7_000


def test_a_check_is_made_once_for_a_version_and_what_is_declared(world: World) -> None:
    declared: list[Any] = [None]
    finder = Finder(world.store, None, lambda: declared[0])
    version = finder.find("poster", owner="alice")
    first = finder.check_of(version)
    assert finder.check_of(finder.find("poster", owner="alice")) is first
    declared[0] = {"KSampler": {}}
    second = finder.check_of(version)
    assert second is not first
    assert finder.check_of(version) is second


# When AWS does not answer.


def test_a_table_that_does_not_answer_is_worth_another_try(world: World) -> None:
    lost = EndpointConnectionError(endpoint_url="dynamodb")
    for failure in (lost, TimeoutError("not all items")):
        with (
            patch.object(world.table, "get_all", side_effect=failure),
            pytest.raises(AssetUnavailable, match="'poster' could not be looked up") as failed,
        ):
            world.finder().expand(JobRequest.parse({"workflow": "poster"}), owner="alice", key="")
        assert failed.value.retryable
    with patch.object(world.table, "query", side_effect=lost):
        assert refusal(world.finder(), "postr") == "there is no workflow 'postr'; there are none."


def test_without_a_table_the_image_has_names(folder: Path) -> None:
    finder = Finder(None, folder, lambda: None)
    assert said(finder, "thumbnail") == "the file thumbnail@0"
    assert "did you mean 'thumbnail'?" in refusal(finder, "thumbnal")
    assert "WORKFLOWS_DIR is not set" in refusal(Finder(None, None, lambda: None), "portrait")


# For doors.


def test_a_line_is_pinned_to_what_its_name_means_now(world: World, folder: Path) -> None:
    finder = world.finder(folder)

    def pinned(name: str, owner: str = "alice", **fields: Any) -> str:
        request = JobRequest.parse({"workflow": name, "job_id": "1", **fields})
        return str(finder.pinned(request, owner=owner, key="1").workflow)

    assert [pinned("poster"), pinned("poster@2"), pinned("poster@live")] == ["poster@1", "poster@2", "poster@1"]
    assert [pinned("poster", "bob"), pinned("private", "")] == ["shared/poster@1", "private@1"]
    assert [pinned("thumbnail"), pinned("sub/old")] == ["thumbnail@0", "sub/old@0"]
    with pytest.raises(InvalidRequest, match=r"inputs\.steps"):
        pinned("poster", inputs={"steps": "many"})
    with pytest.raises(InvalidRequest, match="there is no workflow"):
        pinned("secret")


def test_what_was_pinned_stays_what_it_was_when_the_owner_pushes_his_own(world: World) -> None:
    finder = world.finder()
    request = JobRequest.parse({"workflow": "common", "job_id": "1", "inputs": {"prompt": "x"}})
    pinned = finder.pinned(request, owner="carol", key="1")
    world.push("carol's", name="common", owner="carol")
    ran = finder.expand(pinned, owner="carol", key="1")
    assert isinstance(ran.workflow, dict)
    assert ran.workflow["6"]["inputs"]["text"] == "the operator's common"
    assert said(finder, "common", "carol") == "carol's"


def test_a_name_that_only_the_worker_s_image_may_have_is_left_to_it(world: World) -> None:
    finder = world.finder()
    for name in ("of-the-image", "sub/of-it", "[v2] x", "of-the-image@0"):
        request = JobRequest.parse({"workflow": name})
        assert finder.pinned(request, owner="alice", key="") is request
    for name in ("of-the-image@3", "of-the-image@staging", "shared/of-the-image"):
        with pytest.raises(InvalidRequest):
            finder.pinned(JobRequest.parse({"workflow": name}), owner="alice", key="")


def test_a_file_goes_to_the_input_for_it(world: World, folder: Path) -> None:
    finder, picture = world.finder(folder), "s3://input/images/x/fox.png"

    def given(name: str) -> tuple[Any, Any]:
        request = finder.with_file(name, picture, media="image", owner="alice", key="1")
        return request.workflow, request.inputs

    assert given("poster") == ("poster@1", {"photo": picture})
    assert given("common@live") == ("shared/common@1", {"photo": picture})
    assert given("thumbnail") == ("thumbnail@0", {"1.image": picture})
    with pytest.raises(InvalidRequest, match="no input for audio files"):
        finder.with_file("poster", "s3://input/images/x/a.wav", media="audio", owner="alice", key="1")
    with pytest.raises(InvalidRequest, match="there is no workflow"):
        finder.with_file("secret", picture, media="image", owner="alice", key="1")


def test_a_name_draws_if_any_version_that_it_may_mean_does(world: World) -> None:
    finder = world.finder()

    def draws(name: str, **more: Any) -> bool:
        return finder.draws(Question(workflow=name, **more), owner="alice")

    calm = {"3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 1}}}
    world.push(name="chance", graph=calm, inputs=())
    world.push(name="chance", graph={"3": {"class_type": "KSampler", "inputs": {"seed": -1, "steps": 1}}}, inputs=())
    assert (draws("chance"), draws("chance@2")) == (False, True)
    world.store.move("alice", "chance", "live", {1: 9, 2: 1}, by="")
    assert draws("chance")
    with pytest.raises(ComfyError):
        draws("secret")
