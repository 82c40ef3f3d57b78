"""Tell the API of a stack what nodes an image has, before its first worker has started.

    make image            leaves what ComfyUI declared in the build, and the image's release_version, in out/image/
    make declarations STACK=comfy-serverless

Then it names the named workflows, of all owners, that would fail on that image: those that an alias leads to.

`make deploy` tells by itself, from the image that it has built; `make cdk CDK_ARGS="deploy …"` from out/image/. It
needs cloudformation:DescribeStacks, ssm:GetParametersByPath, s3:PutObject and GetObject on engine/* of the stack's
assets bucket; and for the named workflows s3:GetObject on workflows/* there, and dynamodb:Query on the table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from comfy_serverless.aws.dynamodb import Table
from comfy_serverless.errors import ComfyError
from comfy_serverless.jobs.engine_documents import Build
from comfy_serverless.jobs.image_declarations import publish, read_declarations
from comfy_serverless.release_file import version_in
from comfy_serverless.table.api_keys import ApiKeyStore
from comfy_serverless.workflows.deployed import Deployed
from comfy_serverless.workflows.doctor import everybodys_heads, examined
from comfy_serverless.workflows.reader import WorkflowReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_ssm import SSMClient

ROOT: Final = Path(__file__).parent.parent
#: Where `make image` leaves what the image has of itself.
LEFT: Final = Path("out/image")
RELEASE: Final = "release.json"
DECLARATIONS: Final = "object_info.json.gz"
#: The image of the SAM stack that has ComfyUI. (The other, worker-lite, has the embedded engine and no lock.)
WITH_COMFYUI: Final = "worker"
#: The parameter and the output of the SAM stack that say which image it has, and where documents go.
IMAGE_PARAMETER: Final = "ImageTarget"
BUCKET_OUTPUT: Final = "AssetsBucketName"
#: The one that names its table, where the owners of keys and their named workflows are.
TABLE_OUTPUT: Final = "JobsTableName"


class NotTold(Exception):
    """The API was not told; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Left:
    """What an image's build has left: its release_version, and the declarations of its nodes."""

    release: str
    object_info: Mapping[str, Any]

    @classmethod
    def in_folder(cls, folder: Path) -> Left:
        """Read it. Raises NotTold if it is not there, or is something else."""
        try:
            release = version_in(folder / RELEASE)
        except ValueError as error:
            raise NotTold(f"{folder / RELEASE} cannot be used: {error}. Build the image anew: make image") from error
        if not release:
            raise NotTold(f"there is no {folder / RELEASE}: build the image first, with `make image`")
        try:
            return cls(release, read_declarations(folder / DECLARATIONS))
        except ComfyError as error:
            raise NotTold(error.message) from error


def builds_of(left: Left, *, own_image: str | None, targets: Sequence[str]) -> list[Build]:
    """The builds that the image is known by: of the SAM stack, and of GPU stacks that were built from the same lock.

    Args:
        own_image: of the SAM stack.
        targets: what the GPU stacks say of themselves (`table.dispatch`).
    """
    images = [own_image] if own_image == WITH_COMFYUI else []
    images += [image for image, release in map(_build_in, targets) if image and release == left.release]
    return [Build(image, left.release) for image in dict.fromkeys(images)]


def tell(left: Left, s3: S3Client, bucket: str, builds: Sequence[Build]) -> Iterator[str]:
    """Publish it for these builds; what was done, in words. Raises ClientError, BotoCoreError, NotTold."""
    classes = f"{len(left.object_info):,} classes of nodes"
    for build in builds:
        try:
            is_new = publish(s3, bucket, build, left.object_info)
        except ComfyError as error:
            raise NotTold(error.message) from error
        known = "is told of" if is_new else "knows already of"
        yield f"The API {known} the {classes} of {build.image}, release {left.release}."


def targets_of(ssm: SSMClient, stack: str) -> list[str]:
    """What the GPU stacks of a SAM stack, and its releases, say of themselves. Raises ClientError, BotoCoreError."""
    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=f"/comfy-serverless/{stack}/", Recursive=True)
    names = (f"/comfy-serverless/{stack}/dispatch", f"/comfy-serverless/{stack}/releases/")
    return [entry["Value"] for page in pages for entry in page["Parameters"] if entry["Name"].startswith(names)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="make declarations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stack", required=True)
    parser.add_argument("--region", default=os.environ.get("AWS_REGION"), help="AWS_REGION, or your profile's")
    parser.add_argument("--from", type=Path, default=ROOT / LEFT, dest="folder", help="what `make image` has left")
    parser.add_argument("--if-there", action="store_true", help="it is no failure if the image was not built here")
    options = parser.parse_args(arguments)
    if options.if_there and not (options.folder / RELEASE).exists():
        print(
            f"The API knows the image's nodes once a worker has run a job. (With `make image` and then "
            f"`make declarations STACK={options.stack}` it does so now.)",
            file=sys.stderr,
        )
        return 0
    try:
        for line in _told(options.stack, options.region, options.folder):
            print(line)
    except (NotTold, BotoCoreError, ClientError) as error:
        print(f"Not told: {error}", file=sys.stderr)
        return 1
    return 0


def _told(stack: str, region: str | None, folder: Path) -> Iterator[str]:
    left = Left.in_folder(folder)
    described: Any = boto3.client("cloudformation", region_name=region).describe_stacks(StackName=stack)["Stacks"][0]
    parameters = {entry["ParameterKey"]: entry["ParameterValue"] for entry in described.get("Parameters", [])}
    outputs = {entry["OutputKey"]: entry["OutputValue"] for entry in described.get("Outputs", [])}
    targets = targets_of(boto3.client("ssm", region_name=region), stack)
    builds = builds_of(left, own_image=parameters.get(IMAGE_PARAMETER), targets=targets)
    if BUCKET_OUTPUT not in outputs:
        raise NotTold(f"the stack {stack!r} has no output {BUCKET_OUTPUT}: deploy it anew with `make deploy`")
    if not builds:
        raise NotTold(
            f"no workers of the stack {stack!r} were built from the lock of this image (release {left.release}): "
            "deploy it first, or build the image of the lock that was deployed (`make image`)"
        )
    yield from tell_stack(left, outputs, builds, region=region)


def tell_stack(left: Left, outputs: Mapping[str, str], builds: Sequence[Build], *, region: str | None) -> Iterator[str]:
    """Publish it in the stack that has these outputs, and name the named workflows that would fail; in words.

    Raises ClientError, BotoCoreError, NotTold.
    """
    s3 = boto3.client("s3", region_name=region)
    yield from tell(left, s3, outputs[BUCKET_OUTPUT], builds)
    if TABLE_OUTPUT in outputs:
        table = Table(boto3.client("dynamodb", region_name=region), outputs[TABLE_OUTPUT])
        yield from broken(left, table, s3, outputs[BUCKET_OUTPUT])


def broken(left: Left, table: Table, s3: S3Client, bucket: str) -> Iterator[str]:
    """Everybody's named workflows that would fail on an image, in words. Raises ClientError, BotoCoreError."""
    reader = WorkflowReader(table, s3, bucket)
    deployed = Deployed(object_info=left.object_info, knows_models=False, release=left.release)
    found = examined(everybodys_heads(ApiKeyStore(table), reader), reader, deployed)
    for one in found:
        if one.breaks:
            yield f"warning: on release {left.release} fails {one}"


def _build_in(target: str) -> tuple[str, str]:
    """The image and the release_version that a target names; empty where it names none."""
    try:
        fields = json.loads(target)
    except ValueError:
        return "", ""
    if not isinstance(fields, dict):
        return "", ""
    return str(fields.get("image") or ""), str(fields.get("release_version") or "")


if __name__ == "__main__":
    sys.exit(main())
