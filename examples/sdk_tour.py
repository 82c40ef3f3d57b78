"""A tour of the official `comfy-sdk` on this project's API: nothing here knows that it is not Comfy Cloud.

COMFY_BASE_URL=http://127.0.0.1:8189 COMFY_API_KEY=… python -m examples.sdk_tour
"""

from __future__ import annotations

import copy
import io
import time
import uuid
from collections.abc import Callable
from typing import Any

from comfy_sdk import Comfy, StatusChange
from comfy_sdk.exceptions import (
    IdempotencyKeyReuse,
    InvalidWorkflow,
    JobFailed,
    MissingAsset,
    NotFound,
    WorkflowFormatUi,
)
from PIL import Image

#: Scales an uploaded picture; the embedded engine runs it for real.
ENLARGE: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "2": {
        "class_type": "ImageScale",
        "inputs": {"image": ["1", 0], "width": 128, "height": 96, "upscale_method": "bilinear", "crop": "disabled"},
    },
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "enlarged"}},
}
#: Takes a while, which leaves time to follow it and to cancel it.
PAINT: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a lighthouse at dusk"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "blurry"}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 256, "height": 256, "batch_size": 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["3", 0],
            "latent_image": ["4", 0],
            "seed": 7,
            "steps": 20,
            "cfg": 7.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
    "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "lighthouse"}},
}


def paint(*, steps: int, seed: int) -> dict[str, Any]:
    """The painting workflow, with this many steps."""
    sampler = {**PAINT["5"], "inputs": {**PAINT["5"]["inputs"], "steps": steps, "seed": seed}}
    return {**PAINT, "5": sampler}


def picture(color: tuple[int, int, int]) -> bytes:
    """A small PNG that no other run has."""
    buffer = io.BytesIO()
    image = Image.new("RGB", (64, 48), color)
    image.putpixel((0, 0), tuple(uuid.uuid4().bytes[:3]))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def tour(client: Comfy) -> None:
    """Do everything, one after the other. Raises if anything is not as it should be."""
    by_file_name_and_by_handle(client)
    followed_live(client)
    labels_and_workflow(client)
    canceled_running_and_waiting(client)
    typed_exceptions(client)


def by_file_name_and_by_handle(client: Comfy) -> None:
    """Upload, upload again without sending bytes, and use the picture both ways; download it in three."""
    content = picture((200, 60, 30))
    asset = client.assets.from_bytes(content, filename="photo.png", content_type="image/png")
    asset.commit()
    assert asset.created_new is True
    twin = client.assets.from_bytes(content, filename="photo.png", content_type="image/png")
    twin.commit()
    assert twin.created_new is False
    assert twin.hash == asset.hash

    by_name = client.submit(client.workflows.from_json(ENLARGE)).result()
    workflow = client.workflows.from_json(copy.deepcopy(ENLARGE))  # set_input changes the graph it was given
    workflow.set_input("1", "image", asset)
    by_handle = client.submit(workflow).result()
    for job in (by_name, by_handle):
        (output,) = job.get_outputs("3")
        whole = output.to_bytes()
        with Image.open(io.BytesIO(whole)) as image:
            assert image.size == (128, 96)
        assert output.to_bytes(range=(0, 7)) == whole[:8]
        assert output.get_download_url().url.startswith("http")
        assert client.assets.get(output.id).file_path == output.name
    print(f"enlarged twice: {by_name.id} by file name, {by_handle.id} by handle")


def followed_live(client: Comfy) -> None:
    """Follow the events of a job to its end, and those of a job that has already ended."""
    job = client.submit(client.workflows.from_json(paint(steps=20, seed=1)))
    seen = list(job.events())
    assert isinstance(seen[-1], StatusChange)
    assert seen[-1].status == "succeeded"
    assert job.result().outputs  # behind API Gateway the end may fall between two snapshots: then no event has them
    late = list(client.jobs.get(job.id).events())
    assert isinstance(late[-1], StatusChange)
    assert late[-1].status == "succeeded"
    assert any(type(event).__name__ == "OutputReady" for event in late)
    print(f"followed {job.id}: {len(seen)} events, {len(late)} of it after its end")


def labels_and_workflow(client: Comfy) -> None:
    """Find jobs by a label, and the workflow that they ran."""
    label = uuid.uuid4().hex
    graphs = [paint(steps=2, seed=seed) for seed in (11, 12, 13)]
    jobs = [client.submit(client.workflows.from_json(graph), metadata={"batch": label}) for graph in graphs]
    for job in jobs:
        job.result()
        assert job.metadata == {"batch": label}
    listed = [entry.id for entry in client.list_jobs(metadata={"batch": label}, limit=2)]
    assert listed == [job.id for job in reversed(jobs)]
    assert [job.get_workflow().graph for job in jobs] == graphs
    print(f"listed {len(listed)} jobs by label")


def canceled_running_and_waiting(client: Comfy) -> None:
    """Cancel two jobs: the first runs, the second waits behind it."""
    running = client.submit(client.workflows.from_json(paint(steps=2000, seed=21)))
    waiting = client.submit(client.workflows.from_json(paint(steps=2000, seed=22)))
    while running.refresh().status == "queued":
        time.sleep(0.1)
    for job in (waiting, running):  # a worker may have begun the second one, too
        assert job.cancel().status in {"canceling", "canceled"}
    for job in (running, waiting):
        assert job.wait(timeout=60).status == "canceled"
        assert job.cancel().status == "canceled"
    try:
        running.result()
    except JobFailed:
        print("canceled a running and a waiting job")
    else:
        raise AssertionError("a canceled job has no result")


def typed_exceptions(client: Comfy) -> None:
    """Check that every kind of refusal has its own exception."""
    key = str(uuid.uuid4())
    client.submit(client.workflows.from_json(paint(steps=1, seed=31)), idempotency_key=key).result()
    foreign = {"__type": "core/ASSET", "info": {"id": str(uuid.uuid4())}}
    without_asset = {**ENLARGE, "1": {"class_type": "LoadImage", "inputs": {"image": foreign}}}
    editor = {"nodes": [], "links": [], "last_node_id": 0}
    expected: list[tuple[type[Exception], Callable[[], object]]] = [
        (NotFound, lambda: client.jobs.get(str(uuid.uuid4()))),
        (NotFound, lambda: client.assets.get(str(uuid.uuid4()))),
        (IdempotencyKeyReuse, lambda: client.submit(client.workflows.from_json(PAINT), idempotency_key=key)),
        (MissingAsset, lambda: client.submit(client.workflows.from_json(without_asset))),
        (InvalidWorkflow, lambda: client.submit(client.workflows.from_json({"1": {"inputs": {}}}))),
        (WorkflowFormatUi, lambda: client.submit(client.workflows.from_json(editor))),
    ]
    for kind, call in expected:
        try:
            call()
        except kind:
            continue
        raise AssertionError(f"{kind.__name__} was expected")
    asset = client.assets.from_bytes(picture((1, 2, 3)), filename="gone.png", content_type="image/png")
    asset.commit()
    asset.delete()
    try:
        client.assets.get(str(asset.id))
    except NotFound:
        print(f"saw {len(expected)} typed exceptions")
    else:
        raise AssertionError("a deleted asset is still there")


if __name__ == "__main__":
    with Comfy() as comfy:
        tour(comfy)
