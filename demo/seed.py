"""Put into a local S3 what the sample events refer to: the two buckets, the photo, the dropped requests.

python -m demo.seed --endpoint-url http://127.0.0.1:5000
"""

from __future__ import annotations

import argparse
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from local.aws.server import create_bucket, local_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

EVENTS = Path(__file__).parent.parent / "events"
INPUT_BUCKET = "comfy-input"
OUTPUT_BUCKET = "comfy-output"
#: Every object of the input bucket that an event names, and the file of events/ it is made from.
OBJECTS: Mapping[str, str] = {
    "photos/sunset.jpg": "photo.jpg",
    "images/thumbnail/My photo+ü.jpg": "photo.jpg",
    "images/photo_poster/sunset.jpg": "photo.jpg",
    "jobs/triptych.json": "objects/triptych.json",
    "jobs/lighthouse.json": "objects/lighthouse.json",
}


def seed(client: S3Client) -> list[str]:
    """Create the buckets and upload the objects; returns their addresses. Doing it again changes nothing."""
    for bucket in (INPUT_BUCKET, OUTPUT_BUCKET):
        create_bucket(client, bucket)
    for key, name in OBJECTS.items():
        client.put_object(
            Bucket=INPUT_BUCKET,
            Key=key,
            Body=(EVENTS / name).read_bytes(),
            ContentType=mimetypes.guess_type(name)[0] or "application/octet-stream",
        )
    return [f"s3://{INPUT_BUCKET}/{key}" for key in OBJECTS]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.seed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--endpoint-url", required=True, help="the address of the local S3")
    for address in seed(local_client("s3", parser.parse_args(arguments).endpoint_url)):
        print(address)


if __name__ == "__main__":
    main()
