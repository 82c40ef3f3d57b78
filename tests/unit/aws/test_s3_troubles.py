"""What S3's errors mean, in the one place that knows their codes; and copies, which bring neither tags nor metadata."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ReadTimeoutError,
)

from comfy_serverless.aws import s3 as s3_module
from comfy_serverless.aws.s3 import (
    S3Address,
    Trouble,
    copy_object,
    may_pass,
    read_problem,
    trouble_of,
    write_problem,
)
from tests.unit.fakes import IN, OUT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PACKAGE = Path(__file__).parents[3] / "lambda" / "comfy_serverless"
ADDRESS = S3Address("results", "job/result.json")


def refusal(code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")


#: S3's answers to a put or a get, as its API reference lists them, by whether the same request may be taken later.
FINAL = {
    ("AccessDenied", 403),
    ("403", 403),  # of a HEAD, which has no body
    ("AllAccessDisabled", 403),
    ("AccountProblem", 403),
    ("InvalidAccessKeyId", 403),
    ("SignatureDoesNotMatch", 403),
    ("NoSuchBucket", 404),
    ("InvalidBucketName", 400),
    ("PermanentRedirect", 301),
    ("301", 301),
    ("AuthorizationHeaderMalformed", 400),
    ("IllegalLocationConstraintException", 400),
    ("IncorrectEndpoint", 400),
    ("KeyTooLongError", 400),
    ("EntityTooLarge", 400),
    ("InvalidArgument", 400),
    ("InvalidRequest", 400),
    ("InvalidObjectState", 403),
    ("InvalidStorageClass", 400),
    ("KMS.DisabledException", 400),
    ("KMS.NotFoundException", 400),
    ("MethodNotAllowed", 405),
    ("PreconditionFailed", 412),
    ("412", 412),
}
PASSING = {
    ("InternalError", 500),
    ("InternalError", 200),  # in the answer that ends an upload in parts
    ("500", 500),
    ("ServiceUnavailable", 503),
    ("SlowDown", 503),
    ("503", 503),
    ("SomethingNew", 500),
    ("RequestTimeout", 400),
    ("RequestTimeTooSkewed", 403),
    ("ExpiredToken", 400),
    ("BadDigest", 400),
    ("IncompleteBody", 400),
    ("ConditionalRequestConflict", 409),
    ("OperationAborted", 409),
    ("TemporaryRedirect", 307),
    ("NoSuchUpload", 404),
    ("InvalidPart", 400),
    ("ThrottlingException", 400),
    ("KMS.ThrottlingException", 400),
}


@pytest.mark.parametrize(("code", "status"), sorted(FINAL))
def test_what_s3_refuses_is_refused_again(code: str, status: int) -> None:
    error = refusal(code, status)
    assert not may_pass(error)
    assert not write_problem(error, ADDRESS).is_transient
    assert not read_problem(error, ADDRESS).is_transient
    assert code in write_problem(error, ADDRESS).reason


@pytest.mark.parametrize(("code", "status"), sorted(PASSING))
def test_what_passes_may_be_asked_again(code: str, status: int) -> None:
    error = refusal(code, status)
    assert may_pass(error)
    assert write_problem(error, ADDRESS).is_transient
    assert read_problem(error, ADDRESS).is_transient


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (EndpointConnectionError(endpoint_url="https://s3"), True),
        (ConnectTimeoutError(endpoint_url="https://s3"), True),
        (ReadTimeoutError(endpoint_url="https://s3"), True),
        (ParamValidationError(report="Invalid bucket name"), False),  # it was never sent
    ],
)
def test_a_network_comes_back_and_an_impossible_name_does_not(error: Exception, *, passes: bool) -> None:
    assert may_pass(error) is passes


def test_an_object_that_is_missing_is_missing_to_who_reads_and_was_there_to_who_writes() -> None:
    error = refusal("NoSuchKey", 404)
    assert not read_problem(error, ADDRESS).is_transient
    assert may_pass(error)


def test_no_code_means_two_things() -> None:
    codes = [code for codes in s3_module._TROUBLES.values() for code in codes]
    assert len(codes) == len(set(codes))
    assert {trouble for trouble in Trouble if trouble not in s3_module._TROUBLES} == {Trouble.REFUSED}
    for trouble, some in s3_module._TROUBLES.items():
        assert {trouble_of(refusal(code, 400)) for code in some} == {trouble}


@pytest.mark.parametrize(
    ("code", "said"),
    [("AccessDenied", "s3:PutObject"), ("NoSuchBucket", "'results'"), ("PermanentRedirect", "another region")],
)
def test_who_must_do_something_is_told_what(code: str, said: str) -> None:
    assert said in write_problem(refusal(code, 400), ADDRESS).reason


# The kinds: other places of the package


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text(encoding="utf-8"))


#: Codes of other services, or of ranges, which are no troubles of S3.
ELSEWHERE = {
    "cli/stack.py": {"AccessDenied", "ExpiredToken"},  # of CloudFormation
    "aws/kept_secrets.py": {"AccessDenied"},  # of SSM and Secrets Manager
    "aws/s3_clock.py": {"RequestTimeTooSkewed"},  # which the client itself cures, before anybody hears of it
}


def test_no_other_module_knows_the_codes_of_s3() -> None:
    codes = {code for some in s3_module._TROUBLES.values() for code in some if re.fullmatch(r"[A-Z]\w+", code)}
    codes -= {"Throttling", "ThrottlingException", "InternalError", "ServiceUnavailable"}  # of every service
    found = {
        name: known - ELSEWHERE.get(name, set())
        for name, module in modules()
        if name != "aws/s3.py"
        for known in [{node.value for node in ast.walk(module) if isinstance(node, ast.Constant)} & codes]
    }
    assert {name: known for name, known in found.items() if known} == {}


#: Those that say it to somebody and raise nothing, and one that has asked `trouble_of` before.
TOLD = {"cli/batches/of_stack.py", "batches/taking.py"}


def test_whoever_raises_what_s3_refuses_asks_whether_it_may_pass() -> None:
    """The reason alone would make one kind of error of both: retried in vain, or given up too early."""
    half = {
        name
        for name, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and node.attr == "reason" and isinstance(node.value, ast.Call)
        if ast.unparse(node.value.func) in {"read_problem", "write_problem"}
    }
    assert half == TOLD


def calls(module: ast.Module) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(module) if isinstance(node, ast.Call))


def test_every_copy_in_s3_goes_through_the_helper_that_leaves_tags_and_metadata_behind() -> None:
    """Tags need rights on both ends, and whoever drops an object may have tagged it."""
    copying = [
        (name, call)
        for name, module in modules()
        for call in calls(module)
        if any(keyword.arg == "CopySource" for keyword in call.keywords)
        or (isinstance(call.func, ast.Attribute) and call.func.attr in {"copy_object", "copy_from", "upload_part_copy"})
    ]
    assert {name for name, _ in copying} == {"aws/s3.py"}
    for name, call in copying:
        said = {(word.arg, ast.unparse(word.value)) for word in ast.walk(call) if isinstance(word, ast.keyword)}
        for extra in (node for node in ast.walk(call) if isinstance(node, ast.Dict)):
            pairs = zip(extra.keys, extra.values, strict=True)
            said |= {(ast.literal_eval(key), ast.unparse(value)) for key, value in pairs if key is not None}
        assert {("MetadataDirective", "'REPLACE'"), ("TaggingDirective", "'REPLACE'")} <= said, name


@pytest.mark.parametrize("size_bytes", [10, 9_000_000], ids=["at once", "in parts"])
def test_a_tagged_object_is_copied_without_its_tags(s3: S3Client, size_bytes: int) -> None:
    put = s3.put_object(Bucket=IN, Key="a b+ü", Body=b"x" * size_bytes, Tagging="team=a&x=y", Metadata={"who": "me"})
    copy_object(s3, S3Address(IN, "a b+ü"), S3Address(OUT, "copy"), etag=put["ETag"], content_type="text/plain")
    head = s3.head_object(Bucket=OUT, Key="copy")
    assert (head["ContentLength"], head["ContentType"], head["Metadata"]) == (size_bytes, "text/plain", {})
    assert s3.get_object_tagging(Bucket=OUT, Key="copy")["TagSet"] == []


def test_an_object_that_has_changed_is_not_copied(s3: S3Client) -> None:
    etag = s3.put_object(Bucket=IN, Key="a", Body=b"one")["ETag"]
    s3.put_object(Bucket=IN, Key="a", Body=b"two")
    with pytest.raises(ClientError) as caught:
        copy_object(s3, S3Address(IN, "a"), S3Address(OUT, "copy"), etag=etag, content_type="text/plain")
    assert trouble_of(caught.value) is Trouble.OCCUPIED
