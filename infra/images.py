"""Where CDK puts images: into a repository of our own (repositories.yaml), which scans them and keeps the newest."""

from __future__ import annotations

from typing import Any

from aws_cdk import DefaultStackSynthesizer, DockerImageAssetLocation, DockerImageAssetSource, Stack

from infra.settings import GpuSettings


class OwnRepository(DefaultStackSynthesizer):
    """Pushes to the repository that `make deploy` has made, with tags that say which image it is: `worker-1a2b…`.

    CDK's own repository keeps every image of every app for ever. Rules that count images need those tags: else ten new
    workers would push out the image of the function that is not built as often, and is in use.

    The push takes the credentials of whoever deploys: the role that CDK has for it may only push to CDK's repository.
    """

    def __init__(self, settings: GpuSettings) -> None:
        super().__init__(image_assets_repository_name=settings.repository, image_asset_publishing_role_arn="")

    def reusable_bind(self, stack: Stack) -> Any:  # noqa: ANN401
        """Bind this object itself: the copy that CDK would make knows nothing of this class."""
        self.bind(stack)
        return self

    def add_docker_image_asset(self, *sources: DockerImageAssetSource, **values: Any) -> DockerImageAssetLocation:  # noqa: ANN401
        """Put the kind of the image before its hash, of which CDK makes the tag.

        CDK calls this with the source itself, the declaration in Python has its values by name: both are taken.
        """
        for source in sources:
            values = {**source._values, **values}
        tag = f"{values['docker_build_target']}-{values['source_hash']}"
        return super().add_docker_image_asset(**{**values, "source_hash": tag})
