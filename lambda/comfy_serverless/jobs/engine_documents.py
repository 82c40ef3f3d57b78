"""What is told of the workers' ComfyUI: documents in the assets bucket, and for how long each counts.

    engine/{image}{what}              told by any worker of an image of this name: counts for `TRUSTED_S`, because
                                      tomorrow another image may have the name
    engine/{image}/{release}{what}    of one build of it (`release_version`): counts however old it is, because that
                                      build never changes; what was written last is what is so

Workers write both. Who deploys an image writes the second before its first worker has started: see
`jobs.image_declarations`. A document of another build has another key, so it is never taken for this one's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: How old a document may be to count that any image of the name may have written, in seconds.
TRUSTED_S: Final = 900
#: The most that is read of a document: 900 classes have 20 kB.
MAX_DOCUMENT_BYTES: Final = 4_000_000
#: What there is of each: the list of classes, the packs that did not import, and where the declarations are.
CLASSES: Final = ".json"
NOT_IMPORTED: Final = "/not-imported.json"
DECLARATIONS: Final = "/object_info.json"


@dataclass(frozen=True, slots=True)
class Build:
    """Whose documents they are.

    Attributes:
        image: the name of the workers' image (`WORKER_IMAGE`); "" if it is not known, as of GPU stacks of old releases.
        release: what the image was built from (`RELEASE_VERSION`); "" if that is not known.
    """

    image: str
    release: str = ""

    def key(self, what: str) -> str:
        """Where a document of this very build is. Raises ValueError if it is not known which build this is."""
        if not self.image or not self.release:
            raise ValueError("the build has no image or no release_version")
        return f"engine/{self.image}/{self.release}{what}"

    def keys(self, what: str) -> list[str]:
        """Where a document of it may be; what is this very build's comes first."""
        of_name = [f"engine/{self.image}{what}"] if self.image else []
        return [self.key(what), *of_name] if self.image and self.release else of_name


@dataclass(frozen=True, slots=True)
class Told:
    """A document as it was read.

    Attributes:
        at: when it was written.
        is_of_build: whether it is of the very build that was asked for.
    """

    content: bytes
    at: datetime
    is_of_build: bool

    def counts(self, *, longer_s: float = 0.0) -> bool:
        """Whether it still says what is so."""
        return self.is_of_build or datetime.now(UTC) < self.at + timedelta(seconds=TRUSTED_S + longer_s)


def told(s3: S3Client, bucket: str, build: Build, what: str) -> Told | None:
    """A document of a build, or without one that of any image of its name. None if there is none, or it is too large.

    Raises:
        ClientError, BotoCoreError: S3 cannot be asked at all, or refuses the last place that it may be in.
    """
    trouble: ClientError | BotoCoreError | None = None
    for key in build.keys(what):
        try:
            answer = s3.get_object(Bucket=bucket, Key=key)
            content = answer["Body"].read(MAX_DOCUMENT_BYTES + 1)
        except (ClientError, BotoCoreError) as error:  # a key that is not there may be told as one that is forbidden
            trouble = error
            continue
        is_of_build = bool(build.release) and key == build.key(what)
        return Told(content, answer["LastModified"], is_of_build) if len(content) <= MAX_DOCUMENT_BYTES else None
    if trouble is not None:
        raise trouble
    return None


def tell(s3: S3Client, bucket: str, key: str, content: object) -> None:
    """Write a document. Raises ClientError, BotoCoreError."""
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(content).encode(), ContentType="application/json")
