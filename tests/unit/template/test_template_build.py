"""What SAM builds the images with, as SAM itself reads the template."""

from __future__ import annotations

from pathlib import Path

import pytest
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider

ROOT = Path(__file__).parents[3]


def built(**chosen: str) -> dict[str, dict[str, object]]:
    """The metadata of each function, by its name."""
    stacks, _ = SamLocalStackProvider.get_stacks(str(ROOT / "template.yaml"), parameter_overrides=chosen)
    return {function.name: function.metadata or {} for function in SamFunctionProvider(stacks).get_all()}


@pytest.mark.parametrize("ref", ["", "v0.33.0"])
def test_the_worker_is_built_with_the_comfyui_that_was_chosen(ref: str) -> None:
    functions = built(ImageTarget="worker", ComfyuiRef=ref)
    worker = functions.pop("GenerateFunction")
    assert worker["DockerBuildTarget"] == "worker"
    assert worker["DockerBuildArgs"] == {"COMFYUI_REF": ref}
    assert [name for name, metadata in functions.items() if "DockerBuildArgs" in metadata] == []


def test_every_image_is_built_from_the_one_dockerfile_and_the_whole_repository() -> None:
    """Then the lock and its archives are there, as they are for `make image`."""
    for metadata in built(ImageTarget="worker").values():
        context = Path(str(metadata["DockerContext"]))
        assert (context / str(metadata["Dockerfile"])).resolve() == ROOT / "Dockerfile"
        assert context.resolve() == ROOT
