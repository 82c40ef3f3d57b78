"""Every owner's named workflows, held against the workers of a release: with credentials of AWS, as the operator.

keys ──► owners, and the operator ──► heads ──► examined by what the release's workers, or its image, have told
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comfy_serverless.workflows.deployed import Deployed
from comfy_serverless.workflows.doctor import Examined, everybodys_heads, examined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client

    from comfy_serverless.cli.releases import Releases
    from comfy_serverless.table.live import Release
    from comfy_serverless.workflows.items import Head

#: The parameter of the stack that names the image of its own workers: `ImageTarget` in template.yaml.
_IMAGE_PARAMETER: Final = "ImageTarget"
#: How long it is waited for what workers tell of themselves after their first job, and how often it is looked, in
#: seconds.
_TOLD_WITHIN_S: Final = 30.0
_LOOK_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class OfReleases:
    """The named workflows of a stack beside its releases. `bucket` is the one of assets."""

    releases: Releases
    s3: S3Client
    bucket: str

    @classmethod
    def of(cls, releases: Releases, outputs: Mapping[str, str]) -> OfReleases:
        """Those of a deployed stack."""
        from comfy_serverless.aws.s3 import s3_client

        return cls(releases, s3_client(), outputs["AssetsBucketName"])

    def heads(self, *, name: str | None = None) -> list[Head]:
        """The workflows of everybody who has a key, and the operator's; of one name alone, if it is given."""
        from comfy_serverless.workflows.reader import WorkflowReader

        reader = WorkflowReader(self.releases.table, self.s3, self.bucket)
        return [head for head in everybodys_heads(self.releases.table, reader) if name in (None, head.name)]

    def deployed(self, release: Release, *, wait: bool = False) -> Deployed | None:
        """What is told of a release's workers; None if nobody has told it.

        Args:
            wait: whether a worker has run a job just now: it tells what it has a moment later.
        """
        from comfy_serverless.jobs.engine_documents import Build

        workers = self.releases.workers(release)
        image = workers.worker_image() or self._own_image()
        build = Build(image, workers.release()[1] or release.version)
        until = time.monotonic() + (_TOLD_WITHIN_S if wait else 0.0)
        while True:
            found = Deployed.of_build(self.s3, self.bucket, build)
            if (found is not None and found.knows_models) or time.monotonic() >= until:
                return found
            time.sleep(_LOOK_EVERY_S)

    def examined(self, heads: Sequence[Head], deployed: Deployed | None) -> Iterator[Examined]:
        """Every version that an alias leads to, several read at once."""
        from concurrent.futures import ThreadPoolExecutor

        from comfy_serverless.workflows.reader import WorkflowReader

        reader = WorkflowReader(self.releases.table, self.s3, self.bucket)
        with ThreadPoolExecutor(8, thread_name_prefix="doctor") as several:
            yield from examined(heads, reader, deployed, each=several.map)

    def _own_image(self) -> str:
        """The image of the stack's own workers; "" if the stack does not say it."""
        import boto3

        stack = boto3.client("cloudformation").describe_stacks(StackName=self.releases.stack)["Stacks"][0]
        parameters = {one.get("ParameterKey"): one.get("ParameterValue") for one in stack.get("Parameters", [])}
        return str(parameters.get(_IMAGE_PARAMETER) or "")
