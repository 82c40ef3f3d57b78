"""`POST /api/v2/workflows/read` (ours): the workflow that a file carries, as every other route takes it.

    a picture, video, sound or model that ComfyUI has made ──► sandbox ──► {"prompt": …, "workflow": …}
    a file of JSON, the editor's or in API format         ──────────────► itself

A browser reads no chunks of pictures so, and no program needs a reader of its own. Nothing is run, and nothing is kept.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import File, Form, UploadFile
from aws_lambda_powertools.event_handler.router import APIGatewayHttpRouter
from pydantic import BaseModel

from comfy_serverless.api.assets import MAX_SENT_BYTES
from comfy_serverless.api.auth import caller
from comfy_serverless.api.bodies import INVALID, NOT_FOUND, REFUSALS, UNREADABLE, documented
from comfy_serverless.api.body_reader import BodyReader
from comfy_serverless.api.responses import answer
from comfy_serverless.api.services import services
from comfy_serverless.errors import InvalidRequest, InvalidWorkflow, PayloadTooLarge, TooLarge
from comfy_serverless.files import may_carry_workflow
from comfy_serverless.graph.wrappers import unwrap
from comfy_serverless.jobs.document import REPLY_LIMIT_BYTES
from comfy_serverless.jobs.embedded import Embedded, embedded_in, embedded_in_bytes
from comfy_serverless.json_text import parse_json
from comfy_serverless.sandbox.embedded import HEAD_BYTES, says_it_may_hold

router = APIGatewayHttpRouter()  # type: ignore[no-untyped-call]

PATH = "/api/v2/workflows/read"
_LONGEST_NAME = 100


class Carried(BaseModel):
    """What a file carries.

    Attributes:
        workflow: goes as it is into `workflow` of a job, a push, `convert` and `needs`: the graph, the editor's
            workflow, or both, as ComfyUI writes them into pictures.
        warnings: what was left out.
    """

    workflow: dict[str, Any]
    warnings: list[str]


@router.post(
    PATH,
    summary="Read the workflow in a file: of a picture too (ours)",
    tags=["workflows"],
    description=f"Of a file of JSON, or of a picture, video, sound or model that ComfyUI has made. One of more than "
    f"{MAX_SENT_BYTES:,} bytes is uploaded first, and named by `asset_id`; so is an output of a job. Nothing is kept.",
    responses={200: documented("The workflow.", Carried), **NOT_FOUND, **UNREADABLE, **INVALID, **REFUSALS},
    enable_validation=False,  # by Powertools; ours differs only in how it reads forms
    middlewares=[BodyReader(files=frozenset({"file"}))],
)
def read_workflow(
    file: Annotated[UploadFile | None, File(description="The raw bytes.")] = None,
    asset_id: Annotated[str | None, Form(max_length=_LONGEST_NAME, description="Of a file that is there.")] = None,
) -> Response[str]:
    """Answer the workflow of a file."""
    if (file is None) == (asset_id is None):
        raise InvalidRequest("exactly one of `file` and `asset_id` says which file is read.")
    found = _in_asset(asset_id) if asset_id is not None else _in_file(file)
    response = answer(HTTPStatus.OK, Carried(workflow=found.document, warnings=list(found.warnings)).model_dump())
    if (size_bytes := len(response.body or "")) > REPLY_LIMIT_BYTES:
        raise PayloadTooLarge(
            f"the workflow in it would be an answer of {size_bytes:,} bytes, and at most {REPLY_LIMIT_BYTES:,} can be "
            "sent: give the s3:// address of the file as `workflow`, or read it with `comfy-serverless convert`."
        )
    return response


def _in_file(file: UploadFile | None) -> Embedded:
    content = file.content if file is not None else b""
    if len(content) > MAX_SENT_BYTES:
        raise TooLarge(
            f"the file has {len(content):,} bytes, and at most {MAX_SENT_BYTES:,} can be sent this way: upload it, and "
            "send the asset's id as `asset_id`."
        )
    called = f"the file {((file.filename if file else None) or 'that was sent')[:_LONGEST_NAME]!r}"
    if says_it_may_hold(content[:HEAD_BYTES]):
        return embedded_in_bytes(content, what=called)
    return _of_json(parse_json(content, source=called), called)


def _in_asset(asset_id: str) -> Embedded:
    """Raises NotFound for another owner's, which is not told from one that is not there."""
    from comfy_serverless.aws.s3 import read_json

    behind = services(router)
    asset = behind.assets.get(caller(router).owner, asset_id.lower())
    name = (asset.file_path or asset.id).rpartition("/")[2]
    called = f"the file {name[:_LONGEST_NAME]!r}"
    if may_carry_workflow(name) or not asset.content_type.startswith(("application/json", "text/")):
        return embedded_in(behind.s3, asset.address, what=called)
    return _of_json(read_json(behind.s3, asset.address, what=called), called)


def _of_json(document: object, called: str) -> Embedded:
    if not isinstance(document, dict) or unwrap(document) is None:
        raise InvalidWorkflow(
            f"{called} is JSON, and no workflow: it takes what the editor saves or exports, and pictures of ComfyUI."
        )
    return Embedded(document)
