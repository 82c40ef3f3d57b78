"""Every owner's named workflows, held against the workers of a release: with credentials of AWS, as the operator.

keys ──► owners, and the operator ──► heads ──────────────────┐
the files of the stack's image, as its caretaker keeps them ──┴─► examined by what the release has told
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comfy_serverless.jobs.sources import OPERATOR
from comfy_serverless.workflows.deployed import Deployed
from comfy_serverless.workflows.doctor import Examined, everybodys_heads, examined
from comfy_serverless.workflows.image_files import ImageFiles

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from comfy_serverless.cli.releases import Releases
    from comfy_serverless.table.api_keys import ApiKeyStore
    from comfy_serverless.table.live import Release
    from comfy_serverless.workflows.items import Head
    from comfy_serverless.workflows.reader import WorkflowReader
    from comfy_serverless.workflows.recheck import Found

#: How long it is waited for what workers tell of themselves after their first job, and how often it is looked, in
#: seconds.
_TOLD_WITHIN_S: Final = 30.0
_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class OfReleases:
    """The named workflows of a stack beside its releases.

    Attributes:
        bucket: that of assets.
        own_image: the name of the image of the stack's own workers; "" if it is not known.
    """

    releases: Releases
    keys: ApiKeyStore
    reader: WorkflowReader
    s3: S3Client
    bucket: str
    own_image: str

    def heads(self, *, name: str | None = None) -> list[Head]:
        """The workflows of everybody who has a key, and the operator's; of one name alone, if it is given."""
        return [head for head in everybodys_heads(self.keys, self.reader) if name in (None, head.name)]

    def files(self, *, name: str | None = None) -> ImageFiles | None:
        """The files in the image that no workflow of the operator's hides; None if the stack has not told them yet."""
        kept = ImageFiles.kept(self.releases.table)
        if kept is None:
            return None
        files = kept.without({head.name for head in self.reader.heads(OPERATOR)})
        return files if name is None else files.named(name)

    def deployed(self, release: Release, *, wait: bool = False) -> Deployed | None:
        """What is told of a release's workers; None if nobody has told it.

        Args:
            wait: whether a worker has run a job just now: it tells what it has a moment later.
        """
        from comfy_serverless.jobs.engine_documents import Build

        workers = self.releases.workers(release)
        image = workers.worker_image() or self.own_image
        build = Build(image, workers.release()[1] or release.version)
        until = time.monotonic() + (_TOLD_WITHIN_S if wait else 0.0)
        while True:
            found = Deployed.of_build(self.s3, self.bucket, build)
            if (found is not None and found.knows_models) or time.monotonic() >= until:
                return found
            time.sleep(_LOOK_EVERY_S)

    def last_check(self) -> Found | None:
        """What the stack has found last, by itself, of the operator's workflows and of the files in the image."""
        from comfy_serverless.workflows.recheck import Found

        return Found.of(self.releases.table, OPERATOR)

    def examined(
        self, heads: Sequence[Head], deployed: Deployed | None, *, files: ImageFiles | None
    ) -> Iterator[Examined]:
        """Every version that an alias leads to, several read at once; and the files in the image."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8, thread_name_prefix="doctor") as several:
            yield from examined(heads, self.reader, deployed, each=several.map)
        if files is not None:
            yield from files.examined(deployed)
