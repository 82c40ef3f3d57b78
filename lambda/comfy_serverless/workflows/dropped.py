"""Where a file goes that was dropped for a workflow, `images/poster/cat.png`. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.active_nodes import active_nodes
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.graph.nodes import DROPPED_IMAGE_LOADER
from comfy_serverless.graph.wrappers import is_of_editor
from comfy_serverless.workflows.folder import workflow_of_file
from comfy_serverless.workflows.reference import Reference
from comfy_serverless.workflows.version import NamedInput, Version

_MOST_SHOWN = 10


def place_for(version: Version, *, media: str, address: str, has_choices: bool) -> str:
    """What `inputs` of a request call the place of a file: the name of an input, or an address.

    In a file of WORKFLOWS_DIR for which nobody has chosen inputs it is the only LoadImage, as ever; for a video or a
    sound an input for its kind, if there is one.

    Args:
        has_choices: whether somebody has said which inputs a file in WORKFLOWS_DIR has.

    Raises:
        InvalidRequest: as `input_for`, or there is not one LoadImage.
    """
    if version.number > 0 or has_choices:
        return input_for(version, media=media, address=address).name
    of_its_kind = [one for one in version.inputs if one.kind is InputKind.FILE and one.media == media]
    if media not in ("", "image") and len(of_its_kind) == 1:
        return of_its_kind[0].name
    return f"{_loader_in(workflow_of_file(version), version.name, address)}.image"


def input_for(version: Version, *, media: str, address: str) -> NamedInput:
    """The input that a file goes to: the only one for files of its kind; of several, the only one that is required.

    Args:
        media: the kind of the file, as `NamedInput.media` has it; "" if it is not known.
        address: of the file, for people.

    Raises:
        InvalidRequest: there is no such input, or not one.
    """
    files = [one for one in version.inputs if one.kind is InputKind.FILE]
    # An input whose kind of files is not known takes what no other is for.
    found = [one for one in files if media and one.media == media] or [
        one for one in files if not (media and one.media)
    ]
    required = [one for one in found if one.is_required]
    if len(found) == 1 or len(required) == 1:
        return found[0] if len(found) == 1 else required[0]
    shown = ", ".join(one.name for one in found[:_MOST_SHOWN])
    called = f"{media} files" if media else "files"
    counted = f"{len(found)} inputs for {called} ({shown})" if found else f"no input for {called}"
    raise InvalidRequest(
        f"the workflow {version.name!r} (version {version.number}) has {counted}, so it is not clear where {address} "
        f'belongs. Drop a request instead: {{"workflow": "{Reference(version.name, None, version.number).to_text()}", '
        '"inputs": {"<name>": "s3://…"}}.'
    )


def _loader_in(workflow: Mapping[str, Any], name: str, address: str) -> str:
    """What to call the only node of a file in WORKFLOWS_DIR that a dropped picture goes to.

    Raises InvalidRequest if there is not one.
    """
    loaders = _loaders(workflow)
    if len(loaders) != 1:
        raise InvalidRequest(
            f"the workflow {name!r} has {len(loaders)} {DROPPED_IMAGE_LOADER} nodes, so it is not clear where "
            f"{address} belongs. "
            'Drop a request instead: {"workflow": …, "inputs": {"<node>.image": "s3://…"}}.'
        )
    return loaders[0]


def _loaders(workflow: Mapping[str, Any]) -> list[str]:
    """What to call the nodes that a dropped image may go to. What the editor saved has its ids when it is converted."""
    if is_of_editor(workflow):
        return [node.class_type for node in active_nodes(workflow) if node.class_type == DROPPED_IMAGE_LOADER]
    return [node_id for node_id, node in workflow.items() if node["class_type"] == DROPPED_IMAGE_LOADER]
