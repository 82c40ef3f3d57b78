"""Where a file goes that was dropped for a workflow, `images/poster/cat.png`. No IO."""

from __future__ import annotations

from comfy_serverless.errors import InvalidRequest
from comfy_serverless.graph.inputs import InputKind
from comfy_serverless.workflows.reference import Reference
from comfy_serverless.workflows.version import NamedInput, Version

_MOST_SHOWN = 10


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
    called = f"{media} file" if media else "file"
    counted = f"{len(found)} inputs for a {called} ({shown})" if found else f"no input for a {called}"
    raise InvalidRequest(
        f"the workflow {version.name!r} (version {version.number}) has {counted}, so it is not clear where {address} "
        f'belongs. Drop a request instead: {{"workflow": "{Reference(version.name, None, version.number).to_text()}", '
        '"inputs": {"<name>": "s3://…"}}.'
    )
