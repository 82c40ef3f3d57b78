"""A named workflow with types: `comfy-serverless workflows client thumbnail > examples/thumbnail_client.py` made it.

COMFY_BASE_URL=http://127.0.0.1:8189 COMFY_API_KEY=… python -m examples.typed_client
"""

from __future__ import annotations

from pathlib import Path

from examples.thumbnail_client import InvalidInputs, Thumbnail


def main() -> None:
    """Make two thumbnails of one picture, and see what is refused."""
    thumbnail = Thumbnail().with_options(metadata={"campaign": "autumn"}, timeout_s=300)
    photo = thumbnail.upload(Path("events/photo.jpg"))  # once, for both
    small, large = (thumbnail.submit(photo=photo, width=width, height=width) for width in (64, 320))
    for job in (small, large):
        for output in job.wait().outputs:  # raises JobFailed
            print(job.id, output.save("out"), f"{output.size_bytes:,} bytes")
    try:
        thumbnail.run(photo=photo, width=-1, height=100_000)
    except InvalidInputs as refused:
        for name, problem in refused.problems.items():
            print(f"{name} {problem}")


if __name__ == "__main__":
    main()
