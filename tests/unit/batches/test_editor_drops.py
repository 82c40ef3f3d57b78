"""What the editor saved, dropped: as a request, with a place in our buckets, and as what an image is dropped for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_serverless.aws.s3 import S3Address
from comfy_serverless.errors import InvalidRequest
from comfy_serverless.jobs.sources import DroppedObject
from comfy_serverless.settings import Settings
from tests.unit.api_world import ASSETS, RESULTS, api_world
from tests.unit.editor_samples import plain, with_loader
from tests.unit.fakes import files_in
from tests.unit.request_doors import Doors, Seen

NO_CLIENT: Any = None


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("workflows")
    with pytest.MonkeyPatch.context() as patch, api_world(patch, workflows_dir=folder) as api:
        yield Doors(api, patch, folder)


def dropped(doors: Doors, workflow: dict[str, Any]) -> dict[str, Seen]:
    content = json.dumps(workflow).encode()
    return {door: getattr(doors, door)(content) for door in ("drop", "drop_to_the_worker", "manifest")}


@pytest.mark.parametrize("place", [f"s3://{RESULTS}/poster-1/9/fox.png", "s3://photos/fox.png"])
def test_results_of_the_operators_own_jobs_and_other_buckets_may_be_named(doors: Doors, place: str) -> None:
    for door, seen in dropped(doors, with_loader(place)).items():
        assert (seen.code, door) == ("", door), seen
        assert seen.graph["1"]["inputs"]["image"] == place


@pytest.mark.parametrize("place", [f"s3://{ASSETS}/blake3/abc", f"s3://{RESULTS}/owners/ana/run-1/9/fox.png"])
def test_places_of_the_api_may_not(doors: Doors, place: str) -> None:
    for seen in dropped(doors, with_loader(place)).values():
        assert seen.code in ("invalid_request", "missing_asset"), seen


def image_for(folder: Path, workflow: dict[str, Any]) -> Any:
    (folder / "poster.json").write_text(json.dumps(workflow))
    drop = DroppedObject(address=S3Address("drops", "images/poster/Fox.png"), version="1")
    return drop.read(s3=NO_CLIENT, settings=Settings(output_bucket=RESULTS), named=files_in(folder))


def test_an_image_goes_to_the_one_loader_of_a_named_workflow(tmp_path: Path) -> None:
    request = image_for(tmp_path, with_loader())
    (address,) = request.inputs
    assert (request.workflow, address.rpartition(".")[2]) == ("poster@0", "image")


def test_a_muted_loader_is_none(tmp_path: Path) -> None:
    workflow = with_loader()
    second = {**workflow["nodes"][0], "id": 9, "mode": 2}
    workflow["nodes"].append(second)
    assert len(image_for(tmp_path, workflow).inputs) == 1


def test_where_no_loader_or_several_are_it_is_refused(tmp_path: Path) -> None:
    workflow = with_loader()
    workflow["nodes"].append({**workflow["nodes"][0], "id": 9})
    for wrong, count in ((workflow, 2), (plain(), 0)):
        with pytest.raises(InvalidRequest, match=f"has {count} LoadImage nodes"):
            image_for(tmp_path, wrong)
