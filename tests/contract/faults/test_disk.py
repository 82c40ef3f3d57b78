"""There is no space left for a workflow's outputs."""

from __future__ import annotations

import shutil

import pytest

from tests.contract.faults.rows import row
from tests.contract.faults.world import World, lite_only, picture

pytestmark = lite_only


@row("the disk is full", code="node_execution_error", so="the node is named, what was made before is kept", within_s=5)
def test_the_disk_is_full(fragile: World) -> None:
    graph = picture() | {"3": picture()["2"]}
    graph["3"]["inputs"]["filename_prefix"] = "too much"
    fragile.arm("disk_full", at="node", node="3")
    error = fragile.fails(graph)
    assert error.details["node_id"] == "3"
    assert "No space left on device" in error.message
    assert [output.node_id for output in error.outputs] == ["2"], "what was made before is kept"


@row("the kernel refuses to write more (RLIMIT_FSIZE)", code="node_execution_error", so="the node is named", within_s=8)
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs util-linux")
def test_a_file_can_truly_not_be_written(world: World) -> None:
    """The kernel refuses to write more than a number of bytes to a file."""
    world.connect(api_command_line=f"prlimit --fsize=4000 {world.command()}")
    error = world.fails(picture(size=2048))
    assert error.details["node_id"] == "2"
    assert "File too large" in error.message


@row("the output folder has been removed", so="succeeds", within_s=5)
def test_the_output_folder_is_gone(fragile: World) -> None:
    shutil.rmtree(fragile.folder / "output")
    assert fragile.succeeds(picture()).outputs[0].read()


@row("the output folder cannot be written", code="node_execution_error", so="the node is named", within_s=5)
def test_the_output_folder_may_not_be_written(fragile: World) -> None:
    output = fragile.folder / "output"
    shutil.rmtree(output)
    output.write_text("a file in its place")
    assert fragile.fails(picture()).details["node_id"] == "2"
    output.unlink()
