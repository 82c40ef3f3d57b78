"""What an image of workers declares of its nodes, told to the API by whoever deploys it, before a worker has started.

    the image's build ──► object_info.json.gz ──► engine/{image}/{release}/…    as a worker of that build would write it

Its build has started ComfyUI once, and kept what it declares. What a worker tells later takes its place, as it knows
more: the standing manifest's models. So the same content is published once for a build, and not again over that.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.errors import InvalidRequest, NotJson
from comfy_serverless.jobs.declarations import MAX_DECLARATIONS_BYTES, Packed, declared_in, unpacked, without_files
from comfy_serverless.jobs.engine_documents import CLASSES, DECLARATIONS, NOT_IMPORTED, Build, tell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from mypy_boto3_s3 import S3Client

#: What was published of a build last, so that the next deployment leaves what workers have told since.
_PUBLISHED: Final = "/image.json"


def read_declarations(path: Path) -> dict[str, Any]:
    """The declarations in a file that an image's build has left. Raises InvalidRequest if it is something else."""
    try:
        with path.open("rb") as file:
            packed = file.read(MAX_DECLARATIONS_BYTES + 1)
        object_info = declared_in(unpacked(packed))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except (NotJson, TypeError, ValueError, zlib.error) as error:
        raise InvalidRequest(
            f"{path} is no answer of ComfyUI's /object_info, packed with gzip, of at most {MAX_DECLARATIONS_BYTES:,} "
            f"bytes: {error}. Build the image anew."
        ) from error
    if not object_info:
        raise InvalidRequest(f"{path} has no class of nodes at all. Build the image anew.")
    return object_info


def publish(s3: S3Client, bucket: str, build: Build, object_info: Mapping[str, Any]) -> bool:
    """Tell the API what a build declares. Returns whether that was new.

    Raises:
        ClientError, BotoCoreError: S3 refuses.
        ValueError: the build has no release_version, so nothing would say when this no longer is what runs.
        InvalidRequest: it is more than the API reads.
    """
    packed = Packed.of(without_files(object_info, ()))
    if packed.sha256 is None:
        raise InvalidRequest(
            f"the image's declarations of nodes have {len(packed.content):,} bytes, and at most "
            f"{MAX_DECLARATIONS_BYTES:,} are published: jobs wait for a worker's word instead."
        )
    marker = build.key(_PUBLISHED)
    if _is_published(s3, bucket, marker, packed.sha256):
        return False
    packed.put(s3, bucket, build.image)
    # In the order in which a worker writes them (node_list): a class must not be refused before it is told why.
    for what, content in (
        (NOT_IMPORTED, []),  # the build would have failed
        (DECLARATIONS, packed.pointer),
        (CLASSES, sorted(object_info)),
    ):
        tell(s3, bucket, build.key(what), content)
    tell(s3, bucket, marker, {"sha256": packed.sha256})
    return True


def is_of_image(s3: S3Client, bucket: str, build: Build, sha256: str) -> bool:
    """Whether these declarations of a build are those that its image has left, and no worker has told since."""
    return bool(build.image and build.release) and _is_published(s3, bucket, build.key(_PUBLISHED), sha256)


def _is_published(s3: S3Client, bucket: str, marker: str, sha256: str) -> bool:
    try:
        found = json.loads(s3.get_object(Bucket=bucket, Key=marker)["Body"].read(1000))
    except (ClientError, BotoCoreError, ValueError):
        return False  # not there, or not to be read by whoever may only write: published again, nothing is lost
    return isinstance(found, dict) and found.get("sha256") == sha256
