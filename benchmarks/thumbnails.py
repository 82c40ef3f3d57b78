"""What thumbnails add to the delivery of a job: `python -m benchmarks.thumbnails [--rounds 15]`.

Pictures of noise, the worst to decode and to encode, are delivered to a stand-in for S3 that takes as long as S3 does,
with and without thumbnails, in turns. What is told is how much longer the job has waited for its delivery, and the
processor time of the child: on a machine that is busy otherwise the least of the rounds says most.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from PIL import Image

from comfy_serverless.connector.outputs import Output
from comfy_serverless.files import OutputKind
from comfy_serverless.jobs.keys import KeyAllotment
from comfy_serverless.worker.delivery import UPLOAD_THREADS, Delivery
from comfy_serverless.worker.leftovers import FilesInUse, Leftovers
from comfy_serverless.worker.thumbnails import Thumbnails

#: A PUT of S3 in the same region, of a picture of some megabytes and of a small file, in seconds.
_PUT_S, _SMALL_PUT_S, _SMALL_BYTES = 0.08, 0.025, 200_000


class _SlowS3:
    """Takes what it is sent, after a while."""

    def put_object(self, **sent: Any) -> dict[str, str]:
        size = len(sent["Body"])
        time.sleep(_SMALL_PUT_S if size < _SMALL_BYTES else _PUT_S)
        return {"ChecksumSHA256": sent["ChecksumSHA256"]}


def _pictures(count: int, side: int) -> list[Output]:
    made = []
    for index in range(count):
        noise = random.Random(index).randbytes(side * side * 3)
        file = io.BytesIO()
        Image.frombytes("RGB", (side, side), noise).save(file, "PNG", compress_level=1)
        made.append(
            Output(
                node_id="9",
                class_type="SaveImage",
                title="",
                index=index,
                name=f"{index}.png",
                kind=OutputKind.IMAGE,
                content_type="image/png",
                content=file.getvalue(),
            )
        )
    return made


def delivery_ms(pictures: list[Output], pool: ThreadPoolExecutor, thumbnails: Thumbnails | None) -> tuple[float, int]:
    """How long a job waits for its outputs, all of which are there at once; and how many have a thumbnail."""
    s3: Any = _SlowS3()
    delivery = Delivery(
        job_id="j",
        owner="",
        keys=KeyAllotment("", "j"),
        s3=s3,
        bucket="bucket",
        pool=pool,
        leftovers=Leftovers(FilesInUse(), job_id="j"),
        thumbnails=thumbnails,
    )
    begun = time.perf_counter()
    delivered, _ = delivery.finish(pictures, timeout_s=60)
    took_ms = (time.perf_counter() - begun) * 1000
    return took_ms, sum(one.output.thumb_uri is not None for one in delivered)


def main() -> None:
    """Print a row for each kind of job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    s3: Any = _SlowS3()
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool, closing(Thumbnails(s3)) as thumbnails:
        delivery_ms(_pictures(2, 64), pool, thumbnails)  # the children start
        sys.stdout.write("pictures          without     with    more   thumbnails\n")
        for count, side in ((1, 64), (1, 1024), (4, 1024), (16, 1024), (100, 1024)):
            pictures = _pictures(count, side)
            bare, full, made = [], [], []
            for _ in range(rounds if count < 100 else 3):
                bare.append(delivery_ms(pictures, pool, None)[0])
                took_ms, count_made = delivery_ms(pictures, pool, thumbnails)
                full.append(took_ms)
                made.append(count_made)
            sys.stdout.write(
                f"{count:4} x {side:5}^2   {min(bare):7.0f} {min(full):8.0f} {min(full) - min(bare):7.0f} ms"
                f" {statistics.median(made):8.0f}\n"
            )


if __name__ == "__main__":
    main()
