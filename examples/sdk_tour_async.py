"""The tour of `sdk_tour` with the asynchronous client of the official `comfy-sdk`.

COMFY_BASE_URL=http://127.0.0.1:8189 COMFY_API_KEY=… python -m examples.sdk_tour_async
"""

from __future__ import annotations

import asyncio
import io
import uuid

from comfy_sdk import AsyncComfy, StatusChange
from comfy_sdk.exceptions import IdempotencyKeyReuse, JobFailed, MissingAsset, NotFound
from PIL import Image

from examples.sdk_tour import ENLARGE, PAINT, paint, picture


async def tour(client: AsyncComfy) -> None:
    """Do everything, at the same time where possible. Raises if anything is not as it should be."""
    await asyncio.gather(by_file_name_and_by_handle(client), followed_live(client), labels_and_workflow(client))
    await canceled(client)
    await typed_exceptions(client)


async def by_file_name_and_by_handle(client: AsyncComfy) -> None:
    """Upload, upload again without sending bytes, use the picture both ways, download it in three."""
    content = picture((30, 90, 160))
    graph = {**ENLARGE, "1": {"class_type": "LoadImage", "inputs": {"image": "async.png"}}}
    asset = client.assets.from_bytes(content, filename="async.png", content_type="image/png")
    await asset.commit()
    assert asset.created_new is True
    twin = client.assets.from_bytes(content, filename="async.png", content_type="image/png")
    await twin.commit()
    assert (twin.created_new, twin.hash) == (False, asset.hash)
    workflow = client.workflows.from_json(graph)
    workflow.set_input("1", "image", asset)
    jobs = [await client.submit(client.workflows.from_json(graph)), await client.submit(workflow)]
    for job in await asyncio.gather(*(job.result() for job in jobs)):
        (output,) = job.get_outputs("3")
        whole = await output.to_bytes()
        with Image.open(io.BytesIO(whole)) as image:
            assert image.size == (128, 96)
        assert await output.to_bytes(range=(8, 15)) == whole[8:16]
        assert (await output.get_download_url()).url.startswith("http")
    print("enlarged twice: by file name, and by handle")


async def followed_live(client: AsyncComfy) -> None:
    """Follow the events of a job to its end."""
    job = await client.submit(client.workflows.from_json(paint(steps=20, seed=2)))
    events = [event async for event in job.events()]
    assert isinstance(events[-1], StatusChange)
    assert events[-1].status == "succeeded"
    assert (await job.result()).outputs
    print(f"followed {job.id}: {len(events)} events")


async def labels_and_workflow(client: AsyncComfy) -> None:
    """Find jobs by a label, and the workflow that they ran."""
    label = uuid.uuid4().hex
    graphs = [paint(steps=2, seed=seed) for seed in (14, 15, 16)]
    jobs = [await client.submit(client.workflows.from_json(graph), metadata={"batch": label}) for graph in graphs]
    await asyncio.gather(*(job.result() for job in jobs))
    listed = [entry.id async for entry in client.list_jobs(metadata={"batch": label}, limit=2)]
    assert listed == [job.id for job in reversed(jobs)]
    assert [(await job.get_workflow()).graph for job in jobs] == graphs
    print(f"listed {len(listed)} jobs by label")


async def canceled(client: AsyncComfy) -> None:
    """Cancel a running and a waiting job."""
    jobs = [await client.submit(client.workflows.from_json(paint(steps=2000, seed=seed))) for seed in (23, 24)]
    while (await jobs[0].refresh()).status == "queued":
        await asyncio.sleep(0.1)
    for job in reversed(jobs):
        await job.cancel()
    for job in jobs:
        assert (await job.wait(timeout=60)).status == "canceled"
    try:
        await jobs[0].result()
    except JobFailed:
        print("canceled a running and a waiting job")
    else:
        raise AssertionError("a canceled job has no result")


async def typed_exceptions(client: AsyncComfy) -> None:
    """Check that refusals have their own exceptions."""
    key = str(uuid.uuid4())
    await client.submit(client.workflows.from_json(paint(steps=1, seed=32)), idempotency_key=key)
    foreign = {"__type": "core/ASSET", "info": {"id": str(uuid.uuid4())}}
    without_asset = {**ENLARGE, "1": {"class_type": "LoadImage", "inputs": {"image": foreign}}}
    expected = [
        (NotFound, client.jobs.get(str(uuid.uuid4()))),
        (IdempotencyKeyReuse, client.submit(client.workflows.from_json(PAINT), idempotency_key=key)),
        (MissingAsset, client.submit(client.workflows.from_json(without_asset))),
    ]
    for kind, call in expected:
        try:
            await call
        except kind:
            continue
        raise AssertionError(f"{kind.__name__} was expected")
    print(f"saw {len(expected)} typed exceptions")


async def main() -> None:
    """Take the tour, with a client for the environment's address and key."""
    async with AsyncComfy() as client:
        await tour(client)


if __name__ == "__main__":
    asyncio.run(main())
