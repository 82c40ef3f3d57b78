"""Assets in workflows: references and names of uploaded files become addresses that the worker fetches."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from comfy_serverless.errors import MissingAsset
from comfy_serverless.jobs.references import (
    MAX_ASSETS,
    known_files,
    refuse_foreign_addresses,
    resolve_assets,
    uploaded_inputs,
)
from comfy_serverless.table.asset_item import Asset
from comfy_serverless.table.asset_names import digest_of
from comfy_serverless.table.assets import AssetStore, Naming
from comfy_serverless.worker.inputs.plan import plan_inputs, put_name
from tests.unit.jobs_table import REGION, aws, create_table

BUCKET, RESULTS = "assets-bucket", "results-bucket"


@pytest.fixture(scope="module")
def assets() -> Iterator[AssetStore]:
    with aws() as session:
        table, _ = create_table(session)
        s3 = session.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield AssetStore(table, s3, bucket=BUCKET)


@pytest.fixture
def owner() -> str:
    return f"team-{uuid.uuid4().hex[:8]}"


def store(assets: AssetStore, owner: str, name: str = "photo.png") -> Asset:
    content = uuid.uuid4().bytes
    return assets.store(owner, io.BytesIO(content), digest_of(io.BytesIO(content)), Naming(file_path=name))


def reference(asset_id: object, **info: object) -> dict[str, Any]:
    return {"__type": "core/ASSET", "info": {"id": asset_id, **info}}


def graph(class_type: str = "LoadImage", **inputs: Any) -> dict[str, Any]:
    return {"10": {"class_type": class_type, "inputs": inputs}}


def origins(graph: dict[str, Any], inputs: dict[str, Any]) -> list[object]:
    """What a worker would fetch."""
    return [wanted.asset.origin for wanted in plan_inputs(graph, inputs).wanted]


def test_a_reference_in_a_file_input_becomes_the_address_of_the_bytes(assets: AssetStore, owner: str) -> None:
    asset = store(assets, owner)
    given = graph(image=reference(asset.id, hash=asset.hash, file_path="photo.png"))
    resolved = resolve_assets(given, owner=owner, assets=assets)
    assert resolved.graph["10"]["inputs"] == {"image": str(asset.address)}
    assert str(asset.address).startswith(f"s3://{BUCKET}/blobs/{owner}/")
    assert str(asset.address).endswith(".png")
    assert given["10"]["inputs"]["image"]["info"]["id"] == asset.id
    assert origins(resolved.graph, resolved.inputs) == [str(asset.address)]


def test_a_reference_in_an_input_that_is_not_known_to_take_files_is_fetched_all_the_same(
    assets: AssetStore, owner: str
) -> None:
    asset = store(assets, owner, "model.glb")
    given = graph("SomebodysNode", thing=reference(asset.id), steps=3)
    resolved = resolve_assets(given, owner=owner, assets=assets)
    assert resolved.inputs == {"10.thing": str(asset.address)}
    assert origins(resolved.graph, resolved.inputs) == [str(asset.address)]


def test_a_list_of_references_is_a_batch_of_images(assets: AssetStore, owner: str) -> None:
    made = [store(assets, owner, f"{number}.png") for number in range(3)]
    given = graph(image=[reference(asset.id) for asset in made])
    resolved = resolve_assets(given, owner=owner, assets=assets)
    assert origins(resolved.graph, resolved.inputs) == [str(asset.address) for asset in made]


def test_a_list_of_one_reference_is_one_file(assets: AssetStore, owner: str) -> None:
    asset = store(assets, owner, "a.mp3")
    resolved = resolve_assets(graph("LoadAudio", audio=[reference(asset.id)]), owner=owner, assets=assets)
    assert resolved.graph["10"]["inputs"] == {"audio": str(asset.address)}


def test_a_mask_given_to_a_loader_is_put_into_its_image(assets: AssetStore, owner: str) -> None:
    image, mask = store(assets, owner), store(assets, owner, "mask.png")
    given = graph(image=reference(image.id), mask=reference(mask.id))
    resolved = resolve_assets(given, owner=owner, assets=assets)
    (wanted,) = plan_inputs(resolved.graph, resolved.inputs).wanted
    assert (wanted.asset.origin, wanted.asset.mask) == (str(image.address), str(mask.address))


@pytest.mark.parametrize("written", ["photo.png", "photo.png [input]"])
def test_the_name_of_an_uploaded_file_means_the_newest_of_that_name(
    assets: AssetStore, owner: str, written: str
) -> None:
    store(assets, owner)
    newest = store(assets, owner)
    resolved = resolve_assets(graph(image=written), owner=owner, assets=assets)
    assert resolved.graph["10"]["inputs"]["image"] == str(newest.address)


@pytest.mark.parametrize("written", ["{}", "{} [input]"])
def test_the_id_of_an_asset_alone_means_that_asset(assets: AssetStore, owner: str, written: str) -> None:
    asset = store(assets, owner)
    for text in (written.format(asset.id), written.format(asset.id.upper())):
        resolved = resolve_assets(graph(image=text), owner=owner, assets=assets)
        assert resolved.graph["10"]["inputs"]["image"] == str(asset.address)
    if written == "{}":
        given = {"10.image": asset.id, "11.image": [asset.id, "photo.png"], "12.image": "https://example.org/a.png"}
        found = uploaded_inputs(given, owner=owner, assets=assets)
        assert found == {"10.image": str(asset.address), "11.image": [str(asset.address)] * 2}
    editors = {"nodes": [{"id": 10, "type": "LoadImage", "widgets_values": [written.format(asset.id), "image"]}]}
    known = known_files(editors, {"10.image": asset.id}, owner=owner, assets=assets)
    resolved = resolve_assets(graph(image=written.format(asset.id)), owner=owner, assets=known)
    assert resolved.graph["10"]["inputs"]["image"] == str(asset.address)


def test_the_id_of_no_asset_is_refused_and_says_what_to_write(assets: AssetStore, owner: str) -> None:
    theirs = store(assets, f"{owner}-rival").id
    editors = {"nodes": [{"id": 10, "type": "LoadImage", "widgets_values": [theirs, "image"]}]}
    doors: list[Any] = [
        lambda: resolve_assets(graph(image=theirs), owner=owner, assets=assets),
        lambda: uploaded_inputs({"10.image": theirs}, owner=owner, assets=assets),
        lambda: known_files(editors, {}, owner=owner, assets=assets),
    ]
    for door in doors:
        with pytest.raises(MissingAsset, match="upload the file first") as refusal:
            door()
        assert refusal.value.details["asset_id"] == theirs
        assert "core/ASSET" in refusal.value.message
    text = graph("CLIPTextEncode", text=theirs)
    assert resolve_assets(text, owner=owner, assets=assets).graph == text, "a text is a text"


def test_the_id_of_no_asset_that_nothing_wants_refuses_nothing(assets: AssetStore, owner: str) -> None:
    gone, there = str(uuid.uuid4()), store(assets, owner)
    resolved = resolve_assets(graph(image=gone), owner=owner, assets=assets, inputs=["LoadImage.image"])
    assert resolved.graph == graph(image=gone), "the request brings another file"
    resolved = resolve_assets(graph(image=there.id), owner=owner, assets=assets, inputs=["12.image"])
    assert resolved.graph == graph(image=str(there.address)), "or one for another node"
    loader = {"id": 10, "type": "LoadImage", "widgets_values": [gone, "image"]}
    refused_nothing: tuple[dict[str, Any], ...] = (
        {"values": {"10.image": "a.png"}},
        {"values": {}, "inputs": ["10.image"]},
        {"values": {}, "mode": 2},
        {"values": {}, "mode": 4},
    )
    for given in refused_nothing:
        mode, values = given.pop("mode", 0), given.pop("values")
        known = known_files({"nodes": [{**loader, "mode": mode}]}, values, owner=owner, assets=assets, **given)
        assert known.names == {}
    with pytest.raises(MissingAsset):
        known_files({"nodes": [loader]}, {"10.other": 1}, owner=owner, assets=assets, inputs=["11.audio"])


def test_ids_that_a_pack_keeps_for_itself_are_no_files_however_many_there_are(assets: AssetStore, owner: str) -> None:
    asset = store(assets, owner)
    kept = {"id": 1, "type": "SomebodysState", "widgets_values": [[str(uuid.uuid4()) for _ in range(MAX_ASSETS + 1)]]}
    loader = {"id": 10, "type": "LoadImage", "widgets_values": [asset.id, "image"]}
    known = known_files({"nodes": [kept, loader]}, {}, owner=owner, assets=assets)
    assert known.names == {asset.id: str(asset.address)}


@pytest.mark.parametrize("name", ["other.png", "../photo.png", "x" * 5000, "", "photo.png [output]", "\ud800"])
def test_a_name_that_is_no_asset_stays(assets: AssetStore, owner: str, name: str) -> None:
    store(assets, owner)
    given = graph(image=name)
    assert resolve_assets(given, owner=owner, assets=assets).graph == given


def test_the_name_of_somebody_elses_file_stays(assets: AssetStore, owner: str) -> None:
    store(assets, owner)
    given = graph(image="photo.png")
    assert resolve_assets(given, owner=f"{owner}-rival", assets=assets).graph == given


def test_texts_that_only_look_like_a_name_stay(assets: AssetStore, owner: str) -> None:
    store(assets, owner)
    given = graph("CLIPTextEncode", text="photo.png", clip=["4", 1])
    assert resolve_assets(given, owner=owner, assets=assets).graph == given


@pytest.mark.parametrize(
    "asset_id", [str(uuid.UUID(int=7)), "x", "", None, 7, "0" * 5000, {"id": 1}], ids=lambda given: str(given)[:10]
)
def test_a_reference_to_nothing_is_a_missing_asset(assets: AssetStore, owner: str, asset_id: object) -> None:
    with pytest.raises(MissingAsset, match="node 10") as refusal:
        resolve_assets(graph(image=reference(asset_id)), owner=owner, assets=assets)
    assert refusal.value.details["node_id"] == "10"
    assert refusal.value.details["input"] == "image"
    assert (refusal.value.http_status, refusal.value.code) == (422, "missing_asset")


def test_a_foreign_asset_cannot_be_told_from_none(assets: AssetStore, owner: str) -> None:
    foreign = store(assets, owner).id
    with pytest.raises(MissingAsset, match="there is no asset") as refusal:
        resolve_assets(graph(image=reference(foreign)), owner=f"{owner}-rival", assets=assets)
    assert refusal.value.details == {"node_id": "10", "input": "image", "asset_id": foreign}


@pytest.mark.parametrize("value", [{"__type": "core/ASSET"}, {"__type": "core/ASSET", "info": []}])
def test_a_malformed_reference_is_a_missing_asset(assets: AssetStore, owner: str, value: object) -> None:
    with pytest.raises(MissingAsset, match="the reference must be"):
        resolve_assets(graph(image=value), owner=owner, assets=assets)


def test_a_reference_that_no_worker_could_place_is_refused_and_not_passed_on(assets: AssetStore, owner: str) -> None:
    found = reference(store(assets, owner).id)
    with pytest.raises(MissingAsset, match="node 10"):
        resolve_assets(graph("LoadAudio", audio=[found, found]), owner=owner, assets=assets)


def test_references_within_a_value_become_names_in_their_places(assets: AssetStore, owner: str) -> None:
    first, second = store(assets, owner, "a.png"), store(assets, owner, "b.png")
    given = graph("Nested", options={"files": [reference(first.id), "x", {"deep": reference(second.id)}], "n": 1})
    resolved = resolve_assets(given, owner=owner, assets=assets)
    plan = plan_inputs(resolved.graph, resolved.inputs)
    names = {str(first.address): "one.png", str(second.address): "two.png"}
    for wanted in plan.wanted:
        put_name(plan.graph, wanted, names[str(wanted.asset.origin)])
    assert plan.graph["10"]["inputs"] == {"options": {"files": ["one.png", "x", {"deep": "two.png"}], "n": 1}}
    assert given["10"]["inputs"]["options"]["files"][0] == reference(first.id)
    assert resolved.graph["10"]["inputs"]["options"]["files"][0]["info"] == {"uri": str(first.address)}


def test_an_asset_named_twice_is_looked_up_once(assets: AssetStore, owner: str, monkeypatch: Any) -> None:
    asset = store(assets, owner)
    asked: list[tuple[str, ...]] = []
    get = assets.get

    def counted(*key: str) -> Asset:
        asked.append(key)
        return get(*key)

    monkeypatch.setattr(assets, "get", counted)
    given = {str(number): graph(image=reference(asset.id))["10"] for number in range(4)}
    resolve_assets(given, owner=owner, assets=assets)
    assert len(asked) == 1


OWN = f"s3://{RESULTS}/owners/team/"


@pytest.mark.parametrize(
    "address",
    [
        f"s3://{BUCKET}/blobs/team/x",
        f"S3://{BUCKET}/blobs/team/x",
        f"s3://{BUCKET}",
        f"s3://{RESULTS}/owners/rival/a.png",
        f"s3://{RESULTS}/owners/team",
        f"s3://{RESULTS}/owners/teammate/a.png",
        f"{OWN}../rival/a.png",
        f"{OWN}./../rival/a.png",
        f"{OWN}/a.png",
    ],
)
def test_nobody_reads_our_buckets_by_address(address: str) -> None:
    for document in (address, {"inputs": {"10.image": [address]}}, [{"models": {"a": address}}]):
        with pytest.raises(MissingAsset, match="cannot be used by its address"):
            refuse_foreign_addresses(document, buckets={BUCKET, RESULTS}, allowed_prefix=OWN)


@pytest.mark.parametrize(
    "document", [f"{OWN}job/a.png", "s3://their-own-bucket/a.png", "https://example.com/a.png", {"a": [1, None, 2.5]}]
)
def test_results_of_ones_own_and_other_buckets_may_be_read(document: object) -> None:
    refuse_foreign_addresses(document, buckets={BUCKET, RESULTS}, allowed_prefix=OWN)
