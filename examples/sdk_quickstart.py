"""Comfy's own SDK on your own AWS account: set COMFY_BASE_URL and COMFY_API_KEY, and run it."""

from __future__ import annotations

from comfy_sdk import Comfy, OutputReady, Progress

with Comfy() as client:
    photo = client.assets.from_file("events/photo.jpg")  # sent once; the same bytes are never sent again
    workflow = client.workflows.from_file("workflows/thumbnail.json")
    workflow.set_input("1", "image", photo)  # a handle; the name of an uploaded file does as well
    job = client.submit(workflow, metadata={"campaign": "autumn"})
    for event in job.events():  # live with `make dev` and `LiveEvents`, else snapshots
        if isinstance(event, Progress):
            print(f"{event.value:.0%} {event.message}")
        if isinstance(event, OutputReady):
            print("made", event.output.name)
    for output in job.result().outputs:  # raises JobFailed
        print(output.to_file(f"out/{output.name}"), output.get_download_url().url[:60])
    print([entry.id for entry in client.list_jobs(metadata={"campaign": "autumn"})], job.get_workflow().format)
