"""A stack as CloudFormation describes it: by its outputs, from which the command line learns where everything is.

Moto can do it too, and reads the models of all services that a template may name before it does: 1.6 seconds.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from local.aws.enforcement import Response, body_of, signer_of
from local.aws.server import ACCOUNT, REGION, STACKS_PATH

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_NAMESPACE: Final = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
_CREATED: Final = "2026-01-01T00:00:00Z"


@dataclass(slots=True)
class Described:
    """An application with the stacks that it was told of before it: all that CloudFormation knows here.

    `POST /local-api/stacks` tells it of them: `{"the stack": {"an output": "its value"}}`.
    """

    application: WSGIApplication
    _outputs: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environment["PATH_INFO"] == STACKS_PATH:
            with self._lock:
                self._outputs |= json.loads(body_of(environment))
            return Response("200 OK", "application/json", b"{}").send(start_response)
        if signer_of(environment)[1] != "cloudformation":
            return self.application(environment, start_response)
        return self._answer(dict(parse_qsl(body_of(environment).decode()))).send(start_response)

    def _answer(self, asked: Mapping[str, str]) -> Response:
        action, name = asked.get("Action"), asked.get("StackName")
        if action != "DescribeStacks":
            return _refusal("InvalidAction", f"The local AWS describes stacks, and cannot {action}")
        with self._lock:
            stacks = {known: outputs for known, outputs in self._outputs.items() if name in (None, known)}
        if name is not None and not stacks:
            return _refusal("ValidationError", f"Stack with id {name} does not exist")
        members = "".join(_member(known, outputs) for known, outputs in stacks.items())
        return _xml(
            HTTPStatus.OK,
            f'<DescribeStacksResponse xmlns="{_NAMESPACE}"><DescribeStacksResult><Stacks>{members}</Stacks>'
            f"</DescribeStacksResult>{_metadata()}</DescribeStacksResponse>",
        )


def _member(name: str, outputs: Mapping[str, str]) -> str:
    told = "".join(
        f"<member><OutputKey>{escape(key)}</OutputKey><OutputValue>{escape(value)}</OutputValue></member>"
        for key, value in outputs.items()
    )
    return (
        f"<member><StackId>arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{escape(name)}/local</StackId>"
        f"<StackName>{escape(name)}</StackName><StackStatus>CREATE_COMPLETE</StackStatus>"
        f"<CreationTime>{_CREATED}</CreationTime><Outputs>{told}</Outputs></member>"
    )


def _refusal(code: str, message: str) -> Response:
    return _xml(
        HTTPStatus.BAD_REQUEST,
        f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>",
    )


def _metadata() -> str:
    return f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"


def _xml(status: HTTPStatus, document: str) -> Response:
    content = f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode()
    return Response(f"{status.value} {status.phrase}", "text/xml", content)
