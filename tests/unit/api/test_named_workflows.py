"""Named workflows over HTTP: pushed in any format, shown, listed, moved, retired; each owner for itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.jobs.declarations import DeclarationsWriter
from comfy_serverless.workflows.version import Version
from tests.unit.api_world import ASSETS, RESULTS, ApiWorld, api_world
from tests.unit.editor_samples import OBJECT_INFO, PLAIN, PLAIN_GRAPH, link_in, link_out, node, saved
from tests.unit.embedded_files import png_by_pillow
from tests.unit.named_world import GRAPH, problems, push, run

LIST = "/api/v2/workflows"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiWorld]:
    with api_world(monkeypatch) as world:
        yield world


@pytest.fixture
def told(api: ApiWorld) -> ApiWorld:
    """The API of workers that have told what they have."""
    DeclarationsWriter(api.s3, ASSETS, "nodes").write(OBJECT_INFO)
    return api


def shared(api: ApiWorld, name: str = "poster", *, is_shared: bool = True) -> None:
    """A workflow of the operator's."""
    api.services.workflows.push(Version(name=name, number=0, owner="", graph=GRAPH, description="The operator's."))
    api.services.workflows.share(name, is_shared)


def test_a_first_push_is_version_1_and_live(api: ApiWorld) -> None:
    answer = push(api, description="A poster.", note="first")
    assert answer.status == 201, answer.text
    assert (answer.json["version"], answer.json["is_new"]) == (1, True)
    assert answer.json["aliases"] == {"live": {"weights": {"1": 1}}}
    assert [one["name"] for one in answer.json["inputs"]] == ["color", "width"]
    assert answer.json["schema"]["properties"].keys() == {"color", "width"}

    shown = api.request("GET", f"{LIST}/poster").json
    assert (shown["version"], shown["source"], shown["description"]) == (1, "own", "A poster.")
    assert shown["schema"]["additionalProperties"] is False
    assert run(api, shown["example"]).status == 201


def test_a_later_push_moves_nothing_unless_it_says_so(api: ApiWorld) -> None:
    push(api)
    second = push(api, description="another")
    assert (second.json["version"], second.json["aliases"]) == (2, {"live": {"weights": {"1": 1}}})
    third = push(api, description="a third", alias="staging")
    assert third.json["aliases"]["staging"] == {"weights": {"3": 1}}
    assert third.json["aliases"]["live"] == {"weights": {"1": 1}}


def test_the_same_content_again_is_no_new_version(api: ApiWorld) -> None:
    push(api)
    again = push(api, note="said otherwise")
    assert (again.status, again.json["version"], again.json["is_new"]) == (200, 1, False)


def test_a_push_may_expect_what_is_there(api: ApiWorld) -> None:
    assert push(api, expected=0).status == 201
    late = push(api, expected=0, description="another")
    assert (late.status, late.code) == (409, "workflow_changed")
    assert push(api, expected=1, description="another").json["version"] == 2
    assert push(api, expected=-1).status == 422


def editors_picture() -> dict[str, Any]:
    return {"prompt": PLAIN_GRAPH, "workflow": PLAIN}


@pytest.mark.parametrize(
    "body",
    [
        {"workflow": GRAPH},
        GRAPH,
        {"prompt": GRAPH, "client_id": "me", "extra_data": {"client_id": "me"}},
        {"workflow": json.dumps(GRAPH)},
        {"workflow": {"prompt": GRAPH}},
        {"input": {"workflow": GRAPH}},
        [{"workflow": GRAPH}],
        {"output": GRAPH, "workflow": PLAIN},
        {"prompt": GRAPH, "workflow": PLAIN},
        {"prompt": [5, "id", GRAPH, {}, ["2"]], "outputs": {}, "status": {}},
        {"abc": {"prompt": [5, "id", GRAPH, {}, ["2"]], "outputs": {}}},
    ],
    ids=[
        "plain",
        "bare",
        "prompt",
        "text",
        "nested",
        "envelope",
        "list",
        "graphToPrompt",
        "picture",
        "entry",
        "history",
    ],
)
def test_a_graph_is_pushed_in_any_wrapper(api: ApiWorld, body: object) -> None:
    answer = api.request("PUT", f"{LIST}/poster", body=body)
    assert answer.status == 201, answer.text
    version = api.request("GET", f"{LIST}/poster/versions/1").json
    assert {node_id: node["inputs"] for node_id, node in version["workflow"].items()} == {
        node_id: node["inputs"] for node_id, node in GRAPH.items()
    }


@pytest.mark.parametrize("body", [{"workflow": PLAIN}, PLAIN, {"workflow": json.dumps(PLAIN)}, editors_picture()])
def test_what_the_editor_saved_is_converted_and_goes_into_pictures(told: ApiWorld, body: object) -> None:
    answer = told.request("PUT", f"{LIST}/poster", body=body)
    assert answer.status == 201, answer.text
    version = told.request("GET", f"{LIST}/poster/versions/1").json
    assert {node["class_type"] for node in version["workflow"].values()} == {
        node["class_type"] for node in PLAIN_GRAPH.values()
    }
    assert version["editors"]["nodes"]


def test_a_large_workflow_of_the_editor_may_stand_beside_a_graph(api: ApiWorld) -> None:
    large = {**PLAIN, "extra": {"notes": "x" * 600_000}}
    answer = api.request("PUT", f"{LIST}/poster", body={"prompt": GRAPH, "workflow": large})
    assert answer.status == 201, answer.text
    assert api.request("GET", f"{LIST}/poster/versions/1").json["editors"]["extra"] == large["extra"]


def test_a_picture_in_s3_brings_its_workflow(api: ApiWorld) -> None:
    key = "owners/team/1/9/fox.png"
    content = png_by_pillow(prompt=json.dumps(GRAPH), workflow=json.dumps(PLAIN))
    api.s3.put_object(Bucket=RESULTS, Key=key, Body=content)
    answer = push(api, workflow=f"s3://{RESULTS}/{key}")
    assert answer.status == 201, answer.text
    version = api.request("GET", f"{LIST}/poster/versions/1").json
    assert (version["workflow"], version["editors"]["nodes"]) == (GRAPH, PLAIN["nodes"])


def odd_of_editor() -> dict[str, Any]:
    """A workflow of the editor with a node of a class that no worker has, whose values the file names."""
    one = node(1, "Odd", ["a fox", 7], [], [link_out([7])], properties={"cnr_id": "odd-nodes", "ver": "1.2"})
    one["widgets_values_named"] = {"text": "a fox", "seed": 7}
    return saved([one, node(2, "SaveImage", ["x"], [link_in("images", 7)])], [[7, 1, 0, 2, 0, "IMAGE"]])


def test_a_dry_run_shows_what_a_file_says_of_classes_that_no_worker_has(told: ApiWorld) -> None:
    refused = push(told, workflow=odd_of_editor(), inputs=None)
    assert (refused.status, refused.code) == (422, "workflow_format_ui")

    seen = push(told, workflow=odd_of_editor(), inputs=None, dry_run=True)
    assert seen.status == 200, seen.text
    assert [one["name"] for one in seen.json["inputs"]] == ["text", "seed"]
    assert {one["is_guessed"] for one in seen.json["inputs"]} == {True}
    assert seen.json["schema"]["properties"]["text"]["default"] == "a fox"
    assert any(
        "nobody has declared the class 'Odd' (node 1, of the pack odd-nodes 1.2)" in n for n in seen.json["notes"]
    )
    missing = [one for one in seen.json["findings"] if one["severity"] == "breaks"]
    assert [(one["class_type"], one["node_id"]) for one in missing] == [("Odd", "1")]
    assert told.request("GET", LIST).json["workflows"] == []


def test_a_dry_run_of_what_the_editor_saved_waits_for_nobody(api: ApiWorld) -> None:
    seen = push(api, workflow=odd_of_editor(), inputs=None, dry_run=True)
    assert seen.status == 200, seen.text
    assert [one["name"] for one in seen.json["inputs"]] == ["text", "seed"]
    assert any("no worker has told yet which nodes it has" in note for note in seen.json["notes"])
    assert [one["severity"] for one in seen.json["findings"]] == ["warns"]


def test_what_the_editor_saved_waits_for_somebody_to_tell_the_nodes(api: ApiWorld) -> None:
    answer = api.request("PUT", f"{LIST}/poster", body={"workflow": PLAIN})
    assert (answer.status, answer.code) == (503, "engine_unavailable")
    assert api.request("GET", f"{LIST}/poster").status == 404


def test_a_workflow_is_pushed_by_its_address(api: ApiWorld) -> None:
    key = "owners/team/mine.json"
    api.s3.put_object(Bucket=RESULTS, Key=key, Body=json.dumps({"prompt": GRAPH}).encode())
    assert push(api, workflow=f"s3://{RESULTS}/{key}").status == 201


@pytest.mark.parametrize("address", [f"s3://{RESULTS}/owners/other/a.json", f"s3://{ASSETS}/workflows/owners/x/y.json"])
def test_no_address_of_anothers_is_read(api: ApiWorld, address: str) -> None:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    api.s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(GRAPH).encode())
    assert push(api, workflow=address).code == "missing_asset"
    graph = {**GRAPH, "3": {"class_type": "LoadImage", "inputs": {"image": address}}}
    assert push(api, workflow=graph).code == "missing_asset"


def test_null_chooses_what_is_found_and_the_editors_names_are_addresses(told: ApiWorld) -> None:
    found = {one["name"]: one["targets"] for one in push(told, dry_run=True, inputs=None).json["inputs"]}
    name, targets = next(iter(found.items()))
    answer = push(told, inputs={name: None, "mine": "1.color"})
    assert answer.status == 201, answer.text
    assert {one["name"]: one["targets"] for one in answer.json["inputs"]} == {name: targets, "mine": ["1.color"]}
    assert answer.json["notes"] == []
    titled = told.request("PUT", f"{LIST}/saved", body={"workflow": PLAIN, "inputs": {"shade": "The canvas.color"}})
    assert titled.status == 201, titled.text


def test_all_wrong_choices_are_named_at_once(api: ApiWorld) -> None:
    told = problems(push(api, inputs={"a": "9.color", "b": "1.colour", "no name": "1.width"}, outputs={"c": "77"}))
    assert len(told) == 4
    assert len(problems(push(api, inputs={"a": 5, "b": {"target": [], "minimum": "x"}, "c": None}))) >= 3


def test_a_dry_run_writes_nothing_and_shows_the_proposal_beside_what_is_wrong(api: ApiWorld) -> None:
    answer = push(api, inputs={"a": "1.colour"}, dry_run=True)
    assert answer.status == 200, answer.text
    assert "version" not in answer.json
    assert answer.json["problems"]
    assert answer.json["proposal"]["inputs"]
    good = push(api, dry_run=True, note="x")
    assert (good.status, good.json["problems"]) == (200, [])
    assert [one["name"] for one in good.json["inputs"]] == ["color", "width"]
    assert api.request("GET", f"{LIST}/poster").status == 404


def test_keys_for_partner_nodes_are_kept_nowhere(api: ApiWorld) -> None:
    answer = push(api, extra_data={"api_key_comfy_org": "secret-key", "extra_pnginfo": {"workflow": PLAIN, "mine": 1}})
    assert answer.status == 201, answer.text
    assert any("api_key_comfy_org" in note and "mine" in note for note in answer.json["notes"])
    for item in api.s3.list_objects_v2(Bucket=ASSETS, Prefix="workflows/")["Contents"]:
        assert b"secret-key" not in api.s3.get_object(Bucket=ASSETS, Key=item["Key"])["Body"].read()


def test_a_version_is_kept_by_its_reader(api: ApiWorld) -> None:
    push(api, note="first")
    answer = api.request("GET", f"{LIST}/poster/versions/1")
    assert answer.headers["cache-control"] == "private, no-cache"
    again = api.request("GET", f"{LIST}/poster/versions/1", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status, again.text) == (304, "")
    assert answer.json["workflow"] == GRAPH
    assert (answer.json["note"], answer.json["created_by"]) == ("first", "key-1")


def test_versions_are_listed_newest_first_in_pages(api: ApiWorld) -> None:
    for number in range(5):
        push(api, description=f"version {number + 1}", note=f"note {number + 1}")
    api.request("POST", f"{LIST}/poster/alias", body={"alias": "live", "weights": {"2": 90, "5": 10}})
    page = api.request("GET", f"{LIST}/poster/versions?limit=3").json
    assert [(one["number"], one["aliases"]) for one in page["versions"]] == [(5, ["live"]), (4, []), (3, [])]
    rest = api.request("GET", f"{LIST}/poster/versions?limit=3&cursor={page['next_cursor']}").json
    assert [(one["number"], one["note"]) for one in rest["versions"]] == [(2, "note 2"), (1, "note 1")]
    assert "next_cursor" not in rest
    for cursor in ("x", "0", "-1", "²"):
        assert api.request("GET", f"{LIST}/poster/versions?cursor={cursor}").code == "invalid_cursor"


def test_an_alias_moves_to_a_version_to_weights_and_back(api: ApiWorld) -> None:
    for number in (1, 2):
        push(api, description=f"version {number}")

    def move(**body: Any) -> Any:
        return api.request("POST", f"{LIST}/poster/alias", body={"alias": "live", **body})

    assert move(version=2).json["aliases"] == {"live": {"weights": {"2": 1}}}
    assert move(rollback=True).json["aliases"] == {"live": {"weights": {"1": 1}}}
    assert move(weights={"1": 90, "2": 10}).json["aliases"] == {"live": {"weights": {"1": 90, "2": 10}}}
    shown = api.request("GET", f"{LIST}/poster").json
    assert (shown["version"], shown["history"][0]["by"]) == (1, "key-1")
    assert api.request("GET", f"{LIST}/poster?version=2").json["version"] == 2
    stale = move(version=2, expected={"1": 1})
    assert (stale.status, stale.code) == (409, "workflow_changed")
    assert move(version=2, expected={"1": 90, "2": 10}).status == 200
    assert move(version=7).status == 404
    refused: tuple[dict[str, Any], ...] = (
        {},
        {"version": 1, "rollback": True},
        {"weights": {"x": 1}},
        {"weights": {}},
        {"weights": {"1": -1}},
    )
    for wrong in refused:
        answer = move(**wrong)
        assert (answer.status, answer.code) == (422, "invalid_request"), wrong


def test_a_retired_workflow_is_gone_until_it_is_pushed_again(api: ApiWorld) -> None:
    push(api)
    assert api.request("DELETE", f"{LIST}/poster").status == 204
    for method, path in (("GET", ""), ("GET", "/versions"), ("GET", "/versions/1"), ("DELETE", "")):
        assert api.request(method, f"{LIST}/poster{path}").status == 404, path
    assert run(api).status == 404
    assert api.request("POST", f"{LIST}/poster/alias", body={"alias": "live", "version": 1}).status == 404
    assert api.request("GET", LIST).json == {"workflows": []}
    assert push(api).status == 200
    assert run(api).status == 201


def test_another_owners_workflow_is_not_there(api: ApiWorld) -> None:
    push(api, "posters", owner="other")
    push(api, "mine")
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/versions", None),
        ("GET", "/versions/1", None),
        ("DELETE", "", None),
        ("POST", "/alias", {"alias": "live", "version": 1}),
        ("POST", "/runs", {}),
    ):
        answers = [api.request(method, f"{LIST}/{name}{path}", body=body) for name in ("posters", "nowhere")]
        assert {answer.status for answer in answers} == {404}, path
        assert answers[0].text == answers[1].text.replace("nowhere", "posters")
    near = run(api, name="poster").json["error"]["message"]
    assert "posters" not in near
    assert [one["name"] for one in api.request("GET", LIST).json["workflows"]] == ["mine"]
    assert push(api, "posters").json["version"] == 1, "names of owners are apart"


def test_what_the_operator_shares_is_run_and_never_written(api: ApiWorld) -> None:
    shared(api)
    shared(api, "secret", is_shared=False)
    assert [(one["name"], one["source"]) for one in api.request("GET", LIST).json["workflows"]] == [
        ("poster", "operator")
    ]
    assert run(api).status == 201
    shown = api.request("GET", f"{LIST}/poster").json
    assert "history" not in shown or shown["history"] == []
    assert api.request("GET", f"{LIST}/poster/versions").json["versions"][0]["number"] == 1
    assert api.request("DELETE", f"{LIST}/poster").status == 404
    assert api.request("POST", f"{LIST}/poster/alias", body={"alias": "live", "version": 1}).status == 404
    for path in ("", "/versions", "/versions/1"):
        assert api.request("GET", f"{LIST}/secret{path}").status == 404
    assert run(api, name="secret").status == 404
    own = push(api)
    assert (own.status, own.json["version"]) == (201, 1)
    assert [(one["name"], one["source"]) for one in api.request("GET", LIST).json["workflows"]] == [("poster", "own")]
    head = api.services.workflows.head("", "poster")
    assert head is not None
    assert head.latest == 1


def test_workflows_are_listed_by_name_in_pages(api: ApiWorld) -> None:
    for name in ("d", "b"):
        push(api, name)
    for name in ("a", "b", "c"):
        shared(api, name)
    names, cursor = [], ""
    while True:
        page = api.request("GET", f"{LIST}?limit=2{cursor and f'&cursor={cursor}'}").json
        names += [(one["name"], one["source"]) for one in page["workflows"]]
        if (cursor := page.get("next_cursor", "")) == "":
            break
    assert names == [("a", "operator"), ("b", "own"), ("c", "operator"), ("d", "own")]
    assert api.request("GET", f"{LIST}?cursor=%23x").code == "invalid_cursor"


def test_a_body_in_base64_is_read_as_any_other(api: ApiWorld) -> None:
    body = json.dumps({"workflow": GRAPH}).encode()
    assert api.request("PUT", f"{LIST}/poster", body=body, headers={"content-type": "application/json"}).status == 201


def test_an_alias_is_dropped_and_nothing_else(api: ApiWorld) -> None:
    push(api)
    api.request("POST", f"{LIST}/poster/alias", body={"alias": "staging", "version": 1})
    dropped = api.request("DELETE", f"{LIST}/poster/alias/staging")
    assert (dropped.status, dropped.json["aliases"]) == (200, {"live": {"weights": {"1": 1}}})
    assert run(api, query="alias=staging").status == 404
    assert run(api).status == 201
    assert api.request("GET", f"{LIST}/poster").json["history"][0]["weights"] == {}
    for gone in ("poster/alias/staging", "poster/alias/liv", "nobodys/alias/live"):
        assert api.request("DELETE", f"{LIST}/{gone}").status == 404
    api.request("DELETE", f"{LIST}/poster/alias/live")
    assert run(api).status == 404
    assert run(api, query="version=1").status == 201


def test_no_alias_of_anothers_is_dropped(api: ApiWorld) -> None:
    shared(api)
    api.services.workflows.push(Version(name="theirs", number=0, owner="bob", graph=GRAPH))
    answers = [api.request("DELETE", f"{LIST}/{name}/alias/live") for name in ("poster", "theirs", "nobodys")]
    assert [one.status for one in answers] == [404, 404, 404]
    for owner, name in (("bob", "theirs"), ("", "poster")):
        head = api.services.workflows.head(owner, name)
        assert head is not None
        assert head.aliases


def test_source_means_the_operators_whatever_the_owner_has(api: ApiWorld) -> None:
    shared(api)
    shared(api, "secret", is_shared=False)
    push(api, description="mine")
    assert api.request("GET", f"{LIST}/poster").json["description"] == "mine"
    assert api.request("GET", f"{LIST}/poster?source=operator").json["description"] == "The operator's."
    versions = f"{LIST}/poster/versions"
    assert api.request("GET", f"{versions}/1").json["description"] == "mine"
    assert api.request("GET", f"{versions}/1?source=operator").json["description"] == "The operator's."
    rows = {owner: api.services.workflows.versions(owner, "poster") for owner in ("team", "")}
    for query, owner in (("", "team"), ("?source=operator", "")):
        told = api.request("GET", f"{versions}{query}").json["versions"]
        assert [one["sha256"] for one in told] == [row.sha256 for row in rows[owner]]
    for path in (versions, f"{versions}/1"):
        assert api.request("GET", f"{path}?source=image").status in {404, 422}, path
    ran = [run(api, query=query) for query in ("", "source=operator", "source=operator&version=1")]
    assert [one.status for one in ran] == [201, 201, 201]
    for name in ("secret", "nobodys"):
        assert api.request("GET", f"{LIST}/{name}?source=operator").status == 404
        assert run(api, name=name, query="source=operator").status == 404
    assert api.request("GET", f"{LIST}/poster?source=bob").status == 422
    assert api.request("GET", f"{LIST}/poster?source=image").status == 404
