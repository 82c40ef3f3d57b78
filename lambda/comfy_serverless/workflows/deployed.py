"""What is known of the workers that a workflow is held against: those that are live, or those of a release.

    engine/{image}[/{release_version}]/…  ──► Deployed ──► compat    (`jobs.engine_documents` says how long each counts)

What an image's build has told knows no models but its own; what a worker has told since knows the standing manifest's,
too, and takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from comfy_serverless.connector.import_report import NotImported
from comfy_serverless.jobs.declarations import DeclarationsReader
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.jobs.image_declarations import is_of_image
from comfy_serverless.jobs.node_list import lost_packs
from comfy_serverless.workflows.checkup import Finding, Kind, Severity
from comfy_serverless.workflows.compat import problems_of
from comfy_serverless.workflows.version import Version

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: Why nothing is known, to begin a sentence.
NOBODY_TOLD: Final = "no worker has told yet which nodes it has, nor has who deployed it (`make declarations`)"
_NOT_CHECKED: Final = Finding(
    kind=Kind.NOT_CHECKED,
    severity=Severity.WARNS,
    message=f"whether it would run is not known: {NOBODY_TOLD}. `workflows doctor` checks it later",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The workers that a workflow is held against.

    Attributes:
        object_info: what their ComfyUI declares.
        lost: the packs that did not import there.
        knows_models: whether a worker has said which models there are; the image alone does not know all of them.
        release: what their image was built from (`release_version`); "" if that is not known.
    """

    object_info: Mapping[str, Any]
    lost: Sequence[NotImported] = ()
    knows_models: bool = True
    release: str = ""

    @classmethod
    def told(cls, declarations: DeclarationsReader, lost: Callable[[], Sequence[NotImported]]) -> Self | None:
        """What a reader knows of the workers that it asks about; None if nobody has told it.

        Args:
            lost: returns the packs that did not import on them.
        """
        object_info = declarations.newest()
        if object_info is None:
            return None
        build = Build(declarations.image(), declarations.release())
        sha256 = declarations.sha256
        return cls(
            object_info=object_info,
            lost=lost(),
            knows_models=not is_of_image(declarations.s3, declarations.bucket, build, sha256),
            release=build.release,
        )

    @classmethod
    def of_build(cls, s3: S3Client, bucket: str, build: Build) -> Self | None:
        """What is told of one build of an image; None if nobody has told it."""
        declarations = DeclarationsReader(s3, bucket, lambda: build.image, lambda: build.release)
        return cls.told(declarations, lambda: lost_packs(s3, bucket, build))


def findings_of(version: Version, deployed: Deployed | None) -> tuple[Finding, ...]:
    """What is wrong with a version on these workers; one warning if nobody has told what they have."""
    if deployed is None:
        return (_NOT_CHECKED,)
    return problems_of(version, deployed.object_info, lost=deployed.lost, knows_models=deployed.knows_models)
