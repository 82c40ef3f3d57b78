"""`POST /generate` with the name of a workflow; and the workflow behind a job that came by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api_world import ApiWorld, api_world
from tests.unit.handlers.test_named_everywhere import POSTER, poster, with_values

LABELS = {"workflow": "poster", "version": "1"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ApiWorld]:
    monkeypatch.setattr("comfy_serverless.api.jobs.ANSWER_RESERVE_S", 1e6)  # nobody waits
    (tmp_path / "portrait.json").write_text(json.dumps(POSTER), encoding="utf-8")
    with api_world(monkeypatch, workflows_dir=tmp_path) as made:
        made.services.workflows.push(poster(owner="team"))
        yield made


def generate(api: ApiWorld, owner: str = "team", headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return api.request("POST", "/generate", body={"workflow": "poster", **fields}, owner=owner, headers=headers)


def test_the_job_has_the_graph_the_values_and_the_labels(api: ApiWorld) -> None:
    answer = generate(api, inputs={"prompt": "a red fox", "size": 8}, metadata={"customer": "42"})
    assert answer.status == 202
    assert answer.json["metadata"] == {"customer": "42", **LABELS}
    (message,) = api.messages()
    assert message["content"]["request"]["workflow"] == with_values(n6__text="a red fox", n4__size=8, n4__copy=8)
    assert "version" not in message["content"], "workers of every release can run it"
    shown = api.request("GET", f"/api/v2/jobs/{answer.json['id']}/workflow").json
    assert shown == {"workflow": message["content"]["request"]["workflow"], "format": "api"}


def test_a_request_that_is_sent_again_finds_its_job_whatever_has_become_of_the_name(api: ApiWorld) -> None:
    first = generate(api, job_id="fox-1")
    api.services.workflows.retire("team", "poster")
    again = generate(api, job_id="fox-1")
    assert (again.status, again.json["id"]) == (202, first.json["id"])
    assert generate(api, job_id="fox-2").status == 422
    assert generate(api).status == 422
    assert generate(api, owner="other", job_id="fox-1").status == 422, "and nobody hears whose it is"


def test_the_same_idempotency_key_gets_the_same_version(api: ApiWorld) -> None:
    store = api.services.workflows
    store.push(poster(owner="team", graph=with_values(n3__steps=4)))
    store.move("team", "poster", "live", {1: 50, 2: 50}, by="me")
    seen = {}
    for key in map(str, range(20)):
        seen[key] = generate(api, headers={"Idempotency-Key": f"a-{key}"}).json["metadata"]["version"]
        expected = api.services.named.find("poster", owner="team", key=f"a-{key}").number
        assert seen[key] == str(expected)
    assert set(seen.values()) == {"1", "2"}


def test_problems_are_told_at_once_and_nothing_is_queued(api: ApiWorld) -> None:
    answer = generate(api, inputs={"promt": "x", "size": 4, "flag": "yes"})
    assert (answer.status, answer.code) == (422, "invalid_request")
    fields = {one["field"] for one in answer.json["error"]["details"]["errors"]}
    assert fields == {"inputs.promt", "inputs.size", "inputs.flag"}
    assert api.messages() == []


def test_an_owner_sees_no_other_owners_and_hides_the_operators(api: ApiWorld) -> None:
    assert generate(api, owner="other").status == 422
    store = api.services.workflows
    store.push(poster(graph=with_values(n3__steps=9)))
    store.share("poster")
    assert generate(api, owner="other").status == 202
    assert generate(api).status == 202
    steps = [message["content"]["request"]["workflow"]["3"]["inputs"]["steps"] for message in api.messages()]
    assert sorted(steps) == [9, 20]
    assert sorted(message["owner"] for message in api.messages()) == []


def test_what_is_retired_or_shared_no_more_is_refused_by_its_number_too(api: ApiWorld) -> None:
    store = api.services.workflows
    store.push(poster(graph=with_values(n3__steps=9)))
    store.share("poster")
    numbered = {"workflow": "shared/poster@1"}
    assert api.request("POST", "/generate", body=numbered, owner="other").status == 202
    store.share("poster", False)
    assert api.request("POST", "/generate", body=numbered, owner="other").status == 422
    store.retire("team", "poster")
    assert api.request("POST", "/generate", body={"workflow": "poster@1"}, owner="team").status == 422
    assert len(api.messages()) == 1


def test_a_file_of_the_image_is_found_by_address_and_has_its_labels(api: ApiWorld) -> None:
    answer = api.request("POST", "/generate", body={"workflow": "portrait", "set": {"KSampler.steps": 3}})
    assert answer.json["metadata"] == {"workflow": "portrait", "version": "0"}


@pytest.mark.parametrize("count", [47, 48, 50])
def test_labels_of_the_caller_are_kept_as_far_as_there_is_room(api: ApiWorld, count: int) -> None:
    labels = {str(number): "x" for number in range(count)}
    answer = generate(api, metadata=labels)
    assert answer.status == (202 if count <= 48 else 422)
    if answer.status == 202:
        assert answer.json["metadata"] == {**labels, **LABELS}
