"""The local AWS keeps connections: each request is read to its end, and each answer ends where the next begins."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from local.aws.processes import LOOPBACK
from local.aws.server import ADMINISTRATOR, LocalAws
from local.aws.stack import create_table
from local.aws.template import TABLE
from tests.patience import PATIENCE_S

BUCKET: Final = "kept-connections"
ROLE: Final = "IngestRole"
ITEM: Final = {"TableName": TABLE, "Key": {"pk": {"S": "job#fox"}, "sk": {"S": "job"}}}


def headers_of(signer: str, service: str, **others: str) -> dict[str, str]:
    """What the local AWS reads of a signature: it checks none."""
    scope = f"{signer}/20260101/eu-central-1/{service}/aws4_request"
    signature = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"
    return {"Host": LOOPBACK, "Authorization": signature, **others}


def of_item(signer: str) -> dict[str, str]:
    """The headers of a GetItem."""
    target, kind = "DynamoDB_20120810.GetItem", "application/x-amz-json-1.0"
    return headers_of(signer, "dynamodb", **{"X-Amz-Target": target, "Content-Type": kind})


@pytest.fixture
def aws(local_s3: LocalAws) -> LocalAws:
    """It has a table and a bucket with one object."""
    if TABLE not in local_s3.dynamodb().list_tables()["TableNames"]:
        create_table(local_s3)
    local_s3.bucket(BUCKET)
    local_s3.client().put_object(Bucket=BUCKET, Key="fox", Body=b"a fox")
    return local_s3


@pytest.fixture
def connection(aws: LocalAws) -> Iterator[http.client.HTTPConnection]:
    """Raises where the server has closed it."""
    made = http.client.HTTPConnection(LOOPBACK, aws.port, timeout=PATIENCE_S)
    made.auto_open = 0
    made.connect()
    yield made
    made.close()


@pytest.mark.parametrize("sent", [b"", b'{"TableName": "x"', json.dumps(ITEM).encode()])
@pytest.mark.parametrize("signer", [ROLE, ADMINISTRATOR])
@pytest.mark.parametrize("earlier", [0, 2])
def test_a_request_that_is_cut_off_is_none(aws: LocalAws, sent: bytes, signer: str, earlier: int) -> None:
    """A function that is killed ends its connection, at any byte: nothing is denied, and nothing counted."""
    whole = json.dumps(ITEM).encode()
    before = aws.usage()
    with socket.create_connection((LOOPBACK, aws.port), timeout=PATIENCE_S) as client:
        for _ in range(earlier):
            client.sendall(head("POST", "/", of_item(ADMINISTRATOR), len(whole)) + whole)
            assert b"200 OK" in client.recv(65536)
        client.sendall(head("POST", "/", of_item(signer), len(whole) + 1) + sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(65536) == b"", "there is nobody to answer"
    assert aws.usage() == before


@pytest.mark.parametrize("encoding", [{}, {"Transfer-Encoding": "chunked"}])
def test_an_object_that_is_cut_off_is_not_stored(aws: LocalAws, encoding: dict[str, str]) -> None:
    sent = head("PUT", f"/{BUCKET}/fox", headers_of(ADMINISTRATOR, "s3", **encoding), None if encoding else 9)
    with socket.create_connection((LOOPBACK, aws.port), timeout=PATIENCE_S) as client:
        client.sendall(sent + (b"9\r\nan ow" if encoding else b"an ow"))
        client.shutdown(socket.SHUT_WR)
        assert not client.recv(65536).startswith(b"HTTP/1.1 200")
    assert aws.client().get_object(Bucket=BUCKET, Key="fox")["Body"].read() == b"a fox"


def test_answers_of_all_kinds_follow_each_other(connection: http.client.HTTPConnection) -> None:
    """Those without a body too, those of errors, and those after a body that had to be asked for."""

    def ask(
        method: str, path: str, body: bytes | None = None, others: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection.request(method, path, body, headers_of(ADMINISTRATOR, "s3", **(others or {})))
        answer = connection.getresponse()
        return answer.status, answer.read()

    for _ in range(2):
        assert ask("HEAD", f"/{BUCKET}/fox") == (200, b"")
        assert ask("HEAD", f"/{BUCKET}/none") == (404, b"")
        assert ask("GET", f"/{BUCKET}/none")[0] == 404
        assert ask("PUT", f"/{BUCKET}/owl", b"an owl") == (200, b"")
        assert ask("GET", f"/{BUCKET}/owl", others={"If-None-Match": '"0"'}) == (200, b"an owl")
        assert ask("GET", f"/{BUCKET}/owl", others={"Range": "bytes=1-3"}) == (206, b"n o")
        assert ask("GET", f"/{BUCKET}/owl", others={"If-Match": '"0"'})[0] == 412
        assert ask("DELETE", f"/{BUCKET}/owl") == (204, b"")
        assert ask("PUT", f"/{BUCKET}/empty", b"") == (200, b"")
        assert ask("GET", f"/{BUCKET}/empty") == (200, b"")
        connection.request("POST", "/", json.dumps(ITEM), of_item(ADMINISTRATOR))
        assert connection.getresponse().read() == b"{}"
        assert ask("GET", f"/{BUCKET}/fox") == (200, b"a fox")


def test_requests_may_come_before_the_answers(aws: LocalAws) -> None:
    request = head("GET", f"/{BUCKET}/fox", headers_of(ADMINISTRATOR, "s3"), None)
    with socket.create_connection((LOOPBACK, aws.port), timeout=PATIENCE_S) as client:
        client.sendall(request * 3)
        client.shutdown(socket.SHUT_WR)
        answers = b"".join(iter(lambda: client.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"a fox") == 3


@pytest.mark.parametrize("is_chunked", [False, True])
def test_who_waits_to_be_asked_for_a_body_is_asked_once(aws: LocalAws, is_chunked: bool) -> None:
    encoding = {"Transfer-Encoding": "chunked"} if is_chunked else {}
    headers = headers_of(ADMINISTRATOR, "s3", Expect="100-continue", **encoding)
    with socket.create_connection((LOOPBACK, aws.port), timeout=PATIENCE_S) as client:
        client.sendall(head("PUT", f"/{BUCKET}/owl", headers, None if is_chunked else 6))
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"6\r\nan owl\r\n0\r\n\r\n" if is_chunked else b"an owl")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert aws.client().get_object(Bucket=BUCKET, Key="owl")["Body"].read() == b"an owl"


def head(method: str, path: str, headers: dict[str, str], length: int | None) -> bytes:
    """All of a request that comes before its body."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, *([] if length is None else [f"Content-Length: {length}"]), "", ""]).encode()
