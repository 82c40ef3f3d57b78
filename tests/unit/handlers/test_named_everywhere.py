"""A workflow that a request names is the same at every door: its graph, its labels, and what is said of a mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from botocore.exceptions import EndpointConnectionError

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import ComfyError
from comfy_serverless.graph.inputs import InputKind, Role
from comfy_serverless.jobs.message import JobMessage
from comfy_serverless.jobs.request import JobRequest
from comfy_serverless.jobs.sources import SentRequest
from comfy_serverless.jobs.stored_request import StoredRequest
from comfy_serverless.settings import Settings
from comfy_serverless.worker.worker import Call, Worker
from comfy_serverless.workflows import reader
from comfy_serverless.workflows.finding import Finder
from comfy_serverless.workflows.folder import Folder
from comfy_serverless.workflows.version import NamedInput, Version
from tests.unit import editor_samples, request_doors
from tests.unit.api_world import ASSETS
from tests.unit.event_samples import s3_event
from tests.unit.fakes import FakeEngine, FakeInputs
from tests.unit.request_doors import ALL, DROPS, TEXTS, Doors, Seen, opened

POSTER: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "fox.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "steps": 20, "denoise": 1.0, "model": ["4", 0]}},
    "4": {"class_type": "Anything", "inputs": {"flag": False, "more": None, "size": 64, "copy": 64}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox"}, "_meta": {"title": "Prompt"}},
}
INPUTS = (
    NamedInput(name="prompt", targets=("6.text",), kind=InputKind.TEXT, role=Role.PROMPT, default="a fox"),
    NamedInput(name="photo", targets=("1.image",), kind=InputKind.FILE, role=Role.IMAGE, media="image"),
    NamedInput(name="seed", targets=("3.seed",), kind=InputKind.INTEGER, role=Role.SEED, default=7, minimum=0),
    NamedInput(name="denoise", targets=("3.denoise",), kind=InputKind.NUMBER, minimum=0, maximum=1, default=1.0),
    NamedInput(name="flag", targets=("4.flag",), kind=InputKind.BOOLEAN, default=False),
    NamedInput(name="more", targets=("4.more",), kind=InputKind.OTHER),
    NamedInput(name="size", targets=("4.size", "4.copy"), kind=InputKind.INTEGER, minimum=8, maximum=512, default=64),
)


def poster(name: str = "poster", *, owner: str = "", **changes: Any) -> Version:
    """A version of a named workflow, to be pushed."""
    return Version(**{"name": name, "number": 0, "owner": owner, "graph": POSTER, "inputs": INPUTS, **changes})


def with_values(**values: Any) -> dict[str, Any]:
    """Its graph with inputs set, named as `3__seed`."""
    graph: dict[str, Any] = json.loads(json.dumps(POSTER))
    for address, value in values.items():
        node_id, _, name = address.removeprefix("n").partition("__")
        graph[node_id]["inputs"][name] = value
    return graph


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """One world, with a workflow that the operator shares, and one that it keeps to itself."""
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "portrait.json").write_text(json.dumps(POSTER))
    (folder / "old").mkdir()
    (folder / "old" / "portrait.json").write_text(json.dumps(POSTER))
    with opened(folder) as made:
        store = made.api.services.workflows
        store.push(poster())
        store.share("poster")
        store.push(poster("hidden"))
        store.push(poster("theirs", owner="somebody-else"))
        store.push(poster("spy", graph=with_values(n1__image=f"s3://{ASSETS}/requests/team/x.png")))
        store.share("spy")
        yield made


LABELS = {"workflow": "poster", "version": "1"}

BASE64 = "iVBORw0KGgo" + "A" * 60

#: A request, its graph, and the files that the worker is to fetch.
REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "by its name alone": ({}, POSTER, {}),
    "a text": ({"prompt": "a red fox"}, with_values(n6__text="a red fox"), {}),
    "a text with blanks and quotes": ({"prompt": ' "a fox" '}, with_values(n6__text=' "a fox" '), {}),
    "a text that looks like a picture": ({"prompt": BASE64}, with_values(n6__text=BASE64), {}),
    "a text that is empty": ({"prompt": ""}, with_values(n6__text=""), {}),
    "letters beyond ASCII": ({"prompt": "Ünï 🦊"}, with_values(n6__text="Ünï 🦊"), {}),
    "a file": ({"photo": "s3://photos/fox.png"}, POSTER, {"1.image": "s3://photos/fox.png"}),
    "a file with blanks": ({"photo": " s3://photos/fox.png\n"}, POSTER, {"1.image": "s3://photos/fox.png"}),
    "a file with any name": ({"photo": "s3://photos/a b/ü %#?.png"}, POSTER, {"1.image": "s3://photos/a b/ü %#?.png"}),
    "the only one of a list": ({"photo": ["s3://photos/fox.png"]}, POSTER, {"1.image": "s3://photos/fox.png"}),
    "a number": ({"denoise": 0.5}, with_values(n3__denoise=0.5), {}),
    "a whole number as a fraction": ({"size": 128.0}, with_values(n4__size=128, n4__copy=128), {}),
    "true": ({"flag": True}, with_values(n4__flag=True), {}),
    "a list": ({"more": [1, [2, None], {"a": True}]}, with_values(n4__more=[1, [2, None], {"a": True}]), {}),
    "an object": ({"more": {"a": [1, None], "b": "s3"}}, with_values(n4__more={"a": [1, None], "b": "s3"}), {}),
    "null": ({"prompt": None, "size": 8}, with_values(n4__size=8, n4__copy=8), {}),
    "an address": ({"1.image": "s3://photos/a.png"}, POSTER, {"1.image": "s3://photos/a.png"}),
    "a class, and blanks": (
        {"LoadImage.image": " s3://photos/a.png"},
        POSTER,
        {"LoadImage.image": "s3://photos/a.png"},
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_inputs_by_name_make_the_same_graph_at_every_door(doors: Doors, name: str) -> None:
    inputs, graph, files = REQUESTS[name]
    sent = {"workflow": "poster", "inputs": inputs, "metadata": {"customer": "42"}}
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert not seen.code, (door, seen)
        assert (seen.graph, seen.inputs) == (graph, files), door
        assert seen.labels == {"customer": "42", **LABELS}, door


@pytest.mark.parametrize("reference", ["poster@1", "poster@v1", "poster@live"])
def test_a_version_and_an_alias_are_named_as_well(doors: Doors, reference: str) -> None:
    sent = {"workflow": reference, "inputs": {"prompt": "x"}, "set": {"KSampler.steps": 4}}
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert (seen.graph, seen.labels) == (with_values(n6__text="x", n3__steps=4), LABELS), (door, seen)


@pytest.mark.parametrize("name", ["portrait", "portrait.json", "old/portrait", "old/portrait.json"])
def test_a_file_of_the_image_is_version_0(doors: Doors, name: str) -> None:
    sent = {"workflow": name, "inputs": {"LoadImage.image": "s3://photos/a.png"}, "set": {"6.text": "x"}}
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert (seen.graph, seen.inputs) == (with_values(n6__text="x"), {"LoadImage.image": "s3://photos/a.png"}), door
        assert seen.labels == {"workflow": name.removesuffix(".json"), "version": "0"}, door


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no such workflow": ({"workflow": "postre"}, ("postre", "did you mean 'poster'")),
    "no such version": ({"workflow": "poster@7"}, ("no version 7",)),
    "no such alias": ({"workflow": "poster@staging"}, ("staging",)),
    "another owner's": ({"workflow": "theirs"}, ("there is no workflow 'theirs'",)),
    "no such input": ({"workflow": "poster", "inputs": {"promt": "x"}}, ("inputs.promt", "prompt")),
    "all at once": (
        {"workflow": "poster", "inputs": {"promt": 1, "size": 4, "flag": "yes", "denoise": 3}},
        ("inputs.promt", "inputs.size", "inputs.flag", "inputs.denoise"),
    ),
    "a number for a text": ({"workflow": "poster", "inputs": {"prompt": 5}}, ("inputs.prompt",)),
    "a file of others, by name": (
        {"workflow": "poster", "inputs": {"photo": f"s3://{ASSETS}/requests/other/fox.png"}},
        (ASSETS,),
    ),
    "a file of others within a value": (
        {"workflow": "poster", "inputs": {"more": {"a": [f"s3://{ASSETS}/requests/other/fox.png"]}}},
        (ASSETS,),
    ),
    "a file of others, as one of several": (
        {"workflow": "poster", "inputs": {"photo": ["s3://photos/a.png", f"s3://{ASSETS}/requests/other/fox.png"]}},
        (ASSETS,),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_at_every_door_with_the_same_words(doors: Doors, name: str) -> None:
    sent, words = MISTAKES[name]
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps(sent).encode())
        assert seen.code in ("invalid_request", "missing_asset"), (door, seen)
        assert all(word in seen.message for word in words), (door, seen.message)
        assert "somebody-else" not in seen.message, door


def test_what_a_shared_workflow_names_is_judged_as_the_callers(doors: Doors) -> None:
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps({"workflow": "spy"}).encode())
        if door == "manifest" and not seen.code:
            raise AssertionError("a line has run with a file of another owner")
        assert seen.code in ("invalid_request", "missing_asset"), (door, seen)


def test_who_keeps_a_workflow_to_himself_runs_it_alone(doors: Doors) -> None:
    """The operator's own: by its own doors, to the worker; by nobody else's."""
    sent = json.dumps({"workflow": "hidden"}).encode()
    theirs = ("drop", "manifest", "generate")
    for door in ALL:
        seen: Seen = getattr(doors, door)(sent)
        assert bool(seen.code) == (door in theirs), (door, seen)
        assert not seen.code or "there is no workflow 'hidden'" in seen.message, seen


def test_a_seed_of_minus_one_is_left_to_the_worker_which_says_what_it_drew(doors: Doors) -> None:
    for door in TEXTS:
        seen: Seen = getattr(doors, door)(json.dumps({"workflow": "poster", "inputs": {"seed": -1}}).encode())
        assert seen.graph["3"]["inputs"]["seed"] >= 0, (door, seen)


@pytest.mark.parametrize("door", ["direct", "sqs", "sagemaker", "drop_to_the_worker", "generate"])
def test_a_table_that_does_not_answer_refuses_nothing(doors: Doors, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise EndpointConnectionError(endpoint_url="http://table")

    monkeypatch.setattr(type(doors.api.services.workflows), "look", away)
    seen: Seen = getattr(doors, door)(json.dumps({"workflow": "poster"}).encode())
    assert seen.code in ("upstream_error", "missing_asset"), seen
    assert "does not answer" in seen.message


@pytest.mark.parametrize("door", ["drop", "manifest"])
def test_nor_of_what_is_dropped(doors: Doors, door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event, or the order to read, comes again."""

    def away(*_: object) -> Any:
        raise EndpointConnectionError(endpoint_url="http://table")

    with monkeypatch.context() as broken:
        broken.setattr(type(doors.api.services.workflows), "look", away)
        with pytest.raises((ComfyError, EndpointConnectionError)) as raised:
            getattr(doors, door)(json.dumps({"workflow": "poster", "inputs": {"prompt": door}}).encode())
    assert not isinstance(raised.value, ComfyError) or raised.value.retryable


@pytest.mark.parametrize("door", ALL)
def test_s3_that_does_not_hand_out_a_version_refuses_nothing_and_loses_nothing(
    doors: Doors, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sent it hears that it may be sent again, what came from a queue comes again; and then it runs."""
    name = f"unread_{door}"
    doors.api.services.workflows.push(poster(name))
    doors.api.services.workflows.share(name)
    sent = json.dumps({"workflow": name, "inputs": {"prompt": door}}).encode()

    def away(*_: object, **__: object) -> Any:
        raise EndpointConnectionError(endpoint_url=f"https://{ASSETS}.s3/workflows/operator/{name}/000001")

    with monkeypatch.context() as broken:
        broken.setattr(reader, "read_document", away)
        if door in ("drop", "manifest"):
            with pytest.raises(ComfyError) as raised:
                getattr(doors, door)(sent)
            assert raised.value.retryable
            message = raised.value.message
        else:
            seen: Seen = getattr(doors, door)(sent)
            assert seen.code in ("upstream_error", "missing_asset"), seen
            message = seen.message
    assert "cannot be read now: S3 does not answer" in message
    assert ASSETS not in message
    again: Seen = getattr(doors, door)(sent)
    assert (again.code, again.graph) == ("", with_values(n6__text=door)), again
    assert again.labels == {"workflow": name, "version": "1"}


def drop(doors: Doors, key: str) -> Seen:
    dropped = doors._put(key, b"picture")
    doors.drops.drop(dropped)
    return doors._of_queue(doors.api.job_queue_url) if not doors._refused(dropped) else doors._refusal(dropped)


@pytest.fixture(scope="module")
def media(doors: Doors) -> Doors:
    store = doors.api.services.workflows
    places = {"photo": ("1.image", "image"), "mask": ("4.flag", "image"), "clip": ("4.more", "video")}
    places |= {"sound": ("4.size", "audio"), "file": ("1.image", "")}

    def made(*names: str, required: str = "") -> tuple[NamedInput, ...]:
        return tuple(
            NamedInput(
                name=name,
                targets=(places[name][0],),
                kind=InputKind.FILE,
                media=places[name][1],
                is_required=name == required,
            )
            for name in names
        )

    for name, inputs in {
        "one": made("photo", "clip", "sound"),
        "required": made("mask", "photo", required="photo"),
        "two": made("photo", "mask"),
        "none": made("clip"),
        "any": made("file"),
    }.items():
        store.push(poster(name, inputs=inputs))
        store.share(name)
        store.move("", name, "staging", {1: 1}, by="me")
    return doors


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("images/one/fox.png", "1.image"),
        ("images/one@staging/deep/fox.JPG", "1.image"),
        ("images/one@1/fox.webp", "1.image"),
        ("images/one/clip.mp4", "4.more"),
        ("images/one/song.flac", "4.size"),
        ("images/required/fox.png", "1.image"),
        ("images/any/fox.png", "1.image"),
        ("images/any/what.bin", "1.image"),
        ("images/one/my fox (1) ü%20+?.png", "1.image"),
        ("images/portrait/fox.png", "1.image"),
    ],
)
def test_a_dropped_file_goes_to_the_input_for_its_kind(media: Doors, key: str, target: str) -> None:
    seen = drop(media, key)
    assert not seen.code, seen
    (place, address) = next(iter(seen.inputs.items()))
    assert place == target
    assert address.startswith(f"s3://{ASSETS}/requests/"), "a copy of what was dropped"
    name = key.split("/")[1].partition("@")[0]
    assert seen.labels == {"workflow": name, "version": "0" if name == "portrait" else "1"}
    media.s3.put_object(Bucket=DROPS, Key=key, Body=b"picture")
    straight = media._of_event(s3_event(quote_plus(key, safe="/"), bucket=DROPS))
    assert straight.inputs == {target: f"s3://{DROPS}/{key}"}
    assert straight.labels == seen.labels


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("images/two/fox.png", "2 inputs for image files (photo, mask)"),
        ("images/none/fox.png", "no input for image files"),
        ("images/one/model.glb", "no input for model3d files"),
        ("images/one@prod/fox.png", "prod"),
        ("images/nowhere/fox.png", "there is no workflow 'nowhere'"),
        ("images/theirs/fox.png", "there is no workflow 'theirs'"),
    ],
)
def test_a_dropped_file_without_a_place_becomes_a_job_that_says_why(media: Doors, key: str, words: str) -> None:
    seen = drop(media, key)
    assert (seen.code, words in seen.message) == ("invalid_request", True), seen


def test_what_an_older_release_has_stored_by_its_name_is_run(doors: Doors) -> None:
    """Its ingest has left the name to the worker."""
    request = JobRequest.parse(
        {"job_id": "older-1", "workflow": "portrait", "inputs": {"1.image": "s3://photos/a.png"}}
    )
    message = JobMessage(
        job_id="older-1",
        address=S3Address(ASSETS, "requests/drops/older-1.json"),
        owner="drops",
        content=StoredRequest(request, request.workflow).in_message() or {},
    )
    seen = doors._seen(doors.worker.run(message, Call()))
    assert (seen.graph, seen.inputs) == (POSTER, {"1.image": "s3://photos/a.png"})


def test_a_job_that_fails_says_what_it_was_to_run_and_a_warning_is_said_once(doors: Doors) -> None:
    sent = {"job_id": "bad-set", "workflow": "poster", "set": {"99.x": 1}, "metadata": {"version": "mine"}}
    outcome = doors.worker.run(SentRequest(payload=sent, default_id="x"), Call())
    assert outcome.error is not None
    assert outcome.job.metadata == LABELS
    good = {"workflow": "poster", "metadata": {"version": "mine"}}
    for door in ALL:
        seen: Seen = getattr(doors, door)(json.dumps(good).encode())
        assert seen.labels == LABELS, door
        assert len([one for one in seen.warnings if "'version'" in one]) == 1, (door, seen.warnings)


def test_a_worker_without_a_table_has_the_files_of_its_image_alone(doors: Doors) -> None:
    folder = doors.api.services.settings.workflows_dir
    bare = Worker(
        settings=Settings(workflows_dir=folder),
        engine=doors.engine,
        s3=doors.s3,
        inputs=doors.inputs,
        named=Finder(None, folder, lambda: None),
    )
    for name, is_there in (("portrait", True), ("poster", False), ("portrait@1", False)):
        outcome = bare.run(SentRequest(payload={"workflow": name}, default_id=name[:8]), Call())
        outcome.release()
        assert (outcome.error.code if outcome.error else None) == (None if is_there else "invalid_request"), name
    bare.close()


def test_a_file_of_the_editors_has_its_inputs_once_the_engine_has_declared_its_nodes(
    doors: Doors, tmp_path: Path
) -> None:
    (tmp_path / "saved.json").write_text(json.dumps(request_doors.SAVED), encoding="utf-8")
    asked: list[object] = []

    def declared() -> Any:
        asked.append(None)
        return worker.declarations.read_already()

    worker = Worker(
        settings=Settings(workflows_dir=tmp_path),
        engine=FakeEngine(declares=editor_samples.OBJECT_INFO),
        s3=doors.s3,
        inputs=FakeInputs(),
        named=Finder(None, tmp_path, declared),
    )
    found = Folder(tmp_path).version("saved", editor_samples.OBJECT_INFO)
    assert found is not None
    width = next(one for one in found.inputs if one.targets == ("1.width",))
    sent = {"workflow": "saved", "inputs": {width.name: 24}}
    outcome = worker.run(SentRequest(payload=sent, default_id="a"), Call())
    outcome.release()
    assert outcome.error is None, outcome.error
    assert worker._engine.runs[-1]["workflow"]["1"]["inputs"]["width"] == 24  # type: ignore[attr-defined]
    outcome = worker.run(SentRequest(payload={**sent, "inputs": {"heigth": 1}}, default_id="b"), Call())
    assert outcome.error is not None
    assert outcome.error.code == "invalid_request"
    worker.close()
